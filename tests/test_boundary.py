"""The wall around the kernel: what it may import, that it computes in integers, that it alone gives verdicts.

The rules are read off the syntax trees of verify/kernel/*.py, and tried on planted violations.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from built_models import from_small
from oracle import small

import verify
from verify.decide import Decider
from verify.errors import RefutedError
from verify.kernel import READOUT, Proved, Speakable, from_bytes, prove, to_bytes

KERNEL = Path(verify.__file__).parent / "kernel"
FILES = sorted(KERNEL.glob("*.py"))
OURS = ("verify.kernel", "verify.errors")
# flint: exact integer matrices. numpy: bit patterns in tensor.py and safetensors.py, floats in filter.py.
NUMPY = {"tensor.py", "filter.py", "safetensors.py"}
FLINT = {"check.py", "solve.py"}
FLOATS = {"filter.py"}
FLOAT_NAMES = {"float", "complex"}
FLOAT_ATTRIBUTES = {"float16", "float32", "float64", "floating", "sqrt"}
FLOAT_MATH = {"gcd", "isqrt", "lcm", "prod"}  # the only names of `math` that stay in integers


def problems(name: str, source: str) -> Iterator[str]:
    """Every breach of the rules in one file of the kernel."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for module in imported(node):
            if not may_import(name, module):
                yield f"line {node.lineno}: imports {module}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno}: assert"
        if name in FLOATS:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, (float, complex)):
            yield f"line {node.lineno}: float literal {node.value}"
        if isinstance(node, ast.Name) and node.id in FLOAT_NAMES and isinstance(node.ctx, ast.Load):
            yield f"line {node.lineno}: {node.id}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math":
            yield f"line {node.lineno}: math.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "math":
            for alias in node.names:
                if alias.name not in FLOAT_MATH:
                    yield f"line {node.lineno}: from math import {alias.name}"
        if (
            isinstance(node, ast.Attribute)
            and node.attr in FLOAT_ATTRIBUTES
            and not annotation_only(tree, node)
        ):
            yield f"line {node.lineno}: {node.attr}"
        if isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div):
            yield f"line {node.lineno}: true division"


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("__import__", "exec", "eval")
    ):
        return [f"by {node.func.id}"]
    if isinstance(node, ast.Attribute) and node.attr == "import_module":
        return ["by importlib"]
    return []


def may_import(name: str, module: str) -> bool:
    if module.startswith((".", "by ")):
        return False
    top = module.partition(".")[0]
    if top == "numpy":
        return name in NUMPY
    if top == "flint":
        return name in FLINT
    if top == "verify":
        return any(module == x or module.startswith(x + ".") for x in OURS)
    return top in sys.stdlib_module_names and top not in ("cmath", "decimal", "importlib", "random", "pickle")


def annotation_only(tree: ast.AST, node: ast.Attribute) -> bool:
    return any(
        node in ast.walk(part)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for part in (function.returns, *(a.annotation for a in function.args.args))
        if part is not None
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_kernel_keeps_to_its_rules(path: Path) -> None:
    assert list(problems(path.name, path.read_text())) == []


def test_the_kernel_is_where_it_is_looked_for() -> None:
    assert {"check.py", "proved.py", "certificate.py", "filter.py", "tensor.py"} <= {p.name for p in FILES}
    assert not [p for p in KERNEL.rglob("*") if p.suffix in (".py", ".so", ".pyx") and p.parent != KERNEL]


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("check.py", "import scipy.optimize"), ("check.py", "import numpy as np"),
        ("check.py", "from numpy import array"), ("proved.py", "import flint"), ("check.py", "import torch"),
        ("check.py", "import decimal"),
        ("check.py", "from verify.propose import problem"), ("check.py", "from verify import decide"),
        ("check.py", "from . import system"), ("check.py", "from verify.models import Model"),
        ("check.py", "x = 0.5"), ("check.py", "x = 1e-9"), ("check.py", "x = 1j"), ("check.py", "assert x"),
        ("check.py", "x = float(1)"), ("check.py", "y = map(float, x)"), ("check.py", "x = math.sqrt(2)"),
        ("check.py", "from math import sqrt"), ("check.py", "x = 1 / 3"), ("check.py", "x /= 3"),
        ("check.py", "def f(a, b):\n    return a / b"), ("check.py", "x = __import__('scipy')"),
        ("check.py", "x = eval('0.5')"), ("check.py", "import importlib"), ("filter.py", "assert x"),
        ("filter.py", "import scipy"), ("tensor.py", "x = raw.astype(np.float64)"),
        ("tensor.py", "x = np.sqrt(2)"),
        ("check.py", "def f():\n    import pulp"), ("certificate.py", "x = json.loads(y, parse_float=float)"),
    ],
)  # fmt: skip
def test_planted_violations_are_found(name: str, planted: str) -> None:
    assert list(problems(name, planted))


@pytest.mark.parametrize("name", ["check.py", "solve.py"])
def test_what_exact_code_needs_is_allowed(name: str) -> None:
    source = "from math import gcd, isqrt\nimport flint\nfrom verify.errors import RefutedError\nx = 7 // 2"
    assert list(problems(name, source)) == []


HEAVY = ("scipy", "torch", "transformers", "pulp", "tokenizers", "highspy", "huggingface_hub", "requests")


@pytest.mark.parametrize(
    "module", ["verify.kernel", *(f"verify.kernel.{p.stem}" for p in FILES if p.stem != "__init__")]
)
def test_importing_the_kernel_loads_no_solver(module: str) -> None:
    banned = f"[x for x in sys.modules if x.partition('.')[0] in {HEAVY!r} or x in {OUTSIDE!r}]"
    code = f"import sys, {module}; print({banned})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=KERNEL.parents[1]
    )
    assert done.stdout.strip() == "[]"


OUTSIDE = ("verify.propose", "verify.models", "verify.decide")
SQUARE = small("rmsnorm", [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 0)])
BUILT = from_small(SQUARE)
CERTIFICATE = from_bytes(Decider(BUILT).decide(0, READOUT).certificate)


def test_proved_is_made_by_prove_alone() -> None:
    for key in (None, object(), True, "key"):
        with pytest.raises(TypeError, match="prove alone"):
            Proved(key, CERTIFICATE, from_rows=False)


def test_proved_does_not_change() -> None:
    proved = prove(CERTIFICATE, BUILT.readout)
    for name in ("certificate", "from_rows", "verdict", "new"):
        with pytest.raises(AttributeError):
            setattr(proved, name, None)
    assert proved.certificate == CERTIFICATE


def test_proved_keeps_its_attributes() -> None:
    proved = prove(CERTIFICATE, BUILT.readout)
    with pytest.raises(AttributeError):
        del proved.certificate


def test_only_the_kernel_names_the_key_of_proved() -> None:
    """No file but proved.py and proved_ledger.py reaches for what makes a Proved."""
    package = KERNEL.parent
    makers = ("proved.py", "proved_ledger.py")
    users = [p for p in package.rglob("*.py") if "_KEY" in p.read_text() and p.name not in makers]
    assert users == []


def test_a_verdict_rests_on_what_is_in_the_file() -> None:
    """The decision holds the certificate that was read back from its bytes; another claim proves nothing."""
    decision = Decider(BUILT).decide(0, READOUT)
    assert decision.proved is not None
    assert decision.certificate == to_bytes(decision.proved.certificate)
    claim = CERTIFICATE.claim
    assert isinstance(claim, Speakable)
    with pytest.raises(RefutedError):
        prove(replace(CERTIFICATE, claim=replace(claim, margin=claim.margin + Fraction(1))), BUILT.readout)

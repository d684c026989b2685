"""Exports to VIPR: what is written is a program of the model's rows that the strict checker finds infeasible.

The checker (tests/vipr.py) is written from the format's description; the rows are folded here in fractions.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vipr as strict
from built_models import model as build_model
from safetensors.numpy import save_file

from verify.decide import Decider, Decision
from verify.errors import MalformedError, ModelUnavailableError, RefutedError, UsageError
from verify.export import export, vipr
from verify.forms import bundled
from verify.kernel import Proved, Unspeakable, parse_domain, prove
from verify.models import Model

DOCS = Path(__file__).parent.parent / "docs"
HAND = [[2, 0], [0, 2], [-2, -2], [0.25, 0.25]]
SQUARE = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0.25, 0], [1, 1]]
# After a LayerNorm rows count up to a multiple of (1, 1, 1): the last lies in the hull of the others.
SIMPLEX = [[2, 0, 0], [0, 2, 0], [0, 0, 2], [5, 5.5, 5]]


@dataclass
class Case:
    """A model, a token and a domain in which it is unspeakable by multipliers that cancel."""

    W: list[Any]
    token: int
    domain: str
    norm: str = "rmsnorm"
    parts: dict[str, Any] = field(default_factory=dict)
    stored: str = "full"

    def decide(self) -> Decision:
        built = build_model(self.W, self.norm, **self.parts)
        decision = Decider(built, stored=self.stored).decide(self.token, parse_domain(self.domain))
        assert decision.proved is not None
        assert isinstance(decision.proved.certificate.claim, Unspeakable)
        return decision

    def row(self, j: int) -> tuple[list[Fraction], Fraction]:
        """D_j and e_j by their definition in docs/soundness.md, section 1."""
        free = self.domain == "free"
        D = [Fraction(x) - Fraction(y) for x, y in zip(self.W[self.token], self.W[j], strict=True)]
        bias = self.parts.get("bias") or [0] * len(self.W)
        shift, gain = self.parts.get("shift") or [0] * len(D), self.parts.get("gain") or [1] * len(D)
        e = Fraction(bias[self.token]) - Fraction(bias[j])
        if not free:
            e += sum(x * Fraction(b) for x, b in zip(D, shift, strict=True))
            D = [x * Fraction(g) for x, g in zip(D, gain, strict=True)]
        return D, Fraction(0) if self.domain == "direction" else e


CASES = {
    "free with a bias": Case(SQUARE, 4, "free", parts={"bias": [0, 0, 0, 0, -1, 0]}),
    "free, v = 0, tau unused": Case(HAND, 3, "free", parts={"bias": [-3, 3, 0, 0]}),
    "direction after a LayerNorm": Case(SIMPLEX, 3, "direction", "layernorm"),
    "direction drops the bias": Case(SQUARE, 4, "direction", parts={"bias": [0, 0, 0, 0, 9, 0]}),
    "free of a LayerNorm": Case(SQUARE, 4, "free", "layernorm", {"gain": [3, 7], "shift": [1, 2]}),
    "readout": Case(HAND, 3, "readout"),
    "readout of a LayerNorm": Case(SIMPLEX, 3, "readout", "layernorm", {"gain": [1, 1, 1]}),
    "readout without norm": Case(SQUARE, 4, "readout", "none", {"bias": [0, 0, 0, 0, -1, 0]}),
    "gain and shift": Case(SQUARE, 4, "readout", "none", {"gain": [3, 0.5], "shift": [1, -2]}),
    "box": Case(SQUARE, 4, "box:0.5"),
    "the support alone": Case(HAND, 3, "direction", stored="support"),
    "equal rows": Case(SQUARE, 0, "free"),
    "one competitor is enough": Case([[0, 0], [0, 0]], 1, "free", parts={"bias": [1, 0]}),
}


def written(decision: Decision) -> bytes:
    assert decision.proved is not None
    return vipr.to_bytes(decision.proved, decision.model.readout)


@pytest.mark.parametrize("name", CASES)
def test_the_file_is_the_infeasible_program_of_section_7(name: str) -> None:
    case = CASES[name]
    decision = case.decide()
    found = strict.check(written(decision))
    unit = re.search(r"^unit: .* 2\^(-?\d+)$", "\n".join(found.comments), re.MULTILINE)
    assert unit
    scale = Fraction(2) ** int(unit[1])
    d, names = len(case.W[0]), {c.name: c for c in found.constraints}

    assert found.variables[:d] == [f"z{i + 1}" for i in range(d)]
    rows = {int(n[4:]): c for n, c in names.items() if n.startswith("row_")}
    assert rows
    assert case.token not in rows
    for j, c in rows.items():
        D, e = case.row(j)
        wanted = {i: x / scale for i, x in enumerate([*D, e]) if x}
        assert (c.sense, c.bound, c.coefficients) == ("G", Fraction(1), wanted)

    tau = any(case.row(j)[1] for j in rows)
    assert found.variables[d:] == (["tau"] if tau else [])
    assert found.bounds == tau
    if tau:
        assert found.constraints[0] == strict.Constraint(
            "tau_nonnegative", "G", Fraction(0), {d: Fraction(1)}
        )
    equation = names.pop("sum_zero", None)
    assert (equation is not None) == (case.norm == "layernorm" and case.domain != "free")
    assert equation is None or (equation.sense, equation.bound) == ("E", Fraction(0))
    assert equation is None or equation.coefficients == dict.fromkeys(range(d), 1)
    assert len(rows) + tau == len(names)
    assert len(found.derived) == 1


def test_the_scale_and_the_equation_are_used_where_they_are_needed() -> None:
    used = strict.check(written(CASES["free with a bias"].decide()))
    assert used.multipliers[0] > 0
    unused = strict.check(written(CASES["free, v = 0, tau unused"].decide()))
    assert unused.bounds == 1
    assert 0 not in unused.multipliers
    layernorm = strict.check(written(CASES["direction after a LayerNorm"].decide()))
    assert layernorm.multipliers[len(layernorm.constraints) - 1] != 0
    twin = strict.check(written(CASES["equal rows"].decide()))
    assert twin.constraints[0].coefficients == {}


def test_the_support_alone_exports_as_full_multipliers_do() -> None:
    case = CASES["the support alone"]
    alone, full = case.decide(), replace(case, stored="full").decide()
    assert alone.proved
    assert full.proved
    assert alone.proved.certificate.claim != full.proved.certificate.claim
    a, b = strict.check(written(alone)), strict.check(written(full))
    scale = {x / b.multipliers[i] for i, x in a.multipliers.items()}
    assert a.constraints == b.constraints
    assert len(scale) == 1


def test_random_models() -> None:
    seen = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        d = 2 + seed % 2
        W = random.integers(-3, 4, (9, d)).tolist()
        bias = random.integers(-1, 2, 9).tolist()
        for norm in ("layernorm", "none"):
            decider = Decider(build_model(W, norm, bias=bias))
            for domain in ("free", "direction"):
                for token in range(9):
                    decision = decider.decide(token, parse_domain(domain))
                    if decision.verdict == "UNSPEAKABLE":
                        strict.check(written(decision))
                        seen += 1
    assert seen > 50


def test_integers_beyond_python_s_limit_of_digits() -> None:
    decision = CASES["direction after a LayerNorm"].decide()
    assert decision.proved
    certificate = decision.proved.certificate
    claim = certificate.claim
    assert isinstance(claim, Unspeakable)
    assert claim.multipliers.values
    factor = 10**5000 + 1
    values = tuple(x * factor for x in claim.multipliers.values)
    claim = replace(claim, multipliers=replace(claim.multipliers, values=values))
    proved = prove(replace(certificate, claim=claim), decision.model.readout)
    found = strict.check(vipr.to_bytes(proved, decision.model.readout))
    assert found.derived[0].bound == sum(values)


@pytest.mark.parametrize("token", [0, 2])
def test_a_real_model(real_model: Callable[[str], Model], token: int, tmp_path: Path) -> None:
    model = real_model("tinygpt-slm-05")
    decision = Decider(model).decide(token, parse_domain("direction"))
    data = written(decision)
    found = strict.check(data)
    assert "domain: direction" in found.comments
    assert found.constraints[-1].name == "sum_zero"
    assert found.derived[0].bound > 1 << 1000
    path = tmp_path / "bundle.json"
    path.write_bytes(bundle_of(decision))
    assert export(path).data == data


# ---- what cannot be exported ----

WEAK = Case([[1, 0], [0, 1], [0.1, 0]], 2, "readout", parts={"bias": [0, 0, -30]})


@pytest.mark.parametrize(("domain", "shape"), [("readout", "ball"), ("box:0.5", "box")])
def test_the_ball_and_the_box_form_are_refused(domain: str, shape: str) -> None:
    with pytest.raises(UsageError, match=f"do not cancel: .* lie in a {shape}"):
        written(replace(WEAK, domain=domain).decide())


def test_a_witness_is_refused() -> None:
    decision = Decider(build_model(SQUARE, "rmsnorm")).decide(1, parse_domain("readout"))
    assert decision.verdict == "SPEAKABLE"
    with pytest.raises(UsageError, match="only certificates of UNSPEAKABLE"):
        written(decision)


def test_other_weights_are_refused() -> None:
    decision = CASES["readout"].decide()
    assert decision.proved
    with pytest.raises(RefutedError, match="other weights"):
        vipr.to_bytes(decision.proved, build_model([*HAND[:3], [0.25, 0.5]], "rmsnorm").readout)
    with pytest.raises(RefutedError, match="norm: the statement says rmsnorm"):
        vipr.to_bytes(decision.proved, build_model(HAND, "layernorm").readout)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown format"):
        export(tmp_path / "none.json", to="mps")


# ---- comments ----

HOSTILE = 'x\nVER 1.0\r\nVAR 0 \u2028\x0b\x0c\x1c\x85\x7f\x00\x1b[2J % " \\ \u00e9\ud800\U0001f600\n'


def hostile() -> tuple[Proved, Decision]:
    decision = CASES["readout"].decide()
    assert decision.proved
    certificate = decision.proved.certificate
    s = certificate.statement
    tensors = {role: replace(t, name=HOSTILE) for role, t in s.tensors.items()}
    s = replace(s, model=HOSTILE, revision=HOSTILE, text=HOSTILE, epsilon_source=HOSTILE, tensors=tensors)
    return prove(
        replace(certificate, statement=s, provenance={HOSTILE: HOSTILE}), decision.model.readout
    ), decision


def test_no_string_of_a_statement_leaves_its_comment() -> None:
    proved, decision = hostile()
    data = vipr.to_bytes(proved, decision.model.readout)
    plain = written(decision)
    body = data[data.index(b"\nVER 1.0\n") :]
    assert body == plain[plain.index(b"\nVER 1.0\n") :]
    assert data.count(b"\n") == plain.count(b"\n")
    assert data.isascii()
    assert data.decode().replace("\n", "").isprintable()
    comments = strict.check(data).comments
    named = [x for x in comments if x.startswith(("model: ", "revision: ", "text: "))]
    assert [json.loads(x.partition(": ")[2]) for x in named] == [HOSTILE] * 3


def test_the_comments_say_what_the_numbers_belong_to() -> None:
    decision = CASES["free of a LayerNorm"].decide()
    assert decision.proved
    s = decision.proved.certificate.statement
    comments = strict.check(written(decision)).comments
    for t in s.tensors.values():
        assert f"  SHA-256 {t.sha256}" in comments
        assert f"  Merkle root {t.merkle}" in comments
    for line in ('model: "test"', "revision: null", "token: 4", "text: null", "domain: free"):
        assert line in comments
    assert "comments prove nothing" in "\n".join(comments)


# ---- the checker refuses what is not a proof ----

EXAMPLE = DOCS / "examples" / "hand-4x2.token-3.vipr"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("row_0 G 1 2  0 -29360128", "row_0 G 1 2  0 -29360127", "not what is claimed"),
        ("1 4194304\n", "1 -4194304\n", "not what is claimed"),
        ("row_0 G 1 2", "row_0 G 2 2", "not what is claimed"),
        ("row_0 G 1 2", "row_0 G 1/2 2", "not what is claimed"),
        ("row_0 G", "row_0 L", "wrong sign"),
        ("row_0 G", "row_0 g", "no sense"),
        ("row_0 G 1 2  0", "row_0 G 1 2  1", "stands twice"),
        ("row_0 G 1 2  0", "row_0 G 1 2  2", "out of range"),
        ("row_0 G", "row_1 G", "two constraints"),
        ("lin 3  0 3", "lin 3  0 4", "not what is claimed"),
        ("lin 3  0 3", "lin 3  0 -3", "wrong sign"),
        ("lin 3  0 3", "lin 3  1 3", "stands twice"),
        ("lin 3  0 3", "lin 3  3 3", "out of range"),
        ("lin 3  0 3  1 3  2 2", "lin 0", "not what is claimed"),
        ("lin 3  0 3", "rnd 3  0 3", "'lin' is expected"),
        ("{ lin 3  0 3  1 3  2 2 }", "{ asm }", "'lin' is expected"),
        ("contradiction G 8 0", "contradiction G 9 0", "not what is claimed"),
        ("contradiction G 8 0", "contradiction G 0 0", "not what is claimed"),
        ("contradiction G 8 0", "contradiction L 8 0", "not what is claimed"),
        ("contradiction G 8 0", "contradiction G 8 1  0 1", "not what is claimed"),
        ("contradiction G 8 0", "row_2 G 8 0", "two constraints"),
        ("} -1", "} 0", "'-1' is expected"),
        ("} -1\n", "}\n", "ends too early"),
        ("} -1\n", "} -1\nmore\n", "something follows"),
        ("} -1\n", "} -1", "does not end"),
        ("row_2 G 1 2  0 37748736  1 37748736\n", "", "no sense|out of range"),
        ("CON 3 0", "CON 2 0", "'RTP' is expected"),
        ("CON 3 0", "CON 3 1", "on one variable"),
        ("CON 3 0", "CON 3 4", "out of range"),
        ("CON 3 0", "CON -3 0", "no index"),
        ("RTP infeas", "RTP range -inf inf", "'infeas' is expected"),
        ("RTP infeas", "RTP range 1 1", "'infeas' is expected"),
        ("RTP infeas\n", "", "'RTP' is expected"),
        ("SOL 0", "SOL 1", "'0' is expected"),
        ("DER 1", "DER 0", "nothing is derived"),
        ("DER 1", "DER 2", "ends too early"),
        ("INT 0", "INT 1\n0", "'0' is expected"),
        ("z1 z2", "z1 z1", "one name"),
        ("VAR 2\nz1 z2", "VAR 1\nz1", "out of range"),
        ("VER 1.0", "VER 1.1", "VER 1.0 must follow"),
        ("INT 0", "% a comment\nINT 0", "'INT' is expected"),
        ("% revision", "%revision", "space after %"),
        ("% revision", "revision", "VER 1.0 must follow"),
        ("VER 1.0", "\nVER 1.0", "VER 1.0 must follow"),
        ("4194304", "4194304.0", "not an integer"),
        ("4194304", "+4194304", "not an integer"),
        ("z1 z2", "z1\tz2", "control character"),
        ("hand-4x2", "h\u00e4nd", "not ASCII"),
    ],
)  # fmt: skip
def test_tampered_files(old: str, new: str, why: str) -> None:
    text = EXAMPLE.read_text()
    assert old in text
    with pytest.raises(strict.ViprError, match=why):
        strict.check(text.replace(old, new, 1).encode())


def test_an_equation_in_place_of_an_inequality_is_a_smaller_program() -> None:
    """Infeasible by the same derivation, so no checker refuses it: it cannot see where a row is from."""
    tampered = EXAMPLE.read_text().replace("row_0 G", "row_0 E")
    assert strict.check(tampered.encode()).constraints[0].sense == "E"


def test_a_derivation_that_is_true_but_not_absurd() -> None:
    text = EXAMPLE.read_text()
    lines = text.splitlines()
    lines[-1] = "again G 1 2  0 -29360128  1 4194304 { lin 1  0 1 } -1"
    with pytest.raises(strict.ViprError, match="not absurd"):
        strict.check(("\n".join(lines) + "\n").encode())


def test_every_single_digit_counts() -> None:
    """Any other digit of the program or its derivation is another file, and none of them is a proof."""
    data = EXAMPLE.read_bytes()
    start = data.index(b"CON")
    for at in (i for i in range(start, len(data)) if chr(data[i]).isdigit() and data[i - 1 : i] != b"_"):
        other = bytes([ord("0") + (data[at] - ord("0") + 1) % 10])
        with pytest.raises(strict.ViprError):
            strict.check(data[:at] + other + data[at + 1 :])


# ---- the worked example, the library and the command line ----


@pytest.fixture
def hand(tmp_path: Path) -> Path:
    """The model of docs/certificates.md, section 9, without a configuration."""
    folder = tmp_path / "hand-4x2"
    folder.mkdir()
    save_file({"unembedding": np.array(HAND, dtype=np.float16)}, str(folder / "model.safetensors"))
    return folder


CERTIFICATE = EXAMPLE.with_suffix(".json")


def test_the_example_is_of_the_page_and_exports_to_the_bytes_beside_it(hand: Path) -> None:
    page = re.findall(r"```json\n(\{\n.*?\n\}\n)```", (DOCS / "certificates.md").read_text(), re.DOTALL)
    assert CERTIFICATE.read_text() in page
    exported = export(CERTIFICATE, model=str(hand))
    assert exported.data == EXAMPLE.read_bytes()
    assert any("described by hand" in line for line in exported.hypotheses)
    strict.check(exported.data)


def test_the_readme_beside_it_quotes_the_file() -> None:
    quoted = re.findall(r"^    (.*)$", (EXAMPLE.parent / "README.md").read_text(), re.MULTILINE)
    lines = EXAMPLE.read_text().splitlines()
    assert quoted == lines[lines.index("VER 1.0") :]


def bundle_of(decision: Decision) -> bytes:
    assert decision.proved
    return bundled(decision.proved, decision.model.readout)[0]


@pytest.mark.parametrize("name", ["readout", "free of a LayerNorm", "gain and shift", "free with a bias"])
def test_a_bundle_exports_as_its_certificate_does(name: str, tmp_path: Path) -> None:
    decision = CASES[name].decide()
    path = tmp_path / "bundle.json"
    path.write_bytes(bundle_of(decision))
    exported = export(path)
    assert exported.data == written(decision)
    assert any("Merkle" in line for line in exported.hypotheses)


def test_the_library_raises_what_the_audit_found(hand: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError):
        export(CERTIFICATE)
    bad = tmp_path / "bad.json"
    bad.write_bytes(CERTIFICATE.read_bytes() + b" ")
    with pytest.raises(MalformedError):
        export(bad, model=str(hand))
    bad.write_bytes(CERTIFICATE.read_bytes().replace(b'"3 3 2"', b'"3 3 3"'))
    with pytest.raises(RefutedError, match="do not prove"):
        export(bad, model=str(hand))


def run(*arguments: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "verify", "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=300)


def test_exit_codes_and_what_is_left_behind(hand: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "3.vipr"
    told = run(CERTIFICATE, "--format", "vipr", "--model", hand)
    assert (told.returncode, told.stdout) == (0, EXAMPLE.read_bytes())
    assert b"HYPOTHESIS" in told.stderr
    told = run(CERTIFICATE, "--model", hand, "-o", out)
    assert (told.returncode, told.stdout, out.read_bytes()) == (0, b"", EXAMPLE.read_bytes())

    weak = tmp_path / "weak.json"
    weak.write_bytes(bundle_of(WEAK.decide()))
    refuted = tmp_path / "refuted.json"
    refuted.write_bytes(CERTIFICATE.read_bytes().replace(b'"3 3 2"', b'"3 3 3"'))
    malformed = tmp_path / "malformed.json"
    malformed.write_bytes(b"{}\n")
    for code, told in {
        1: run(refuted, "--model", hand, "-o", out),
        2: run(weak, "-o", out),
        4: run(malformed, "--model", hand, "-o", out),
        5: run(CERTIFICATE, "--model", tmp_path / "nowhere", "-o", out),
    }.items():
        assert (told.returncode, told.stdout) == (code, b""), told.stderr
        assert len(told.stderr.splitlines()) == 1
        assert out.read_bytes() == EXAMPLE.read_bytes()
    assert run(CERTIFICATE, "--format", "mps").returncode == 2
    assert run(CERTIFICATE, "--model", hand, "-o", tmp_path / "out").returncode == 5
    assert [p.name for p in out.parent.iterdir()] == [out.name]

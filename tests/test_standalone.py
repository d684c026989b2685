"""The standalone auditor, certificates/audit.py: files made by hand, and what it must say about them.

Nothing here is computed by the auditor itself or by `verify`: tensors are packed, hashed and put into trees
by the few lines below, and margins are those of the definitions in docs/soundness.md, in fractions.
"""

import ast
import copy
import hashlib
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from standalone import AUDITOR, load_standalone

ROOT = Path(__file__).parents[1]
SOURCE = AUDITOR
DOC = (ROOT / "docs" / "certificates.md").read_text(encoding="utf-8")


audit: Any = load_standalone()

# --- Making files ----------------------------------------------------------------------------------------


def pack(dtype: str, numbers: Any) -> bytes:
    if dtype == "BF16":
        return b"".join(struct.pack("<f", x)[2:] for x in numbers)
    return struct.pack(f"<{len(numbers)}{ {'F16': 'e', 'F32': 'f', 'F64': 'd'}[dtype] }", *numbers)


def H(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def split(n: int) -> int:
    s = 1
    while 2 * s < n:
        s *= 2
    return s


def tree(rows: list[bytes]) -> bytes:
    if len(rows) == 1:
        return H(b"\0" + rows[0])
    s = split(len(rows))
    return H(b"\1" + tree(rows[:s]) + tree(rows[s:]))


def proof(rows: list[bytes], needed: set[int], lo: int = 0) -> list[str]:
    if not any(lo <= j < lo + len(rows) for j in needed):
        return [tree(rows).hex()]
    if len(rows) == 1:
        return []
    s = split(len(rows))
    return proof(rows[:s], needed, lo) + proof(rows[s:], needed, lo + s)


class Model:
    """Tensors as nested lists of numbers; what a statement says about them; a safetensors file."""

    def __init__(self, rows: Any, dtype: str = "F16", vectors_dtype: str = "F32", **vectors: Any) -> None:
        self.rows, self.vectors = rows, vectors
        self.tensors: dict[str, tuple[str, tuple[int, ...], Any]] = {
            "unembedding": (dtype, (len(rows), len(rows[0])), [x for row in rows for x in row])
        }
        for role, numbers in vectors.items():
            self.tensors[role] = (vectors_dtype, (len(numbers),), numbers)

    def cut(self, role: str) -> list[bytes]:
        dtype, shape, numbers = self.tensors[role]
        data = pack(dtype, numbers)
        size = len(data) // shape[0]
        return [data[i : i + size] for i in range(0, len(data), size)]

    def stated(self, role: str, name: str | None = None) -> dict[str, Any]:
        dtype, shape, _ = self.tensors[role]
        head = " ".join([dtype, *map(str, shape)]).encode() + b"\n"
        return {
            "name": name or f"the.{role}",
            "dtype": dtype,
            "shape": list(shape),
            "sha256": hashlib.sha256(b"".join(self.cut(role))).hexdigest(),
            "merkle": H(b"\2" + head + tree(self.cut(role))).hex(),
        }

    def weights(self, path: Path, names: Any = None, roles: Any = None) -> str:
        return safetensors(
            path,
            {
                (names or {}).get(role, f"the.{role}"): (*self.tensors[role][:2], b"".join(self.cut(role)))
                for role in roles or self.tensors
            },
        )

    def statement(self, **changes: Any) -> dict[str, Any]:
        return {
            "model": "by hand",
            "revision": None,
            "tensors": {role: self.stated(role) for role in self.tensors},
            "norm": "rmsnorm",
            "gain_offset": 0,
            "epsilon": "0.00001",
            "epsilon_source": "by hand",
            "files": {},
            "token": 0,
            "text": None,
            "domain": "readout",
            "competitors": len(self.rows),
            "competitor_rule": "all",
        } | changes


def safetensors(path: Path, tensors: dict[str, tuple[str, Any, bytes]], header: Any = None) -> str:
    entries, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(entries).encode() if header is None else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, indent=1) + "\n"


def certificate(statement: Any, claim: Any) -> dict[str, Any]:
    return {
        "format": "verify-certificate",
        "version": 1,
        "statement": statement,
        "claim": claim,
        "provenance": {"tool": "hand"},
    }


def hexes(numbers: Any) -> str:
    return " ".join(f"{x:x}" for x in numbers)


def ratio(q: Any) -> str:
    q = Fraction(q)
    return f"{q.numerator:x}/{q.denominator:x}"


def unspeakable(rows: Any, values: Any, gap: Any = 0, kind: str = "unsettled", tie: Any = None) -> Any:
    return {
        "verdict": "unspeakable",
        "gap": ratio(gap),
        "kind": kind,
        "multipliers": {
            "rows": " ".join(map(str, rows)),
            "values": None if values is None else hexes(values),
        },
        "tie": tie,
    }


def state(k: int, p: Any) -> dict[str, Any]:
    return {"k": k, "p": hexes(p)}


def residual(dtype: str, k: int, p: Any) -> dict[str, Any]:
    return {"dtype": dtype, "k": k, "p": hexes(p)}


def speakable(margin: Any, z: Any = None, r: Any = None, ceiling: Any = None, at_most: Any = None) -> Any:
    return {
        "verdict": "speakable",
        "margin": ratio(margin),
        "state": z,
        "residual": r,
        "ceiling": ceiling,
        "at_most": at_most,
    }


def bundle(model: Model, data: Any, **changes: Any) -> dict[str, Any]:
    support = {int(j) for j in data["claim"]["multipliers"]["rows"].split(" ")}
    needed = sorted(support | {data["statement"]["token"]})
    tensors = {}
    for role in model.tensors:
        cut = model.cut(role)
        if role in ("gain", "shift"):
            tensors[role] = {"rows": None, "bytes": b"".join(cut).hex(), "proof": None}
        else:
            tensors[role] = {
                "rows": " ".join(map(str, needed)),
                "bytes": b"".join(cut[j] for j in needed).hex(),
                "proof": " ".join(proof(cut, set(needed))) or None,
            }
    whole = {"format": "verify-bundle", "version": 1, "certificate": data, "tensors": tensors}
    return whole | changes


class Desk:
    """Audits text or data beside the weights of a model, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def new(self, suffix: str) -> Path:
        self.made += 1
        return self.folder / f"{self.made}{suffix}"

    def file(self, data: Any) -> str:
        path = self.new(".json")
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            path.write_text(data if isinstance(data, str) else canonical(data), encoding="utf-8")
        return str(path)

    def audit(self, data: Any, model: Model | None = None, config: Any = None, **weights: Any) -> Any:
        files = [] if model is None else [model.weights(self.new(".safetensors"), **weights)]
        text = None if config is None else self.file(config)
        return audit.audit_file(self.file(data), files, text)

    def accepts(self, data: Any, model: Model | None = None, **rest: Any) -> Any:
        result = self.audit(data, model, **rest)
        assert (result.outcome, result.error) == ("accepted", None), result.reason
        return result

    def refutes(self, data: Any, model: Model | None = None, reason: str = "", **rest: Any) -> None:
        result = self.audit(data, model, **rest)
        assert result.outcome == "refuted", result
        assert reason in result.reason

    def unavailable(self, data: Any, model: Model | None = None, reason: str = "", **rest: Any) -> None:
        result = self.audit(data, model, **rest)
        assert result.outcome == "unavailable", result
        assert reason in result.reason


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


HAND = Model([[2, 0], [0, 2], [-2, -2], [0.25, 0.25]])  # the model of section 9
INSIDE = certificate(HAND.statement(token=3), unspeakable([0, 1, 2], [3, 3, 2], kind="never"))


# --- The examples of the page ----------------------------------------------------------------------------


def page_files() -> list[str]:
    return re.findall(r"```json\n(.*?)```", DOC, re.DOTALL)


def page_model() -> Model:
    numbers = [2, 0, 0, 2, -2, -2, 0.25, 0.25]
    assert pack("F16", numbers) == bytes.fromhex("00400000 00000040 00c000c0 00340034")
    return Model([numbers[i : i + 2] for i in (0, 2, 4, 6)])


@pytest.mark.parametrize("text", page_files(), ids=["token 3", "token 0"])
def test_the_examples_of_the_page_are_accepted(desk: Desk, text: str) -> None:
    result = desk.accepts(text, page_model(), names={"unembedding": "unembedding"})
    expected = "UNSPEAKABLE (never)" if '"unspeakable"' in text else "SPEAKABLE, margin at least 27f5/1000"
    assert result.reason.startswith(expected)
    desk.accepts(text, page_model(), names={"unembedding": "under another name"})


def test_the_bundle_of_the_page_is_accepted(desk: Desk) -> None:
    inner = json.loads(page_files()[0])
    text = re.findall(r"    \{\n     \"certificate\".*?\n    \}\n", DOC, re.DOTALL)[0]
    outer = json.loads(text.replace("{ … }", json.dumps(inner)))
    assert outer == bundle(HAND, inner)
    desk.accepts(outer)


def test_the_hashes_of_the_page() -> None:
    stated = json.loads(page_files()[0])["statement"]["tensors"]["unembedding"]
    assert HAND.stated("unembedding", "unembedding") == stated


def test_the_support_only_form_and_the_bias_of_the_page(desk: Desk) -> None:
    desk.accepts(certificate(INSIDE["statement"], unspeakable([0, 1, 2], None, kind="never")), HAND)
    biased = Model(HAND.rows, bias=[0, 0, 0, -1.5])
    claim = unspeakable([0, 1, 2], [3, 3, 2], Fraction(3, 2), kind="never")
    desk.accepts(certificate(biased.statement(token=3), claim), biased)
    claim = unspeakable([0, 1, 2], [3, 3, 2], Fraction(3001, 2000), kind="never")
    desk.refutes(certificate(biased.statement(token=3), claim), biased)


# --- Random files against the definitions, in fractions --------------------------------------------------


class Truth:
    """Section 1 of docs/soundness.md, word for word, for one statement about a model."""

    def __init__(self, model: Model, st: Any) -> None:
        take = {role: [Fraction(x) for x in numbers] for role, (_, _, numbers) in model.tensors.items()}
        self.d, self.st, self.box = len(model.rows[0]), st, Fraction(0)
        self.w = [[Fraction(x) for x in row] for row in model.rows]
        self.gain = (
            [x + st["gain_offset"] for x in take["gain"]] if "gain" in take else [Fraction(1)] * self.d
        )
        self.shift = take.get("shift", [Fraction(0)] * self.d)
        self.bias = take.get("bias", [Fraction(0)] * len(self.w))
        if st["domain"] == "free":
            self.gain, self.shift = [Fraction(1)] * self.d, [Fraction(0)] * self.d
        if st["domain"] == "direction":
            self.shift, self.bias = [Fraction(0)] * self.d, [Fraction(0)] * len(self.w)
        self.centred = st["norm"] == "layernorm" and st["domain"] != "free"
        self.rivals = [j for j in range(st["competitors"]) if j != st["token"]]

    def centre(self, x: Any) -> list[Fraction]:
        mean = sum(x) / Fraction(self.d) if self.centred else 0
        return [y - mean for y in x]

    def logits(self, z: Any) -> list[Fraction]:
        h = [g * x + b for g, x, b in zip(self.gain, z, self.shift, strict=True)]
        return [sum(map(Fraction.__mul__, w, h)) + c for w, c in zip(self.w, self.bias, strict=True)]

    def margin(self, z: Any) -> Fraction:
        values = self.logits(z)
        return min((values[self.st["token"]] - values[j] for j in self.rivals), default=Fraction(0))

    def state(self, k: int, p: Any) -> list[Fraction]:
        """Section 3."""
        z = self.centre([Fraction(x, 2**k) for x in p])
        scaled = self.centred and self.st["domain"] in ("readout", "direction")
        return [self.d * x for x in z] if scaled else z

    def combination(self, rows: Any, values: Any) -> tuple[list[Fraction], Fraction]:
        """Pu and v: the slope and the height of the weighted sum of ℓ_t − ℓ_j."""

        def weighted(z: Any) -> Fraction:
            logits = self.logits(z)
            return sum(
                (x * (logits[self.st["token"]] - logits[j]) for j, x in zip(rows, values, strict=True)),
                Fraction(0),
            )

        zero = [Fraction(0)] * self.d
        v = weighted(zero)
        slopes = [weighted([Fraction(i == n) for n in range(self.d)]) - v for i in range(self.d)]
        return self.centre(slopes), v


DOMAINS = ("readout", "free", "direction", "box:1.5")


def random_case(r: random.Random, domain: str) -> tuple[Model, dict[str, Any]]:
    d, n = r.randint(2, 4), r.randint(2, 6)

    def numbers(count: int) -> list[float]:
        return [r.choice((-3, -2, -1.5, -1, -0.25, 0, 0, 0.5, 1, 2, 3.25)) for _ in range(count)]

    roles = [role for role in ("gain", "shift", "bias") if r.random() < 0.5]
    vectors = {role: numbers(n if role == "bias" else d) for role in roles}
    dtypes = ("F16", "BF16", "F32", "F64")
    model = Model([numbers(d) for _ in range(n)], r.choice(dtypes), r.choice(dtypes), **vectors)
    norm = r.choice(("layernorm", "rmsnorm", "none"))
    count = r.randint(2, n)
    changes = {"competitors": count, "competitor_rule": "all" if count == n else "tokenizer"}
    epsilon = "0" if norm == "none" else r.choice(("0", "0.5", "0.00001"))
    changes |= {"norm": norm, "epsilon": epsilon, "gain_offset": r.randint(0, 1), "domain": domain}
    return model, model.statement(token=r.randrange(n), **changes)


@pytest.mark.parametrize("seed", range(160))
def test_states_against_the_definition(desk: Desk, seed: int) -> None:
    r = random.Random(seed)
    model, st = random_case(r, DOMAINS[seed % 4])
    truth = Truth(model, st)
    k = r.randint(0, 4)
    p = [r.randint(-20, 20) for _ in range(truth.d)]
    z = truth.state(k, p)
    ball = st["domain"] == "readout" and st["norm"] != "none"
    inside = not ball or (st["epsilon"] != "0" and sum(x * x for x in z) < truth.d)
    if st["domain"] == "box:1.5":
        inside = all(abs(Fraction(x, 2**k)) <= Fraction(3, 2) for x in p)
    margin = truth.margin(z)
    if margin <= 0 or not inside:
        desk.refutes(certificate(st, speakable(Fraction(1, 10**9), state(k, p))), model)
    else:
        desk.accepts(certificate(st, speakable(margin, state(k, p))), model)
        desk.refutes(certificate(st, speakable(margin + Fraction(1, 10**30), state(k, p))), model)


@pytest.mark.parametrize("seed", range(120))
def test_residual_vectors_against_the_definition(desk: Desk, seed: int) -> None:
    r = random.Random(seed)
    model, st = random_case(r, "readout")
    truth = Truth(model, st)
    k = r.randint(0, 3)
    p = [r.randint(-9, 9) for _ in range(truth.d)]
    y = truth.centre([Fraction(x, 2**k) for x in p])
    square = Fraction(1)
    if st["norm"] != "none":
        square = sum((x * x for x in y), Fraction(0)) / truth.d + Fraction(st["epsilon"])
    low = Fraction(math.isqrt(math.floor(square * 4**400)), 2**400)  # √square from below
    if not square:
        desk.refutes(certificate(st, speakable(Fraction(1, 10**9), None, residual("F32", k, p))), model)
        return
    # The margin at y / √square, up to far below 1e-90.
    margin = truth.margin([x / low for x in y])
    at = residual("F32", k, p)
    if margin <= Fraction(1, 10**90):
        desk.refutes(certificate(st, speakable(Fraction(1, 10**80), None, at)), model)
    else:
        desk.accepts(certificate(st, speakable(margin - Fraction(1, 10**90), None, at)), model)
        desk.refutes(certificate(st, speakable(margin + Fraction(1, 10**90), None, at)), model)


@pytest.mark.parametrize("seed", range(200))
def test_multipliers_against_the_definition(desk: Desk, seed: int) -> None:
    r = random.Random(seed)
    model, st = random_case(r, DOMAINS[seed % 4])
    truth = Truth(model, st)
    rows = r.sample(truth.rivals, r.randint(1, len(truth.rivals)))
    values = [r.randint(1, 3) for _ in rows]
    slope, v = truth.combination(rows, values)
    total = sum(values)

    def proves(bound: Fraction) -> bool:
        room = bound * total - v
        if room < 0:
            return False
        if st["domain"].startswith("box"):
            return Fraction(3, 2) * sum(map(abs, slope)) <= room
        if st["domain"] == "readout" and st["norm"] != "none":
            return truth.d * sum(x * x for x in slope) <= room**2
        return not any(slope)

    for bound in (Fraction(0), -Fraction(1, 3), -v / total, v / total, *(Fraction(n) for n in range(-9, 0))):
        if bound <= 0:
            claim = unspeakable(rows, values, -bound)
            (desk.accepts if proves(bound) else desk.refutes)(certificate(st, claim), model)
            if not model.vectors.get("bias") or seed % 3 == 0:
                continue
            inner = certificate(st, claim)
            (desk.accepts if proves(bound) else desk.refutes)(bundle(model, inner))


def test_a_ceiling(desk: Desk) -> None:
    # Row 3 at the ball: |D_3|² d = 2·(1.75² + 0.25²) = 6.25, so nobody leads it by more than 2.5.
    ceiling = {"rows": "3", "values": "1"}
    for at_most, good in ((Fraction(5, 2), True), (Fraction(2499, 1000), False)):
        claim = speakable(Fraction(2), state(11, [2864, -410]), None, ceiling, ratio(at_most))
        (desk.accepts if good else desk.refutes)(certificate(HAND.statement(), claim), HAND)


def nullspace(rows: list[list[Fraction]]) -> list[list[Fraction]]:
    """All λ with Σ λ_j rows[j] = 0, a basis, by plain elimination."""
    n = len(rows)
    work = [list(column) for column in zip(*rows, strict=True)]
    pivots: list[int] = []
    for column in range(n):
        at = next((i for i in range(len(pivots), len(work)) if work[i][column]), None)
        if at is None:
            continue
        top = len(pivots)
        work[top], work[at] = work[at], work[top]
        work[top] = [x / work[top][column] for x in work[top]]
        for i in range(len(work)):
            if i != top:
                work[i] = [x - work[i][column] * y for x, y in zip(work[i], work[top], strict=True)]
        pivots.append(column)
    basis = []
    for free in range(n):
        if free not in pivots:
            vector = [Fraction(free == c) for c in range(n)]
            for i, column in enumerate(pivots):
                vector[column] = -work[i][free]
            basis.append(vector)
    return basis


@pytest.mark.parametrize("seed", range(150))
def test_support_only_against_plain_elimination(desk: Desk, seed: int) -> None:
    r = random.Random(seed)
    d = r.randint(2, 5)
    norm = ("layernorm", "rmsnorm")[seed % 2]
    m = d + 1 - (norm == "layernorm") - (seed % 5 == 4) + (seed % 7 == 6)
    rows = [[r.randint(-9, 9) for _ in range(d)] for _ in range(m - 1)]
    factors = [r.randint(1, 9) for _ in range(m - 1)]
    last = [-sum(f * row[i] for f, row in zip(factors, rows, strict=True)) for i in range(d)]
    if seed % 3 == 0:
        last[0] += 1
    rows = [[0] * d, *rows, last]
    if seed % 11 == 0:
        rows[2:] = [[7 * x for x in row] for row in rows[2:]]
    bias = [0] + [-r.randint(0, 1) for _ in range(m)]
    model = Model(rows, "F32", bias=bias)
    st = model.statement(norm=norm)
    truth = Truth(model, st)
    support = list(range(1, m + 1))
    vectors = [truth.centre([-Fraction(x) for x in rows[j]]) for j in support]
    basis = nullspace(vectors)
    if len(basis) > 1:
        basis = nullspace([[*v, Fraction(-bias[j])] for v, j in zip(vectors, support, strict=True)])
    good = len(basis) == 1 and (min(basis[0]) > 0 or max(basis[0]) < 0)
    good = (
        good
        and sum(b * -c for b, c in zip(basis[0], bias[1:], strict=True)) * (1 if basis[0][0] > 0 else -1) <= 0
    )
    result = desk.audit(certificate(st, unspeakable(support, None)), model)
    # e_j = b_0 − b_j ≥ 0: with a rival of lower bias the sum is positive and proves nothing.
    assert result.outcome == ("accepted" if good else "refuted"), result.reason


def test_support_only_with_large_fractions(desk: Desk) -> None:
    r = random.Random(5)
    d = 12
    rows = [[r.randint(-2000, 2000) / 64 for _ in range(d)] for _ in range(d + 1)]
    lam = nullspace([[Fraction(x) for x in row] for row in rows])[0]
    signed = [[x if f > 0 else -x for x in row] for row, f in zip(rows, lam, strict=True)]
    model = Model([[0] * d, *signed])
    desk.accepts(certificate(model.statement(), unspeakable(range(1, d + 2), None, kind="never")), model)
    wrong = [*signed[:-1], [-x for x in signed[-1]]]
    model = Model([[0] * d, *wrong])
    reason = "not of one sign"
    desk.refutes(certificate(model.statement(), unspeakable(range(1, d + 2), None)), model, reason)


def test_support_only_limits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    data = certificate(INSIDE["statement"], unspeakable([0, 1, 2], None, kind="never"))
    for limit in ("SOLVABLE_ROWS", "SOLVABLE_BITS"):
        with monkeypatch.context() as patch:
            patch.setattr(audit, limit, 2)
            desk.unavailable(data, HAND, "convert to full multipliers first")
            desk.accepts(INSIDE, HAND)
    assert audit.SOLVABLE_ROWS == 385


def test_support_only_ceiling(desk: Desk) -> None:
    # 0, 1 and 2 cancel for token 3; with the bias its lead over their mean is 3/2 everywhere.
    model = Model(HAND.rows, bias=[0, 0, 0, 2])
    st = model.statement(token=3, domain="free")
    ceiling = {"rows": "0 1 2", "values": None}
    claim = speakable(Fraction(1), state(0, [0, 0]), None, ceiling, "2/1")
    desk.accepts(certificate(st, claim), model)
    desk.refutes(certificate(st, claim | {"at_most": "1/1"}), model, "no room")


# --- Step 11: kinds --------------------------------------------------------------------------------------


def test_never_1_ball_not_cancelling(desk: Desk) -> None:
    # d = 1: ℓ_0 − ℓ_1 = −z − 1, which is 0 on the boundary z = −1 alone.
    model = Model([[0], [1]], bias=[0, 1])
    claim = unspeakable([1], [1], kind="never")
    desk.accepts(certificate(model.statement(), claim), model)
    # On the sphere, where epsilon is 0, z = −1 is a state.
    desk.refutes(certificate(model.statement(epsilon="0"), claim), model, "never")
    desk.accepts(certificate(model.statement(epsilon="0"), claim | {"kind": "unsettled"}), model)


def test_never_2_cancelling_with_a_gap(desk: Desk) -> None:
    model = Model([[1], [1]], bias=[0, 0.5])
    for domain in ("readout", "free"):
        desk.accepts(
            certificate(model.statement(domain=domain), unspeakable([1], [1], Fraction(1, 2), "never")), model
        )
    none = model.statement(norm="none", epsilon="0")
    desk.accepts(certificate(none, unspeakable([1], [1], kind="never")), model)


def test_never_3_box(desk: Desk) -> None:
    model = Model([[0], [1]], bias=[0, 2.5])
    claim = unspeakable([1], [1], kind="never")
    desk.accepts(certificate(model.statement(domain="box:2"), claim), model)
    desk.accepts(certificate(model.statement(domain="box:2.5"), claim | {"kind": "unsettled"}), model)
    desk.refutes(certificate(model.statement(domain="box:2.5"), claim), model, "never")


def test_never_4_sphere(desk: Desk) -> None:
    model = Model([[0], [1]], bias=[0, 1.5])
    desk.accepts(certificate(model.statement(epsilon="0"), unspeakable([1], [1], kind="never")), model)


def test_the_case_of_epsilon_zero_is_not_for_boxes(desk: Desk) -> None:
    # In box:2 the token ties at z = −2, although d·|Pu|² = 1 < 4 = v².
    model = Model([[0], [1]], bias=[0, 2])
    for norm in ("rmsnorm", "none"):
        st = model.statement(norm=norm, epsilon="0", domain="box:2")
        assert Truth(model, st).margin([Fraction(-2)]) == 0
        desk.refutes(certificate(st, unspeakable([1], [1], kind="never")), model, "never")
        desk.accepts(certificate(st, unspeakable([1], [1], 0, "tie-only", state(0, [-2]))), model)


@pytest.mark.parametrize("domain", DOMAINS)
def test_never_5_rank(desk: Desk, domain: str) -> None:
    desk.accepts(certificate(HAND.statement(token=3, domain=domain), INSIDE["claim"]), HAND)
    flat = Model([[1, 0, 0], [-1, 0, 0], [0, 0, 0]])
    st = flat.statement(token=2, domain=domain)
    desk.refutes(certificate(st, unspeakable([0, 1], [1, 1], kind="never")), flat, "never")
    desk.accepts(certificate(st, unspeakable([0, 1], [1, 1], 0, "tie-only", state(0, [0, 1, 0]))), flat)
    # After a LayerNorm a rank of d − 1 is enough.
    pair = Model([[1, 0], [0, 1], [0.5, 0.5]])
    st = pair.statement(token=2, domain=domain, norm="layernorm")
    claim = unspeakable([0, 1], [1, 1], kind="never")
    (desk.refutes if domain == "free" else desk.accepts)(certificate(st, claim), pair)


def test_never_needs_equal_biases_in_case_5(desk: Desk) -> None:
    model = Model(HAND.rows, bias=[1, -1, 0, 0])
    st = model.statement(token=3)
    desk.refutes(certificate(st, INSIDE["claim"]), model, "never")
    desk.accepts(certificate(st, unspeakable([0, 1, 2], [3, 3, 2])), model)


def test_rank_stops_early_and_goes_on_past_equal_rows(desk: Desk) -> None:
    model = Model([[1, 0], [1, 0], [0, 1], [-2, -1], [1, 1], [-1, -1], [0, 0]])
    claim = unspeakable(range(6), [1] * 6, kind="never")
    desk.accepts(certificate(model.statement(token=6), claim), model)


def test_ties(desk: Desk) -> None:
    model = Model([[1, 0], [1, 0], [0, 5]])
    st = model.statement()
    good = unspeakable([1], [1], 0, "tie-only", state(2, [1, 0]))
    result = desk.accepts(certificate(st, good), model)
    assert result.reason.startswith("UNSPEAKABLE (tie-only), gap at least 0/1 (0)")
    for tie in (state(2, [0, 0]), state(2, [0, 1]), state(0, [2, 0]), state(2, [1])):
        desk.refutes(certificate(st, good | {"tie": tie}), model)
    desk.refutes(certificate(model.statement(epsilon="0"), good), model)


# --- Steps 8 to 15: what must be refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        ("0 0 1", "1 1 1"),
        ("0 1 3", "3 3 2"),
        ("0 1 4", "3 3 2"),
        ("0 1 2", "3 3 0"),
        ("0 1 2", "3 3 -2"),
        ("0 1 2", "3 3"),
        ("0 1 2", "3 3 3"),
        ("0 1", None),
        ("0 1 2", "3 3 2 1"),
    ],
)
def test_multipliers_that_prove_nothing(desk: Desk, rows: str, values: str | None) -> None:
    claim = INSIDE["claim"] | {"multipliers": {"rows": rows, "values": values}}
    desk.refutes(certificate(INSIDE["statement"], claim), HAND)


def test_multipliers_that_would_prove_it_but_are_not_allowed(desk: Desk) -> None:
    five = Model([*HAND.rows, [1, 5]])
    st = five.statement(token=3)
    desk.accepts(certificate(st, unspeakable([0, 1, 2], [3, 3, 2])), five)
    for rows, values in (
        ([0, 1, 2, 4], [3, 3, 2, 0]),
        ([0, 1, 2, 3], [3, 3, 2, 7]),
        ([0, 0, 1, 2], [1, 2, 3, 2]),
    ):
        desk.refutes(certificate(st, unspeakable(rows, values)), five)


def test_a_support_that_does_not_cancel_proves_nothing_even_in_the_ball(desk: Desk) -> None:
    # 1 and 1 cancel in the first coordinate alone; written out they would do, as the biases are large.
    model = Model([[0, 0], [1, 0], [-1, 1]], bias=[-9, 0, 0])
    desk.accepts(certificate(model.statement(), unspeakable([1, 2], [1, 1], kind="never")), model)
    desk.refutes(certificate(model.statement(), unspeakable([1, 2], None)), model, "does not cancel")


def test_the_boundary_of_the_ball_is_not_in_it(desk: Desk) -> None:
    model = Model([[1, 1], [0, 0]])
    claim = speakable(1, state(0, [1, 1]))  # |z|² = 2 = d
    desk.refutes(certificate(model.statement(), claim), model, "outside the ball")
    desk.accepts(certificate(model.statement(domain="box:1"), claim), model)
    desk.accepts(certificate(model.statement(), speakable(1, state(10, [1023, 1023]))), model)


def test_a_gap_that_is_too_large(desk: Desk) -> None:
    desk.refutes(
        certificate(INSIDE["statement"], unspeakable([0, 1, 2], [3, 3, 2], Fraction(1, 10**9))), HAND
    )


def test_competitors_beyond_the_count(desk: Desk) -> None:
    st = HAND.statement(token=3, competitors=2, competitor_rule="tokenizer")
    desk.refutes(certificate(st, INSIDE["claim"]), HAND, "no competitor")


def test_a_token_without_competitors_is_not_speakable(desk: Desk) -> None:
    model = Model([[1, 1], [0, 0]])
    one = {"competitors": 1, "competitor_rule": "tokenizer"}
    claim = speakable(1, state(0, [1, 0]))
    desk.refutes(certificate(model.statement(domain="free", **one), claim), model, "no competitor")
    claim = speakable(1, state(0, [-1, 0]))
    desk.accepts(certificate(model.statement(token=1, domain="free", **one), claim), model)


def test_residual_vectors_that_must_be_refused(desk: Desk) -> None:
    st = HAND.statement()
    good = speakable(1, None, residual("F16", 0, [1, 0]))
    desk.accepts(certificate(st, good), HAND)
    for bad in (
        residual("F16", 0, [1]),
        residual("F16", 0, [2**16, 0]),  # overflows
        residual("F16", 0, [2**11 + 1, 0]),  # twelve bits
        residual("F16", 25, [1, 0]),  # below the smallest subnormal
        residual("BF16", 0, [257, 0]),
        residual("F32", 0, [0, 1]),  # row 1 is above
        residual("F32", 3, [0, 0]),  # ties
    ):
        desk.refutes(certificate(st, good | {"residual": bad}), HAND)
    zero = certificate(HAND.statement(epsilon="0"), good | {"residual": residual("F32", 3, [0, 0])})
    desk.refutes(zero, HAND, "undefined")


@pytest.mark.parametrize(
    ("dtype", "k", "p", "good"),
    [
        ("F16", 24, 1, True),
        ("F16", 0, 65504, True),
        ("F16", 0, -65504, True),
        ("F16", 0, 65520, False),
        ("F16", 24, 1025, True),
        ("F16", 25, 2, True),
        ("F16", 25, 3, False),
        ("BF16", 133, 1, True),
        ("BF16", 134, 1, False),
        ("BF16", 0, 255 << 120, True),
        ("BF16", 0, 1 << 128, False),
        ("F32", 149, 1, True),
        ("F32", 150, 1, False),
        ("F32", 0, (2**24 - 1) << 104, True),
        ("F64", 1074, 1, True),
        ("F64", 1075, 1, False),
        ("F64", 0, (2**53 - 1) << 971, True),
        ("F64", 0, 2**53 + 1, False),
        ("F64", 9, 0, True),
    ],
)
def test_values_of_a_dtype(dtype: str, k: int, p: int, good: bool) -> None:
    assert audit.exact_in(p, k, dtype) is good


def test_beside_a_state_the_residual_vector_must_only_lead(desk: Desk) -> None:
    st = HAND.statement()
    z = state(11, [2864, -410])
    # At the residual vector (2^-10, 0) the margin is small, about 0.3.
    small = residual("F16", 10, [1, 0])
    desk.accepts(certificate(st, speakable(2, z, small)), HAND)
    desk.refutes(certificate(st, speakable(2, None, small)), HAND, "residual vector")
    desk.refutes(certificate(st, speakable(2, z, residual("F16", 10, [0, 1]))), HAND, "residual vector")
    desk.refutes(certificate(st, speakable(2, z, residual("F16", 0, [0, 0]))), HAND, "residual vector")
    desk.refutes(certificate(st, speakable(2, state(11, [1864, -410]), small)), HAND, "state")


def test_decoding_against_struct() -> None:
    r = random.Random(0)
    for dtype, code, size, unit in (("F16", "e", 2, -24), ("F32", "f", 4, -149), ("F64", "d", 8, -1074)):
        patterns = [0, 1, 2, 1 << (8 * size - 1), *(r.getrandbits(8 * size) for _ in range(2000))]
        for bits in patterns:
            (number,) = struct.unpack(f"<{code}", bits.to_bytes(size, "little"))
            if math.isfinite(number):
                assert audit.decoding(dtype)([bits]) == [Fraction(number) / Fraction(2) ** unit]
            else:
                with pytest.raises(KeyError):
                    audit.decoding(dtype)([bits])
    for bits in range(2**16):
        (number,) = struct.unpack("<f", (bits << 16).to_bytes(4, "little"))
        if math.isfinite(number):
            assert audit.decoding("BF16")([bits]) == [Fraction(number) * 2**133]


def test_nan_and_infinity(desk: Desk) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        model = Model([[1, 0], [-1, 0], [0, 0], [bad, 0]], bias=[0, 0, 0, 0])
        pair = unspeakable([0, 1], [1, 1])
        # The row is not needed for these multipliers, and it is for a witness.
        desk.accepts(certificate(model.statement(token=2), pair), model)
        claim = unspeakable([0, 3], [1, 1])
        desk.unavailable(certificate(model.statement(token=2), claim), model, "NaN")
        desk.refutes(bundle(model, certificate(model.statement(token=2), claim)), reason="NaN")
        desk.unavailable(certificate(model.statement(token=3), pair), model, "NaN")
        claim = speakable(Fraction(1, 2), state(0, [1, 0]))
        desk.unavailable(certificate(model.statement(domain="free"), claim), model, "NaN")
        few = model.statement(domain="free", competitors=3, competitor_rule="tokenizer")
        desk.accepts(certificate(few, claim), model)
        spoilt = Model([[1, 0], [-1, 0], [0, 0]], gain=[bad, 1])
        desk.unavailable(certificate(spoilt.statement(token=2), pair), spoilt, "NaN")
        desk.refutes(bundle(spoilt, certificate(spoilt.statement(token=2), pair)), reason="NaN")
        desk.accepts(certificate(spoilt.statement(token=2, domain="free"), pair), spoilt)


# --- Steps 4 and 5 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"token": 4},
        {"competitors": 3},
        {"competitors": 5, "competitor_rule": "tokenizer"},
        {"competitors": 0, "competitor_rule": "tokenizer"},
    ],
)
def test_numbers_out_of_range(desk: Desk, change: Any) -> None:
    desk.refutes(certificate(INSIDE["statement"] | change, INSIDE["claim"]), HAND)


def test_shapes(desk: Desk) -> None:
    claim = unspeakable([1], [1])
    one = Model([[1], [1]])
    desk.accepts(certificate(one.statement(), claim), one)
    desk.refutes(certificate(one.statement(norm="layernorm"), claim), one, "too small")
    for role, shape in (("gain", [3]), ("bias", [3]), ("shift", [1, 2]), ("unembedding", [4])):
        st = Model(HAND.rows, gain=[1, 1], shift=[0, 0], bias=[0] * 4).statement(token=3)
        st["tensors"][role]["shape"] = shape
        desk.refutes(certificate(st, INSIDE["claim"]), HAND)


@pytest.mark.parametrize(
    ("key", "other"), [("dtype", "BF16"), ("shape", [2, 4]), ("sha256", "0" * 64), ("merkle", "0" * 64)]
)
def test_a_tensor_that_is_not_the_stated_one(desk: Desk, key: str, other: Any) -> None:
    st = HAND.statement(token=3, competitors=2, competitor_rule="tokenizer")
    st["token"] = 0
    st["tensors"]["unembedding"][key] = other
    desk.refutes(certificate(st, unspeakable([1], [1])), HAND, key)


def test_finding_tensors(desk: Desk) -> None:
    desk.accepts(INSIDE, HAND, names={"unembedding": "elsewhere"})
    other = Model([[2, 0], [0, 2], [-2, -2], [0.25, 0.5]])
    desk.refutes(INSIDE, other, "another sha256")
    two = Model(HAND.rows)  # the stated name is that of another tensor; names are not compared
    two.tensors["other"] = other.tensors["unembedding"]
    desk.accepts(INSIDE, two, names={"unembedding": "elsewhere", "other": "the.unembedding"})
    desk.unavailable(INSIDE, other, "no tensor", names={"unembedding": "elsewhere"})
    bare = audit.audit_file(desk.file(INSIDE), [])
    assert bare.outcome == "unavailable"


def test_shards(desk: Desk) -> None:
    model = Model(HAND.rows, gain=[1, 1], shift=[0, 0])
    data = certificate(model.statement(token=3), INSIDE["claim"])
    first = model.weights(desk.new(".safetensors"), roles=["unembedding", "shift"])
    second = model.weights(desk.new(".safetensors"), roles=["gain"])
    assert audit.audit_file(desk.file(data), [first, second]).outcome == "accepted"
    assert audit.audit_file(desk.file(data), [first]).outcome == "unavailable"
    again = desk.new(".safetensors")
    again.write_bytes(Path(second).read_bytes())
    assert audit.audit_file(desk.file(data), [second, first, str(again)]).outcome == "unavailable"


# --- Safetensors files -----------------------------------------------------------------------------------


def entry(dtype: Any = "F16", shape: Any = (4, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{",
        b"{} {}",
        b"\xff",
        b"[" * 5000,
        {"w": 5},
        {"w": entry() | {"more": 1}},
        {"w": {"dtype": "F16", "shape": [4, 2]}},
        {"w": entry("F17")},
        {"w": entry(None)},
        {"w": entry(["F16"])},
        {"w": entry(shape=None)},
        {"w": entry(shape="4")},
        {"w": entry(shape=(8, True))},
        {"w": entry(shape=(-4, -2))},
        {"w": entry(shape=(4.0, 2))},
        {"w": entry(shape=(4, 3))},
        {"w": entry(shape=[10**18] * 30)},
        {"w": entry(shape=(10**25,))},
        {"w": entry(offsets=(0,))},
        {"w": entry(offsets=None)},
        {"w": entry(offsets=(16, 0))},
        {"w": entry(offsets=(8, 24))},
        {"w": entry(shape=(3, 2), offsets=(0, 12))},
        {"w": entry(shape=(3, 2), offsets=(4, 16))},
        {"w": entry(), "v": entry(shape=(1, 2), offsets=(0, 4))},
        {},
        {"w": entry(), "__metadata__": {"a": 1}},
        {"w": entry(), "__metadata__": []},
        b'{"w": {"dtype": "F16", "dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}}',
        b'{"w": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16.0]}}',
        b'{"w": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, NaN]}}',
    ],
    ids=str,
)
def test_broken_safetensors(desk: Desk, header: Any) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw = b"".join(HAND.cut("unembedding"))
    path = safetensors(desk.new(".safetensors"), {"w": ("F16", (4, 2), raw)}, text)
    result = audit.audit_file(desk.file(INSIDE), [path])
    assert result.outcome == "unavailable"
    assert len(result.reason.splitlines()) == 1


def test_safetensors_that_end_early(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path(HAND.weights(desk.new(".safetensors"))).read_bytes()
    for raw in (b"", whole[:7], whole[:20], b"\xff" * 16, whole[:-1], whole + b"\0"):
        path = desk.new(".safetensors")
        path.write_bytes(raw)
        assert audit.audit_file(desk.file(INSIDE), [str(path)]).outcome == "unavailable"
    monkeypatch.setattr(audit, "HEADER_LIMIT", 20)
    desk.unavailable(INSIDE, HAND, "header")


def test_safetensors_with_metadata_padding_and_empty_tensors(desk: Desk) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "empty": entry("I64", (0, 3), (0, 0)),
        "flag": entry("BOOL", (), (0, 1)),
        "the.unembedding": entry(offsets=(1, 17)),
    }
    raw = b"\1" + b"".join(HAND.cut("unembedding"))
    text = json.dumps(header).encode() + b"   "
    path = safetensors(desk.new(".safetensors"), {"x": ("U8", (17,), raw)}, text)
    assert audit.audit_file(desk.file(INSIDE), [path]).outcome == "accepted"


# --- Files that are no files -----------------------------------------------------------------------------


def test_paths_that_are_no_regular_files(desk: Desk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    good, weights = desk.file(INSIDE), HAND.weights(desk.new(".safetensors"))
    (tmp_path / "link").symlink_to(good)
    bad = [str(tmp_path / name) for name in ("fifo", "dangling", "loop", ".", "missing", "a\0b", "x" * 300)]
    for path in (*bad, "/dev/null"):
        assert audit.audit_file(path, [weights]).outcome == "unavailable"
        assert audit.audit_file(good, [path]).outcome == "unavailable"
        assert audit.audit_file(good, [weights], path).outcome == "unavailable"
    assert audit.audit_file(str(tmp_path / "link"), [weights]).outcome == "accepted"


def test_memory_and_reading_errors(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), OSError(5, "Input/output error")):

        def read(raw: bytes, error: Exception = error) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(audit, "read", read)
            desk.unavailable(INSIDE, HAND)


# --- Malformed files -------------------------------------------------------------------------------------

SPEAKABLE = certificate(HAND.statement(), speakable(2, state(11, [2864, -410]), residual("F16", 0, [1, 0])))
BUNDLE = bundle(HAND, INSIDE)


def edit(data: Any, path: str, new: Any) -> Any:
    """A copy with one field changed, or removed where the new value is `...`."""
    copy = json.loads(json.dumps(data))
    at, keys = copy, path.split("/")
    for key in keys[:-1]:
        at = at[key]
    if new is ...:
        del at[keys[-1]]
    else:
        at[keys[-1]] = new
    return copy


TENSOR = "statement/tensors/unembedding"
FIELDS = [
    (INSIDE, "format", "verify-something", "wrong-format"),
    (INSIDE, "format", 7, "wrong-format"),
    (INSIDE, "version", 0, "wrong-version"),
    (INSIDE, "version", True, "wrong-version"),
    (INSIDE, "version", "1", "wrong-version"),
    (INSIDE, "version", ..., "wrong-version"),
    (INSIDE, "format", ..., "wrong-format"),
    (INSIDE, "claim", ..., "missing-key"),
    (INSIDE, "claim/tie", ..., "missing-key"),
    (INSIDE, "claim/verdict", ..., "missing-key"),
    (INSIDE, "statement/tensors/unembedding", ..., "missing-key"),
    (INSIDE, "comment", "x", "unknown-key"),
    (INSIDE, "claim/margin", "1/1", "unknown-key"),
    (INSIDE, "statement/tensors/scale", HAND.stated("unembedding"), "unknown-key"),
    (INSIDE, "statement", [], "value"),
    (INSIDE, "claim", None, "value"),
    (INSIDE, "claim/verdict", "maybe", "value"),
    (INSIDE, "claim/verdict", 1, "value"),
    (INSIDE, "claim/kind", "ever", "value"),
    (INSIDE, "claim/gap", 0, "value"),
    (INSIDE, "claim/gap", "0", "notation"),
    (INSIDE, "claim/gap", "0/1/1", "notation"),
    (INSIDE, "claim/gap", "2/4", "notation"),
    (INSIDE, "claim/gap", "1/0", "notation"),
    (INSIDE, "claim/gap", "1/-2", "notation"),
    (INSIDE, "claim/gap", "0/2", "notation"),
    (INSIDE, "claim/gap", "-0/1", "notation"),
    (INSIDE, "claim/gap", "A/1", "notation"),
    (INSIDE, "claim/gap", "1" * (2**15 + 1) + "/1", "oversized"),
    (INSIDE, "claim/multipliers", None, "value"),
    (INSIDE, "claim/multipliers/rows", [0, 1, 2], "value"),
    (INSIDE, "claim/multipliers/rows", "", "notation"),
    (INSIDE, "claim/multipliers/rows", "0  1", "notation"),
    (INSIDE, "claim/multipliers/rows", "0 1 ", "notation"),
    (INSIDE, "claim/multipliers/rows", "00 1 2", "notation"),
    (INSIDE, "claim/multipliers/rows", "0\n1", "notation"),
    (INSIDE, "claim/multipliers/rows", "1" * 17, "notation"),
    (INSIDE, "claim/multipliers/rows", "0 1 a", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 03", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 0x2", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 -0", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 +2", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 --2", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 " + "f" * (2**18 + 1), "oversized"),
    (INSIDE, "claim/multipliers/values", "1" + " 1" * 2**20, "oversized"),
    (INSIDE, "provenance", {"a": 1}, "value"),
    (INSIDE, "provenance", {"a": "x" * 65537}, "oversized"),
    (INSIDE, "provenance", {"x" * 65537: ""}, "oversized"),
    (INSIDE, "provenance", "x", "value"),
    (INSIDE, "provenance", {str(i): "" for i in range(65537)}, "oversized"),
    (INSIDE, "provenance", {"a": "," * 65537}, "oversized"),
    (INSIDE, "statement/model", None, "value"),
    (INSIDE, "statement/revision", 5, "value"),
    (INSIDE, "statement/text", ["x"], "value"),
    (INSIDE, "statement/files", {"config.json": None}, "value"),
    (INSIDE, "statement/norm", "batchnorm", "value"),
    (INSIDE, "statement/gain_offset", 2, "value"),
    (INSIDE, "statement/gain_offset", True, "value"),
    (INSIDE, "statement/gain_offset", "0", "value"),
    (INSIDE, "statement/token", -1, "value"),
    (INSIDE, "statement/token", 2**40 + 1, "value"),
    (INSIDE, "statement/token", 10**30, "value"),
    (INSIDE, "statement/competitor_rule", "some", "value"),
    (INSIDE, "statement/epsilon", "00.1", "notation"),
    (INSIDE, "statement/epsilon", "0.10", "notation"),
    (INSIDE, "statement/epsilon", ".1", "notation"),
    (INSIDE, "statement/epsilon", "1.", "notation"),
    (INSIDE, "statement/epsilon", "1e-5", "notation"),
    (INSIDE, "statement/epsilon", "-1", "notation"),
    (INSIDE, "statement/epsilon", "1" * 201, "notation"),
    (INSIDE, "statement/epsilon", "0." + "1" * 201, "notation"),
    (INSIDE, "statement/epsilon", "0.1\n", "notation"),
    (INSIDE, "statement/domain", "everywhere", "value"),
    (INSIDE, "statement/domain", 1, "value"),
    (INSIDE, "statement/domain", "box:0", "value"),
    (INSIDE, "statement/domain", "box:01", "value"),
    (INSIDE, "statement/domain", "box:1.0", "value"),
    (INSIDE, "statement/domain", "box:-1", "value"),
    (INSIDE, "statement/domain", "box:" + "1" * 19, "value"),
    (INSIDE, "statement/domain", "box:", "value"),
    (INSIDE, "statement/domain", "box:1\n", "value"),
    (INSIDE, "statement/domain", "box:" + "1" * 18 + "." + "1" * 18, "value"),
    (INSIDE, f"{TENSOR}/dtype", "I8", "value"),
    (INSIDE, f"{TENSOR}/shape", [4, 2, 1], "value"),
    (INSIDE, f"{TENSOR}/shape", [], "value"),
    (INSIDE, f"{TENSOR}/shape", "4 2", "value"),
    (INSIDE, f"{TENSOR}/shape", [4, -2], "value"),
    (INSIDE, f"{TENSOR}/sha256", "A" * 64, "notation"),
    (INSIDE, f"{TENSOR}/merkle", "a" * 63, "notation"),
    (SPEAKABLE, "claim/state/k", 2**14 + 1, "oversized"),
    (SPEAKABLE, "claim/state/k", -1, "value"),
    (SPEAKABLE, "claim/state/p", "f" * (2**12 + 1) + " 1", "oversized"),
    (SPEAKABLE, "claim/state/p", "1 01", "notation"),
    (SPEAKABLE, "claim/residual/dtype", "F8", "value"),
    (SPEAKABLE, "claim/residual", speakable(1), "missing-key"),
    (BUNDLE, "version", 2, "wrong-version"),
    (BUNDLE, "certificate", ..., "missing-key"),
    (BUNDLE, "certificate/format", "verify-bundle", "wrong-format"),
    (BUNDLE, "certificate/version", 2, "wrong-version"),
    (BUNDLE, "certificate/claim/gap", "2/4", "notation"),
    (BUNDLE, "tensors", {}, "missing-key"),
    (BUNDLE, "tensors/gain", {"rows": None, "bytes": "", "proof": None}, "unknown-key"),
    (BUNDLE, "tensors/unembedding/bytes", "A0", "notation"),
    (BUNDLE, "tensors/unembedding/bytes", "a", "notation"),
    (BUNDLE, "tensors/unembedding/bytes", None, "value"),
    (BUNDLE, "tensors/unembedding/proof", "a" * 63, "notation"),
    (BUNDLE, "tensors/unembedding/rows", "a", "notation"),
]


@pytest.mark.parametrize(("data", "path", "new", "name"), FIELDS, ids=lambda x: str(x)[:30])
def test_a_field_that_breaks_a_rule(desk: Desk, data: Any, path: str, new: Any, name: str) -> None:
    result = desk.audit(edit(data, path, new), HAND)
    assert (result.outcome, result.error) == ("malformed", name), result.reason
    assert not result.hypotheses


@pytest.mark.parametrize(
    ("data", "path", "new"),
    [
        (INSIDE, "statement/norm", "none"),
        (INSIDE, "claim/kind", "tie-only"),
        (INSIDE, "claim/tie", state(0, [1, 0])),
        (INSIDE, "claim/gap", "-1/2"),
        (SPEAKABLE, "claim/at_most", "5/1"),
        (SPEAKABLE, "claim/ceiling", {"rows": "1", "values": "1"}),
        (SPEAKABLE, "claim/margin", "0/1"),
        (SPEAKABLE, "claim/margin", "-1/1"),
        (SPEAKABLE, "statement/domain", "free"),
    ],
)
def test_a_field_that_a_later_step_refuses(desk: Desk, data: Any, path: str, new: Any) -> None:
    desk.refutes(edit(data, path, new), HAND)


def test_no_witness_and_a_bundle_without_a_tensor(desk: Desk) -> None:
    desk.refutes(certificate(HAND.statement(), speakable(1)), HAND, "no witness")
    copy = edit(BUNDLE, "certificate/statement/tensors/gain", Model([[1, 1]], gain=[1, 1]).stated("gain"))
    assert desk.audit(copy, HAND).error == "missing-key"


TEXT = canonical(INSIDE)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"", "not-json"),
        (b"\xef\xbb\xbf" + TEXT.encode(), "not-json"),
        (TEXT.replace("by hand", "b\u00fc hand"), "not-json"),
        (TEXT[:-3], "not-json"),
        (TEXT.replace('"token": 3', '"token": 03'), "not-json"),
        (TEXT.replace("by hand", "by\x01hand"), "not-json"),
        ("[" * 60000, "not-json"),
        ("[]", "value"),
        ("3", "value"),
        (TEXT + "\n", "trailing-bytes"),
        (TEXT + "{}", "trailing-bytes"),
        (TEXT + " ", "trailing-bytes"),
        (TEXT.replace(' "version": 1', ' "version": 1,\n "version": 1'), "duplicate-key"),
        (TEXT.replace('"token": 3', '"token": 3,\n  "token": 3'), "duplicate-key"),
        (TEXT.replace('"token": 3', '"token": NaN'), "not-finite"),
        (TEXT.replace('"token": 3', '"token": -Infinity'), "not-finite"),
        (TEXT.replace('"token": 3', '"token": 3.0'), "float"),
        (TEXT.replace('"token": 3', '"token": 3e0'), "float"),
        (TEXT[:-1], "not-canonical"),
        (" " + TEXT, "not-canonical"),
        (TEXT.replace("\n", "\r\n"), "trailing-bytes"),
        (TEXT[:-1].replace("\n", "\r\n"), "not-canonical"),
        (json.dumps(INSIDE), "not-canonical"),
        (json.dumps(INSIDE, indent=1) + "\n", "not-canonical"),
        (TEXT.replace("by hand", "b\\u0079 hand"), "not-canonical"),
        (TEXT.replace("by hand", "by\\/hand"), "not-canonical"),
        (TEXT.replace('"gain_offset": 0', '"gain_offset": -0'), "not-canonical"),
        (canonical(BUNDLE).replace("  ", " "), "not-canonical"),
        (canonical(INSIDE | {"provenance": {"a": "\u00e9"}}).replace("00e9", "00E9"), "not-canonical"),
    ],
    ids=range(29),
)
def test_bytes_that_break_a_rule(desk: Desk, text: Any, name: str) -> None:
    result = desk.audit(text, HAND)
    assert (result.outcome, result.error) == ("malformed", name), result.reason


def test_strings_that_are_allowed(desk: Desk) -> None:
    odd = {"": "\0\x7f\n\u202e\U0001f600", "lone": "\ud800", "long": "x" * 65536}
    st = HAND.statement(token=3, revision="main", text="\x1b[2J\u202e", files={"tokenizer.json": "0" * 64})
    desk.accepts(certificate(st, INSIDE["claim"]) | {"provenance": odd}, HAND)
    for bad in ("?", "0" * 63, "0" * 65, "A" * 64):
        st["files"] = {"tokenizer.json": bad}
        assert desk.audit(certificate(st, INSIDE["claim"]), HAND).error == "notation"


def test_a_file_that_is_too_large(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "FILE_LIMIT", len(TEXT))
    desk.accepts(TEXT, HAND)
    assert desk.audit(TEXT + "\n", HAND).error == "oversized"


# --- Bundles ---------------------------------------------------------------------------------------------


def wide_model() -> Model:
    r = random.Random(1)
    rows = [[r.randint(-9, 9) for _ in range(3)] for _ in range(11)]
    rows[7], rows[2], rows[9] = [2, 1, 0], [4, 2, 1], [0, 0, -1]
    return Model(rows, gain=[1, 0.5, 2], shift=[1, 0, -1], bias=[0] * 11)


def wide_bundle(gap: Any = 0, **changes: Any) -> tuple[Model, Any]:
    model = wide_model()
    st = model.statement(token=7, norm="layernorm", **changes)
    return model, bundle(model, certificate(st, unspeakable([9, 2], [1, 1], gap)))


def test_a_bundle_with_a_pruned_proof(desk: Desk) -> None:
    model, data = wide_bundle()
    assert data["tensors"]["unembedding"]["rows"] == "2 7 9"
    assert len(data["tensors"]["unembedding"]["proof"].split(" ")) == 6  # 01, 3, 45, 6, 8, 10
    result = desk.accepts(data)
    for role in model.tensors:
        merkle = model.stated(role)["merkle"]
        assert f"the {role} of the model is the tensor with Merkle root {merkle}" in result.hypotheses
    assert "the final norm is layernorm" in result.hypotheses
    desk.accepts(data["certificate"], model)
    desk.refutes(wide_bundle(Fraction(1, 10**9))[1])
    desk.accepts(wide_bundle(competitors=10, competitor_rule="tokenizer")[1])
    desk.refutes(wide_bundle(competitors=10)[1])


PART = "tensors/unembedding"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (f"{PART}/rows", lambda x: "2 9 7"),
        (f"{PART}/rows", lambda x: "2 7"),
        (f"{PART}/rows", lambda x: "2 7 9 10"),
        (f"{PART}/rows", lambda x: None),
        (f"{PART}/bytes", lambda x: x[:-4]),
        (f"{PART}/bytes", lambda x: x + "0000"),
        (f"{PART}/bytes", lambda x: ""),
        (f"{PART}/bytes", lambda x: ("1" if x[0] == "0" else "0") + x[1:]),
        (f"{PART}/proof", lambda x: None),
        (f"{PART}/proof", lambda x: x[65:]),
        (f"{PART}/proof", lambda x: x[:-65]),
        (f"{PART}/proof", lambda x: x + " " + x[:64]),
        (f"{PART}/proof", lambda x: x[65:130] + x[:65] + x[130:]),
        ("tensors/bias/rows", lambda x: "2 9"),
        ("tensors/bias/bytes", lambda x: "00000001" + x[8:]),
        ("tensors/gain/rows", lambda x: "0 1 2"),
        ("tensors/gain/proof", lambda x: "0" * 64),
        ("tensors/gain/bytes", lambda x: x[:-8]),
        ("tensors/gain/bytes", lambda x: x[8:16] + x[:8] + x[16:]),
        ("certificate/statement/tensors/shift/sha256", lambda x: "0" * 64),
        ("certificate/statement/tensors/shift/merkle", lambda x: "0" * 64),
        ("certificate/statement/tensors/bias/merkle", lambda x: "0" * 64),
        ("certificate/statement/tensors/unembedding/shape", lambda x: [12, 3]),
        ("certificate/statement/tensors/unembedding/shape", lambda x: [2**40, 3]),
        ("certificate/statement/tensors/unembedding/dtype", lambda x: "BF16"),
        ("certificate/statement/token", lambda x: 11),
        ("certificate/claim/multipliers/rows", lambda x: "9 11"),
        ("certificate/claim/multipliers/rows", lambda x: "9 7"),
        ("certificate/claim/multipliers/rows", lambda x: "9 9"),
    ],
)
def test_a_bundle_with_something_wrong(desk: Desk, path: str, change: Any) -> None:
    _, data = wide_bundle()
    at = data
    for key in path.split("/"):
        at = at[key]
    desk.refutes(edit(data, path, change(at)))


def test_only_unspeakable_without_a_tie_is_bundled(desk: Desk) -> None:
    part = {"unembedding": {"rows": "0", "bytes": "00", "proof": None}}
    whole = {"format": "verify-bundle", "version": 1, "certificate": SPEAKABLE, "tensors": part}
    desk.refutes(whole, reason="bundled")
    model = Model([[1, 0], [1, 0]])
    inner = certificate(model.statement(), unspeakable([1], [1], 0, "tie-only", state(2, [1, 0])))
    desk.accepts(inner, model)
    desk.refutes(bundle(model, inner), reason="bundled")


def test_a_support_only_bundle(desk: Desk) -> None:
    inner = certificate(INSIDE["statement"], unspeakable([0, 1, 2], None, kind="never"))
    desk.accepts(bundle(HAND, inner))


# --- Configurations --------------------------------------------------------------------------------------

NAMES = {
    "gpt2": ("transformer.wte.weight", "transformer.ln_f.weight", "transformer.ln_f.bias", ""),
    "llama": ("lm_head.weight", "model.norm.weight", "", ""),
    "mistral": ("lm_head.weight", "norm.weight", "", ""),
    "qwen2": ("lm_head.weight", "model.norm.weight", "", ""),
    "whisper": (
        "model.decoder.embed_tokens.weight",
        "model.decoder.layer_norm.weight",
        "decoder.layer_norm.bias",
        "",
    ),
    "albert": (
        "albert.embeddings.word_embeddings.weight",
        "predictions.LayerNorm.weight",
        "predictions.LayerNorm.bias",
        "predictions.decoder.bias",
    ),
    "bert": (
        "embeddings.word_embeddings.weight",
        "cls.predictions.transform.LayerNorm.gamma",
        "cls.predictions.transform.LayerNorm.beta",
        "cls.predictions.bias",
    ),
}
EPSILONS = {"gpt2": "0.00001", "whisper": "0.00001"} | dict.fromkeys(("albert", "bert"), "0.000000000001")
KEYS = {"gpt2": "layer_norm_epsilon", "albert": "layer_norm_eps", "bert": "layer_norm_eps"}


def known(kind: str, **changes: Any) -> tuple[Model, Any, dict[str, str]]:
    """A model of a known type, a certificate about it and the names of its tensors."""
    names = dict(zip(("unembedding", "gain", "shift", "bias"), NAMES[kind], strict=True))
    names = {role: name for role, name in names.items() if name}
    numbers: dict[str, Any] = {"gain": [1, 2], "shift": [0.5, 0], "bias": [0] * 4}
    vectors: dict[str, Any] = {role: numbers[role] for role in names if role != "unembedding"}
    model = Model(HAND.rows, "F16", "F32", **vectors)
    norm = "layernorm" if "shift" in names else "rmsnorm"
    st = model.statement(
        norm=norm, epsilon=EPSILONS.get(kind, "0.000001"), token=3, domain="direction", **changes
    )
    rows, values = ([0, 1, 2], [3, 3, 2])
    return model, certificate(st, unspeakable(rows, values)), names


@pytest.mark.parametrize("kind", NAMES)
def test_what_a_configuration_confirms(desk: Desk, kind: str) -> None:
    model, data, names = known(kind)
    result = desk.accepts(data, model, config={"model_type": kind}, names=names)
    assert result.hypotheses == ["the model is 'by hand', revision None"]
    assert not result.notes
    for key, new in (("norm", "rmsnorm"), ("epsilon", "0.00002"), ("gain_offset", 1)):
        if data["statement"][key] != new:
            wrong = edit(data, f"statement/{key}", new)
            desk.refutes(wrong, model, kind, config={"model_type": kind}, names=names)
    desk.refutes(INSIDE | {"statement": edit(data, "statement/tensors/gain", ...)["statement"]}, model, kind,
                 config={"model_type": kind}, names=names)  # fmt: skip
    desk.unavailable(data, model, "no tensor", config={"model_type": kind})  # under names that play no role
    desk.accepts(data, model, names=names)
    if kind in KEYS:
        config = f'{{"model_type": "{kind}", "{KEYS[kind]}": 2.5E-5}}'
        desk.refutes(data, model, "1/40000", config=config, names=names)
        other = edit(data, "statement/epsilon", "0.000025")
        desk.accepts(other, model, config=config, names=names)


def test_tied_and_untied_heads(desk: Desk) -> None:
    model, data, names = known("gpt2")
    head, body = names | {"unembedding": "lm_head.weight"}, {"model_type": "gpt2"}
    desk.accepts(data, model, config=body, names=head)  # tied, and only the head is stored
    desk.accepts(data, model, config=body | {"tie_word_embeddings": False}, names=head)
    untied = body | {"tie_word_embeddings": False}
    desk.unavailable(data, model, "no tensor", config=untied, names=names)
    # Both are stored: tied means the embedding, untied the head.
    other = Model([[1, 1]] * 4).tensors["unembedding"]
    for first, second, config, good in (
        ("wte.weight", "lm_head.weight", body, True),
        ("lm_head.weight", "wte.weight", body, False),
        ("wte.weight", "lm_head.weight", untied, False),
        ("lm_head.weight", "wte.weight", untied, True),
    ):
        two = Model(HAND.rows, gain=[1, 2], shift=[0.5, 0])
        two.tensors["other"] = other
        both = names | {"unembedding": first, "other": second}
        (desk.accepts if good else desk.refutes)(data, two, config=config, names=both)
    model, data, names = known("llama")
    tied = {"model_type": "llama", "tie_word_embeddings": True, "rms_norm_eps": 1e-06}
    desk.accepts(data, model, config=tied, names=names | {"unembedding": "model.embed_tokens.weight"})
    untied = {"model_type": "llama"}
    desk.unavailable(data, model, config=untied, names=names | {"unembedding": "model.embed_tokens.weight"})


def test_configurations_that_say_nothing(desk: Desk) -> None:
    for config in ({}, {"model_type": "mamba"}, {"model_type": ["gpt2"]}, {"model_type": None}):
        result = desk.accepts(INSIDE, HAND, config=config)
        assert "the final norm is rmsnorm" in result.hypotheses
        assert "nothing is known" in result.notes[0]


@pytest.mark.parametrize(
    "config",
    [
        b"",
        "[]",
        '{"model_type": "llama"} x',
        '{"model_type": "llama", "model_type": "llama"}',
        '{"model_type": "llama", "x": NaN}',
        '{"model_type": "llama", "rms_norm_eps": "1e-6"}',
        '{"model_type": "llama", "rms_norm_eps": true}',
        '{"model_type": "llama", "rms_norm_eps": null}',
        '{"model_type": "llama", "tie_word_embeddings": 0}',
        '{"model_type": "llama", "rms_norm_eps": 1e-99999999999}',
        '{"model_type": "llama", "rms_norm_eps": 0.' + "1" * 500 + "}",
    ],
)
def test_configurations_that_are_refused(desk: Desk, config: Any) -> None:
    desk.unavailable(INSIDE, HAND, config=config)


def test_a_configuration_that_is_too_large(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CONFIG_LIMIT", 10)
    desk.unavailable(INSIDE, HAND, "too large", config='{"a": 1  }\n')


def test_the_hash_of_the_configuration_is_compared(desk: Desk) -> None:
    model, data, names = known("llama")
    text = '{"model_type": "llama"}'
    for digest, notes in ((hashlib.sha256(text.encode()).hexdigest(), 0), ("0" * 64, 1)):
        named = edit(data, "statement/files", {"config.json": digest})
        assert len(desk.accepts(named, model, config=text, names=names).notes) == notes


def test_a_bundle_beside_a_configuration(desk: Desk) -> None:
    model, data, _ = known("llama")
    result = desk.accepts(bundle(model, data), config={"model_type": "llama"})
    assert len(result.hypotheses) == 3  # the model and two Merkle roots
    desk.refutes(bundle(model, edit(data, "statement/norm", "layernorm")), config={"model_type": "llama"})


# --- The command -----------------------------------------------------------------------------------------


def test_hypotheses_stand_above_the_verdict(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    st = HAND.statement(token=3, text="\x1b[31mred\u202e", revision="main\n", competitor_rule="tokenizer")
    path = desk.file(certificate(st, INSIDE["claim"]))
    assert audit.main([path, "--weights", HAND.weights(desk.new(".safetensors"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["HYPOTHESIS"] * 7 + ["ACCEPTED"]
    everything = "\n".join(lines)
    for part in (
        "the model is 'by hand', revision 'main\\n'",
        "(stated name 'the.unembedding')",
        "norm is rmsnorm",
        "epsilon is 0.00001 ('by hand')",
        "gain offset is 0",
        "text of token 3 is '\\x1b[31mred\\u202e'",
        "the ids of the tokenizer are 0..3",
        f"ACCEPTED {path}: UNSPEAKABLE (never), gap at least 0/1 (0) - token 3 '\\x1b[31mred\\u202e', "
        "domain readout, ids 0..3",
    ):
        assert part in everything
    assert everything.isascii()


def test_exit_codes_are_those_of_the_worst(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    weights = ["--weights", HAND.weights(desk.new(".safetensors"))]
    good, malformed, missing = desk.file(INSIDE), desk.file("{"), str(desk.new(".json"))
    refuted = desk.file(edit(INSIDE, "claim/multipliers/values", "1 1 1"))
    for files, code in (
        ([good], 0),
        ([good, missing], 5),
        ([missing, malformed, good], 4),
        ([refuted, malformed, missing], 1),
        ([good, good], 0),
    ):
        assert audit.main([*files, *weights]) == code
    out = capsys.readouterr().out
    assert f"MALFORMED {malformed}: [not-json] " in out
    assert f"REFUTED {refuted}: " in out
    assert f"UNAVAILABLE {missing}: " in out
    for arguments in ([], ["--bogus", good]):
        with pytest.raises(SystemExit) as stop:
            audit.main(arguments)
        assert stop.value.code == 2
    assert audit.main([desk.file(BUNDLE)]) == 0
    assert audit.main([good]) == 5


def test_weights_are_hashed_once_a_run_and_read_anew_in_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, read = HAND.weights(desk.folder / "weights.safetensors"), list[str]()
    safetensors_of = audit.safetensors

    def counted(path: str) -> Any:
        read.append(path)
        return safetensors_of(path)

    monkeypatch.setattr(audit, "safetensors", counted)
    files = [desk.file(INSIDE), desk.file(SPEAKABLE)]
    assert audit.main([*files, "--weights", weights]) == 0
    assert read == [weights]
    Path(weights).unlink()
    Model([[0, 0]] * 4).weights(Path(weights))
    assert audit.main([*files, "--weights", weights]) == 1


def test_json_lines(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    files = [desk.file(INSIDE), desk.file("{")]
    code = audit.main([*files, "--json", "--weights", HAND.weights(desk.new(".safetensors"))])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 4
    keys = {"path", "outcome", "verdict", "error", "reason", "hypotheses", "notes"}
    assert first.keys() == second.keys() == keys
    assert (first["outcome"], first["verdict"], first["error"]) == ("accepted", "unspeakable", None)
    assert (second["outcome"], second["verdict"], second["error"]) == ("malformed", None, "not-json")
    assert first["hypotheses"]


def test_defects_and_interrupts_are_no_verdicts(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(error: BaseException) -> Any:
        def read(*_: Any) -> Any:
            raise error

        return read

    path = desk.file(INSIDE)
    with monkeypatch.context() as patch:
        patch.setattr(audit, "Check", fails(RuntimeError("oops")))
        bad = desk.file("{}")
        assert audit.main([desk.file(BUNDLE), bad]) == 70
        told = capsys.readouterr().out
        assert "INTERNAL" in told
        assert "MALFORMED" in told  # the next file is audited all the same
    monkeypatch.setattr(audit, "read", fails(KeyboardInterrupt()))
    assert audit.main([path]) == 130
    assert capsys.readouterr().out == ""


def test_versions_nested_deeper_than_the_parser_goes(desk: Desk) -> None:
    for depth in (900, 980, 991, 995):
        text = TEXT.replace('"version": 1', '"version": ' + "[" * depth + "]" * depth)
        assert desk.audit(text).outcome == "malformed"


def test_limits_of_plain_python(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipliers too long for the width are refused; ranks in many dimensions are not begun."""
    long = copy.deepcopy(INSIDE)
    factor = 1 << ((1 << 20) - 3)
    long["claim"]["multipliers"]["values"] = " ".join(f"{x * factor:x}" for x in (3, 3, 2))
    desk.accepts(long, HAND)
    monkeypatch.setattr(audit, "RANKABLE", 1)
    assert desk.audit(INSIDE, HAND).outcome == "unavailable"


def test_a_bundle_is_bound_to_weights_that_are_given(desk: Desk) -> None:
    assert any("Merkle" in x for x in desk.accepts(BUNDLE).hypotheses)
    assert not any("Merkle" in x for x in desk.accepts(BUNDLE, HAND).hypotheses)
    assert desk.audit(BUNDLE, wide_model()).outcome in ("refuted", "unavailable")


def test_output_that_cannot_be_written(desk: Desk) -> None:
    command = [sys.executable, str(SOURCE), desk.file(BUNDLE)]
    with Path("/dev/full").open("w", encoding="ascii") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert run.returncode == 5
    assert "cannot write" in run.stderr
    run = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1].startswith("ACCEPTED")


def test_a_pipe_that_is_closed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    assert audit.main([desk.file(BUNDLE), desk.file(BUNDLE)]) == 5


def test_paths_are_escaped(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([str(desk.folder / "a\x1bb\u00e9")]) == 5
    out = capsys.readouterr().out
    assert out.startswith("UNAVAILABLE '")
    assert "a\\x1bb\\xe9" in out
    assert out.isascii()


@pytest.mark.parametrize(
    ("q", "text"),
    [
        (Fraction(0), "0/1 (0)"),
        (Fraction(10229, 4096), "27f5/1000 (2.49731)"),
        (Fraction(2), "2/1 (2.00000)"),
        (Fraction(2, 3), "2/3 (0.666666)"),
        (Fraction(1, 3000), "1/bb8 (0.000333333)"),
        (Fraction(999999999, 1000), "3b9ac9ff/3e8 (999999)"),
        (Fraction(1234567), "12d687/1 (1234567)"),
        (Fraction(1, 10**50), f"1/{10**50:x} (0.{'0' * 40})"),
        (Fraction(16**10000), f"1{'0' * 10000}/1 (1{'0' * 45})"),
    ],
)
def test_numbers_are_rounded_down(q: Fraction, text: str) -> None:
    assert audit.number(q) == text


def test_long_strings_are_cut() -> None:
    assert audit.show("x" * 201) == "'" + "x" * 200 + "...'"
    assert audit.show("\u202e'") == '"\\u202e\'"'


# --- The source ------------------------------------------------------------------------------------------


def test_the_source_is_independent_and_exact() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Assert | ast.Div)
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float | complex))
        assert not (
            isinstance(node, ast.Name) and node.id in {"float", "complex", "eval", "exec", "__import__"}
        )
        if isinstance(node, ast.Import):
            assert all(alias.name in sys.stdlib_module_names for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module in sys.stdlib_module_names | {"collections.abc"}
    lines = source.splitlines()
    assert len(lines) <= 700
    assert max(map(len, lines)) <= 110


# --- Small functions, against their definitions ----------------------------------------------------------


def test_signs_of_a_plus_b_times_a_root() -> None:
    values = [Fraction(n, 4) for n in range(-9, 10)]
    for root in (1, 2, 3):
        for a in (*range(-7, 8), Fraction(1, 2)):
            for b in values:
                value = a + b * root
                assert audit.sign(a, b, Fraction(root * root)) == (value > 0) - (value < 0)
    assert audit.sign(1, Fraction(-2, 3), Fraction(2)) == 1
    assert audit.sign(1, Fraction(-5, 7), Fraction(2)) == -1


def test_values_that_a_dtype_holds() -> None:
    for dtype, code in (("F16", "e"), ("F32", "f"), ("F64", "d")):
        for p in (
            0,
            1,
            -1,
            2,
            3,
            2047,
            2048,
            2049,
            65504,
            65505,
            65520,
            -65536,
            (1 << 24) - 1,
            (1 << 24) + 1,
        ):
            for k in (0, 1, 24, 25, 40):
                try:
                    (back,) = struct.unpack(code, struct.pack(code, p / 2**k))
                    holds = Fraction(back) == Fraction(p, 2**k)
                except OverflowError:
                    holds = False
                assert audit.exact_in(p, k, dtype) == holds


def test_the_command_heeds_the_configuration(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(HAND.weights(desk.new(".safetensors")))
    assert audit.main([desk.file(INSIDE), "--weights", weights]) == 0
    config = desk.file('{"model_type": "gpt2"}')
    assert audit.main([desk.file(INSIDE), "--weights", weights, "--config", config]) in (1, 5)
    assert audit.main([desk.file(INSIDE), "--weights", weights, "--config", desk.file("{")]) == 5
    capsys.readouterr()

"""What each file of the corpus is, decided from docs/certificates.md in plain fractions: a third checker.

It shares no line with the two that the corpus tests, and is slow. `judge` gives the outcome, and the rule or
the step that a file ended with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

from corpus.reader import NoError, read
from corpus.weights import FORMATS, Model, Stored, decode

Vector = list[Fraction]
_PRIME = (1 << 63) - 25


def _require(holds: bool, step: str) -> None:
    if not holds:
        raise NoError("refuted", step)


# ---- the inequalities ----


def _numbers(state: dict[str, Any]) -> Vector:
    return [Fraction(int(x, 16), 1 << state["k"]) for x in state["p"].split(" ")]


def fraction_of(text: str) -> Fraction:
    """The value of a *fraction*."""
    return Fraction(*(int(x, 16) for x in text.split("/")))


class System:
    """Step 7 and the domain: D_j and e_j of one statement, from rows that `given` holds as bytes."""

    def __init__(self, s: dict[str, Any], given: dict[str, dict[int, bytes]]) -> None:
        shapes = {role: t["shape"] for role, t in s["tensors"].items()}
        _require(len(shapes["unembedding"]) == 2 and min(shapes["unembedding"]) >= 1, "5")
        self.V, self.d = shapes["unembedding"]
        _require(self.d >= 2 or s["norm"] != "layernorm", "5")
        wanted = {"unembedding": [self.V, self.d], "gain": [self.d], "shift": [self.d], "bias": [self.V]}
        _require(all(shape == wanted[role] for role, shape in shapes.items()), "5")
        _require(1 <= s["competitors"] <= self.V and s["token"] < self.V, "5")
        self.s, self.given, self.count, self.t = s, given, s["competitors"], s["token"]
        self.epsilon, self.norm, self.domain = (
            Fraction(s["epsilon"]),
            s["norm"],
            s["domain"].partition(":")[0],
        )
        self.bound = Fraction(s["domain"][4:]) if self.domain == "box" else Fraction(0)
        self.projects = self.norm == "layernorm" and self.domain != "free"
        self.others = [j for j in range(self.count) if j != self.t]

    def values(self, role: str, j: int) -> Vector:
        """One row of a tensor, exact."""
        dtype = self.s["tensors"][role]["dtype"]
        data, size = self.given[role][j], sum(FORMATS[dtype]) // 8 + 1
        found = [decode(data[i : i + size], dtype) for i in range(0, len(data), size)]
        if None in found:
            raise NoError("unavailable", "6")
        return [x for x in found if x is not None]

    def vector(self, role: str, default: int) -> Vector:
        if role not in self.given:
            return [Fraction(default)] * self.d
        offset = self.s["gain_offset"] if role == "gain" else 0
        return [self.values(role, i)[0] + offset for i in range(self.d)]

    def folded(self, j: int) -> tuple[Vector, Fraction]:
        """a_j and b_j."""
        w = self.values("unembedding", j)
        c = self.values("bias", j)[0] if "bias" in self.given else Fraction(0)
        if self.domain == "free":
            return w, c
        a = [x * y for x, y in zip(self.vector("gain", 1), w, strict=True)]
        return a, Fraction(0) if self.domain == "direction" else dot(w, self.vector("shift", 0)) + c

    def difference(self, j: int) -> tuple[Vector, Fraction]:
        """D_j and e_j."""
        (a, b), (x, y) = self.folded(self.t), self.folded(j)
        return [p - q for p, q in zip(a, x, strict=True)], b - y

    def project(self, u: Vector) -> Vector:
        mean = sum(u, Fraction(0)) / len(u)
        return [x - mean for x in u] if self.projects else u

    @property
    def sphere(self) -> bool:
        return self.domain == "readout" and self.norm != "none" and self.epsilon == 0

    def state(self, state: dict[str, Any]) -> Vector:
        """z or h, if it is in the domain (step 13)."""
        x = _numbers(state)
        _require(len(x) == self.d, "13 length")
        z = self.project(x)
        if self.projects and self.domain != "box":
            z = [self.d * y for y in z]
        if self.domain == "readout" and self.norm != "none":
            _require(not self.sphere, "13 sphere")
            _require(dot(z, z) < self.d, "13 ball")
        if self.domain == "box":
            _require(all(abs(y) <= self.bound for y in x), "13 box")
        return z

    def margin(self, z: Vector) -> Fraction:
        """The least difference at a state, over all competitors."""
        _require(bool(self.others), "13 margin")
        return min(dot(D, z) + e for D, e in map(self.difference, self.others))


def dot(x: Vector, y: Vector) -> Fraction:
    return sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))


def sign(a: Fraction, e: Fraction, s: Fraction) -> int:
    """The sign of a + e*sqrt(s), for s >= 0."""
    left, right = a * abs(a), e * abs(e) * s
    return (left + right > 0) - (left + right < 0)


# ---- evidence ----


def _support(system: System, m: dict[str, Any]) -> tuple[list[int], Vector]:
    """Step 8: rows and multipliers."""
    rows = [int(x) for x in m["rows"].split(" ")]
    _require(len(set(rows)) == len(rows), "8 distinct")
    _require(all(j < system.count and j != system.t for j in rows), "8 range")
    if m["values"] is None:
        return rows, _solved(system, rows)
    values = [Fraction(int(x, 16)) for x in m["values"].split(" ")]
    _require(len(values) == len(rows) and min(values) > 0, "8 values")
    return rows, values


def _solved(system: System, rows: list[int]) -> Vector:
    found = [system.difference(j) for j in rows]
    equations = [list(x) for x in zip(*(system.project(D) for D, _ in found), strict=True)]
    kernel = _kernel(equations, len(rows))
    if len(kernel) > 1:
        kernel = _kernel([*equations, [e for _, e in found]], len(rows))
    _require(len(kernel) == 1, "3 one solution")
    values = kernel[0] if sum(kernel[0]) > 0 else [-x for x in kernel[0]]
    _require(min(values) > 0, "3 one sign")
    return values


def _kernel(equations: list[Vector], n: int) -> list[Vector]:
    """A basis of the solutions of `equations` = 0, by elimination."""
    rows, pivots = [list(e) for e in equations], [-1]
    for column in range(n):
        at = len(pivots) - 1
        pivot = next((i for i in range(at, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [x / rows[at][column] for x in rows[at]]
        for i in range(len(rows)):
            if i != at:
                rows[i] = [x - rows[i][column] * y for x, y in zip(rows[i], rows[at], strict=True)]
        pivots.append(column)
    basis = []
    for free in set(range(n)) - set(pivots):
        solution = [Fraction(int(i == free)) for i in range(n)]
        for i, column in enumerate(pivots[1:]):
            solution[column] = -rows[i][free]
        basis.append(solution)
    return basis


def _rank(rows: list[Vector]) -> int:
    """The rank modulo 2^63 - 25; denominators are powers of two, or of two times d."""
    table = [[x.numerator * pow(x.denominator, -1, _PRIME) % _PRIME for x in row] for row in rows]
    rank = 0
    for column in range(len(table[0])):
        pivot = next((i for i in range(rank, len(table)) if table[i][column]), None)
        if pivot is None:
            continue
        table[rank], table[pivot] = table[pivot], table[rank]
        inverse = pow(table[rank][column], -1, _PRIME)
        for i in range(rank + 1, len(table)):
            factor = table[i][column] * inverse
            table[i] = [(x - factor * y) % _PRIME for x, y in zip(table[i], table[rank], strict=True)]
        rank += 1
    return rank


def _bounded(system: System, rows: list[int], values: Vector, bound: Fraction) -> tuple[Vector, Fraction]:
    """Steps 9 and 10: Pu and v."""
    found = [system.difference(j) for j in rows]
    pu = system.project([dot(values, list(x)) for x in zip(*(D for D, _ in found), strict=True)])
    v = dot(values, [e for _, e in found])
    room = bound * sum(values) - v
    _require(room >= 0, "9")
    if system.domain == "box":
        _require(system.bound * sum(map(abs, pu)) <= room, "10 box")
    elif system.domain == "readout" and system.norm != "none":
        _require(system.d * dot(pu, pu) <= room * room, "10 ball")
    else:
        _require(not any(pu), "10 cancel")
    return pu, v


def _never(system: System, rows: list[int], pu: Vector, v: Fraction) -> bool:
    """Step 11."""
    ball = system.domain == "readout" and system.norm != "none"
    if ball and not system.sphere and any(pu):
        return True
    if system.domain != "box" and not any(pu) and v < 0:
        return True
    if system.domain == "box" and system.bound * sum(map(abs, pu)) + v < 0:
        return True
    if system.sphere and system.d * dot(pu, pu) < v * v:
        return True
    found = [system.difference(j) for j in rows]
    flat = not any(pu) and v == 0 and not any(e for _, e in found)
    return flat and _rank([system.project(D) for D, _ in found]) == system.d - system.projects


def _unspeakable(system: System, c: dict[str, Any]) -> None:
    gap = fraction_of(c["gap"])
    _require(gap >= 0, "8 gap")
    rows, values = _support(system, c["multipliers"])
    pu, v = _bounded(system, rows, values, -gap)
    _require((c["kind"] == "tie-only") == (c["tie"] is not None), "11 tie")
    if c["kind"] == "never":
        _require(_never(system, rows, pu, v), "11 never")
    if c["tie"] is not None:
        z = system.state(c["tie"])
        _require(any(z), "11 zero")
        _require(system.margin(z) >= 0, "11 above")


def _speakable(system: System, c: dict[str, Any]) -> None:
    margin = fraction_of(c["margin"])
    _require(margin > 0, "12 margin")
    _require(c["state"] is not None or c["residual"] is not None, "12 witness")
    if c["state"] is not None:
        _require(system.margin(system.state(c["state"])) >= margin, "13 margin")
    if c["residual"] is not None:
        _residual(system, c["residual"], Fraction(0) if c["state"] else margin)
    _require((c["ceiling"] is None) == (c["at_most"] is None), "15 both")
    if c["ceiling"] is not None:
        _bounded(system, *_support(system, c["ceiling"]), fraction_of(c["at_most"]))


def _residual(system: System, residual: dict[str, Any], margin: Fraction) -> None:
    """Step 14."""
    _require(system.domain == "readout", "14 domain")
    r = _numbers(residual)
    _require(len(r) == system.d, "14 length")
    _require(all(_exact(x, residual["dtype"]) for x in r), "14 dtype")
    y = system.project(r)
    s = Fraction(1) if system.norm == "none" else dot(y, y) / system.d + system.epsilon
    _require(s != 0, "14 constant")
    _require(bool(system.others), "14 lead")
    found = [system.difference(j) for j in system.others]
    _require(all(sign(dot(D, y), e, s) > 0 for D, e in found), "14 lead")
    _require(all(sign(dot(D, y), e - margin, s) >= 0 for D, e in found), "14 margin")


def _exact(x: Fraction, dtype: str) -> bool:
    exponent_bits, mantissa_bits = FORMATS[dtype]
    half = 1 << (exponent_bits - 1)
    units = x * (1 << (half + mantissa_bits - 2))
    n = abs(units.numerator)
    odd = n // (n & -n) if n else 0
    return units.denominator == 1 and odd.bit_length() <= mantissa_bits + 1 and abs(x) < Fraction(2) ** half


# ---- files ----


def judge(data: bytes, model: Model | None, weights: bool = True) -> tuple[str, str]:
    """Outcome, and the rule or step it ended with."""
    try:
        value = read(data)
        if not weights:
            raise NoError("unavailable", "4 weights")
        if value["format"] == "verify-bundle":
            _check(value["certificate"], _opened(value))
        elif model is None:
            raise AssertionError("a certificate needs a model")
        else:
            _check(value, _bound(value["statement"], model))
            _texts(value["statement"], model)
    except NoError as error:
        return error.outcome, error.detail
    return "accepted", "-"


def _check(certificate: dict[str, Any], given: dict[str, dict[int, bytes]]) -> None:
    s, c = certificate["statement"], certificate["claim"]
    if s["competitor_rule"] == "all":
        _require([s["competitors"]] == s["tensors"]["unembedding"]["shape"][:1], "4 competitors")
    (_unspeakable if c["verdict"] == "unspeakable" else _speakable)(System(s, given), c)


def _bound(s: dict[str, Any], m: Model) -> dict[str, dict[int, bytes]]:
    """Step 4; a model without config.json is what the statement says it is."""
    stored = m.tensors
    if m.config is None:
        named = {role: _named(m, t) for role, t in s["tensors"].items()}
        _require(None not in named.values(), "4 roles")
        stored = {role: x for role, x in named.items() if x is not None}
    else:
        _require((s["norm"], s["gain_offset"], s["epsilon"]) == (m.norm, 0, m.epsilon), "4 config")
    _require(s["tensors"].keys() == stored.keys(), "4 roles")
    for role, t in s["tensors"].items():
        x = stored[role]
        _require((t["dtype"], t["shape"]) == (x.dtype, list(x.shape)), "4 shape")
        _require(t["sha256"] == x.sha256, "4 sha256")
        _require(t["merkle"] == x.merkle, "4 merkle")
    return {role: {j: x.row(j) for j in range(x.shape[0])} for role, x in stored.items()}


def _named(m: Model, t: dict[str, Any]) -> Stored | None:
    """The tensor of that name, else one with that hash; names are not compared."""
    by_name = [x for x in m.tensors.values() if x.name == t["name"]]
    return next(iter(by_name + [x for x in m.tensors.values() if x.sha256 == t["sha256"]]), None)


def _texts(s: dict[str, Any], m: Model) -> None:
    """What the tokenizer's file says. A text that is left out contradicts nothing."""
    if m.pieces is None:
        return
    known = s["token"] < len(m.pieces)
    found = m.pieces[s["token"]] if known else None
    _require(s["text"] in (None, found), "tokenizer text")
    size = min(len(m.pieces), m.tensors["unembedding"].shape[0])
    _require(s["competitor_rule"] == "all" or s["competitors"] == size, "tokenizer size")


def _opened(bundle: dict[str, Any]) -> dict[str, dict[int, bytes]]:
    """Section 6, steps 2 to 4."""
    s, c = bundle["certificate"]["statement"], bundle["certificate"]["claim"]
    _require(c["verdict"] == "unspeakable" and c["tie"] is None, "6.2")
    needed = sorted({s["token"], *map(int, c["multipliers"]["rows"].split(" "))})
    given = {}
    for role, t in s["tensors"].items():
        part, n = bundle["tensors"][role], t["shape"][0]
        data, whole = bytes.fromhex(part["bytes"]), role in ("gain", "shift")
        ids = list(range(n)) if whole else [int(x) for x in part["rows"].split(" ")] if part["rows"] else []
        _require(
            (part["rows"] is None) == whole and (part["proof"] is None or not whole),
            "6.3" if whole else "6.4",
        )
        _require(whole or (ids == needed and max(ids) < n), "6.4 rows")
        row = (sum(FORMATS[t["dtype"]]) + 1) // 8 * (t["shape"][1] if len(t["shape"]) == 2 else 1)
        _require(len(data) == row * len(ids), "6.3 bytes" if whole else "6.4 bytes")
        given[role] = {j: data[i * row : (i + 1) * row] for i, j in enumerate(ids)}
        if whole:
            x = Stored(t["name"], t["dtype"], tuple(t["shape"]), data)
            _require((x.sha256, x.merkle) == (t["sha256"], t["merkle"]), "6.3 hash")
            continue
        proof = iter([bytes.fromhex(x) for x in (part["proof"] or "").split(" ") if x])
        text = Stored("", t["dtype"], tuple(t["shape"]), b"").text
        root = hashlib.sha256(b"\2" + text + _pruned(0, n, given[role], proof)).hexdigest()
        _require(next(proof, None) is None, "6.4 long")
        _require(root == t["merkle"], "6.4 root")
    return given


def _pruned(lo: int, hi: int, rows: dict[int, bytes], proof: Iterator[bytes]) -> bytes:
    if not any(lo <= j < hi for j in rows):
        digest = next(proof, None)
        _require(digest is not None, "6.4 short")
        return digest or b""
    if hi - lo == 1:
        return hashlib.sha256(b"\0" + rows[lo]).digest()
    s = 1
    while 2 * s < hi - lo:
        s *= 2
    left = _pruned(lo, lo + s, rows, proof)
    return hashlib.sha256(b"\1" + left + _pruned(lo + s, hi, rows, proof)).digest()


# ---- the definitions, at many states ----


def sample(data: bytes, m: Model) -> None:
    """An accepted certificate against the definition of its verdict, on a grid; AssertionError if false."""
    value = read(data)
    s, c = value["statement"], value["claim"]
    system = System(s, _bound(s, m))
    # Rows that hold no number are not needed for multipliers; without them the test is only harder to pass.
    found = [system.difference(j) for j in system.others if _finite(system, j)]
    if c["verdict"] == "speakable":
        if c["at_most"] is not None:
            for z in _grid(system):
                assert min(dot(D, z) + e for D, e in found) <= fraction_of(c["at_most"])
        return
    gap, never = fraction_of(c["gap"]), c["kind"] == "never"
    for z in _grid(system):
        least = min(dot(D, z) + e for D, e in found)
        assert least <= -gap
        assert not (never and any(z) and least >= 0)
    if system.domain == "readout" and system.norm != "none":
        for r in product(range(-4, 5, 1 if system.d < 4 else 2), repeat=system.d):
            y = system.project([Fraction(x) for x in r])
            root = dot(y, y) / system.d + system.epsilon
            signs = [sign(dot(D, y), e + gap, root) for D, e in found] if root else [-1]
            assert min(signs) <= 0
            assert not (never and any(y) and root and min(sign(dot(D, y), e, root) for D, e in found) >= 0)


def _finite(system: System, j: int) -> bool:
    dtype = system.s["tensors"]["unembedding"]["dtype"]
    row, size = system.given["unembedding"][j], sum(FORMATS[dtype]) // 8 + 1
    return all(decode(row[i : i + size], dtype) is not None for i in range(0, len(row), size))


def _grid(system: System) -> Iterator[Vector]:
    """States of the domain on a grid; none on the sphere."""
    size = max(system.bound, Fraction(2)) if system.domain == "box" else Fraction(2)
    steps = [size * Fraction(i, 4) for i in range(-4, 5, 1 if system.d < 4 else 2)]
    for x in product(steps, repeat=system.d):
        z = system.project(list(x))
        if system.domain == "box" and max(map(abs, x)) > system.bound:
            continue
        if system.domain == "readout" and system.norm != "none" and (system.sphere or dot(z, z) >= system.d):
            continue
        yield z

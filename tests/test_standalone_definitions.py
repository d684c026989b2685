"""The standalone auditor against the definitions: random files in all domains and dtypes, in fractions."""

import math
import random
import struct
from fractions import Fraction
from typing import Any

import pytest
from desk import (
    DOMAINS,
    HAND,
    INSIDE,
    Desk,
    Model,
    Truth,
    audit,
    bundle,
    certificate,
    ratio,
    residual,
    speakable,
    state,
    unspeakable,
)

# --- Random files against the definitions, in fractions --------------------------------------------------


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

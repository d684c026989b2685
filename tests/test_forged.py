"""Accepted certificates with one thing changed: the kernel refuses every change that is not itself true.

Each forgery takes an accepted (certificate, readout) and returns another pair; it travels through the file
format, as a real forgery would. Neighbours that may be true are compared with exact brute force instead.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from built_models import from_small, tensor
from oracle import SmallModel, small, witness_margin
from test_brute_force import z_of

from verify.decide import Decider
from verify.errors import MalformedError, RefutedError
from verify.kernel import (
    Certificate,
    Multipliers,
    Readout,
    Residual,
    Speakable,
    State,
    Unspeakable,
    from_bytes,
    parse_domain,
    prove,
    tensor_ids,
    to_bytes,
)

# Row 4 is the mean of four others, row 5 an edge's midpoint, rows 6 and 7 are equal; row 8 is far below.
ROWS = [
    (3, 0, 0, 1),
    (0, 3, 0, 1),
    (0, 0, 3, 1),
    (1, 1, 1, 9),
    (1, 1, 1, 3),
    (2, 2, 0, 0),
    (4, 0, 4, 0),
    (4, 0, 4, 0),
]
LN = small("layernorm", ROWS, [1, 2, 1, 1], [1, 0, -1, 0], [0, 1, 0, 0, -20, 0, 1, 1])
SQUARE = small("rmsnorm", [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 0), (1, 0), (1, 1)])
BIASED = small("rmsnorm", [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 0), (1, 0)], bias=[0, 0, 0, 0, -1, 0])
TWINS = small("rmsnorm", [(2, 0), (2, 0), (-1, 1)], [1, 3], [0, 1])


@dataclass(frozen=True)
class Base:
    """An accepted certificate and the readout it is about."""

    certificate: Certificate
    readout: Readout
    model: SmallModel


def decided(model: SmallModel, token: int, domain: str, epsilon: Fraction | None = None) -> Base:
    built = from_small(model)
    if epsilon is not None:
        built = replace(built, readout=replace(built.readout, epsilon=epsilon))
    decision = Decider(built).decide(token, parse_domain(domain))
    assert decision.proved is not None, decision.reason
    return Base(from_bytes(decision.certificate), built.readout, model)


def with_claim(base: Base, claim: Any) -> Base:
    return replace(base, certificate=replace(base.certificate, claim=claim))


_EDGE = Unspeakable(Fraction(0), "tie-only", Multipliers((0, 1), (1, 1)), State((1, 0), 0))
_CENTRE = Unspeakable(Fraction(0), "never", Multipliers((0, 1, 2, 3), (1, 1, 1, 1)))
# fmt: off
BASES: dict[str, Base] = {
    "witness": decided(LN, 0, "readout"),
    "sphere": decided(LN, 0, "readout", Fraction(0)),
    "box_witness": decided(LN, 0, "box:1"),
    "cone_witness": decided(LN, 0, "direction"),
    "ball": decided(LN, 4, "readout"),
    "space": with_claim(decided(BIASED, 4, "free"), replace(_CENTRE, gap=Fraction(1))),
    "box": decided(LN, 4, "box:1"),
    "cone": with_claim(decided(SQUARE, 4, "direction"), _CENTRE),
    "tie": with_claim(decided(BIASED, 5, "readout"), _EDGE),
    "twins": decided(TWINS, 0, "readout"),
    "support": with_claim(
        decided(BIASED, 4, "free"), Unspeakable(Fraction(0), "unsettled", Multipliers((0, 3), None))),
}
# fmt: on


def claim_of(name: str) -> Any:
    return BASES[name].certificate.claim


@pytest.mark.parametrize("name", BASES)
def test_the_bases_are_accepted(name: str) -> None:
    base = BASES[name]
    proved = prove(from_bytes(to_bytes(base.certificate)), base.readout)
    assert proved.verdict == ("speakable" if isinstance(base.certificate.claim, Speakable) else "unspeakable")


def test_the_bases_hold_what_the_forgeries_change() -> None:
    witness, ball = claim_of("witness"), claim_of("ball")
    assert None not in (witness.state, witness.residual, witness.ceiling)
    assert witness.at_most >= witness.margin > 0
    assert claim_of("sphere").state is None
    assert claim_of("sphere").residual is not None
    assert (ball.kind, claim_of("box").kind, claim_of("twins").kind) == ("never", "never", "tie-only")
    assert min(ball.gap, claim_of("box").gap) > 0
    assert len(ball.multipliers.rows) > 1


FORGERIES: dict[str, Base] = {}


def claim(name: str, base: str, **fields: Any) -> None:
    """The claim with other evidence, or other numbers."""
    FORGERIES[name] = with_claim(BASES[base], replace(claim_of(base), **fields))


def statement(name: str, base: str, **fields: Any) -> None:
    """The same evidence under another statement."""
    certificate = BASES[base].certificate
    changed = replace(certificate, statement=replace(certificate.statement, **fields))
    FORGERIES[f"{base}_{name}"] = replace(BASES[base], certificate=changed)


def weights(name: str, base: str, **fields: Any) -> None:
    """Other weights under an honest statement."""
    FORGERIES[f"{base}_{name}"] = replace(BASES[base], readout=replace(BASES[base].readout, **fields))


NUDGE, TINY = 1 + Fraction(1, 1 << 40), Fraction(1, 1 << 90)
for b in ("witness", "sphere", "box_witness", "cone_witness"):
    claim(f"{b}_margin_overstated", b, margin=claim_of(b).margin * NUDGE + TINY)
    claim(f"{b}_margin_zero", b, margin=Fraction(0))
    claim(f"{b}_without_any_witness", b, state=None, residual=None)
for b in ("witness", "box_witness", "cone_witness"):
    p, k = claim_of(b).state.p, claim_of(b).state.k
    claim(f"{b}_state_negated", b, state=State(tuple(-x for x in p), k))
    claim(f"{b}_state_too_short", b, state=State(p[:-1], k))
    claim(f"{b}_state_too_long", b, state=State((*p, 0), k))
    claim(f"{b}_state_zero", b, state=State((0, 0, 0, 0), 0))
W = claim_of("witness")
claim("state_outside_ball", "witness", state=State(W.state.p, W.state.k - 3))
claim("state_outside_box", "box_witness", state=State((1 << 99, *p[1:]), 0))
claim("ceiling_without_value", "witness", at_most=None)
claim("value_without_ceiling", "witness", ceiling=None)
claim("at_most_understated", "witness", at_most=W.at_most / NUDGE - TINY)
claim("at_most_below_the_margin", "witness", at_most=W.margin / 2)
claim("ceiling_of_own_row", "witness", ceiling=Multipliers((0,), (1,)), at_most=Fraction(0))
claim("ceiling_on_a_cone", "cone_witness", ceiling=Multipliers((1,), (1,)), at_most=Fraction(99))
claim("residual_negated", "witness", residual=replace(W.residual, p=tuple(-x for x in W.residual.p)))
claim("residual_of_another_token", "witness", residual=Residual((0, 5, 0, 0), 0, "F32"))
claim("residual_constant_on_sphere", "sphere", residual=Residual((1, 1, 1, 1), 0, "F32"))
claim("residual_inexact_in_its_dtype", "witness", residual=Residual(((1 << 24) + 1, 0, 0, 0), 0, "F32"))
claim("residual_below_its_dtype", "witness", residual=Residual((1, 0, 0, 0), 25, "F16"))
claim("residual_above_its_dtype", "witness", residual=Residual((1 << 16, 0, 0, 0), 0, "F16"))
claim("residual_too_short", "sphere", residual=Residual((1, 0, 0), 0, "F32"))
claim("residual_off_the_readout", "cone_witness", state=None, residual=Residual((1, 0, 0, 0), 0, "F32"))
claim("z_form_on_the_sphere", "sphere", state=State((1, 0, 0, 0), 2), residual=None)

for b in ("ball", "space", "box", "cone"):
    r, v = claim_of(b).multipliers.rows, claim_of(b).multipliers.values
    V, d = BASES[b].readout.vocabulary, BASES[b].readout.d
    zero, east = State((0,) * d, 0), State((1,) + (0,) * (d - 1), 4)
    for name, m in (
        ("negative_multiplier", Multipliers(r, (-v[0], *v[1:]))),
        ("all_multipliers_negative", Multipliers(r, tuple(-x for x in v))),
        ("zero_multiplier", Multipliers(r, (0, *v[1:]))),
        ("all_multipliers_zero", Multipliers(r, (0,) * len(v))),
        ("own_row_alone", Multipliers((4,), (1,))),
        ("own_row_added", Multipliers((*r, 4), (*v, max(v)))),
        ("duplicate_row", Multipliers((*r, r[0]), (*v, 1))),
        ("row_out_of_range", Multipliers((*r[:-1], 1 << 40), v)),
        ("row_one_past_the_end", Multipliers((*r[:-1], V), v)),
        ("row_dropped", Multipliers(r[1:], v[1:])),
        ("value_missing", Multipliers(r, v[1:])),
        ("first_multiplier_a_thousandfold", Multipliers(r, (1000 * v[0], *v[1:]))),
    ):
        claim(f"{b}_{name}", b, multipliers=m)
    claim(f"{b}_gap_overstated", b, gap=claim_of(b).gap * NUDGE + TINY)
    claim(f"{b}_gap_negative", b, gap=Fraction(-1))
    claim(f"{b}_called_tie_only_without_a_tie", b, kind="tie-only")
    claim(f"{b}_called_tie_only_with_a_losing_tie", b, kind="tie-only", tie=east)
    claim(f"{b}_called_tie_only_with_the_zero_tie", b, kind="tie-only", tie=zero)
    claim(f"{b}_never_with_a_tie", b, tie=zero)
    FORGERIES[f"{b}_turned_into_a_witness"] = with_claim(BASES[b], Speakable(TINY, east))
claim("tie_called_never", "tie", kind="never", tie=None)
claim("tie_called_never_with_its_tie", "tie", kind="never")
claim("tie_unsettled_with_its_tie", "tie", kind="unsettled")
claim("tie_with_a_gap", "tie", gap=TINY)
claim("tie_at_another_state", "tie", tie=State((0, 1), 0))
claim("tie_moved_by_a_millionth", "tie", tie=State((1 << 20, 1), 20))
claim("tie_outside_the_ball", "tie", tie=State((2, 0), 0))
claim("twins_called_never", "twins", kind="never", tie=None)
claim("twins_with_a_gap", "twins", gap=TINY)
claim("twins_by_a_row_that_is_not_equal", "twins", multipliers=Multipliers((2,), (1,)))
claim("support_of_other_rows", "support", multipliers=Multipliers((0, 1), None))
claim("support_repeats_a_row", "support", multipliers=Multipliers((0, 3, 3), None))
claim("support_too_large_to_solve", "support", multipliers=Multipliers((0, 1, 2, 3), None))
claim("support_with_a_gap_too_large", "support", gap=Fraction(3))

OTHER = tensor("unembedding", [[float(y) + (x == 0) for y in row] for x, row in enumerate(LN.W)])
for b in ("witness", "ball", "box", "sphere", "box_witness"):
    readout, ids = BASES[b].readout, tensor_ids(BASES[b].readout)
    weights("other_weights", b, unembedding=OTHER)
    weights("gain_and_shift_swapped", b, gain=readout.shift, shift=readout.gain)
    weights("bias_dropped_from_the_model", b, bias=None)
    weights("gain_dropped_from_the_model", b, gain=None)
    for role in ("bias", "gain", "shift"):
        rest = {name: x for name, x in ids.items() if name != role}
        statement(f"{role}_dropped_from_the_statement", b, tensors=rest)
    swapped = {**ids, "gain": ids["shift"], "shift": ids["gain"]}
    statement("gain_and_shift_swapped_in_the_statement", b, tensors=swapped)
    statement("norm_changed", b, norm="rmsnorm")
    statement("epsilon_changed", b, epsilon=Fraction(1, 10**6))
    statement("gain_offset_changed", b, gain_offset=1)
    statement("competitors_reduced", b, competitors=3)
    statement("competitors_beyond_the_rows", b, competitors=9)
    statement("token_changed", b, token=5)
    for field, value in (("dtype", "BF16"), ("shape", (4, 8)), ("sha256", "0" * 64)):
        other: Any = {field: value}
        tensors = {**ids, "unembedding": replace(ids["unembedding"], **other)}
        statement(f"{field}_of_the_unembedding_changed", b, tensors=tensors)
for b, into in (
    ("cone_witness", "box:0.001"), ("ball", "free"), ("ball", "direction"), ("ball", "box:1000"),
    ("box", "box:1000"), ("box", "free"), ("box_witness", "box:0.01"), ("space", "direction"),
):  # fmt: skip
    statement(f"evidence_in_{into}", b, domain=parse_domain(into))


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_refused(name: str) -> None:
    forged = FORGERIES[name]
    certificate = from_bytes(to_bytes(forged.certificate))
    assert certificate == forged.certificate
    with pytest.raises(RefutedError):
        prove(certificate, forged.readout)


def test_forgeries_differ_from_their_bases() -> None:
    """Guard: each is another certificate, or meets other weights."""
    bases = [(x.certificate, x.readout) for x in BASES.values()]
    assert len(FORGERIES) >= 150
    assert not [name for name, x in FORGERIES.items() if (x.certificate, x.readout) in bases]


def test_an_empty_support_proves_nothing() -> None:
    """It cannot be written to a file at all, so `prove` does not take it either."""
    for values in (None, ()):
        empty = replace(claim_of("support"), multipliers=Multipliers((), values))
        forged = with_claim(BASES["support"], empty)
        with pytest.raises(MalformedError):
            prove(forged.certificate, forged.readout)


@pytest.mark.parametrize("rows", [(0, 6), (4,)], ids=["out_of_range", "own_row"])
def test_supports_out_of_range_are_refused(rows: tuple[int, ...]) -> None:
    forged = with_claim(BASES["support"], replace(claim_of("support"), multipliers=Multipliers(rows, None)))
    with pytest.raises(RefutedError):
        prove(from_bytes(to_bytes(forged.certificate)), forged.readout)


@pytest.mark.parametrize("changes", [{"token": 8}, {"competitors": 9}, {"competitors": 0}], ids=str)
@pytest.mark.parametrize("base", ["witness", "ball"])
def test_tokens_and_competitors_out_of_range_are_refused(changes: dict[str, Any], base: str) -> None:
    b = BASES[base]
    rule = "all" if "token" in changes else "tokenizer"
    forged = replace(b.certificate.statement, competitor_rule=rule, **changes)
    with pytest.raises(RefutedError):
        prove(replace(b.certificate, statement=forged), b.readout)


@pytest.mark.parametrize("name", ["witness", "box_witness", "cone_witness"])
def test_neighbours_of_a_state_are_accepted_exactly_when_true(name: str) -> None:
    """A coordinate moved by one: accepted iff the definition gives at least the claimed margin."""
    base, c = BASES[name], claim_of(name)
    s, refused = base.certificate.statement, 0
    for i in range(len(c.state.p)):
        for step in (-(1 << 30), -1, 1, 1 << 30):
            p = tuple(x + step * (k == i) for k, x in enumerate(c.state.p))
            state = State(p, c.state.k)
            try:
                z = z_of(state, base.model.norm, s.domain.name)
                true = witness_margin(base.model, s.token, s.domain.name, z) >= c.margin
            except ValueError:
                true = False
            forged = replace(c, state=state, ceiling=None, at_most=None)
            refused += not true
            with nullcontext() if true else pytest.raises(RefutedError):
                prove(with_claim(base, forged).certificate, base.readout)
    assert refused >= len(c.state.p)

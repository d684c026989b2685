"""The standalone auditor on evidence: every form accepted where it holds, refused where it does not."""

import json
import math
import random
import re
import struct
from fractions import Fraction

import pytest
from desk import (
    DOC,
    DOMAINS,
    HAND,
    INSIDE,
    Desk,
    Model,
    Truth,
    audit,
    bundle,
    certificate,
    pack,
    residual,
    speakable,
    state,
    unspeakable,
)

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

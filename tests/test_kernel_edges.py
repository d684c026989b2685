"""The kernel's own guards, one by one: what no certificate can reach through `prove`, and exact boundaries.

With the other tests of verify/kernel these reach every branch of it (.ci/run asks for 100 %).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_models import model, tensor

from verify.errors import (
    MalformedError,
    ModelUnavailableError,
    OversizedError,
    RefutedError,
    UsageError,
)
from verify.kernel import (
    DIRECTION,
    FREE,
    READOUT,
    Certificate,
    Domain,
    Multipliers,
    Readout,
    Residual,
    Speakable,
    State,
    Statement,
    System,
    Tensor,
    parse_domain,
    prove,
    strict_json,
    tensor_ids,
)
from verify.kernel import check as kernel_check
from verify.kernel import filter as kernel_filter
from verify.kernel.check import (
    _sign,
    check_bound,
    check_never,
    check_residual,
    check_tie,
    check_witness,
    combine,
    residual_margin,
    state_margin,
)
from verify.kernel.filter import possible_maximisers
from verify.kernel.safetensors import read_tensors
from verify.kernel.solve import determines, linear_relation, solve_support
from verify.kernel.statement import decimal_text
from verify.kernel.tensor import representable, unit_exponent

SQUARE = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0], [1, 0]]
READY = model(SQUARE, "rmsnorm", dtype="F32").readout


def statement(readout: Readout, token: int, domain: Domain = READOUT, **fields: Any) -> Statement:
    first = Statement(
        "m", None, tensor_ids(readout), readout.norm, readout.gain_offset, readout.epsilon, "", {}, token,
        None, domain, readout.vocabulary, "all",
    )  # fmt: skip
    return replace(first, **fields)


def system(token: int = 0, domain: Domain = READOUT, readout: Readout = READY, count: int = 6) -> System:
    return System(readout, domain, token, count)


def test_check_witness_itself_refuses_a_margin_of_zero() -> None:
    state = State((1, 1), 1)
    with pytest.raises(RefutedError, match="positive"):
        check_witness(system(), state, Fraction(0))
    check_witness(system(), state, state_margin(system(), state)[0])


def test_combine_itself_refuses_a_bare_support() -> None:
    with pytest.raises(RefutedError, match="proves nothing"):
        combine(system(4), Multipliers((0, 3), None))


@pytest.mark.parametrize("residual", [None, Residual((1, 1), 0, "F32")])
def test_a_witness_needs_a_competitor(residual: Residual | None) -> None:
    """The only row below `competitors` is the token's own."""
    claim = Speakable(Fraction(1, 100), State((1, 1), 1) if residual is None else None, residual)
    s = statement(READY, 0, competitors=1, competitor_rule="tokenizer")
    with pytest.raises(RefutedError, match="no competitors"):
        prove(Certificate(s, claim), READY)


def test_a_state_beyond_floats_has_every_row_compared() -> None:
    huge = [1 << 1030, 0]
    assert possible_maximisers(READY.unembedding, None, huge, 1, 0, 6, 0) == [1, 2, 3, 4, 5]
    wide = [1 << 1023, 0]
    assert possible_maximisers(READY.unembedding, None, wide, 1, 0, 6, 2, slack=1 << 1023) == [0, 1, 3, 4, 5]


def test_a_file_that_cannot_be_mapped_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = safetensors_file(tmp_path)
    assert read_tensors(path, {"w"})["w"].shape == (2, 1)

    def fails(*_: object, **__: object) -> None:
        raise OSError("no more maps")

    with monkeypatch.context() as patch:
        patch.setattr(np, "memmap", fails)
        with pytest.raises(ModelUnavailableError, match="cannot map"):
            read_tensors(path, {"w"})


def test_a_file_that_shrinks_while_it_is_read_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = safetensors_file(tmp_path)
    short = np.frombuffer(path.read_bytes()[:-1], dtype=np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(np, "memmap", lambda *_, **__: short)
        with pytest.raises(ModelUnavailableError, match="changed while it was read"):
            read_tensors(path, {"w"})
    true = os.fstat

    def larger(descriptor: int) -> Any:
        class Stat:
            st_size = true(descriptor).st_size + 1000

        return Stat()

    path.write_bytes((60).to_bytes(8, "little") + b"{}")
    monkeypatch.setattr(os, "fstat", larger)
    with pytest.raises(ModelUnavailableError, match="truncated within the header"):
        read_tensors(path, {"w"})


def safetensors_file(folder: Path) -> Path:
    header = b'{"w":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}}'
    path = folder / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\1\2\3")
    return path


def test_epsilon_without_norm_is_refuted() -> None:
    bare = model(SQUARE, "none", dtype="F32").readout
    claim = Speakable(Fraction(1), State((1, 1), 0))
    assert prove(Certificate(statement(bare, 0), claim), bare).verdict == "speakable"
    strange = replace(bare, epsilon=Fraction(1, 2))
    with pytest.raises(RefutedError, match="no norm"):
        prove(Certificate(statement(strange, 0), claim), strange)


def test_decimals_are_exact_or_refused() -> None:
    for value, text in (
        (0, "0"),
        (1, "1"),
        (10, "10"),
        (Fraction(1, 10**5), "0.00001"),
        (Fraction(5, 4), "1.25"),
    ):
        assert decimal_text(Fraction(value)) == text
    assert decimal_text(Fraction(1, 10**200)) == "0." + "0" * 199 + "1"
    for value in (Fraction(1, 3), Fraction(1, 10**201)):
        with pytest.raises(MalformedError):
            decimal_text(value)


def test_limits_are_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each limit a value passes, one beyond it is oversized."""
    monkeypatch.setattr(strict_json, "MAX_ITEMS", 3)
    assert strict_json.words("1 2 3", "x") == ["1", "2", "3"]
    with pytest.raises(OversizedError):
        strict_json.words("1 2 3 4", "x")
    assert strict_json.text("x" * (1 << 16), "x") == "x" * (1 << 16)
    with pytest.raises(OversizedError):
        strict_json.text("x" * ((1 << 16) + 1), "x")
    for sign in ("", "-"):
        assert strict_json.hex_list(sign + "f" * 9, "x", 9) == (int(sign + "f" * 9, 16),)
        with pytest.raises(OversizedError):
            strict_json.hex_list(sign + "f" * 10, "x", 9)
    digits = strict_json.FRACTION_DIGITS
    assert strict_json.fraction("1/" + "f" * digits, "x") == Fraction(1, 16**digits - 1)
    for text in ("1/" + "f" * (digits + 1), "f" * (digits + 1) + "/1", "-" + "f" * (digits + 1) + "/1"):
        with pytest.raises(OversizedError):
            strict_json.fraction(text, "x")
    assert strict_json.count(1 << 40, "x") == 1 << 40
    with pytest.raises(MalformedError):
        strict_json.count((1 << 40) + 1, "x")
    items = (1 << 16) - 2
    inside = b'{"a":[' + b"1," * items + b"1]}"
    assert inside.count(b",") + 2 == 1 << 16
    assert len(strict_json.parse(inside)["a"]) == items + 1
    with pytest.raises(OversizedError):
        strict_json.parse(b'{"a":[1,' + b"1," * items + b"1]}")
    monkeypatch.setattr(strict_json, "MAX_BYTES", 2)
    assert strict_json.parse(b"{}") == {}
    with pytest.raises(OversizedError):
        strict_json.parse(b"{}\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm": "batchnorm"}, "norm kind"),
        ({"unembedding": tensor("w", [1, 2])}, "one row a token"),
        ({"unembedding": Tensor("w", "F32", np.zeros((0, 2), "<u4"))}, "one row a token"),
        ({"unembedding": Tensor("w", "F32", np.zeros((2, 0), "<u4"))}, "one row a token"),
        ({"gain": tensor("g", [1, 2, 3])}, "gain"),
        ({"gain": tensor("g", [[1, 2]])}, "gain"),
        ({"shift": tensor("b", [1])}, "shift"),
        ({"bias": tensor("c", [1, 2])}, "bias"),
        ({"norm": "layernorm", "unembedding": tensor("w", [[1], [2]])}, "LayerNorm of one coordinate"),
        ({"epsilon": Fraction(-1)}, "epsilon"),
        ({"gain_offset": 2}, "gain_offset"),
        ({"gain_offset": -1}, "gain_offset"),
    ],
)
def test_readouts_that_make_no_sense(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelUnavailableError, match=words):
        replace(READY, **changes)


def test_the_fingerprint_depends_on_every_tensor_and_role() -> None:
    g, b = tensor("g", [1, 2]), tensor("b", [2, 1])
    variants = [READY, replace(READY, gain=g), replace(READY, shift=g), replace(READY, gain=b, shift=g)]
    variants.append(replace(READY, gain=g, shift=b))
    assert len({r.fingerprint for r in variants}) == len(variants)
    assert list(replace(READY, shift=b, gain=g).tensors) == ["unembedding", "gain", "shift"]


# --- exact boundaries of the checks --------------------------------------------------------------


def test_the_ball_is_open_and_the_box_is_closed() -> None:
    """|z|^2 = d is outside; |x_i| = B is inside."""
    inside = State(((1 << 40) - 1, 1 << 40), 40)
    assert state_margin(system(), inside)[0] > 0
    with pytest.raises(RefutedError, match="outside the norm"):
        state_margin(system(), State((1, 1), 0))
    box = system(domain=parse_domain("box:0.5"))
    assert state_margin(box, State((1, 1), 1))[0] == 1 / Fraction(2)
    assert state_margin(box, State((-1, -1), 1))[0] < 0
    for p in ((2, 1), (1, -2)):
        with pytest.raises(RefutedError, match="leaves the box"):
            state_margin(box, State(p, 1))


def test_signs_of_a_plus_e_times_a_root() -> None:
    """All sign patterns, and the equality a = -e sqrt(q), against the definition with q a square."""
    for root in (1, 2, 3):
        for a in range(-7, 8):
            for e in range(-3, 4):
                value = a + e * root
                assert _sign(a, e, Fraction(root * root)) == (value > 0) - (value < 0)
    assert _sign(3, -2, Fraction(2)) == 1
    assert _sign(-3, 2, Fraction(2)) == -1
    assert _sign(Fraction(7, 5), -1, Fraction(2)) == -1
    assert _sign(Fraction(-7, 5), 1, Fraction(2)) == 1


def test_the_margin_at_a_residual_vector_is_compared_exactly() -> None:
    """r = (3, 4) without norm: the margin over row 5 is 4 - ... exact; one unit more is refused."""
    bare = model(SQUARE, "none", dtype="F32").readout
    s = System(bare, READOUT, 0, 6)
    r = Residual((3, 4), 0, "F32")
    check_residual(s, r, Fraction(4))
    check_residual(s, r, None)
    assert residual_margin(s, r) <= 4
    assert 4 - residual_margin(s, r) < Fraction(1, 1 << 180)
    with pytest.raises(RefutedError, match="less than claimed"):
        check_residual(s, r, 4 + Fraction(1, 1 << 300))
    with pytest.raises(RefutedError, match="not below"):
        check_residual(s, Residual((3, 0), 0, "F32"), None)
    sphere = replace(READY, epsilon=Fraction(0))
    on = System(sphere, READOUT, 0, 6)
    assert residual_margin(on, Residual((1, 1), 0, "F32")) <= 1
    check_residual(on, Residual((1, 1), 0, "F32"), Fraction(1))
    with pytest.raises(RefutedError, match="less than claimed"):
        check_residual(on, Residual((1, 1), 0, "F32"), 1 + Fraction(1, 1 << 300))


def test_bounds_hold_with_equality() -> None:
    """D_0 = (-1, -1), alone: |u| sqrt(d) = 2 on the ball; on box:1 |u|_1 = 2; a nudge less is refused."""
    c = combine(system(4), Multipliers((0,), (1,)))
    nudge = Fraction(1, 1 << 100)
    check_bound(system(4), c, Fraction(2))
    check_bound(system(4, parse_domain("box:1")), c, Fraction(2))
    for domain in (READOUT, parse_domain("box:1")):
        with pytest.raises(RefutedError, match="do not prove"):
            check_bound(system(4, domain), c, 2 - nudge)
    for domain in (DIRECTION, FREE):
        with pytest.raises(RefutedError, match="do not cancel"):
            check_bound(system(4, domain), c, Fraction(100))
        both = combine(system(4, domain), Multipliers((0, 3), (1, 1)))
        check_bound(system(4, domain), both, Fraction(0))
        with pytest.raises(RefutedError, match=r"v > bound"):
            check_bound(system(4, domain), both, -nudge)


def test_never_needs_the_whole_span() -> None:
    """Multipliers that cancel on one line leave the states across it; on two lines they leave zero alone."""
    for domain in (READOUT, DIRECTION, FREE, parse_domain("box:1")):
        s = system(4, domain)
        with pytest.raises(RefutedError, match="do not exclude"):
            check_never(s, combine(s, Multipliers((0, 3), (1, 1))))
        check_never(s, combine(s, Multipliers((0, 1, 2, 3), (1, 1, 1, 1))))


def test_on_the_sphere_never_needs_a_strict_bound() -> None:
    """D = (-1, -1), e = -2: the margin is 0 at z = (-1, -1), |z|^2 = d. With e = -9/4 it is nowhere."""
    for bias, never in ((2, False), (2.25, True)):
        readout = model([[1, 1], [0, 0]], "rmsnorm", bias=[bias, 0], epsilon=Fraction(0)).readout
        s = system(1, readout=readout, count=2)
        c = combine(s, Multipliers((0,), (1,)))
        check_bound(s, c, Fraction(0))
        if never:
            check_never(s, c)
        else:
            with pytest.raises(RefutedError, match="do not exclude"):
                check_never(s, c)


def test_ties_at_the_boundary_and_at_zero() -> None:
    check_tie(system(5), State((1, 0), 0))
    with pytest.raises(RefutedError, match="zero state"):
        check_tie(system(5), State((0, 0), 0))
    with pytest.raises(RefutedError, match="above the token"):
        check_tie(system(5), State((1 << 20, 1), 20))


def test_relations_among_vectors() -> None:
    """The unique relation up to scale, primitive, first entry positive; else None."""
    assert linear_relation([[0, 0]]) == [1]
    assert linear_relation([[1, 0]]) is None
    assert linear_relation([[2, 0], [-4, 0]]) == [2, 1]
    assert linear_relation([[2, 0], [4, 0]]) == [2, -1]
    assert linear_relation([[1, 0], [0, 1]]) is None
    assert linear_relation([[1, 0], [0, 1], [-3, -5]]) == [3, 5, 1]
    assert linear_relation([[1, 1], [2, 2], [3, 3]]) is None
    assert linear_relation([[0, 0], [1, 2], [-1, -2]]) is None
    assert linear_relation([[6, 0, 6], [0, 10, 10], [-15, -15, -30]]) == [5, 3, 2]


def test_solved_supports() -> None:
    assert solve_support(system(4), (0, 3)) == (1, 1)
    assert solve_support(system(4), (3, 0)) == (1, 1)
    for rows, words in (
        ((), "empty"),
        ((0, 0), "repeats"),
        ((0, 1), "not determine"),
        ((0, 1, 2, 3), "not determine"),
    ):
        with pytest.raises(RefutedError, match=words):
            solve_support(system(4), rows)
    with pytest.raises(RefutedError, match="not all positive"):
        solve_support(system(3), (0, 4))
    with pytest.raises(UsageError):
        solve_support(system(4), (0, 4))


def test_systems_out_of_range() -> None:
    for count in (0, 7):
        with pytest.raises(UsageError, match="not all rows"):
            System(READY, READOUT, 0, count)
    for token in (-1, 6):
        with pytest.raises(UsageError, match="out of range"):
            System(READY, READOUT, token, 6)
    s = System(READY, READOUT, 5, 3)
    assert [x.row for x in s.differences([0, 2])] == [0, 2]
    for row in (-1, 3, 5):
        with pytest.raises(UsageError, match="not a competitor"):
            s.differences([row])


# --- against the definitions, in mixed dtypes -----------------------------------------------------


def exact(t: Tensor | None, size: int, default: int) -> list[Fraction]:
    """A vector's values as fractions."""
    if t is None:
        return [Fraction(default)] * size
    return [x * Fraction(2) ** unit_exponent(t.dtype) for x in t.vector()]


MIXED = [
    (w, g, b, c)
    for w in ("F16", "F32", "BF16")
    for g, b, c in (("F32", "F16", "F64"), ("F64", "BF16", "F16"), (None, "F32", "F16"), ("F16", None, None))
]


@pytest.mark.parametrize(("w", "g", "b", "c"), MIXED)
def test_integers_of_all_units_are_folded_as_defined(w: str, g: Any, b: Any, c: Any) -> None:
    """Theorem 3 (i) to (iii), with gains that share powers of two and biases in finer and coarser units."""
    W: list[list[float]] = [[1, -2, 0.5], [0.25, 8, -1], [3, 0, 1], [-4, 1, 0.125]]
    readout = Readout(
        norm="rmsnorm",
        unembedding=tensor("w", W, w),
        gain=None if g is None else tensor("g", [4, 8, -16], g),
        shift=None if b is None else tensor("b", [0.5, -0.25, 2], b),
        bias=None if c is None else tensor("c", [1, -0.5, 3, 0.0625], c),
        gain_offset=int(g == "F32"),
        epsilon=Fraction(1, 10**5),
    )
    gain = [x + readout.gain_offset for x in exact(readout.gain, 3, 1)]
    assert (System(readout, READOUT, 0, 4)._gain_unit != 0) == (g in ("F64", "F16"))
    shift, bias = exact(readout.shift, 3, 0), exact(readout.bias, 4, 0)
    z = [Fraction(5, 4), Fraction(-3, 4), Fraction(7, 4)]
    for name in ("readout", "free", "direction"):
        s = System(readout, parse_domain(name), 0, 4)
        unit = Fraction(2) ** s.unit
        own = [[Fraction(x) for x in row] for row in W]
        h: list[Fraction]
        if name != "free":
            h = [x * y + (q if s.biased else 0) for x, y, q in zip(gain, z, shift, strict=True)]
        else:
            h = list(z)
        logit = [
            sum(x * y for x, y in zip(row, h, strict=True)) + (bias[j] if s.biased else 0)
            for j, row in enumerate(own)
        ]
        for x in s.differences([1, 2, 3]):
            value = sum(p * q for p, q in zip(x.D, z, strict=True)) + x.e
            assert value * unit == logit[0] - logit[x.row]
        g_, s_, low = s.final_state([5, -3, 7], 1, -2)
        values, at = s.logits([0, 1, 2, 3], g_, s_, low)
        assert [v * Fraction(2) ** at for v in values] == logit
        g_, s_, low = s.final_state([15, -9, 21], 3, -2)
        values, at = s.logits([0, 1, 2, 3], g_, s_, low)
        assert [v * Fraction(2) ** at for v in values] == [3 * x for x in logit]


def test_an_offset_is_added_to_a_stored_gain_only() -> None:
    bare = replace(READY, gain_offset=1)
    stored = replace(READY, gain=tensor("g", [0, 0]), gain_offset=1)
    (a,), (b,) = (System(r, READOUT, 0, 6).differences([4]) for r in (bare, stored))
    (plain,) = system(0).differences([4])
    assert a == plain
    scale = Fraction(2) ** (System(stored, READOUT, 0, 6).unit - system(0).unit)
    assert [x * scale for x in b.D] == plain.D


def test_in_direction_the_filter_sees_no_bias() -> None:
    """Row 1 is above the token, and only without its bias: with it, row 2 would be the one rival returned."""
    built = Readout(
        norm="none",
        unembedding=tensor("w", [[1, 0], [2, 0], [0, 0]]),
        bias=tensor("c", [0, -1000, 1000]),
    )
    s = System(built, DIRECTION, 0, 3)
    assert state_margin(s, State((1, 0), 0)) == (Fraction(-1), [1])
    claim = Speakable(Fraction(1), State((1, 0), 0))
    with pytest.raises(RefutedError, match="leads row 1"):
        prove(Certificate(statement(built, 0, DIRECTION), claim), built)


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_never_in_a_box_is_strict(norm: str) -> None:
    """v = -4 and |Pu|_1 = 2: the corner of box:2 ties, that of a smaller box does not."""
    built = Readout(
        norm=norm,
        unembedding=tensor("w", [[0, 0], [1, -1]]),
        bias=tensor("c", [0, 4]),
        epsilon=Fraction(1, 10**5),
    )
    for name, strict in (("box:1.9", True), ("box:2", False)):
        s = System(built, parse_domain(name), 0, 2)
        c = combine(s, Multipliers((1,), (1,)))
        check_bound(s, c, Fraction(0))
        if strict:
            check_never(s, c)
        else:
            with pytest.raises(RefutedError, match="do not exclude"):
                check_never(s, c)


# --- residual vectors -----------------------------------------------------------------------------


def test_a_residual_beside_a_state_need_only_lead() -> None:
    """By half a unit of the exact arithmetic, and by less than the margin claimed of the state."""
    bare = Readout(norm="none", unembedding=tensor("w", [[1], [0]], "F16"))
    tiny = Residual((1,), 20, "F16")
    s = System(bare, READOUT, 0, 2)
    assert residual_margin(s, tiny) > 0
    claim = Speakable(Fraction(5), State((5,), 0), tiny)
    assert prove(Certificate(statement(bare, 0), claim), bare).verdict == "speakable"
    with pytest.raises(RefutedError, match="less than claimed"):
        prove(Certificate(statement(bare, 0), replace(claim, state=None)), bare)
    smallest = Readout(norm="none", unembedding=Tensor("w", "F16", np.array([[1], [0]], "<u2")))
    check_residual(System(smallest, READOUT, 0, 2), Residual((1,), 1, "F16"), None)


def test_residual_margins_are_tight_lower_bounds() -> None:
    """With sqrt(q) rational the true margin is exact: the bound is below it, by less than 2^-180."""
    near = Fraction(1, 1 << 180)
    for k in (0, 3):
        for p in ((3, 4), (8, -1), (1, 7)):
            for bias in ([0, 0, 0], [1, 0.25, -7], [3, 0.5, 2]):
                built = Readout(
                    norm="none",
                    unembedding=tensor("w", [[1, 1], [1, 0], [0, -1]]),
                    bias=tensor("c", bias),
                )
                s = System(built, READOUT, 0, 3)
                r = [Fraction(x, 1 << k) for x in p]
                rows = [[1, 1], [1, 0], [0, -1]]
                logit = [
                    sum(x * y for x, y in zip(w, r, strict=True)) + Fraction(c)
                    for w, c in zip(rows, bias, strict=True)
                ]
                true = logit[0] - max(logit[1:])
                residual = Residual(p, k, "F32")
                if true <= 0:
                    with pytest.raises(RefutedError, match="not below"):
                        check_residual(s, residual, None)
                    continue
                assert true - near < residual_margin(s, residual) <= true
                check_residual(s, residual, true)
                with pytest.raises(RefutedError, match="less than claimed"):
                    check_residual(s, residual, true + near)


def test_residual_margins_are_lower_bounds_where_the_root_is_irrational() -> None:
    """s = 1/2: margins are sqrt(2), and 2 - sqrt(2) with a bias; compared as squares."""
    near = Fraction(1, 1 << 180)
    for rows, bias in (([[1, 0], [0, 0]], [0, 0]), ([[0, 0], [1, 0]], [2, 0])):
        built = Readout(norm="rmsnorm", unembedding=tensor("w", rows), bias=tensor("c", bias))
        found = residual_margin(System(built, READOUT, 0, 2), Residual((1, 0), 0, "F32"))
        root = found if not any(bias) else 2 - found
        low, high = (root, root + near) if not any(bias) else (root - near, root)
        assert low * low < 2 < high * high


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_epsilon_counts_at_a_residual_vector(norm: str) -> None:
    """epsilon = 3 and s = 1 + 3 = 4: the token leads by 1/2 - 1/4, and with a bias of -1/2 it does not."""
    rows = [[1, 0], [0, 0]] if norm == "rmsnorm" else [[1, -1], [0, 0]]
    r = Residual((1, 1), 0, "F32") if norm == "rmsnorm" else Residual((1, -1), 0, "F32")
    lead = Fraction(1, 2) if norm == "rmsnorm" else Fraction(1)
    for bias, margin in ((-0.25, lead - Fraction(1, 4)), (-1.0, lead - 1)):
        built = Readout(
            norm=norm, unembedding=tensor("w", rows), bias=tensor("c", [bias, 0]), epsilon=Fraction(3)
        )
        s = System(built, READOUT, 0, 2)
        if margin > 0:
            check_residual(s, r, margin)
            with pytest.raises(RefutedError, match="less than claimed"):
                check_residual(s, r, margin + Fraction(1, 1 << 99))
        else:
            with pytest.raises(RefutedError, match="not below"):
                check_residual(s, r, None)


# --- reading and decoding -------------------------------------------------------------------------


def test_lists_and_bytes_may_be_longer_than_texts() -> None:
    long = " ".join(["1"] * 40_000)
    assert len(strict_json.words(long, "x")) == 40_000
    assert strict_json.raw_bytes("00" * 40_000, "x") == bytes(40_000)


def test_the_filter_reads_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and biases in blocks of two: the maximiser is found wherever it lies."""
    monkeypatch.setattr(kernel_filter, "_BLOCK_BYTES", 32)
    for best in range(7):
        w = tensor("w", [[1.0, j == best] for j in range(7)])
        c = tensor("c", [2.0 * (j == best) for j in range(7)])
        token = (best + 1) % 7
        assert possible_maximisers(w, None, [0, 1], 1, 0, 7, token) == [best]
        assert possible_maximisers(w, c, [0, 0], 1, 0, 7, token) == [best]
    for bad in (float("inf"), float("-inf"), float("nan")):
        c = tensor("c", [0, 0, 0, 0, 0, bad, 0])
        assert possible_maximisers(w, c, [0, 0], 1, 0, 7, 0) == [1, 2, 3, 4, 5, 6]
        v = tensor("w", [[0, 0], [0, 0], [0, 0], [bad, 0]])
        assert possible_maximisers(v, None, [1, 1], 1, 0, 4, 0) == [1, 2, 3]


def test_a_filter_wider_than_its_theorem_returns_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert possible_maximisers(READY.unembedding, None, [1, 1], 1, 0, 6, 0) == [5]
    monkeypatch.setattr(kernel_filter, "_MAX_WIDTH", 2)
    assert possible_maximisers(READY.unembedding, None, [1, 1], 1, 0, 6, 0) == [5]
    monkeypatch.setattr(kernel_filter, "_MAX_WIDTH", 1)
    assert possible_maximisers(READY.unembedding, None, [1, 1], 1, 0, 6, 0) == [1, 2, 3, 4, 5]


def test_finite_is_asked_of_every_value_and_named_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((5, 3), "<f4")
    Tensor("t", "F32", values.view("<u4")).require_finite()
    largest = np.full((2, 2), np.finfo("<f4").max, "<f4")
    Tensor("t", "F32", largest.view("<u4")).require_finite()
    for place in ((0, 0), (4, 2), (2, 1)):
        for bad in (np.nan, np.inf, -np.inf):
            values[...] = 0
            values[place] = bad
            with pytest.raises(ModelUnavailableError, match=re.escape(str(list(place)))):
                Tensor("t", "F32", values.view("<u4")).require_finite()
    long = np.zeros(1 << 23, "<f2")
    long[-1] = np.inf
    with pytest.raises(ModelUnavailableError, match=re.escape(f"[{(1 << 23) - 1}]")):
        Tensor("t", "F16", long.view("<u2")).require_finite()


def test_the_largest_and_smallest_values_of_a_dtype_are_representable() -> None:
    assert representable(65504, 0, "F16")
    assert not representable(65520, 0, "F16")
    assert not representable(65536, 0, "F16")
    assert representable(((1 << 24) - 1) << 104, 0, "F32")
    assert not representable(1 << 128, 0, "F32")
    assert representable(1, 24, "F16")
    assert not representable(1, 25, "F16")
    assert representable(-(1 << 11), 0, "F16")
    assert not representable((1 << 11) + 1, 0, "F16")
    assert representable(6 << 40, 40, "F16")


def test_a_header_may_fill_its_file_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert read_tensors(path) == {}
    for claimed in (3, 10, 17, 18):
        path.write_bytes(claimed.to_bytes(8, "little") + b"{}")
        with pytest.raises(ModelUnavailableError, match=f"a header of {claimed} bytes"):
            read_tensors(path)


def test_numbers_of_a_header_have_at_most_eighteen_digits(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for digits, words in ((18, "does not fill"), (19, "out of range")):
        header = b'{"w":{"dtype":"F16","shape":[' + b"9" * digits + b'],"data_offsets":[0,2]}}'
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
        with pytest.raises(ModelUnavailableError, match=words):
            read_tensors(path)
    for ones in (32, 33):
        header = b'{"w":{"dtype":"F16","shape":[' + b",".join([b"1"] * ones) + b'],"data_offsets":[0,2]}}'
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
        if ones == 32:
            assert read_tensors(path)["w"].shape == (1,) * 32
        else:
            with pytest.raises(ModelUnavailableError, match="malformed shape"):
                read_tensors(path)


def test_a_relation_with_zeros_is_not_positive() -> None:
    """D_0 and D_3 cancel, and a third row has no part in it: its multiplier would be 0."""
    with pytest.raises(RefutedError, match="not all positive"):
        solve_support(system(4), (0, 3, 5))
    assert linear_relation([[0, 0, 1], [0, 0, -1]]) == [1, 1]
    assert linear_relation([[0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, -1, -1]]) == [1, 1, 1]


def test_what_is_proved_says_from_what() -> None:
    claim = Speakable(Fraction(1, 2), State((1, 1), 1))
    assert prove(Certificate(statement(READY, 0), claim), READY).from_rows is False


def test_a_relation_that_holds_only_modulo_the_prime_is_none() -> None:
    """1 and 1 solve the first column; the second sums to the prime itself."""
    prime = (1 << 63) - 25
    assert linear_relation([[1, 5], [-1, prime - 5]]) is None
    assert linear_relation([[1, 5], [-1, -5]]) == [1, 1]


def test_multipliers_too_long_for_the_width_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_check, "_MAX_PRODUCT_BITS", 20)
    combine(system(4), Multipliers((0, 3), ((1 << 10) - 1, 1)))
    with pytest.raises(RefutedError, match="of that length"):
        combine(system(4), Multipliers((0, 3), (1 << 10, 1)))


def test_rivals_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state beyond floats: every row is a possible rival, decoded two at a time."""
    monkeypatch.setattr(kernel_check, "_MOST_ROWS", 2)
    for scale in (1, 1 << 1100):
        margin, nearest = state_margin(system(), State((scale, scale), scale.bit_length()))
        assert margin == Fraction(1, 2)
        assert nearest == [5]
    assert residual_margin(system(), Residual((1, 1), 0, "F32")) > 0
    margin, nearest = state_margin(system(4, DIRECTION), State((0, 1), 0))
    assert margin == -1
    assert nearest == [0, 2]


def test_a_support_that_determines_its_multipliers() -> None:
    """Two opposite corners of the square determine the multipliers of its centre, all four do not."""
    s = system(4)
    for rows, unique in (((0, 3), True), ((0, 1, 2, 3), False), ((0, 1), True), ((0,), True)):
        assert determines(s, rows) == unique
    assert solve_support(s, (0, 3)) == (1, 1)
    with pytest.raises(RefutedError):
        solve_support(s, (0, 1, 2, 3))

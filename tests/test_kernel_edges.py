"""The kernel's own guards, one by one: what no certificate can reach through `prove`, and exact boundaries.

With the other tests of verify/kernel these reach every branch of it (.ci/run asks for 100 %).
"""

from __future__ import annotations

import os
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
from verify.kernel.solve import linear_relation, solve_support
from verify.kernel.statement import decimal_text

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

"""Whether the field's programs as posed have a solution: known largest margins and radii, to the last bit."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.optimize import linprog

from verify.kernel.domain import DIRECTION, FREE, Domain
from verify.kernel.evidence import Multipliers, Speakable, State, Unspeakable
from verify.kernel.readout import Readout
from verify.kernel.tensor import Tensor
from verify.posed import Posed, stretched
from verify.propose.field import GRIVAS, OWN_ROW, WITHOUT_OWN_ROW

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from verify.kernel.evidence import Claim

SQUARE = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0], [1, 0]]
CORNER, CENTRE = 0, 4
UNSPEAKABLE = Unspeakable(Fraction(0), "unsettled", Multipliers((1,), (1,)))
UP = 1 + 2.0**-52


def readout(rows: Any, norm: str = "none", **parts: ArrayLike) -> Readout:
    def tensor(name: str, values: ArrayLike) -> Tensor:
        return Tensor(name, "F64", np.array(values, dtype="<f8").view("<u8"))

    others: dict[str, Any] = {role: tensor(role, values) for role, values in parts.items()}
    return Readout(norm, tensor("unembedding", rows), epsilon=Fraction(1, 100000), **others)


def posed(model: Readout, claim: Claim | None = None, count: int | None = None) -> Posed:
    return Posed(model, count or model.vocabulary, lambda *_: claim)


def test_the_own_row_makes_it_infeasible_for_every_token() -> None:
    for token in range(6):
        assert posed(readout(SQUARE)).feasible(OWN_ROW, token, 1e-9) is False


def test_a_padded_row_has_no_own_row_among_its_competitors() -> None:
    model = readout([[1, 0], [0, 1], [1, 1]])
    assert posed(model, count=2).feasible(OWN_ROW, 2, 1.0) is True
    assert posed(model, count=2).feasible(OWN_ROW, 1, 1e-9) is False


@pytest.mark.parametrize("claim", [None, Speakable(Fraction(1), State((3, 3), 0))])
@pytest.mark.parametrize(
    ("model", "largest"),
    [
        (readout(SQUARE), 1.0),
        (readout(SQUARE, bias=[9, 0, 0, 0, 0, 0]), 1.0),  # biases are dropped
        (readout(SQUARE, "rmsnorm", gain=[2, 0.5], shift=[9, 9]), 0.5),
        (readout([[1, 0], [0, 0]], "layernorm"), 1.0),  # (1, -1) is its own projection
        (readout([[3, 1], [1, 0]], "layernorm", gain=[1, 0.5]), 1.5),
    ],
)
def test_the_largest_margin_to_the_last_bit(model: Readout, largest: float, claim: Claim | None) -> None:
    found = posed(model, claim)
    assert found.feasible(WITHOUT_OWN_ROW, CORNER, largest / 4) is True
    assert found.feasible(WITHOUT_OWN_ROW, CORNER, largest) is True
    assert found.feasible(WITHOUT_OWN_ROW, CORNER, largest * UP) is False


def test_an_unspeakable_token_reaches_no_margin() -> None:
    assert posed(readout(SQUARE), UNSPEAKABLE).feasible(WITHOUT_OWN_ROW, CENTRE, 1e-300) is False
    # Without a claim the margin 0 can be proved only as the floats find multipliers that cancel.
    assert posed(readout(SQUARE)).feasible(WITHOUT_OWN_ROW, CENTRE, 1e-9) is False


@pytest.mark.parametrize("norm", ["none", "rmsnorm", "layernorm"])
def test_random_rows_as_a_linear_program_says(norm: str) -> None:
    rng = np.random.default_rng(7)
    W, gain = rng.normal(size=(400, 6)), rng.uniform(0.5, 2, size=6)
    a = W * gain
    if norm == "layernorm":
        a = a - a.mean(axis=1, keepdims=True)
    found = posed(readout(W, norm, gain=gain, bias=rng.normal(size=400)))
    for token in np.argsort(-np.linalg.norm(a, axis=1))[:20].tolist():
        D = a[token] - np.delete(a, token, axis=0)
        s = linprog(
            [0] * 6 + [-1],
            np.column_stack([-D, np.ones(399)]),
            np.zeros(399),
            bounds=[(-1, 1)] * 6 + [(None, None)],
        ).x[6]
        if s < 1e-6:
            continue
        assert found.feasible(WITHOUT_OWN_ROW, token, float(s * (1 - 1e-9))) is True
        assert found.feasible(WITHOUT_OWN_ROW, token, float(s * (1 + 1e-9))) is False


# The largest ball: radius 1e-8, centre in a box of 100.


@pytest.mark.parametrize(
    ("room", "expected"), [(2.0**-20, True), (2.0**-26, True), (2.0**-27, False), (0, False), (-1.0, False)]
)
def test_the_radius_at_the_edge_of_the_box(room: float, expected: bool) -> None:
    model = readout([[1.0], [0.0]], bias=[room - 100, 0])
    assert posed(model).feasible(GRIVAS, 0, 1e-3) is expected


def test_the_radius_is_a_distance_not_a_margin() -> None:
    # At x = 100 the token leads by 2^-20 logits either way; row 2 is 2001 times as steep as row 1.
    shallow = readout([[1.0, 0], [0.0, 0]], bias=[2.0**-20 - 100, 0])
    steep = readout([[1.0, 0], [0.0, 0], [-2000.0, 0]], bias=[2.0**-20 - 100, 0, 200000])
    assert posed(shallow).feasible(GRIVAS, 0, 1e-3) is True
    assert posed(steep).feasible(GRIVAS, 0, 1e-3) is False


def test_norm_gain_and_shift_are_not_of_this_program() -> None:
    model = readout(SQUARE, "rmsnorm", gain=[0, 0], shift=[-9, -9])
    assert posed(model).feasible(GRIVAS, CORNER, 1e-3) is True


def test_equal_rows_ask_for_nothing() -> None:
    model = readout([[1, 1], [1, 1], [-1, 0], [0, -1]])
    tie = Unspeakable(Fraction(0), "tie-only", Multipliers((0,), (1,)), State((1, 1), 0))
    for claim in (UNSPEAKABLE, tie):
        assert posed(model, claim).feasible(GRIVAS, 1, 1e-3) is True
    inside = readout([*SQUARE, [0, 0]])
    assert posed(inside, UNSPEAKABLE).feasible(GRIVAS, CENTRE, 1e-3) is False
    # -0 and 0 are equal; a row with another bias is none.
    signed = readout([[0.0, 1], [-0.0, 1], [0, 0]], bias=[1, 1, 0])
    assert posed(signed, UNSPEAKABLE).feasible(GRIVAS, 0, 1e-3) is True
    below = readout([[0.0, 1], [0.0, 1], [0, 0]], bias=[0, 1, 0])
    assert posed(below, UNSPEAKABLE).feasible(GRIVAS, 0, 1e-3) is False


def test_what_no_evidence_settles_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify.posed.largest_in_box", lambda *_: None)
    found = posed(readout(SQUARE), Speakable(Fraction(1), State((1, 1), 4)))
    assert found.feasible(WITHOUT_OWN_ROW, CORNER, 0.999) is True
    assert found.feasible(WITHOUT_OWN_ROW, CORNER, 1.5) is None
    assert found.feasible(GRIVAS, CORNER, 1e-3) is True
    assert posed(readout(SQUARE)).feasible(WITHOUT_OWN_ROW, CORNER, 1e-9) is None
    assert posed(readout(SQUARE)).feasible(GRIVAS, CORNER, 1e-9) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("size", [1e308, 1e200, 5e-324])
def test_numbers_at_the_ends_of_the_range(size: float) -> None:
    model = readout(np.array(SQUARE) * size, bias=[0, 0, 0, 0, size, -size])
    for program in (WITHOUT_OWN_ROW, GRIVAS):
        assert posed(model).feasible(program, CORNER, 1e-9) in (None, size > 1)


@pytest.mark.parametrize("wrong", ["point", "multipliers"])
def test_a_float_program_is_not_believed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([-1.0, -1.0]) if wrong == "point" else np.array([1.0, 1.0])
    values = np.array([1.0]) if wrong == "point" else np.array([np.nan])
    monkeypatch.setattr("verify.posed.largest_in_box", lambda *_: (x, np.array([1]), values))
    found = posed(readout(SQUARE))
    expected = None if wrong == "point" else True
    assert found.feasible(WITHOUT_OWN_ROW, CORNER, 0.5) is expected
    assert found.feasible(GRIVAS, CORNER, 0.5) is expected


def test_each_domain_is_asked_about_its_program() -> None:
    asked: list[Domain] = []

    def claims(_: int, domain: Domain) -> Claim | None:
        asked.append(domain)
        return UNSPEAKABLE

    found = Posed(readout(SQUARE), 6, claims)
    found.feasible(OWN_ROW, CENTRE, 1e-7)
    assert asked == []
    found.feasible(WITHOUT_OWN_ROW, CENTRE, 1e-7)
    found.feasible(GRIVAS, CENTRE, 1e-7)
    found.feasible(GRIVAS, CENTRE, 1e-7)
    assert asked == [DIRECTION, FREE]


@pytest.mark.parametrize(
    "state", [State((3, -1), 0), State((1, 0), 60), State((10**30, 7), 3), State((0, 0), 5)]
)
@pytest.mark.parametrize("bound", [Fraction(1), Fraction(100)])
def test_stretched_states_keep_their_direction_and_the_box(state: State, bound: Fraction) -> None:
    found = stretched(state, bound)
    x = [Fraction(p, 1 << found.k) for p in found.p]
    assert x[0] * state.p[1] == x[1] * state.p[0]
    top = max(map(abs, x))
    assert top <= bound
    assert top == 0 or top > bound * Fraction(99, 100)


def test_a_ball_is_held_as_its_definition_says() -> None:
    rng = np.random.default_rng(11)
    seen = set()
    for _ in range(300):
        W = rng.integers(-3, 4, size=(6, 2)).astype(float) / 4
        c = rng.integers(-2, 3, size=6).astype(float) / 8
        state = State(tuple(rng.integers(-900, 901, size=2).tolist()), 3)
        x = [Fraction(p, 8) for p in state.p]
        box = posed(readout(W, bias=c))._grivas
        radius = Fraction(int(rng.integers(1, 200)), 4)
        rows = [[Fraction(v) for v in row] for row in W.tolist()]
        expected = all(abs(v) <= 100 for v in x)
        for j in range(1, 6):
            D = [a - b for a, b in zip(rows[0], rows[j], strict=True)]
            value = sum((a * b for a, b in zip(D, x, strict=True)), Fraction(c[0]) - Fraction(c[j]))
            expected &= value >= 0 and value**2 >= radius**2 * sum(a * a for a in D)
        assert box.holds_ball(box.system(0, 6), state, radius) == expected
        seen.add(expected)
    assert seen == {True, False}

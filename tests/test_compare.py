"""The field's float programs beside the exact verdict: where they agree, and how they go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pulp
import pytest

from verify.compare import (
    AGREES,
    FAKE_FEASIBLE,
    FAKE_INFEASIBLE,
    NO_ANSWER,
    RIGHT_AS_POSED,
    UNDECIDED,
    ComparisonRow,
    Facts,
    about_the_program,
    compare,
    exact_margin,
    facts_of,
    judge,
)
from verify.errors import UsageError, VerifyError
from verify.kernel.domain import DIRECTION, FREE, Domain
from verify.kernel.evidence import Multipliers, Speakable, Unspeakable
from verify.kernel.readout import Readout
from verify.kernel.tensor import Tensor
from verify.models import load_model
from verify.posed import Posed
from verify.propose.field import GRIVAS, OWN_ROW, PROGRAMS, WITHOUT_OWN_ROW, FieldAnswer, solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from verify.kernel.evidence import Claim

CORNER, CENTRE, EDGE = 0, 4, 5
OWN_ROW_NOTE = "its own row asks for 0 <= -1e-07, so exactly it is infeasible for every token"
SQUARE = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0], [1, 0]]


def tensor(name: str, values: ArrayLike) -> Tensor:
    array = np.array(values, dtype="<f8")
    return Tensor(name, "F64", array.view("<u8"))


def readout(rows: ArrayLike, norm: str = "none", **parts: ArrayLike) -> Readout:
    others: dict[str, Any] = {role: tensor(role, values) for role, values in parts.items()}
    return Readout(norm, tensor("unembedding", rows), epsilon=Fraction(1, 100000), **others)


# As the kernel would prove them; without a state, so that the programs as posed are searched for themselves.
CLAIMS = {
    True: Speakable(Fraction(1), None),
    False: Unspeakable(Fraction(0), "unsettled", Multipliers((1,), (1,))),
    None: None,
}


def always(verdict: bool | None) -> Callable[[Domain], Claim | None]:
    return lambda _: CLAIMS[verdict]


def only_row(model: Readout, token: int, verdict: bool | None, program: str, **options: Any) -> ComparisonRow:
    count = options.pop("count", model.vocabulary)
    (row,) = compare(model, token, count, always(verdict), programs=[program], **options)
    return row


# The square: corners are speakable, the centre is not, an edge's midpoint only ties.


@pytest.mark.parametrize("program", PROGRAMS)
def test_corner_is_found_and_its_direction_holds(program: str) -> None:
    row = only_row(readout(SQUARE), CORNER, True, program)
    assert (row.claim, row.judgement, row.argmax) == ("feasible", AGREES, CORNER)
    assert row.posed == ("infeasible" if program == OWN_ROW else "feasible")
    assert row.note == (OWN_ROW_NOTE if program == OWN_ROW else "")
    assert row.exact_margin_of_its_direction is not None
    assert row.exact_margin_of_its_direction > 0
    assert row.rows == (6 if program == OWN_ROW else 5)
    assert row.domain == ("free" if program == GRIVAS else "direction")


def test_own_row_turns_a_corner_infeasible_just_above_the_tolerance() -> None:
    below = only_row(readout(SQUARE), CORNER, True, OWN_ROW, margin=1.00e-7)
    above = only_row(readout(SQUARE), CORNER, True, OWN_ROW, margin=1.01e-7)
    assert (below.claim, below.judgement) == ("feasible", AGREES)
    assert (above.claim, above.judgement) == ("infeasible", FAKE_INFEASIBLE)
    assert below.posed == above.posed == "infeasible"
    assert below.without_own_row == above.without_own_row == "feasible"
    assert above.note == (
        "its own row asks for 0 <= -1.01e-07, so exactly it is infeasible for every token; "
        "without that row it asks for a margin of 1.01e-07 in a box of 1, which is feasible"
    )
    assert only_row(readout(SQUARE), CORNER, True, WITHOUT_OWN_ROW, margin=1.01e-7).judgement == AGREES


def test_the_post_s_program_is_right_where_it_has_no_solution_without_its_own_row_either() -> None:
    small = readout(np.array(SQUARE) / 2048)  # the corner leads by 1 / 2048 at most in the box
    for margin, solution, judgement in (
        (4e-4, "feasible", FAKE_INFEASIBLE),
        (1e-3, "infeasible", RIGHT_AS_POSED),
    ):
        row = only_row(small, CORNER, True, OWN_ROW, margin=margin)
        assert (row.claim, row.posed, row.judgement) == ("infeasible", "infeasible", judgement)
        assert row.without_own_row == json.loads(json.dumps(row.to_json()))["without_own_row"] == solution
        assert row.note.endswith(f"asks for a margin of {margin:g} in a box of 1, which is {solution}")
    assert only_row(small, CORNER, True, WITHOUT_OWN_ROW, margin=1e-3).judgement == RIGHT_AS_POSED
    assert only_row(small, CENTRE, False, OWN_ROW, margin=1e-3).judgement == AGREES


def test_a_padded_row_is_judged_by_its_own_program() -> None:
    model = readout([[1, 0], [0, 1], [1, 1]])
    row = only_row(model, 2, True, OWN_ROW, count=2, margin=1.5)
    assert (row.claim, row.posed, row.without_own_row) == ("infeasible", "infeasible", "infeasible")
    assert row.judgement == RIGHT_AS_POSED
    assert row.note == "it asks for a margin of 1.5 in a box of 1, which is infeasible"


@pytest.mark.parametrize("token", [CENTRE, EDGE])
@pytest.mark.parametrize("program", [OWN_ROW, WITHOUT_OWN_ROW])
def test_margin_below_the_tolerance_is_fake_feasible(token: int, program: str) -> None:
    row = only_row(readout(SQUARE), token, False, program, margin=1e-9)
    assert (row.claim, row.judgement) == ("feasible", FAKE_FEASIBLE)
    assert row.exact_margin_of_its_direction is not None
    assert row.exact_margin_of_its_direction <= 0
    assert row.exact_verdict == "unspeakable"
    assert "speakable all the same" not in row.note


@pytest.mark.parametrize("token", [CENTRE, EDGE])
@pytest.mark.parametrize("program", [WITHOUT_OWN_ROW, GRIVAS])
def test_infeasible_agrees_with_unspeakable(token: int, program: str) -> None:
    row = only_row(readout(SQUARE), token, False, program, margin=1e-3)
    assert (row.claim, row.judgement, row.argmax) == ("infeasible", AGREES, None)
    assert row.exact_margin_of_its_direction is None


def test_equal_rows_are_no_rivals_for_the_largest_ball() -> None:
    # The constraint of an equal row reads 0 <= 0, whatever the radius.
    row = only_row(readout([[1, 1], [1, 1], [-1, 0], [0, -1]]), 1, False, GRIVAS)
    assert (row.claim, row.posed, row.judgement) == ("feasible", "feasible", RIGHT_AS_POSED)
    assert row.argmax == 0
    assert row.exact_margin_of_its_direction == 0
    assert row.note.startswith("at its direction the token only ties; it asks for a radius of 1e-08")


# What each program reads of the model.


def test_grivas_keeps_the_logit_bias_and_the_post_drops_it() -> None:
    model = readout(SQUARE, bias=[0, 0, 0, 0, 1, 0])
    assert only_row(model, CENTRE, True, GRIVAS).claim == "feasible"
    assert only_row(model, CENTRE, False, WITHOUT_OWN_ROW, margin=1e-3).claim == "infeasible"


def test_grivas_ignores_the_norm_and_its_gain() -> None:
    # Seen through the gain the second coordinate is gone and the corner ties with its neighbour.
    model = readout(SQUARE, norm="rmsnorm", gain=[1, 0])
    assert only_row(model, CORNER, True, GRIVAS).claim == "feasible"
    assert only_row(model, CORNER, False, WITHOUT_OWN_ROW, margin=1e-3).claim == "infeasible"


def test_post_sees_only_what_a_layernorm_lets_through() -> None:
    # Rows 0 and 1 differ along (1, 1, 1), which no LayerNorm state has.
    model = readout([[1, 0, 0], [2, 1, 1], [0, 1, 0], [0, 0, 1]], norm="layernorm")
    assert only_row(model, 0, False, WITHOUT_OWN_ROW, margin=1e-3).claim == "infeasible"
    assert only_row(model, 2, True, WITHOUT_OWN_ROW).judgement == AGREES


def test_region_beyond_the_box_is_right_as_posed() -> None:
    model = readout([[1.0], [0.0]], bias=[-1000, 0])  # wins where h > 1000
    row = only_row(model, 0, True, GRIVAS)
    assert (row.claim, row.posed, row.judgement) == ("infeasible", "infeasible", RIGHT_AS_POSED)
    assert row.note == "it asks for a radius of 1e-08 in a box of 100, which is infeasible"


def test_rows_beyond_the_count_are_no_competitors() -> None:
    model = readout([[1, 0], [0, 1], [2, 0], [3, 0], [-1, -1]])
    inside = only_row(model, 0, True, OWN_ROW, count=2)
    assert (inside.judgement, inside.argmax, inside.rows) == (AGREES, 0, 2)
    assert only_row(model, 0, False, WITHOUT_OWN_ROW, margin=1e-3).claim == "infeasible"
    # A padded row asked about: its own row is not among the competitors, so it is not posed.
    outside = solve(OWN_ROW, model, 4, 2, margin=1e-3)
    assert (outside.claim, outside.argmax, outside.rows) == ("feasible", 4, 2)


@pytest.mark.parametrize("norm", ["none", "rmsnorm", "layernorm"])
def test_exact_margin_of_a_float_direction(norm: str) -> None:
    rng = np.random.default_rng(3)
    W, gain, bias = rng.normal(size=(9, 4)), rng.normal(size=4), rng.normal(size=9)
    x = rng.normal(size=4) * [1e-9, 1, 1e3, 1]
    model = readout(W, norm, gain=gain, bias=bias)
    exact = [Fraction(v) for v in x.tolist()]
    mean = sum(exact, Fraction(0)) / 4 if norm == "layernorm" else Fraction(0)

    def logit(row: int, state: list[Fraction], scaled: bool) -> Fraction:
        weights = zip(W[row].tolist(), gain.tolist(), state, strict=True)
        return sum((Fraction(w) * (Fraction(g) if scaled else 1) * s for w, g, s in weights), Fraction(0))

    centred = [v - mean for v in exact]
    seen = exact_margin(model, DIRECTION, 2, 9, x.tolist())
    assert seen == min(logit(2, centred, True) - logit(j, centred, True) for j in range(9) if j != 2)
    c = [Fraction(v) for v in bias.tolist()]
    seen = exact_margin(model, FREE, 2, 9, x.tolist())
    assert seen == min(
        logit(2, exact, False) + c[2] - logit(j, exact, False) - c[j] for j in range(9) if j != 2
    )


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
def test_random_rows(norm: str) -> None:
    rng = np.random.default_rng(5)
    W, gain = rng.normal(size=(60, 5)), rng.uniform(0.5, 2, size=5)
    W[7] = W[8:40].mean(axis=0)
    model = readout(W, norm, gain=gain)
    x = rng.normal(size=(5, 3))
    for token in (7, *np.argmax((W * gain) @ (x - x.mean(axis=0)), axis=0).tolist()):
        own, without, grivas = compare(model, token, 60, always(token != 7), margin=1e-6)
        assert own.claim == "infeasible"
        assert without.judgement == grivas.judgement == AGREES, (without, grivas)


# Solvers.


def test_every_available_solver_finds_the_corner() -> None:
    for name in pulp.listSolvers(onlyAvailable=True):
        row = only_row(readout(SQUARE), CORNER, True, WITHOUT_OWN_ROW, solver=name)
        assert (row.solver, row.judgement) == (name, AGREES)


def test_unknown_solver_names_the_available_ones() -> None:
    with pytest.raises(UsageError, match=r"NO_SUCH.*HiGHS"):
        solve(OWN_ROW, readout(SQUARE), CORNER, 6, "NO_SUCH", None)


@pytest.mark.parametrize(
    ("program", "token", "count", "words"),
    [
        ("simplex", 0, 6, "post-without-own-row"),
        (OWN_ROW, 6, 6, "out of"),
        (OWN_ROW, -1, 6, "out of"),
        (OWN_ROW, 0, 7, "out of"),
        (GRIVAS, 0, 1, "no competitors"),
    ],
)
def test_questions_without_sense(program: str, token: int, count: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        solve(program, readout(SQUARE), token, count)


@pytest.mark.parametrize("program", PROGRAMS)
def test_time_limit_is_no_answer(program: str) -> None:
    W = np.random.default_rng(1).normal(size=(1500, 60))
    found = solve(program, readout(W), 3, 1500, "HiGHS", time_limit=1e-4)
    assert found.claim == "no answer", found.status
    assert found.direction is None
    assert found.status.startswith("not optimal: time limit of 0.0001 s reached (PuLP: ")
    assert judge(found.claim, known(program, True, None)) == NO_ANSWER


@pytest.mark.parametrize(
    ("status", "solution", "claim"),
    [
        ("LpStatusOptimal", "LpSolutionOptimal", "feasible"),
        ("LpStatusOptimal", "LpSolutionIntegerFeasible", "no answer"),
        ("LpStatusNotSolved", "LpSolutionInfeasible", "no answer"),
        ("LpStatusInfeasible", "LpSolutionInfeasible", "infeasible"),
        ("LpStatusUnbounded", "LpSolutionUnbounded", "no answer"),
        ("LpStatusUndefined", "LpSolutionInfeasible", "no answer"),
    ],
)
def test_statuses(status: str, solution: str, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(_: object, program: Any) -> None:
        for variable in program.variables():
            variable.varValue = 1.0
        program.assignStatus(getattr(pulp, status), getattr(pulp, solution))

    monkeypatch.setattr(pulp.HiGHS, "actualSolve", pretend)
    assert solve(WITHOUT_OWN_ROW, readout(SQUARE), CORNER, 6, "HiGHS").claim == claim


def test_optimal_without_values_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(_: object, program: Any) -> None:
        program.assignStatus(pulp.LpStatusOptimal, pulp.LpSolutionOptimal)

    monkeypatch.setattr(pulp.HiGHS, "actualSolve", pretend)
    found = solve(OWN_ROW, readout(SQUARE), CORNER, 6, "HiGHS")
    assert (found.claim, found.objective) == ("no answer", None)


def test_radius_that_is_not_positive_is_infeasible(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(_: object, program: Any) -> None:
        for variable in program.variables():
            variable.varValue = 0.0
        program.assignStatus(pulp.LpStatusOptimal, pulp.LpSolutionOptimal)

    monkeypatch.setattr(pulp.HiGHS, "actualSolve", pretend)
    found = solve(GRIVAS, readout(SQUARE), CENTRE, 6, "HiGHS")
    assert (found.claim, found.direction) == ("infeasible", None)


def test_solver_that_breaks_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise pulp.PulpSolverError("licence expired")

    monkeypatch.setattr(pulp.HiGHS, "actualSolve", breaks)
    found = solve(GRIVAS, readout(SQUARE), CORNER, 6, "HiGHS")
    assert found.claim == "no answer"
    assert "licence expired" in found.status


def test_pulp_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, verify.compare; sys.exit('pulp' in sys.modules or 'highspy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


# The words.


def known(program: str, proved: bool | None, without: bool | None, **other: Any) -> Facts:
    own_row = program == OWN_ROW
    return replace(Facts(program, 7, 1e-3, own_row, proved, False if own_row else without, without), **other)


@pytest.mark.parametrize(
    ("claim", "proved", "margin", "posed", "words"),
    [
        ("feasible", True, Fraction(1, 9), None, AGREES),
        ("feasible", True, Fraction(1, 9), False, AGREES),
        ("feasible", None, Fraction(1, 9), True, AGREES),
        ("feasible", True, Fraction(0), True, FAKE_FEASIBLE),
        ("feasible", True, Fraction(-1), None, FAKE_FEASIBLE),
        ("feasible", None, Fraction(-1), True, FAKE_FEASIBLE),
        ("feasible", False, Fraction(-1), False, FAKE_FEASIBLE),
        ("feasible", False, Fraction(0), None, FAKE_FEASIBLE),
        ("feasible", False, None, False, FAKE_FEASIBLE),
        ("feasible", False, Fraction(0), True, RIGHT_AS_POSED),
        ("infeasible", True, None, True, FAKE_INFEASIBLE),
        ("infeasible", True, None, False, RIGHT_AS_POSED),
        ("infeasible", True, None, None, UNDECIDED),
        ("infeasible", False, None, False, AGREES),
        ("infeasible", False, None, True, AGREES),
        ("infeasible", None, None, True, UNDECIDED),
        ("infeasible", None, None, False, UNDECIDED),
        ("no answer", True, None, True, NO_ANSWER),
        ("no answer", False, None, None, NO_ANSWER),
        ("no answer", None, None, False, NO_ANSWER),
    ],
)
def test_judge(
    claim: str, proved: bool | None, margin: Fraction | None, posed: bool | None, words: str
) -> None:
    if (proved, posed) == (False, True):  # equal rows, which only the largest ball allows
        assert judge(claim, known(GRIVAS, proved, posed, margin=margin)) == words
    else:
        assert judge(claim, known(WITHOUT_OWN_ROW, proved, posed, margin=margin)) == words


@pytest.mark.parametrize(
    ("proved", "without", "words"),
    [
        (True, True, FAKE_INFEASIBLE),
        (True, False, RIGHT_AS_POSED),
        (True, None, UNDECIDED),
        (False, False, AGREES),
        (False, None, AGREES),
        (None, True, UNDECIDED),
        (None, False, UNDECIDED),
        (None, None, UNDECIDED),
    ],
)
def test_its_own_row_does_not_excuse_the_post_s_program(
    proved: bool | None, without: bool | None, words: str
) -> None:
    """It asks the same of every token: only what is infeasible without it says something of this one."""
    assert judge("infeasible", known(OWN_ROW, proved, without)) == words


@pytest.mark.parametrize(
    ("claim", "posed", "words"),
    [
        ("feasible", "feasible", "right"),
        ("feasible", "infeasible", "wrong"),
        ("infeasible", "feasible", "wrong"),
        ("infeasible", "infeasible", "right"),
        ("infeasible", "open", UNDECIDED),
        ("no answer", "feasible", NO_ANSWER),
    ],
)
def test_about_the_program(claim: str, posed: str, words: str) -> None:
    assert about_the_program(claim, posed) == words


ABOVE, LEAST = Fraction(1, 10**9), Fraction(1e-3)
CONTRADICTIONS = [
    (known(WITHOUT_OWN_ROW, False, False, margin=ABOVE), "exact margin .* above 0"),
    (known(OWN_ROW, False, False, margin=ABOVE), "exact margin .* above 0"),
    (known(GRIVAS, False, True, margin=ABOVE), "exact margin .* above 0"),
    (known(OWN_ROW, True, True, posed=True), "own row asks for 0 <= -margin"),
    (known(OWN_ROW, False, True), "the program without its own row has a solution"),
    (known(WITHOUT_OWN_ROW, False, True), "the program without its own row has a solution"),
    (known(WITHOUT_OWN_ROW, True, False, margin=LEAST, kept=True), "the solver's point is one"),
    (known(OWN_ROW, True, False, margin=LEAST, kept=True), "the solver's point is one"),
    (known(OWN_ROW, None, False, margin=LEAST, kept=True), "the solver's point is one"),
]
CONSISTENT = [
    known(WITHOUT_OWN_ROW, False, False, margin=Fraction(0)),
    known(WITHOUT_OWN_ROW, None, True, margin=ABOVE),
    known(WITHOUT_OWN_ROW, True, False, margin=ABOVE),
    known(WITHOUT_OWN_ROW, True, True, margin=LEAST, kept=True),
    known(WITHOUT_OWN_ROW, True, None, margin=LEAST, kept=True),
    known(OWN_ROW, True, True, margin=LEAST, kept=True),
    known(OWN_ROW, True, False, own_row=False),  # a padded row
    known(OWN_ROW, True, True, own_row=False, posed=True),
    known(GRIVAS, False, True, margin=Fraction(0)),  # equal rows
]


@pytest.mark.parametrize("claim", ["feasible", "infeasible", "no answer"])
@pytest.mark.parametrize(("facts", "words"), CONTRADICTIONS)
def test_exact_results_that_contradict_each_other_are_an_internal_error(
    claim: str, facts: Facts, words: str
) -> None:
    with pytest.raises(
        VerifyError, match=rf"^internal error: .*{words}.*{facts.program}, token 7.*report it$"
    ) as e:
        judge(claim, facts)
    assert e.type is VerifyError
    assert ("at a margin of 0.001" in str(e.value)) == (facts.program != GRIVAS)


@pytest.mark.parametrize("claim", ["feasible", "infeasible", "no answer"])
@pytest.mark.parametrize("facts", CONSISTENT)
def test_exact_results_that_do_not_contradict_each_other_are_judged(claim: str, facts: Facts) -> None:
    assert judge(claim, facts)


@pytest.mark.parametrize(
    ("margin", "x", "expected"),
    [
        (LEAST, [1.0, -1.0], True),
        (LEAST, [0.0, 0.5], True),
        (LEAST - Fraction(1, 10**30), [1.0, -1.0], False),
        (LEAST, [1.0, -1 - 2.0**-52], False),
        (LEAST, [1 + 2.0**-52, 0.0], False),
    ],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_point_that_keeps_what_is_asked(
    program: str, margin: Fraction, x: list[float], expected: bool
) -> None:
    posed = Posed(readout(SQUARE), 6, lambda *_: None)
    assert facts_of(posed, program, CORNER, 1e-3, True, margin, x).kept == (expected and program != GRIVAS)
    assert not facts_of(posed, program, CORNER, 1e-3, True, None, None).kept


@pytest.mark.parametrize("program", [OWN_ROW, WITHOUT_OWN_ROW])
def test_a_solution_of_a_program_that_is_proved_to_have_none_is_no_judgement(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_: Posed, __: str, token: int, margin: float) -> bool:
        return False

    monkeypatch.setattr(Posed, "feasible", wrong)
    x = np.array([1.0, 1.0])
    answer = FieldAnswer(program, 6, "HiGHS", 0.0, 0.0, "Optimal", "feasible", x, CORNER, 0.0)
    monkeypatch.setattr("verify.compare.solve", lambda *_: answer)
    with pytest.raises(
        VerifyError, match=f"the solver's point is one .{program}, token 0 at a margin of 1e-07"
    ):
        only_row(readout(SQUARE), CORNER, True, program)


@pytest.mark.parametrize("margin", [0.0, -1e-9, float("nan")])
def test_a_margin_is_above_0(margin: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        only_row(readout(SQUARE), CORNER, True, OWN_ROW, margin=margin)


def pretend_solve(monkeypatch: pytest.MonkeyPatch, found: FieldAnswer) -> None:
    monkeypatch.setattr("verify.compare.solve", lambda *_: found)


@pytest.mark.parametrize(
    ("argmax", "verdict", "note"),
    [
        (2, True, f"at its direction row 2 is on top; the token is speakable all the same; {OWN_ROW_NOTE}"),
        (
            CORNER,
            None,
            f"at its direction the token is on top in float64, not in exact arithmetic; {OWN_ROW_NOTE}",
        ),
        (None, False, OWN_ROW_NOTE),
    ],
)
def test_notes_of_a_fake_direction(
    argmax: int | None, verdict: bool | None, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.array([-1.0, 0.5])
    pretend_solve(
        monkeypatch, FieldAnswer(OWN_ROW, 6, "HiGHS", 0.0, 0.0, "Optimal", "feasible", x, argmax, 0.0)
    )
    row = only_row(readout(SQUARE), CORNER, verdict, OWN_ROW)
    assert (row.judgement, row.note) == (FAKE_FEASIBLE, note)


def test_rows_come_one_by_one_and_each_domain_is_asked_once() -> None:
    asked: list[str] = []

    def exact(domain: Domain) -> Claim | None:
        asked.append(domain.name)
        return CLAIMS[True]

    rows = compare(readout(SQUARE), CORNER, 6, exact)
    assert next(rows).program == OWN_ROW
    assert asked == ["direction"]
    assert [row.program for row in rows] == [WITHOUT_OWN_ROW, GRIVAS]
    assert asked == ["direction", "free"]


def test_rows_as_json() -> None:
    for row in compare(readout(SQUARE), CENTRE, 6, always(None), margin=1e-9):
        data = json.loads(json.dumps(row.to_json(), allow_nan=False))
        assert data["program"] == row.program
        assert data["exact_verdict"] == "undecided"
        text, margin = data["exact_margin_of_its_direction"], row.exact_margin_of_its_direction
        if margin is None:
            assert text is None
        else:
            numerator, denominator = text.split("/")
            assert Fraction(int(numerator, 16), int(denominator, 16)) == margin


# A real model: <pad> and <unk> lie inside the hull of the others, with the biases dropped.


def test_tinygpt() -> None:
    root = os.environ.get("VERIFY_TEST_MODELS")
    if not root or not (Path(root) / "tinygpt-slm-05").is_dir():
        pytest.skip("set VERIFY_TEST_MODELS to a folder that holds tinygpt-slm-05")
    model = load_model(str(Path(root) / "tinygpt-slm-05")).readout
    for token in (0, 2, 3):
        strict = only_row(model, token, False, WITHOUT_OWN_ROW, margin=1e-5)
        assert (strict.claim, strict.judgement) == ("infeasible", AGREES)
        for row in compare(model, token, model.vocabulary, lambda d: CLAIMS[None if d == FREE else False]):
            assert row.judgement in (AGREES, FAKE_FEASIBLE, UNDECIDED)

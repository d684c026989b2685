"""GLUE. The field's float programs beside the exact verdict: wrong here = a method is misjudged.

No verdict depends on this file. An answer is judged twice, both times exactly: against speakability in the
domain that its program asks about, where its own direction is checked too; and against the program itself
as it is posed, with its own row, margin, box and radius (`verify.posed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

from verify.errors import UsageError, VerifyError
from verify.kernel.check import state_margin
from verify.kernel.evidence import Speakable, State
from verify.kernel.system import System
from verify.posed import Posed
from verify.propose.field import (
    DOMAIN_OF,
    GRIVAS,
    LEAST_RADIUS,
    MARGIN,
    OWN_ROW,
    PROGRAMS,
    WITHOUT_OWN_ROW,
    box_of,
    solve,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from verify.kernel.domain import Domain
    from verify.kernel.evidence import Claim
    from verify.kernel.readout import Readout
    from verify.propose.field import FieldAnswer

AGREES = "agrees"
FAKE_FEASIBLE = "FAKE FEASIBLE"
FAKE_INFEASIBLE = "FAKE INFEASIBLE"
RIGHT_AS_POSED = "right as posed"
UNDECIDED = "undecided"
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class ComparisonRow:
    """One program's answer beside the exact verdict in `domain`.

    rows, solver, seconds, build_seconds, status, claim, argmax: as in FieldAnswer.
    exact_margin_of_its_direction: least l_t - l_j at the solver's own x, in logits, exact; None without x.
    exact_verdict: `speakable`, `unspeakable` or `undecided`. posed: whether the program as posed has a
    solution, `feasible`, `infeasible` or `open`. without_own_row: whether it has one without the token's own
    row; as `posed` where that row is not in it. judgement: one of the words above.
    note: what a reader must know besides, or empty.
    """

    program: str
    domain: str
    rows: int
    solver: str
    seconds: float
    build_seconds: float
    status: str
    claim: str
    argmax: int | None
    exact_margin_of_its_direction: Fraction | None
    exact_verdict: str
    posed: str
    without_own_row: str
    judgement: str
    note: str

    def to_json(self) -> dict[str, Any]:
        """Plain data; the exact margin as hexadecimal "numerator/denominator", as in certificates."""
        data = dict(vars(self))
        margin = self.exact_margin_of_its_direction
        if margin is not None:
            data["exact_margin_of_its_direction"] = f"{margin.numerator:x}/{margin.denominator:x}"
        return data


def exact_margin(
    readout: Readout, domain: Domain, token: int, count: int, direction: Iterable[float]
) -> Fraction:
    """The least l_t - l_j over the competitors at the float vector `direction` (d,), in logits, exact.

    `direction` is h in `free`, and x with z = Px in `direction`. Floats are dyadic: nothing is rounded.
    Raises RefutedError if there are no competitors, UsageError if token or count is out of range.
    """
    return exact_standing(readout, domain, token, count, direction)[0]


def exact_standing(
    readout: Readout, domain: Domain, token: int, count: int, direction: Iterable[float]
) -> tuple[Fraction, int]:
    """`exact_margin`, and the row on top at `direction` among the competitors and the token.

    The lowest id of a tie, as greedy decoding usually takes it.
    """
    system = System(readout, domain, token, count)
    values = [Fraction(x) for x in direction]
    k = max(x.denominator.bit_length() - 1 for x in values)
    found, nearest = state_margin(system, State(tuple(int(x * (1 << k)) for x in values), k))
    top = token if found > 0 else min(nearest) if found < 0 else min(token, *nearest)
    # On the cone a projected state is d times Px, and margins scale with it.
    return (found / readout.d if system.projects else found), top


@dataclass(frozen=True)
class Facts:
    """What is exactly so of a program, asked about a token, and of the point of its answer.

    asked: the margin above 0, in logits, of the post's programs. own_row: the token's own row is among the
    constraints. speakable: the verdict in the program's domain (None: undecided). posed: whether the program
    has a solution; without_own_row: whether it has one without that row, the same as `posed` where it is not
    there (None: open). margin: the least l_t - l_j at the answer's own x, in logits; None without x.
    kept: that x keeps all that one of the post's programs asks for, but for the own row.
    """

    program: str
    token: int
    asked: float
    own_row: bool
    speakable: bool | None
    posed: bool | None
    without_own_row: bool | None
    margin: Fraction | None = None
    kept: bool = False


def facts_of(
    posed: Posed,
    program: str,
    token: int,
    asked: float,
    proved: bool | None,
    margin: Fraction | None,
    x: Iterable[float] | None,
) -> Facts:
    """The facts about an answer x, of which `proved` (the verdict) and `margin` (at x) are known."""
    own_row, found = posed.has_own_row(program, token), posed.feasible(program, token, asked)
    without = posed.feasible(WITHOUT_OWN_ROW, token, asked) if own_row else found
    kept = x is not None and margin is not None and program != GRIVAS and keeps(program, asked, margin, x)
    return Facts(program, token, asked, own_row, proved, found, without, margin, kept)


def keeps(program: str, asked: float, margin: Fraction, x: Iterable[float]) -> bool:
    """Whether a point of one of the post's programs lies in the box and has the margin asked for, exactly.

    Then it keeps every constraint but the one of the token's own row, which no point keeps.
    """
    return margin >= Fraction(asked) and all(abs(v) <= box_of(program) for v in x)


def require_consistent(facts: Facts) -> None:
    """Raise VerifyError where two facts exclude each other: one of them was proved wrongly, here."""
    for what in _contradictions(facts):
        asked = "" if facts.program == GRIVAS else f" at a margin of {facts.asked:g}"
        raise VerifyError(
            f"internal error: {what} ({facts.program}, token {facts.token}{asked}); please report it"
        )


def _contradictions(facts: Facts) -> Iterator[str]:
    unspeakable = facts.speakable is False
    if unspeakable and facts.margin is not None and facts.margin > 0:
        yield "the token is proved unspeakable, yet its exact margin at the solver's point is above 0"
    if facts.own_row and facts.posed:
        yield "the program is said to have a solution, yet the token's own row asks for 0 <= -margin"
    if unspeakable and facts.without_own_row and facts.program != GRIVAS:
        yield "the token is proved unspeakable, yet the program without its own row has a solution"
    if facts.kept and facts.without_own_row is False:
        yield "the program without the own row is proved to have no solution, yet the solver's point is one"


def judge(claim: str, facts: Facts) -> str:
    """A claim held against the exact verdict in the program's own domain.

    A feasible claim is as good as the margin of its own x, whatever the verdict. A claim that the verdict
    contradicts is fake, unless it is right about the program: then the program asks for something else. That
    excuse is not made for the post's own row, which asks the same of every token: there "infeasible" must be
    right without that row.

    Raises VerifyError if the facts contradict each other.
    """
    require_consistent(facts)
    if claim == "no answer":
        return NO_ANSWER
    if claim == "feasible":
        if facts.margin is None or facts.margin <= 0:
            return RIGHT_AS_POSED if facts.posed and facts.speakable is False else FAKE_FEASIBLE
        return AGREES
    if facts.speakable is False:
        return AGREES
    if facts.speakable is None or facts.without_own_row is None:
        return UNDECIDED
    return FAKE_INFEASIBLE if facts.without_own_row else RIGHT_AS_POSED


def about_the_program(claim: str, posed: str) -> str:
    """A claim held against the program as posed, a word of POSED_WORD: `right`, `wrong`, `undecided` or
    `no answer`.
    """
    if claim == "no answer":
        return NO_ANSWER
    if posed == "open":
        return UNDECIDED
    return "right" if posed == claim else "wrong"


def speakable(claim: Claim | None) -> bool | None:
    """The verdict of a proved claim; None for None, which is undecided."""
    return None if claim is None else isinstance(claim, Speakable)


# The words for `speakable` and for `Posed.feasible`.
VERDICT_WORD = {True: "speakable", False: "unspeakable", None: "undecided"}
POSED_WORD = {True: "feasible", False: "infeasible", None: "open"}


def compare(
    readout: Readout,
    token: int,
    count: int,
    exact: Callable[[Domain], Claim | None],
    solver: str | None = None,
    time_limit: float | None = None,
    programs: Sequence[str] = PROGRAMS,
    margin: float = MARGIN,
) -> Iterator[ComparisonRow]:
    """One row a program, each as soon as it is done.

    exact: the proved claim about the token against the same competitors in a domain, None where it is
    undecided; asked once a domain. time_limit: seconds a program. margin: above 0, in logits.
    Raises what `verify.propose.field.solve` raises, and UsageError if the margin is not above 0.
    """
    if not margin > 0:
        raise UsageError(f"a margin of {margin:g}: the post's programs ask for one above 0")
    known = cache(exact)
    posed = Posed(readout, count, lambda _, domain: known(domain))
    for program in programs:
        answer = solve(program, readout, token, count, solver, time_limit, margin)
        domain = DOMAIN_OF[program]
        x = None if answer.direction is None else answer.direction.tolist()
        found = None if x is None else exact_margin(readout, domain, token, count, x)
        facts = facts_of(posed, program, token, margin, speakable(known(domain)), found, x)
        yield _row(answer, facts)


def _row(answer: FieldAnswer, facts: Facts) -> ComparisonRow:
    judgement = judge(answer.claim, facts)
    return ComparisonRow(
        program=answer.program,
        domain=DOMAIN_OF[answer.program].name,
        rows=answer.rows,
        solver=answer.solver,
        seconds=answer.seconds,
        build_seconds=answer.build_seconds,
        status=answer.status,
        claim=answer.claim,
        argmax=answer.argmax,
        exact_margin_of_its_direction=facts.margin,
        exact_verdict=VERDICT_WORD[facts.speakable],
        posed=POSED_WORD[facts.posed],
        without_own_row=POSED_WORD[facts.without_own_row],
        judgement=judgement,
        note="; ".join(_notes(answer, facts, judgement)),
    )


def _notes(answer: FieldAnswer, facts: Facts, judgement: str) -> Iterator[str]:
    """What a reader must know besides the judgement."""
    if answer.claim == "feasible" and judgement != AGREES:
        if facts.margin == 0:
            yield "at its direction the token only ties"
        elif answer.argmax == facts.token:
            yield "at its direction the token is on top in float64, not in exact arithmetic"
        elif answer.argmax is not None:
            yield f"at its direction row {answer.argmax} is on top"
        if facts.speakable:
            yield "the token is speakable all the same"
    radius = f"a radius of {LEAST_RADIUS:g} in a box of {box_of(GRIVAS):g}"
    margin = f"a margin of {facts.asked:g} in a box of {box_of(OWN_ROW):g}"
    posed = POSED_WORD[facts.posed]
    if facts.own_row:
        yield f"its own row asks for 0 <= {-facts.asked:g}, so exactly it is infeasible for every token"
        if answer.claim == "infeasible" and judgement != AGREES:
            yield f"without that row it asks for {margin}, which is {POSED_WORD[facts.without_own_row]}"
    elif judgement in (FAKE_INFEASIBLE, RIGHT_AS_POSED) or about_the_program(answer.claim, posed) == "wrong":
        yield f"it asks for {radius if answer.program == GRIVAS else margin}, which is {posed}"

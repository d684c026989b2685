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

from verify.errors import VerifyError
from verify.kernel.check import state_margin
from verify.kernel.evidence import Speakable, State
from verify.kernel.system import System
from verify.posed import Posed
from verify.propose.field import DOMAIN_OF, GRIVAS, LEAST_RADIUS, MARGIN, OWN_ROW, PROGRAMS, box_of, solve

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
    solution, `feasible`, `infeasible` or `open`. judgement: one of the words above.
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


def judge(
    program: str,
    claim: str,
    proved_speakable: bool | None,
    margin: Fraction | None = None,
    posed: bool | None = None,
) -> str:
    """A claim held against the exact verdict in the program's own domain (None: undecided).

    `margin` is the exact margin of the answer's own direction: a feasible claim is as good as that
    evidence, whatever the verdict. `posed`: whether the program has a solution (None: open). A claim that the
    verdict contradicts is fake, unless it is right about the program: then the program asks for something
    else. That excuse is not made for the post's own row, which asks the same of every token.

    Raises VerifyError if an exact margin contradicts an exact verdict.
    """
    if claim == "no answer":
        return NO_ANSWER
    if claim == "feasible":
        if margin is None or margin <= 0:
            return RIGHT_AS_POSED if posed and proved_speakable is False else FAKE_FEASIBLE
        if proved_speakable is False:
            raise VerifyError(
                f"internal error: the token is proved unspeakable, yet {program!r} found a direction "
                "with an exact margin above 0; please report it"
            )
        return AGREES
    if proved_speakable is False:
        return AGREES
    if proved_speakable is None or (posed is None and program != OWN_ROW):
        return UNDECIDED
    return FAKE_INFEASIBLE if posed or program == OWN_ROW else RIGHT_AS_POSED


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
    undecided; asked once a domain. time_limit: seconds a program.
    Raises what `verify.propose.field.solve` raises.
    """
    known = cache(exact)
    posed = Posed(readout, count, lambda _, domain: known(domain))
    for program in programs:
        answer = solve(program, readout, token, count, solver, time_limit, margin)
        proved = speakable(known(DOMAIN_OF[program]))
        yield _row(answer, readout, token, count, proved, margin, posed.feasible(program, token, margin))


def _row(
    answer: FieldAnswer,
    readout: Readout,
    token: int,
    count: int,
    proved: bool | None,
    asked: float,
    posed: bool | None,
) -> ComparisonRow:
    found, domain = None, DOMAIN_OF[answer.program]
    if answer.direction is not None:
        found = exact_margin(readout, domain, token, count, answer.direction.tolist())
    judgement = judge(answer.program, answer.claim, proved, found, posed)
    return ComparisonRow(
        program=answer.program,
        domain=domain.name,
        rows=answer.rows,
        solver=answer.solver,
        seconds=answer.seconds,
        build_seconds=answer.build_seconds,
        status=answer.status,
        claim=answer.claim,
        argmax=answer.argmax,
        exact_margin_of_its_direction=found,
        exact_verdict=VERDICT_WORD[proved],
        posed=POSED_WORD[posed],
        judgement=judgement,
        note="; ".join(_notes(answer, found, judgement, proved, token, asked, POSED_WORD[posed])),
    )


def _notes(
    answer: FieldAnswer,
    found: Fraction | None,
    judgement: str,
    proved: bool | None,
    token: int,
    asked: float,
    posed: str,
) -> Iterator[str]:
    """What a reader must know besides the judgement."""
    if answer.claim == "feasible" and judgement != AGREES:
        if found == 0:
            yield "at its direction the token only ties"
        elif answer.argmax == token:
            yield "at its direction the token is on top in float64, not in exact arithmetic"
        elif answer.argmax is not None:
            yield f"at its direction row {answer.argmax} is on top"
        if proved:
            yield "the token is speakable all the same"
    if answer.program == OWN_ROW and posed == "infeasible":
        yield f"its own row asks for 0 <= {-asked:g}, so exactly it is infeasible for every token"
    elif judgement in (FAKE_INFEASIBLE, RIGHT_AS_POSED) or about_the_program(answer.claim, posed) == "wrong":
        radius = f"a radius of {LEAST_RADIUS:g} in a box of {box_of(GRIVAS):g}"
        margin = f"a margin of {asked:g} in a box of {box_of(OWN_ROW):g}"
        yield f"it asks for {radius if answer.program == GRIVAS else margin}, which is {posed}"

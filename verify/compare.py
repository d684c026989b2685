"""GLUE. The field's float programs beside the exact verdict: wrong here = a method is misjudged.

No verdict depends on this file. Each program is held against the domain that it asks about, and its
own direction is checked exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from verify.errors import VerifyError
from verify.kernel.check import state_margin
from verify.kernel.evidence import State
from verify.kernel.system import System
from verify.propose.field import DOMAIN_OF, GRIVAS, MARGIN, OWN_ROW, PROGRAMS, solve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from verify.kernel.domain import Domain
    from verify.kernel.readout import Readout
    from verify.propose.field import FieldAnswer

AGREES = "agrees"
FAKE_FEASIBLE = "FAKE FEASIBLE"
FAKE_INFEASIBLE = "FAKE INFEASIBLE"
NO_ANSWER = "no answer"
NOT_COMPARABLE = "not comparable (verdict undecided)"


@dataclass(frozen=True)
class ComparisonRow:
    """One program's answer beside the exact verdict in `domain`.

    rows, solver, seconds, build_seconds, status, claim, argmax: as in FieldAnswer.
    exact_margin_of_its_direction: least l_t - l_j at the solver's own x, in logits, exact; None without x.
    exact_verdict: `speakable`, `unspeakable` or `undecided`. judgement: one of the words above.
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


def judge(answer: FieldAnswer, proved_speakable: bool | None, margin: Fraction | None = None) -> str:
    """The answer held against the exact verdict in the program's own domain (None: undecided).

    `margin` is the exact margin of the answer's own direction: a feasible claim is as good as that
    evidence, whatever the verdict. Raises VerifyError if an exact margin contradicts an exact verdict.
    """
    return judge_claim(answer.program, answer.claim, proved_speakable, margin)


def judge_claim(
    program: str, claim: str, proved_speakable: bool | None, margin: Fraction | None = None
) -> str:
    """`judge`, of a claim by its word."""
    if claim == "no answer":
        return NO_ANSWER
    if claim == "feasible":
        if margin is None or margin <= 0:
            return FAKE_FEASIBLE
        if proved_speakable is False:
            raise VerifyError(
                f"internal error: the token is proved unspeakable, yet {program!r} found a direction "
                "with an exact margin above 0; please report it"
            )
        return AGREES
    if proved_speakable is None:
        return NOT_COMPARABLE
    return FAKE_INFEASIBLE if proved_speakable else AGREES


def compare(
    readout: Readout,
    token: int,
    count: int,
    exact: Callable[[Domain], bool | None],
    solver: str | None = None,
    time_limit: float | None = None,
    programs: Sequence[str] = PROGRAMS,
    margin: float = MARGIN,
) -> Iterator[ComparisonRow]:
    """One row a program, each as soon as it is done.

    exact: the proved verdict of the token against the same competitors in a domain: True speakable,
    False unspeakable, None undecided; asked once a domain. time_limit: seconds a program.
    Raises what `verify.propose.field.solve` raises.
    """
    verdicts: dict[Domain, bool | None] = {}
    for program in programs:
        answer = solve(program, readout, token, count, solver, time_limit, margin)
        domain = DOMAIN_OF[program]
        if domain not in verdicts:
            verdicts[domain] = exact(domain)
        yield _row(answer, readout, token, count, verdicts[domain], margin)


def _row(
    answer: FieldAnswer,
    readout: Readout,
    token: int,
    count: int,
    proved: bool | None,
    asked: float,
) -> ComparisonRow:
    found, domain = None, DOMAIN_OF[answer.program]
    if answer.direction is not None:
        found = exact_margin(readout, domain, token, count, answer.direction.tolist())
    judgement = judge(answer, proved, found)
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
        exact_verdict={True: "speakable", False: "unspeakable", None: "undecided"}[proved],
        judgement=judgement,
        note="; ".join(_notes(answer, found, judgement, proved, token, asked)),
    )


def _notes(
    answer: FieldAnswer,
    found: Fraction | None,
    judgement: str,
    proved: bool | None,
    token: int,
    asked: float,
) -> Iterator[str]:
    """What a reader must know besides the judgement."""
    if judgement == FAKE_FEASIBLE:
        if found == 0:
            yield "at its direction the token only ties"
        elif answer.argmax == token:
            yield "at its direction the token is on top in float64, not in exact arithmetic"
        elif answer.argmax is not None:
            yield f"at its direction row {answer.argmax} is on top"
        if proved:
            yield "the token is speakable all the same"
    elif judgement == FAKE_INFEASIBLE:
        radius = "a radius of 1e-8 in a box of 100"
        yield f"it asks for {radius if answer.program == GRIVAS else f'a margin of {asked:g} in a box of 1'}"
    if answer.claim == "infeasible" and answer.program == OWN_ROW:
        yield f"its own row asks for 0 <= {-asked:g}, so exactly it is infeasible for every token"

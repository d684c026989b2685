"""GLUE. Counts of the answers in a table, by tolerance and margin. Wrong here = a page misinforms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verify.compare import AGREES, FAKE_FEASIBLE, FAKE_INFEASIBLE, NO_ANSWER
from verify.propose.field import GRIVAS
from verify.replay.table import JUDGEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from verify.replay.table import Question, Row


@dataclass
class Counts:
    """What was said of the tokens at one tolerance and margin.

    judgements: of the program's claim. steps: of the post's whole method, which calls a token speakable
    iff the program is feasible and the token is the argmax at x in float32 (`right`, `wrongly
    speakable`, `wrongly unspeakable`, `no answer`). floats: feasible points where the argmax in float32
    is not the exact one.
    """

    tolerance: float | None
    margin: float
    judgements: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    floats: int = 0

    @property
    def total(self) -> int:
        """Tokens asked about."""
        return sum(self.judgements.values())


STEPS = ("right", "wrongly speakable", "wrongly unspeakable", NO_ANSWER)


def summarise(rows: Iterable[Row]) -> list[Counts]:
    """One `Counts` for each tolerance and margin, in the order of the rows."""
    found: dict[tuple[float | None, float], Counts] = {}
    for row in rows:
        counts = found.setdefault((row.tolerance, row.margin), Counts(row.tolerance, row.margin))
        counts.judgements[row.judgement] += 1
        counts.steps[_step(row)] += 1
        counts.floats += row.argmax_float32 != row.exact_argmax
    return list(found.values())


def _step(row: Row) -> str:
    if row.claim == "no answer" or row.verdict == "undecided":
        return NO_ANSWER
    says = row.claim == "feasible" and row.argmax_float32 == row.token
    if says == (row.verdict == "speakable"):
        return "right"
    return "wrongly speakable" if says else "wrongly unspeakable"


def verdicts(rows: Iterable[Row]) -> Counter[str]:
    """How many tokens have which exact verdict."""
    return Counter({row.token: row.verdict for row in rows}.values())


def short(number: float | None) -> str:
    """A margin or tolerance for people, such as 1e-7 or 1.01e-7."""
    if number is None:
        return "as posed"
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def markdown(question: Question, rows: Sequence[Row]) -> str:
    """The table for a page."""
    exact = verdicts(rows)
    truth = ", ".join(f"{n} {word}" for word, n in sorted(exact.items()))
    asked = "radius" if question.program == GRIVAS else "margin"
    lines = [
        f"**{question.model}, `{question.program}`, {question.solver}** ({question.version}); "
        f"exact in `{question.domain}`: {truth}.",
        "",
        f"| tolerance | {asked} | agrees | fake feasible | fake infeasible | no answer "
        "| second step: right | wrongly speakable | wrongly unspeakable |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in summarise(rows):
        rest = c.total - sum(c.judgements[w] for w in (AGREES, FAKE_FEASIBLE, FAKE_INFEASIBLE))
        cells = [short(c.tolerance), short(c.margin), *(c.judgements[w] for w in JUDGEMENTS[:3]), rest]
        cells += [c.steps[w] for w in STEPS[:3]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"

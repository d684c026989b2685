"""GLUE. Counts of the answers in a table, by tolerance and margin. Wrong here = a page misinforms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verify.compare import (
    AGREES,
    FAKE_FEASIBLE,
    FAKE_INFEASIBLE,
    NO_ANSWER,
    RIGHT_AS_POSED,
    UNDECIDED,
    about_the_program,
    keeps,
)
from verify.propose.field import GRIVAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from verify.replay.table import Question, Row


@dataclass
class Counts:
    """What was said of the tokens at one tolerance and margin.

    judgements: of the program's claim. as_posed: of the same claim about the program itself (`right`,
    `wrong`). steps: of the post's whole method, which calls a token speakable iff the program is feasible and
    the token is the argmax at x in float32 (`right`, `wrongly speakable`, `wrongly unspeakable`). Each also
    `undecided` and `no answer`. floats: feasible points where the argmax in float32 is not the exact one.
    """

    tolerance: float | None
    margin: float
    judgements: Counter[str] = field(default_factory=Counter)
    as_posed: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    floats: int = 0

    @property
    def total(self) -> int:
        """Tokens asked about."""
        return sum(self.judgements.values())


# Of tables with no more tokens than this a page shows every answer.
_NAMED = 20
# What the numbers of a cell count; and the words that stand behind them where there are any.
_NUMBERS = {
    "judgements": (AGREES, FAKE_FEASIBLE, FAKE_INFEASIBLE, RIGHT_AS_POSED),
    "as_posed": ("right", "wrong"),
    "steps": ("right", "wrongly speakable", "wrongly unspeakable"),
}
_REST = (UNDECIDED, NO_ANSWER)


def summarise(rows: Iterable[Row]) -> list[Counts]:
    """One `Counts` for each tolerance and margin, in the order of the rows."""
    found: dict[tuple[float | None, float], Counts] = {}
    for row in rows:
        counts = found.setdefault((row.tolerance, row.margin), Counts(row.tolerance, row.margin))
        counts.judgements[row.judgement] += 1
        counts.as_posed[about_the_program(row.claim, row.posed)] += 1
        counts.steps[_step(row)] += 1
        counts.floats += row.argmax_float32 != row.exact_argmax
    return list(found.values())


def _step(row: Row) -> str:
    if row.claim == "no answer":
        return NO_ANSWER
    if row.verdict == "undecided":
        return UNDECIDED
    says = row.claim == "feasible" and row.argmax_float32 == row.token
    if says == (row.verdict == "speakable"):
        return "right"
    return "wrongly speakable" if says else "wrongly unspeakable"


def verdicts(rows: Iterable[Row]) -> Counter[str]:
    """How many tokens have which exact verdict."""
    return Counter({row.token: row.verdict for row in rows}.values())


def missed(question: Question, rows: Iterable[Row]) -> tuple[int, int]:
    """Points of one of the post's programs, and those that do not keep the margin or the box, exactly.

    The token's own row, which no point keeps, is left out.
    """
    points = [(r.margin, r.exact_margin, r.x) for r in rows if r.x and r.exact_margin is not None]
    return len(points), sum(not keeps(question.program, *point) for point in points)


def short(number: float | None) -> str:
    """A margin or tolerance for people, such as 1e-7 or 1.01e-7; `default` where none was asked for."""
    if number is None:
        return "default"
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def markdown(question: Question, rows: Sequence[Row]) -> str:
    """The table for a page: a line a margin, and for each tolerance how many answers are of which kind.

    Of the post's programs also what its second step makes of them and how many points miss what was asked;
    of a few tokens each answer.
    """
    truth = ", ".join(f"{n} {word}" for word, n in sorted(verdicts(rows).items()))
    found = {(c.tolerance, c.margin): c for c in summarise(rows)}
    tolerances = list(dict.fromkeys(tolerance for tolerance, _ in found))
    second = () if question.program == GRIVAS else tolerances
    names = ["radius" if question.program == GRIVAS else "margin"]
    names += [f"tolerance {short(t)}" for t in tolerances] + [f"as posed at {short(t)}" for t in tolerances]
    names += [f"second step at {short(t)}" for t in second]
    about = f"Exact verdicts in `{question.domain}`: {truth}."
    if question.program != GRIVAS:
        points, wrong = missed(question, rows)
        about += f" In exact arithmetic {wrong} of {points} points miss the margin or leave the box."
    lines = [
        f"**{question.model}, `{question.program}`, {question.solver}** ({question.version}). {about}",
        "",
        "| " + " | ".join(names) + " |",
        "|---" * len(names) + "|",
    ]
    for margin in dict.fromkeys(m for _, m in found):
        cells = [short(margin)]
        for kinds, which in (("judgements", tolerances), ("as_posed", tolerances), ("steps", second)):
            cells += [_cell(found.get((t, margin)), kinds) for t in which]
        lines.append("| " + " | ".join(cells) + " |")
    if found and max(c.total for c in found.values()) <= _NAMED:
        lines += ["", *_by_token(rows)]
    return "\n".join(lines) + "\n"


def _by_token(rows: Iterable[Row]) -> Iterator[str]:
    """A line an answer. Numbers are rounded, to be read."""
    names = ("token", "exact verdict", "margin", "tolerance", "as posed", "claim", "on top at x")
    yield "| " + " | ".join((*names, "in float32", "margin at x", "judgement")) + " |"
    yield "|---" * 10 + "|"
    for r in rows:
        top = "" if r.exact_argmax is None else str(r.exact_argmax)
        in_floats = "" if r.argmax_float32 is None else str(r.argmax_float32)
        at = "" if r.exact_margin is None else f"{float(r.exact_margin):.3g}"
        cells = (
            r.token,
            r.verdict,
            short(r.margin),
            short(r.tolerance),
            r.posed,
            r.claim,
            top,
            in_floats,
            at,
            r.judgement,
        )
        yield "| " + " | ".join(map(str, cells)) + " |"


def _cell(counts: Counts | None, kinds: str) -> str:
    """The numbers of a cell, with slashes. Empty where a run has not come so far."""
    if counts is None:
        return ""
    found = getattr(counts, kinds)
    rest = ", ".join(f"{found[word]} {word}" for word in _REST if found[word])
    return " / ".join(str(found[word]) for word in _NUMBERS[kinds]) + (f" ({rest})" if rest else "")

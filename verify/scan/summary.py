"""GLUE. What people want to know of a ledger: counts, the unspeakable, the thinnest. Checks nothing.

Wrong here = a page that misquotes the ledger beside it.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError, UsageError
from verify.extras import install
from verify.figures import approximate, escape
from verify.kernel import System
from verify.kernel.ledger import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from verify.kernel.ledger import Header, Row
    from verify.models import Model
    from verify.scan.folder import LedgerFolder

MEANING = {
    "own": "speakable, its own direction suffices",
    "hard": "speakable, but not by its own direction",
    "tied": "unspeakable, an equal row ties with it everywhere",
    "unspeakable": "never the unique argmax",
    "undecided": "not decided",
}
COLUMNS = (
    "token",
    "text",
    "verdict",
    "class",
    "hard_to_speak_post",
    "hard_to_speak_model",
    "kind",
    "realism",
    "margin",
    "gap",
    "at_most",
    "thinness",
    "rival",
    "rival_text",
    "exact",
    "reason",
)


@dataclass(frozen=True)
class Line:
    """A row with what a reader needs beside it. thinness: the margin, on cones at |state| = sqrt(d)."""

    row: Row
    text: str | None
    rival_text: str | None
    thinness: float | None


@dataclass(frozen=True)
class Summary:
    """A whole ledger, counted."""

    header: Header
    lines: list[Line]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by class, in a fixed order."""
        found = Counter(line.row.cls for line in self.lines)
        return {name: found[name] for name in CLASSES}

    @property
    def hard(self) -> tuple[int, int]:
        """How many are hard to speak as the post defines it, and as the model sees it."""
        rows = [line.row for line in self.lines]
        return sum(r.hard_post for r in rows), sum(r.hard_model for r in rows)

    @property
    def near_constant(self) -> int:
        """Witnesses that need near-constant residuals."""
        return sum(line.row.realism == "near-constant" for line in self.lines)

    @property
    def unspeakable(self) -> list[Line]:
        """Tied and unspeakable tokens."""
        return [line for line in self.lines if line.row.cls in ("tied", "unspeakable")]

    def thinnest(self, most: int) -> list[Line]:
        """Speakable tokens by their margin, least first."""
        found = [line for line in self.lines if line.thinness is not None]
        return sorted(found, key=lambda line: (line.thinness, line.row.token))[:most]

    def thinner_than(self) -> list[tuple[float, int]]:
        """How many witnesses have a margin below each power of ten."""
        values = [line.thinness for line in self.lines if line.thinness is not None]
        return [(10.0**e, sum(v < 10.0**e for v in values)) for e in range(-7, 2)]


def summarise(folder: LedgerFolder, model: Model) -> Summary:
    """Read a finished ledger, unchecked, with texts from the model's tokenizer."""
    header = folder.header()
    if header.last >= model.readout.vocabulary:
        raise UsageError(f"{model.name} has fewer rows than the ledger has tokens: is it another model?")
    s = header.statement
    system = System(model.readout, s.domain, 0, s.competitors)
    return Summary(header, [_line(row, model, system) for row in folder.rows()])


def _line(row: Row, model: Model, system: System) -> Line:
    margin = row.amount if row.cls in ("own", "hard") else None
    thinness = None if margin is None else approximate(margin)
    if margin is not None and row.witness is not None and system.region in ("cone", "space"):
        z = system.project(list(row.witness.p))
        if system.readout.bias is None or not system.biased:
            # (margin / |state|)^2 times d, as a fraction: states may be longer or shorter than floats hold.
            square = Fraction(sum(x * x for x in z), 1 << (2 * row.witness.k))
            squared = margin**2 * system.readout.d / square if square else Fraction(0)
            thinness = math.sqrt(approximate(squared))
    rival = None if row.rival is None else model.tokens.text(row.rival)
    return Line(row, model.tokens.text(row.token), rival, thinness)


def table(summary: Summary) -> Iterator[dict[str, Any]]:
    """One record a token, for CSV, Parquet and scripts; numbers are floats beside the exact one."""
    return map(_record, summary.lines)


def _record(line: Line) -> dict[str, Any]:
    r = line.row
    speakable = r.cls in ("own", "hard")
    verdict = "UNDECIDED" if r.cls == "undecided" else "SPEAKABLE" if speakable else "UNSPEAKABLE"
    amount = None if r.amount is None else approximate(r.amount)
    values = (
        r.token,
        line.text,
        verdict,
        r.cls,
        r.hard_post,
        r.hard_model,
        r.kind,
        r.realism,
        amount if speakable else None,
        None if speakable else amount,
        None if r.at_most is None else approximate(r.at_most),
        line.thinness,
        r.rival,
        line.rival_text,
        None if r.amount is None else f"{r.amount.numerator:x}/{r.amount.denominator:x}",
        r.reason or None,
    )
    return dict(zip(COLUMNS, values, strict=True))


def write_csv(summary: Summary, path: Path) -> None:
    """All rows as CSV, UTF-8, with a header line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table(summary))


def write_parquet(summary: Summary, path: Path) -> None:
    """All rows as Parquet. Raises ModelUnavailableError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ModelUnavailableError(f"Parquet needs pyarrow: {install('parquet')}") from None
    kinds = {"token": pa.int64(), "rival": pa.int64()}
    kinds |= dict.fromkeys(("hard_to_speak_post", "hard_to_speak_model"), pa.bool_())
    kinds |= dict.fromkeys(("margin", "gap", "at_most", "thinness"), pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    pq.write_table(pa.Table.from_pylist(list(table(summary)), schema=schema), path)


def as_json(summary: Summary, most: int) -> dict[str, Any]:
    """The figures of the page, for scripts."""
    s = summary.header.statement
    return {
        "model": s.model,
        "domain": s.domain.name,
        "first": summary.header.first,
        "last": summary.header.last,
        "competitors": s.competitors,
        "classes": summary.counts,
        "hard_to_speak_post": summary.hard[0],
        "hard_to_speak_model": summary.hard[1],
        "near_constant": summary.near_constant,
        "unspeakable": [_record(line) for line in summary.unspeakable],
        "thinnest": [_record(line) for line in summary.thinnest(most)],
    }


def markdown(summaries: list[Summary], most: int) -> str:
    """A page for people: counts of all domains side by side, then each domain's lists."""
    first = summaries[0].header
    s = first.statement
    names = [f"`{x.header.statement.domain.name}`" for x in summaries]
    head = ["", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    total = first.last - first.first + 1
    lines = [
        f"# All tokens of {escape(s.model)}",
        "",
        f"Written by `verify summary` from the ledgers beside it: tokens {first.first} to {first.last} "
        f"({total:,}), each against rows 0 to {s.competitors - 1}.",
        "`verify audit` proves every row anew. A verdict without its domain means nothing.",
        *head,
        *(f"| {n}: {MEANING[n]} | " + _cells(x.counts[n] for x in summaries) for n in CLASSES),
        "| *hard to speak* in the post's sense | " + _cells(x.hard[0] for x in summaries),
        "| *hard to speak* as the model sees it | " + _cells(x.hard[1] for x in summaries),
        "| only witness found needs near-constant residuals | " + _cells(x.near_constant for x in summaries),
        "",
        "Hard to speak in the post's sense: not the unique argmax at its own vector, on the folded and",
        "centred matrix without bias. As the model sees it: not at its own direction, at the length of the",
        "norm's output, biases in.",
        "",
        "## How thin",
        "",
        "Witnesses with a margin below (in logits; in `direction`, and in `free` without a logit bias, at a",
        "state of length √d). The margin is that of the witness found, not always the largest: of a token",
        "that its own direction settles it is that direction's; of a hard one in a bounded domain nearly the",
        "largest (*at most* says how far off it can be), in the others nearly so where it is below 0.01.",
        *head,
    ]
    for same_bound in zip(*(x.thinner_than() for x in summaries), strict=True):
        lines.append(f"| {same_bound[0][0]:g} | " + _cells(n for _, n in same_bound))
    for x in summaries:
        name = x.header.statement.domain.name
        lines += [
            "",
            f"## `{name}`: the thinnest margins",
            "",
            "| token | text | margin | at most | rival | |",
        ]
        lines.append("|---|---|---|---|---|---|")
        for line in x.thinnest(most):
            r = line.row
            top = "" if r.at_most is None else f"{approximate(r.at_most):.3g}"
            lines.append(
                f"| {r.token} | {_text(line.text)} | {line.thinness:.3g} | {top} | {r.rival} "
                f"{_text(line.rival_text)} | {r.realism or ''} |"
            )
        lines += ["", f"## `{name}`: unspeakable tokens", ""]
        if x.unspeakable:
            lines += [
                "| token | text | kind | gap | equal row or largest multiplier |",
                "|---|---|---|---|---|",
            ]
        else:
            lines.append("None.")
        for line in x.unspeakable:
            r = line.row
            gap = "" if not r.amount else f"{approximate(r.amount):.3g}"
            lines.append(
                f"| {r.token} | {_text(line.text)} | {r.kind} | {gap} | {r.rival} {_text(line.rival_text)} |"
            )
        undecided = [line for line in x.lines if line.row.cls == "undecided"]
        if undecided:
            lines += ["", f"## `{name}`: undecided tokens", "", "| token | text | why |", "|---|---|---|"]
        for line in undecided:
            lines.append(f"| {line.row.token} | {_text(line.text)} | {escape(line.row.reason)} |")
    return "\n".join(lines) + "\n"


def _cells(values: Iterator[int]) -> str:
    return " | ".join(f"{v:,}" for v in values) + " |"


def _text(text: str | None) -> str:
    return "" if text is None else escape(repr(text))

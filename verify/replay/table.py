"""GLUE. A table of answers: what was asked, and a row an answer. Wrong here = an answer is misread.

The first line is `# ` and the question in JSON, the second the names of the columns, then a row a line,
cells parted by tabs. A finished table is compressed by gzip; one that is being made is plain text, a row
on disk before the next is asked for (a machine that loses power can cost the rows of a second).

x is written exactly: a coordinate at the program's box is `+` or `-`, any other is `.` and the sixteen
hexadecimal digits of its IEEE 754 double. `=` is the x of the nearest row above that has one, of the same
token.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import time
import zlib
from dataclasses import asdict, astuple, dataclass, fields
from fractions import Fraction
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from verify.compare import (
    AGREES,
    FAKE_FEASIBLE,
    FAKE_INFEASIBLE,
    NO_ANSWER,
    POSED_WORD,
    RIGHT_AS_POSED,
    UNDECIDED,
    VERDICT_WORD,
)
from verify.errors import MalformedError, ModelUnavailableError, OutputError, UsageError
from verify.files import domain_path, write_atomically
from verify.kernel.domain import parse_domain
from verify.kernel.readout import NORMS
from verify.propose.field import DOMAIN_OF, box_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from verify.kernel import Domain

FORMAT = "verify-replay-3"
JUDGEMENTS = (AGREES, FAKE_FEASIBLE, FAKE_INFEASIBLE, RIGHT_AS_POSED, UNDECIDED, NO_ANSWER)
CLAIMS = ("feasible", "infeasible", "no answer")
_SUFFIX, _FINISHED = ".tsv", ".tsv.gz"
_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7}))?")
_COORDINATE = re.compile(r"[+-]|\.([0-9a-f]{16})")
_EPSILON = re.compile(r"(0|[1-9][0-9]{0,199})(\.[0-9]{0,199}[1-9])?")
_MOST_BYTES = 1 << 30
_MOST_ROWS = 10_000_000


@dataclass(frozen=True)
class Question:
    """What one table answers; two tables with the same question may be continued one by the other.

    tensors: role -> SHA-256 of the model's tensors. norm, gain_offset, epsilon: the rest of its readout, as
    in certificates; epsilon an exact decimal. competitors: rows 0 .. competitors - 1.
    version: of PuLP and the solver. tokens: as on the command line, such as `0-590` or `173,30208`.
    tolerances: of the solver on a constraint; None as the program was posed. margins: in logits, of the
    post's programs; of `grivas` the least radius, which is part of the program.
    """

    model: str
    revision: str | None
    tensors: dict[str, str]
    norm: str
    gain_offset: int
    epsilon: str
    competitors: int
    program: str
    domain: str
    solver: str
    version: str
    tokens: str
    tolerances: tuple[float | None, ...]
    margins: tuple[float, ...]
    time_limit: float | None = None

    def __post_init__(self) -> None:
        """ValueError or UsageError if a part is of the wrong kind or out of range."""
        texts = (self.model, self.program, self.domain, self.solver, self.version, self.tokens)
        hashes = [*self.tensors, *self.tensors.values()]
        if not all(isinstance(x, str) for x in (*texts, *hashes)) or type(self.competitors) is not int:
            raise ValueError("a part of the question is of the wrong kind")
        if self.norm not in NORMS or type(self.gain_offset) is not int or self.gain_offset not in (0, 1):
            raise ValueError("the norm or the gain offset is none that is known")
        if not isinstance(self.epsilon, str) or not _EPSILON.fullmatch(self.epsilon):
            raise ValueError("epsilon is not a plain exact decimal")
        if self.revision is not None and not isinstance(self.revision, str):
            raise ValueError("the revision is no text")
        if self.program not in DOMAIN_OF or DOMAIN_OF[self.program].name != self.domain:
            raise ValueError(f"{self.program[:40]!r} is no program that asks about {self.domain[:40]!r}")
        numbers = (*self.margins, *(t for t in (*self.tolerances, self.time_limit) if t is not None))
        if not all(isinstance(x, float) and 0 < x < inf for x in numbers):
            raise ValueError("margins, tolerances and a time limit are numbers above 0")
        if len(token_ids(self.tokens)) * len(self.tolerances) * len(self.margins) > _MOST_ROWS:
            raise UsageError(f"more than {_MOST_ROWS} answers in one table: ask about fewer tokens")

    def keys(self) -> Iterator[tuple[int, float | None, float]]:
        """(token, tolerance, margin) of every row, in the table's order."""
        for token in token_ids(self.tokens):
            for tolerance in self.tolerances:
                for margin in self.margins:
                    yield token, tolerance, margin

    @property
    def box(self) -> float:
        """The bound on |x_i| in the program."""
        return box_of(self.program)

    @property
    def states(self) -> Domain:
        """The domain that the program asks about."""
        return parse_domain(self.domain)


@dataclass(frozen=True)
class Row:
    """One answer, and what is exactly so.

    status, claim, argmax, argmax_float32: as in `FieldAnswer`; seconds: writing the program and solving.
    x: the solver's point when feasible, as doubles. exact_argmax, exact_margin: the row on top at x, and
    the least l_t - l_j there. verdict: exact, in the program's domain. posed: whether the program as posed
    has a solution (`feasible`, `infeasible`, `open`). without_own_row: whether it has one without the token's
    own row; as `posed` where that row is not in it. judgement: a word of `verify.compare`.
    """

    token: int
    tolerance: float | None
    margin: float
    status: str
    claim: str
    argmax: int | None
    argmax_float32: int | None
    exact_argmax: int | None
    exact_margin: Fraction | None
    verdict: str
    posed: str
    without_own_row: str
    judgement: str
    seconds: float
    x: tuple[float, ...] | None

    @property
    def key(self) -> tuple[int, float | None, float]:
        """What was asked."""
        return self.token, self.tolerance, self.margin


COLUMNS = tuple(f.name for f in fields(Row))


def token_ids(text: str) -> tuple[int, ...]:
    """Ids of a list such as `0-99,173`, in that order. UsageError if it is none or names one twice."""
    found: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"tokens {text[:40]!r}: give ids and ranges, such as 0-99,173")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
        if len(found) > _MOST_ROWS:
            raise UsageError(f"tokens {text[:40]!r}: more than {_MOST_ROWS}")
    if not found or len(set(found)) != len(found):
        raise UsageError(f"tokens {text[:40]!r} names no token, or one twice")
    return tuple(found)


class Table:
    """One table on disk, in a folder of the model."""

    def __init__(self, path: Path) -> None:
        """`path`: without the suffix, or with either."""
        for suffix in (_FINISHED, _SUFFIX):
            path = path.with_name(path.name.removesuffix(suffix))
        self.unfinished = path.with_name(path.name + _SUFFIX)
        self.finished = path.with_name(path.name + _FINISHED)

    @classmethod
    def below(cls, out: Path, question: Question) -> Table:
        """`out`/model/program.solver"""
        folder = domain_path(out, question.model, question.program)
        return cls(folder.with_name(f"{folder.name}.{question.solver}"))

    @property
    def complete(self) -> bool:
        """Whether every row is there."""
        return self.finished.exists()

    def read(self) -> tuple[Question, list[Row]]:
        """The question and the rows. MalformedError, ModelUnavailableError if unreadable.

        A finished table must hold every row of its question, in order; one that is not finished, the first
        of them, and a last line without its end is left out.
        """
        path = self.finished if self.complete else self.unfinished
        if not path.is_file():
            raise ModelUnavailableError(f"{path}: there is no such table")
        try:
            with gzip.open(path) if self.complete else path.open("rb") as file:
                data = file.read(_MOST_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise MalformedError(f"{path}: {error}") from None
        try:
            question, rows = _parse(data[: data.rfind(b"\n") + 1].decode("ascii"))
            _require_order(question, rows, self.complete)
        except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, UsageError) as error:
            raise MalformedError(f"{path}: {str(error)[:200]}") from None
        return question, rows

    def resume(self, question: Question) -> list[Row]:
        """The rows that are there. UsageError if they answer another question."""
        if not (self.complete or self.unfinished.exists()):
            write_atomically(self.unfinished, _head(question).encode("ascii"))
            return []
        found, rows = self.read()
        if found != question:
            other = [f.name for f in fields(Question) if getattr(found, f.name) != getattr(question, f.name)]
            raise UsageError(
                f"{self.unfinished.parent} holds answers to another question ({', '.join(other)} differ); "
                "choose another folder with --out, or remove the table"
            )
        if not self.complete:  # without a torn last line
            write_atomically(self.unfinished, _text(question, rows))
        return rows

    def appender(self, question: Question, rows: list[Row]) -> Appender:
        """Adds rows behind those that are there."""
        above = next((row for row in reversed(rows) if row.x is not None), None)
        return Appender(self.unfinished, question, above)

    def finish(self, question: Question, rows: list[Row]) -> None:
        """Write the compressed table, the same bytes for the same rows, and remove the plain one."""
        write_atomically(self.finished, gzip.compress(_text(question, rows), 9, mtime=0))
        self.unfinished.unlink(missing_ok=True)


class Appender:
    """Rows added one by one."""

    def __init__(self, path: Path, question: Question, above: Row | None) -> None:
        """`above`: the last row that has an x, or None."""
        self._path, self._question, self._above = path, question, above
        self._synced = 0.0
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self._file.close()

    def add(self, row: Row) -> None:
        """Append a row. Raises OutputError, on a full disk for example."""
        try:
            self._file.write(_line(row, self._above, self._question.box).encode("ascii"))
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None
        if time.monotonic() - self._synced > 1:
            self._sync()
        if row.x is not None:
            self._above = row

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def find_tables(path: Path) -> list[Table]:
    """The tables at or below a path, finished or not, in order."""
    if not path.is_dir():
        return [Table(path)]
    found = {Table(p).finished for p in path.rglob("*") if p.name.endswith((_SUFFIX, _FINISHED))}
    return [Table(p) for p in sorted(found)]


def _head(question: Question) -> str:
    data = json.dumps({"format": FORMAT, **asdict(question)}, sort_keys=True)
    return f"# {data}\n" + "\t".join(COLUMNS) + "\n"


def _text(question: Question, rows: list[Row]) -> bytes:
    out, above = [_head(question)], None
    for row in rows:
        out.append(_line(row, above, question.box))
        above = row if row.x is not None else above
    return "".join(out).encode("ascii")


def _line(row: Row, above: Row | None, box: float) -> str:
    cells = [_cell(value) for value in astuple(row)[:-1]]
    if row.x is None:
        cells.append("")
    elif above is not None and above.token == row.token and _same(above.x, row.x):
        cells.append("=")
    else:
        cells.append("".join(_coordinate(v, box) for v in row.x))
    return "\t".join(cells) + "\n"


def _same(x: tuple[float, ...] | None, y: tuple[float, ...]) -> bool:
    """Equal to the bit: -0.0 is not 0.0 here."""
    return x is not None and [v.hex() for v in x] == [v.hex() for v in y]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Fraction):
        return f"{value.numerator:x}/{value.denominator:x}"
    text = repr(value) if isinstance(value, float) else str(value)
    return re.sub(r"[^ -~]", "?", text)


def _coordinate(value: float, box: float) -> str:
    if abs(value) == box:
        return "+" if value > 0 else "-"
    return "." + struct.pack(">d", value).hex()


def _parse(text: str) -> tuple[Question, list[Row]]:
    first, names, *lines = text.split("\n")[:-1]
    data = json.loads(first.removeprefix("# "))
    if data.pop("format") != FORMAT or tuple(names.split("\t")) != COLUMNS:
        raise ValueError(f"it is no table of {FORMAT}")
    data["tolerances"], data["margins"] = tuple(data["tolerances"]), tuple(data["margins"])
    question = Question(**data)
    rows: list[Row] = []
    above: Row | None = None
    for line in lines:
        row = _row(line, above, question)
        rows.append(row)
        above = row if row.x is not None else above
    return question, rows


def _require_order(question: Question, rows: list[Row], complete: bool) -> None:
    keys = list(question.keys())
    if [row.key for row in rows] != keys[: len(rows)]:
        raise ValueError("its rows are not in the order of the question; remove it and run again")
    if complete and len(rows) < len(keys):
        raise ValueError(f"it holds {len(rows)} of {len(keys)} rows; remove it and run again")


def _row(line: str, above: Row | None, question: Question) -> Row:
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        raise ValueError(f"a line of {len(cells)} cells: {line[:60]!r}")
    token, tolerance, margin, status, claim, a64, a32, top, exact, verdict, posed, without, *rest = cells
    judged, seconds, x = rest
    solutions = tuple(POSED_WORD.values())
    words = ((claim, CLAIMS), (verdict, VERDICT_WORD.values()), (posed, solutions), (without, solutions))
    if not all(word in known for word, known in (*words, (judged, JUDGEMENTS))):
        raise ValueError(f"an unknown word in {line[:60]!r}")
    return Row(
        token=int(token),
        tolerance=float(tolerance) if tolerance else None,
        margin=float(margin),
        status=status,
        claim=claim,
        argmax=int(a64) if a64 else None,
        argmax_float32=int(a32) if a32 else None,
        exact_argmax=int(top) if top else None,
        exact_margin=_fraction(exact) if exact else None,
        verdict=verdict,
        posed=posed,
        without_own_row=without,
        judgement=judged,
        seconds=float(seconds),
        x=_point(x, int(token), above, question.box),
    )


def _fraction(text: str) -> Fraction:
    numerator, denominator = text.split("/")
    return Fraction(int(numerator, 16), int(denominator, 16))


def _point(text: str, token: int, above: Row | None, box: float) -> tuple[float, ...] | None:
    if not text:
        return None
    if text == "=":
        if above is None or above.token != token:
            raise ValueError(f"token {token}: '=' without an x above it")
        return above.x
    found = list(_COORDINATE.finditer(text))
    if sum(len(m[0]) for m in found) != len(text):
        raise ValueError(f"token {token}: an x that cannot be read")
    ends = {"+": box, "-": -box}
    x = tuple(ends[m[0]] if m[1] is None else struct.unpack(">d", bytes.fromhex(m[1]))[0] for m in found)
    if not all(map(isfinite, x)):
        raise ValueError(f"token {token}: a coordinate of x is not finite")
    return x

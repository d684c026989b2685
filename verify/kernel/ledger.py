"""TRUSTED. Ledger files: bytes in, a typed header and rows out, or a MalformedError. docs/ledger.md.

A ledger holds the answer for every token of one model in one domain. If this is wrong, a row may be read
as saying something other than what a person reads in it. It proves nothing: see proved.py.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from verify.errors import FieldValueError, NotationError, OversizedError, TrailingBytesError
from verify.kernel import strict_json
from verify.kernel.certificate import statement_data, statement_from
from verify.kernel.evidence import KINDS, Multipliers, State
from verify.kernel.strict_json import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verify.kernel.statement import Statement

FORMAT = "verify-ledger"
CLASSES = ("own", "hard", "tied", "unspeakable", "undecided")
REALISM = ("realistic", "near-constant")
# Rows of one file, and bytes of one.
BLOCK = 4096
MAX_BLOCK_BYTES = 1 << 28
MAX_GRID = 1 << 12
_SCALE_DIGITS = 256
_NAME = re.compile(r"rows-[0-9]{5,}\.tsv")
_NUMBER = re.compile(r"(-?(?:0|[1-9a-f][0-9a-f]*))(?:/([1-9a-f][0-9a-f]*))?(?:>>([1-9][0-9]*))?")
_NATURAL = re.compile(r"0|[1-9a-f][0-9a-f]*")
_COLUMNS = 13
# Of an undecided row there is one more.
_REASON = re.compile(r"[!-~]([ -~]{0,998}[!-~])?")


@dataclass(frozen=True)
class Header:
    """What a ledger is about. statement.token is 0 and its text absent: rows say which token.

    first, last: the tokens, all of them in between. grid: the own state of every token is a multiple of
    2**-grid. files: the row files, in order, with their SHA-256.
    """

    statement: Statement
    first: int
    last: int
    grid: int
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """One token. hard_post, hard_model: whether its own direction fails there.

    scale, model_scale: the m of its own state in this domain and in `readout`. amount: the exact margin
    of the witness, or a gap. rival: the nearest competitor at the witness, an equal row of a tied token,
    or the row with the largest multiplier. witness None with own: the own state; else the state.
    reason: of an undecided token, for people; nothing is made of it.
    """

    token: int
    cls: str
    hard_post: bool
    hard_model: bool
    scale: int
    model_scale: int
    kind: str | None = None
    realism: str | None = None
    amount: Fraction | None = None
    rival: int | None = None
    own: bool = False
    witness: State | None = None
    multipliers: Multipliers | None = None
    ceiling: Multipliers | None = None
    at_most: Fraction | None = None
    reason: str = ""


def header_bytes(header: Header) -> bytes:
    """The canonical ledger.json."""
    return strict_json.write(
        {
            "format": FORMAT,
            "version": strict_json.VERSION,
            "statement": statement_data(header.statement, per_token=False),
            "first": header.first,
            "last": header.last,
            "grid": header.grid,
            "files": dict(header.files),
        }
    )


def header_from_bytes(data: bytes) -> Header:
    """The header in a ledger.json. Raises a MalformedError, and nothing else, on any other bytes."""
    top = strict_json.file_fields(
        strict_json.parse(data), FORMAT, "statement", "first", "last", "grid", "files"
    )
    files = strict_json.texts(top["files"], "files")
    for name, digest in files.items():
        if not _NAME.fullmatch(name):
            raise FieldValueError("files: a name is not of the form rows-00000.tsv")
        strict_json.sha256(digest, "files")
    header = Header(
        statement_from(top["statement"], per_token=False),
        count(top["first"], "first"),
        count(top["last"], "last"),
        count(top["grid"], "grid", most=MAX_GRID),
        tuple(files.items()),
    )
    strict_json.require_canonical(header_bytes(header), data)
    return header


def digest(data: bytes) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(data).hexdigest()


def rows_bytes(rows: Iterable[Row]) -> bytes:
    """The canonical lines of rows."""
    return "".join(line(row) + "\n" for row in rows).encode()


def rows_from_bytes(data: bytes) -> list[Row]:
    """The rows in a file. Raises a MalformedError, and nothing else, on any other bytes."""
    if len(data) > MAX_BLOCK_BYTES:
        raise OversizedError(f"over the limit of {MAX_BLOCK_BYTES} bytes")
    try:
        lines = data.decode("ascii").split("\n")
    except ValueError:
        raise NotationError("a file of rows is not ASCII") from None
    if lines.pop():
        raise TrailingBytesError("the last row does not end")
    return [row_from_line(x) for x in lines]


def line(row: Row) -> str:
    """One row as text, without the end of line."""
    return "\t".join(
        (
            str(row.token),
            row.cls,
            "h" if row.hard_post else "e",
            "h" if row.hard_model else "e",
            f"{row.scale:x}",
            f"{row.model_scale:x}",
            row.kind or "-",
            row.realism or "-",
            "-" if row.amount is None else number_text(row.amount),
            "-" if row.rival is None else str(row.rival),
            "own" if row.own else "-" if row.witness is None else _state_text(row.witness),
            "-" if row.multipliers is None else _multipliers_text(row.multipliers),
            "-"
            if row.ceiling is None or row.at_most is None
            else f"{number_text(row.at_most)} {_multipliers_text(row.ceiling)}",
            *([row.reason or "-"] if row.cls == "undecided" else []),
        )
    )


def row_from_line(written: str) -> Row:
    """The row of a line. Raises a MalformedError, and nothing else, on any other text."""
    cells = written.split("\t")
    reason = cells.pop() if len(cells) == _COLUMNS + 1 and cells[1] == "undecided" else "-"
    if len(cells) != _COLUMNS:
        raise FieldValueError(f"a row of {len(cells)} cells, {_COLUMNS} are expected")
    if not _REASON.fullmatch(reason):
        raise NotationError("a reason is not of 1 to 1000 printable ASCII characters")
    token, cls, post, model, scale, model_scale, kind, realism, amount, rival, witness, multipliers, top = (
        cells
    )
    if post not in ("h", "e") or model not in ("h", "e"):
        raise FieldValueError("hard to speak is neither h nor e")
    at_most, _, ceiling = top.partition(" ")
    row = Row(
        token=_row_id(token),
        cls=strict_json.one_of(cls, CLASSES, "class"),
        hard_post=post == "h",
        hard_model=model == "h",
        scale=_scale(scale),
        model_scale=_scale(model_scale),
        kind=None if kind == "-" else strict_json.one_of(kind, KINDS, "kind"),
        realism=None if realism == "-" else strict_json.one_of(realism, REALISM, "realism"),
        amount=None if amount == "-" else number(amount),
        rival=None if rival == "-" else _row_id(rival),
        own=witness == "own",
        witness=None if witness in ("-", "own") else _state(witness),
        multipliers=None if multipliers == "-" else _multipliers(multipliers),
        ceiling=None if top == "-" else _multipliers(ceiling),
        at_most=None if top == "-" else number(at_most),
        reason="" if reason == "-" else reason,
    )
    if line(row) != written:
        raise NotationError("a row is not written in the one way there is")
    return row


def reason_text(words: str) -> str:
    """Words as the reason of a row: ASCII, and not too long."""
    return ascii(words)[1:-1][:1000].strip()


def number_text(x: Fraction) -> str:
    """An exact number: `a`, `a/b`, `a>>k`, or `a/b>>k` for a / (b * 2**k), b odd, a and b hexadecimal."""
    k = (x.denominator & -x.denominator).bit_length() - 1
    odd = x.denominator >> k
    return f"{x.numerator:x}" + (f"/{odd:x}" if odd > 1 else "") + (f">>{k}" if k else "")


def number(written: str) -> Fraction:
    """The number in `number_text`'s notation; other ways to write it are refused with the whole row."""
    if len(written) > 2 * strict_json.FRACTION_DIGITS:
        raise OversizedError("a number is too long")
    found = _NUMBER.fullmatch(written)
    if not found:
        raise NotationError("a number is not of the form a/b>>k")
    a, b, k = found.groups()
    shift = int(k) if k and len(k) < 6 else 0
    if k and not shift:
        raise OversizedError("a number is shifted too far")
    return Fraction(int(a, 16), int(b or "1", 16) << shift)


def _row_id(written: str) -> int:
    if not strict_json.ROW.fullmatch(written):
        raise NotationError("a row id is not a plain decimal number")
    return int(written)


def _scale(written: str) -> int:
    if len(written) > _SCALE_DIGITS:
        raise OversizedError("a scale is too long")
    if not _NATURAL.fullmatch(written):
        raise NotationError("a scale is not a natural number in hexadecimal")
    return int(written, 16)


def _state_text(state: State) -> str:
    return f"{state.k} " + " ".join(f"{x:x}" for x in state.p)


def _state(written: str) -> State:
    k, _, p = written.partition(" ")
    if not strict_json.ROW.fullmatch(k) or len(k) > 5:
        raise NotationError("a witness does not begin with its grid")
    return State(strict_json.hex_list(p, "witness", strict_json.ENTRY_DIGITS), int(k))


def _multipliers_text(m: Multipliers) -> str:
    if m.values is None:
        return " ".join(map(str, m.rows))
    return " ".join(f"{j}:{v:x}" for j, v in zip(m.rows, m.values, strict=True))


def _multipliers(written: str) -> Multipliers:
    """`row:value` each, or the rows of a support alone."""
    if ":" not in written:
        return Multipliers(strict_json.rows(written, "multipliers"), None)
    pairs = [item.partition(":")[::2] for item in strict_json.words(written, "multipliers")]
    values = strict_json.hex_list(" ".join(v for _, v in pairs), "multipliers", strict_json.MULTIPLIER_DIGITS)
    return Multipliers(tuple(_row_id(j) for j, _ in pairs), values)


def same_subject(a: Header, b: Header) -> bool:
    """Whether two headers are about the same question, whatever files belong to them."""
    return (a.statement, a.first, a.last, a.grid) == (b.statement, b.first, b.last, b.grid)


def row_range(header: Header) -> range:
    """The tokens a ledger must account for, each exactly once and in this order."""
    return range(header.first, header.last + 1)

"""The files of a ledger: one spelling each, and every other byte string is refused by the rule it breaks."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from built_models import model as built
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import BASES, LN

from verify.errors import (
    FieldValueError,
    MalformedError,
    MissingKeyError,
    NotationError,
    NotCanonicalError,
    OversizedError,
    TrailingBytesError,
    UnknownKeyError,
    WrongFormatError,
    WrongVersionError,
)
from verify.kernel import Multipliers, State, ledger, strict_json
from verify.kernel.ledger import CLASSES, REALISM, Header, Row
from verify.scan.run import scan

# ---- the format: rows ----

naturals = st.integers(0, 1 << 200)
integers = st.integers(-(1 << 200), 1 << 200)
fractions = st.builds(
    lambda a, b, k: Fraction(a, b) / (1 << k), integers, st.integers(1, 1 << 70), st.integers(0, 300)
)
ids = st.integers(0, 10**16 - 1)
states = st.builds(State, st.lists(integers, min_size=1, max_size=4).map(tuple), st.integers(0, 99999))
pairs = st.lists(st.tuples(ids, integers), min_size=1, max_size=4)
in_full = pairs.map(lambda x: Multipliers(tuple(j for j, _ in x), tuple(v for _, v in x)))
supports = st.lists(ids, min_size=1, max_size=4).map(lambda x: Multipliers(tuple(x), None))
witnesses = st.one_of(st.just((True, None)), st.tuples(st.just(False), st.none() | states))
ceilings = st.one_of(st.just((None, None)), st.tuples(in_full | supports, fractions))
classes = st.tuples(
    st.sampled_from(CLASSES), st.sampled_from(["", "no", "a reason, 'with: \\xe9", "x" * 1000])
)
rows_in_any_form = st.builds(
    lambda w, c, k, **fields: Row(
        **fields, own=w[0], witness=w[1], ceiling=c[0], at_most=c[1],
        cls=k[0], reason=k[1] if k[0] == "undecided" else "",
    ),
    witnesses, ceilings, classes,
    token=ids, hard_post=st.booleans(), hard_model=st.booleans(),
    scale=naturals, model_scale=naturals, kind=st.sampled_from([None, "never", "tie-only", "unsettled"]),
    realism=st.sampled_from([None, *REALISM]), amount=st.none() | fractions, rival=st.none() | ids,
    multipliers=st.none() | in_full | supports,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(rows_in_any_form, max_size=3))
def test_rows_survive_the_file(rows: list[Row]) -> None:
    data = ledger.rows_bytes(rows)
    assert ledger.rows_from_bytes(data) == rows
    assert data.count(b"\n") == len(rows)
    assert data.count(b"\t") == sum(13 if row.cls == "undecided" else 12 for row in rows)


@settings(max_examples=200, deadline=None)
@given(fractions)
def test_numbers_survive(x: Fraction) -> None:
    written = ledger.number_text(x)
    assert ledger.number(written) == x
    a, b, k = re.fullmatch(r"(-?[0-9a-f]+)(?:/([0-9a-f]+))?(?:>>([0-9]+))?", written).groups()  # type: ignore[union-attr]
    assert x == Fraction(int(a, 16), int(b or "1", 16) * 2 ** int(k or "0"))
    assert int(b or "1", 16) % 2 == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_other_bytes_are_malformed_or_say_something_else(data: st.DataObject) -> None:
    """One byte changed, removed or added: another ledger, or a MalformedError, never another spelling."""
    whole = ledger.rows_bytes(BASES[data.draw(st.sampled_from(sorted(BASES)))].rows[2:4])
    at, piece = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.binary(max_size=2))
    changed = whole[:at] + piece + whole[at + data.draw(st.integers(0, 1)) :]
    try:
        rows = ledger.rows_from_bytes(changed)
    except MalformedError:
        return
    assert ledger.rows_bytes(rows) == changed


@given(st.text(alphabet="0123456789abcdefhown:/>- \t\u00e9A", max_size=40))
def test_any_other_line_is_malformed(written: str) -> None:
    with pytest.raises(MalformedError):
        ledger.row_from_line(written)


PLAIN = "5\thard\th\te\tff\t0\t-\trealistic\t3/5>>2\t1\t7 -1 a\t-\t5>>1 0:1 2:a"
TIED = "5\ttied\th\te\tff\t0\ttie-only\t-\t0\t1\town\t0 1\t-"


UNDECIDED = "5\tundecided\th\te\tff\t0" + "\t-" * 7 + "\tno proposal passed"


def cell(number: int, value: str, of: str = PLAIN) -> str:
    cells = of.split("\t")
    cells[number - 1] = value
    return "\t".join(cells)


def test_the_lines_that_are_spoilt_below_are_well_formed() -> None:
    for written in (
        PLAIN,
        TIED,
        UNDECIDED,
        cell(14, "-", UNDECIDED),
        cell(1, "0"),
        cell(5, "0"),
        cell(12, "0:1"),
    ):
        assert ledger.line(ledger.row_from_line(written)) == written


@pytest.mark.parametrize(
    ("written", "error"),
    [
        (UNDECIDED.rpartition("\t")[0], NotationError),  # a cell too few
        (UNDECIDED + "\t-", FieldValueError),
        (PLAIN + "\t-", FieldValueError),  # a reason for what was decided
        (cell(14, "", UNDECIDED), NotationError),
        (cell(14, " no", UNDECIDED), NotationError),
        (cell(14, "no ", UNDECIDED), NotationError),
        (cell(14, "\u00e9", UNDECIDED), NotationError),
        (cell(14, "a\x1bb", UNDECIDED), NotationError),
        (cell(14, "x" * 1001, UNDECIDED), NotationError),
    ],
)
def test_reasons_are_of_undecided_rows_and_printable(written: str, error: type[MalformedError]) -> None:
    with pytest.raises(error):
        ledger.row_from_line(written)


def test_any_words_become_a_reason() -> None:
    for words in ("", "no", " \u00e9 'x' \n\t", "x" * 5000, "x" * 999 + " y"):
        row = Row(5, "undecided", True, False, 1, 1, reason=ledger.reason_text(words))
        assert ledger.row_from_line(ledger.line(row)) == row
    assert ledger.reason_text("\u00e9 x\n") == "\\xe9 x\\n"
    assert ledger.reason_text("x" * 5000) == "x" * 1000


def test_numbers_as_long_as_they_may_be() -> None:
    assert ledger.number("1" * (2 * strict_json.FRACTION_DIGITS)).denominator == 1
    row = ledger.row_from_line(cell(5, "1" * 256))
    assert row.scale == int("1" * 256, 16)


# fmt: off
BAD_CELLS: list[tuple[int, str, type[MalformedError]]] = [
    *[(1, x, NotationError) for x in (
        "", "-", "-1", "05", "a", " 5", "5 ", "+5", "1" * 17, "\u0665", "5\r", "0x5",
    )],
    *[(2, x, FieldValueError) for x in ("", "-", "Own", "speakable", "own ", "HARD")],
    *[(n, x, FieldValueError) for n in (3, 4) for x in ("", "-", "H", "he", "1", "true")],
    *[(n, x, NotationError) for n in (5, 6) for x in (
        "", "-", "-1", "0f", "FF", "0x1", "-0", "1 ", "g", "1>>1",
    )],
    *[(n, "1" * 257, OversizedError) for n in (5, 6)],
    *[(7, x, FieldValueError) for x in ("", "Never", "tie", "tie-only ", "--")],
    *[(8, x, FieldValueError) for x in ("", "Realistic", "near", "near-constant ")],
    *[(9, x, NotationError) for x in (
        "", "--", "-0", "03/5", "3/05", "3/5>>02", "3/5>>0", "A", "3/A", "3/6", "3/3", "3/1", "3/-5", "3/2",
        "1/6>>1",
        "2>>1", "0>>1", "0/5", "6/5>>1", "9/3>>2", ">>2", "/5", "3/>>2", "3>>", "3 /5", "3/5 >>2", "3/5>>a",
        "3.5",
        "+3", "3/0", "3/5/7", "3>>1>>1", "3>>-1", "1e5>>1.0",
    )],
    (9, "1" * (2 * strict_json.FRACTION_DIGITS + 1), OversizedError),
    (9, "1>>100000", OversizedError),
    *[(10, x, NotationError) for x in ("", "own", "-1", "01", "a", "1 2")],
    *[(11, x, NotationError) for x in (
        "", "Own", "7", "7 ", "-7 1", "07 1", "7  1", "7 01", "7 -0", "7 A", "7 1 ", " 7 1",
        "100000 1", "7 1>>1", "own 1",
    )],
    (11, "7 " + "1" * (strict_json.ENTRY_DIGITS + 1), OversizedError),
    *[(12, x, NotationError) for x in (
        "", "a", "-1", "01", "0 ", " 0", "0  1", "0:", ":1", "0:1 2", "0 2:1", "0:1  2:1", "0:01", "0:-0",
        "0:A", "00:1", "0:1:2", "a:1", "0:1 ", "0 :1", "0: 1", "1:1>>1",
    )],
    (12, "0:" + "1" * (strict_json.MULTIPLIER_DIGITS + 1), OversizedError),
    *[(13, x, NotationError) for x in (
        "", "5>>1", "5>>1 ", " 0:1", "0:1", "5>>1  0:1", "5>>1 0:01", "-0 0:1", "2>>1 0:1",
        "- 0:1", "5>>1 -", "05 0:1",
    )],
]
# fmt: on


@pytest.mark.parametrize(("number", "value", "error"), BAD_CELLS, ids=lambda x: str(x)[:20])
def test_a_cell_that_is_not_written_in_the_one_way(
    number: int, value: str, error: type[MalformedError]
) -> None:
    with pytest.raises(error) as caught:
        ledger.row_from_line(cell(number, value))
    assert type(caught.value) is error
    with pytest.raises(MalformedError):
        ledger.row_from_line(cell(number, value, TIED))


@pytest.mark.parametrize(
    "written", ["", "\t" * 11, PLAIN + "\t", PLAIN + "\t-", PLAIN.replace("\t", " "), "\t" + PLAIN]
)
def test_a_row_of_other_columns(written: str) -> None:
    with pytest.raises(FieldValueError, match="13 are expected"):
        ledger.row_from_line(written)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (PLAIN.encode(), TrailingBytesError),
        (PLAIN.encode() + b"\n" + PLAIN[:9].encode(), TrailingBytesError),
        (PLAIN.encode() + b"\n\n", FieldValueError), (b"\n", FieldValueError),
        (PLAIN.encode() + b"\r\n", NotationError), (b"\xef\xbb\xbf" + PLAIN.encode() + b"\n", NotationError),
        (PLAIN.encode() + b"\n\xff\n", NotationError), (PLAIN.encode() + b"\n\0", TrailingBytesError),
        (PLAIN.replace("\t", "\v").encode() + b"\n", FieldValueError),
    ],
)  # fmt: skip
def test_a_file_of_rows_that_is_not_lines_of_ascii(data: bytes, error: type[MalformedError]) -> None:
    with pytest.raises(error):
        ledger.rows_from_bytes(data)


def test_a_file_of_rows_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (PLAIN + "\n").encode()
    monkeypatch.setattr(ledger, "MAX_BLOCK_BYTES", len(data))
    assert ledger.rows_from_bytes(data) == [ledger.row_from_line(PLAIN)]
    assert ledger.rows_from_bytes(b"") == []
    with pytest.raises(OversizedError):
        ledger.rows_from_bytes(data + data)


# ---- the format: headers ----

HEADERS = [base.header for base in BASES.values()]
GOOD = ledger.header_bytes(LN.header)


@pytest.mark.parametrize("header", HEADERS, ids=list(BASES))
def test_headers_survive_the_file(header: Header) -> None:
    assert ledger.header_from_bytes(ledger.header_bytes(header)) == header


def edited(edit: Callable[[dict[str, Any]], Any]) -> bytes:
    top = json.loads(GOOD)
    edit(top)
    return strict_json.write(top)


@pytest.mark.parametrize(
    "key", [*json.loads(GOOD), *(f"statement.{k}" for k in json.loads(GOOD)["statement"])]
)
def test_a_header_without_a_key_or_with_one_more(key: str) -> None:
    def holder(top: Any) -> Any:
        return top["statement"] if "." in key else top

    name = key.rpartition(".")[2]
    expected = {"format": WrongFormatError, "version": WrongVersionError}.get(key, MissingKeyError)
    with pytest.raises(expected):
        ledger.header_from_bytes(edited(lambda top: holder(top).pop(name)))
    with pytest.raises(UnknownKeyError):
        ledger.header_from_bytes(edited(lambda top: holder(top).update({name + "s": 1})))
    bad: list[Any] = [1.5, True, [], -1]
    for value in bad:
        with pytest.raises(MalformedError):
            ledger.header_from_bytes(edited(lambda top: holder(top).update({name: value})))  # noqa: B023 - at once


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"format": "verify-certificate"}, WrongFormatError), ({"version": 2}, WrongVersionError),
        ({"first": -1}, FieldValueError), ({"last": (1 << 40) + 1}, FieldValueError),
        ({"first": "0"}, FieldValueError), ({"grid": ledger.MAX_GRID + 1}, FieldValueError),
        ({"grid": -1}, FieldValueError), ({"files": []}, FieldValueError),
        *[({"files": {name: "0" * 64}}, FieldValueError) for name in (
            "", "rows.tsv", "rows-0000.tsv", "rows-00000.tsv ", "ROWS-00000.tsv", "rows-00000.TSV",
            "../rows-00000.tsv", "/rows-00000.tsv", "rows-0000a.tsv", "rows-00000.tsv\n", "rows--0000.tsv",
            "journal.tsv",
        )],
        *[({"files": {"rows-00000.tsv": digest}}, NotationError)
          for digest in ("", "0" * 63, "A" * 64, "0" * 65)],
        ({"files": {"rows-00000.tsv": None}}, FieldValueError),
        ({"statement": None}, FieldValueError),
    ],
)  # fmt: skip
def test_a_header_with_a_bad_value(fields: dict[str, Any], error: type[MalformedError]) -> None:
    with pytest.raises(error):
        ledger.header_from_bytes(edited(lambda top: top.update(fields)))


@pytest.mark.parametrize("extra", [{"token": 0}, {"text": None}, {"token": 0, "text": None}])
def test_the_statement_of_a_ledger_names_no_token(extra: dict[str, Any]) -> None:
    with pytest.raises(UnknownKeyError):
        ledger.header_from_bytes(edited(lambda top: top["statement"].update(extra)))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:-1], lambda x: x + b"\n", lambda x: x.replace(b": ", b":"), lambda x: b" " + x,
        lambda x: x.replace(b"readout", b"\\u0072eadout"), lambda x: json.dumps(json.loads(x)).encode(),
    ],
)  # fmt: skip
def test_other_spellings_of_a_header(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises((NotCanonicalError, TrailingBytesError)):
        ledger.header_from_bytes(change(GOOD))


def test_headers_of_one_question() -> None:
    header = LN.header
    assert ledger.same_subject(header, replace(header, files=()))
    for other in (
        replace(header, first=1), replace(header, last=1), replace(header, grid=1),
        replace(header, statement=replace(header.statement, competitors=7)),
    ):  # fmt: skip
        assert not ledger.same_subject(header, other)
    assert list(ledger.row_range(replace(header, first=3, last=5))) == [3, 4, 5]
    assert ledger.digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# ---- the worked example of the page ----

PAGE = Path(__file__).parent.parent / "docs" / "ledger.md"


def test_the_page_shows_the_files_of_a_scan(tmp_path: Path) -> None:
    of = built([[2, 0], [0, 2], [-2, -2], [0.25, 0.25]], "rmsnorm", dtype="F16")
    of = replace(of, name="hand-4x2", readout=replace(of.readout, epsilon_source="by hand"))
    folder = scan(of, "readout", tmp_path).folder.path
    assert folder == tmp_path / "hand-4x2" / "readout.ledger"
    assert sorted(x.name for x in folder.iterdir()) == ["ledger.json", "rows-00000.tsv"]
    page = PAGE.read_text(encoding="utf-8")
    assert f"```json\n{(folder / 'ledger.json').read_text()}```" in page
    assert f"```text\n{(folder / 'rows-00000.tsv').read_text()}```" in page

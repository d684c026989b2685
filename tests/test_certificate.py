"""Certificate files: one canonical spelling each; any other bytes raise MalformedError and nothing else.

The format is JSON cut down to what has one meaning: ASCII, sorted keys, hexadecimal integers, no floats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from built_models import every_form_of_claim
from built_models import model as build_model
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.decide import Decider
from verify.errors import MalformedError
from verify.kernel import (
    Certificate,
    Speakable,
    Statement,
    from_bytes,
    parse_domain,
    strict_json,
    to_bytes,
)

SQUARE = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0], [1, 0]]
DECIDER = Decider(build_model(SQUARE, "rmsnorm", gain=[1, 2], shift=[0, 0], dtype="F32"))
FILES = [
    DECIDER.decide(token, parse_domain(domain)).certificate
    for token, domain in ((0, "readout"), (4, "readout"), (5, "direction"), (0, "free"), (4, "box:0.5"))
]
SPEAKABLE, NEVER, TIE = FILES[0], FILES[1], FILES[2]
STATEMENT = from_bytes(SPEAKABLE).statement

Edit = Callable[[dict[str, Any]], None]


def written(root: Any) -> bytes:
    return (json.dumps(root, sort_keys=True, indent=1) + "\n").encode()


def refuse(data: bytes) -> None:
    with pytest.raises(MalformedError):
        from_bytes(data)


def edited(data: bytes, edit: Edit) -> bytes:
    root = json.loads(data)
    edit(root)
    return written(root)


def put(*path: str, value: Any) -> Edit:
    def edit(root: dict[str, Any]) -> None:
        for key in path[:-1]:
            root = root[key]
        root[path[-1]] = value

    return edit


def holders(root: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all objects inside a parsed file."""
    if not isinstance(root, dict):
        return []
    return [path, *(found for key in root for found in holders(root[key], (*path, key)))]


@pytest.mark.parametrize("number", range(len(FILES)))
def test_writing_what_was_read_gives_the_same_bytes(number: int) -> None:
    data = FILES[number]
    assert data
    assert to_bytes(from_bytes(data)) == data
    assert written(json.loads(data)) == data
    assert data.isascii()


def test_every_form_of_claim_survives_the_file() -> None:
    for claim in every_form_of_claim():
        certificate = Certificate(STATEMENT, claim, {"tool": '\u00e9 \ud800 \U0001f600 "\\\n', "": ""})
        assert from_bytes(to_bytes(certificate)) == certificate


@pytest.mark.parametrize("data", FILES[:3], ids=["speakable", "never", "tie"])
def test_truncated_at_every_byte(data: bytes) -> None:
    for length in range(len(data)):
        refuse(data[:length])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + b"\n", lambda x: x + b" ", lambda x: x + b"\0", lambda x: x + x, lambda x: b" " + x,
        lambda x: b"\xef\xbb\xbf" + x, lambda x: x.replace(b"\n", b"\r\n"), lambda x: x.replace(b": ", b":"),
        lambda x: x.replace(b"\n ", b"\n  "), lambda x: x.replace(b": ", b":  "), lambda x: x.rstrip(b"\n"),
        lambda x: x.replace(b"\n", b""), lambda x: x.decode().encode("utf-16"), lambda x: b"[" + x + b"]",
        lambda x: x.replace(b"readout", b"\\u0072eadout"), lambda x: x.replace(b"\n}", b",\n}"),
        lambda x: b"/* */" + x, lambda x: x.replace(b'"', b"'"), lambda x: x.replace(b"null", b"NULL"),
    ],
)  # fmt: skip
def test_other_spellings_of_the_same_json(change: Callable[[bytes], bytes]) -> None:
    assert change(SPEAKABLE) != SPEAKABLE
    refuse(change(SPEAKABLE))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"null\n", b"0\n", b'""\n', b"[]\n", b"{}\n", b"true\n", b"NaN\n", b"1e400\n", b"{",
        b"\xff", b"[" * 100_000, b'{"":' * 100_000, b"[" * 5000 + b"]" * 5000 + b"\n", b"1" * 100_000,
        b"-" * 9, b'"\\ud800"\n',
    ],
)  # fmt: skip
def test_bytes_that_are_no_certificate(data: bytes) -> None:
    refuse(data)


@pytest.mark.parametrize("data", FILES[:3], ids=["speakable", "never", "tie"])
def test_missing_unknown_and_repeated_keys_everywhere(data: bytes) -> None:
    for path in holders(json.loads(data)):
        free_form = path and path[-1] in ("provenance", "files")
        for key in [] if free_form else list(_at(json.loads(data), path)):
            root = json.loads(data)
            del _at(root, path)[key]
            if path != ("statement", "tensors") or key == "unembedding":
                refuse(written(root))
        root = json.loads(data)
        _at(root, path)["zzz"] = {} if free_form else None
        refuse(written(root))
    lines = data.decode().splitlines(keepends=True)
    for i, line in enumerate(lines):
        if '": ' in line and not line.rstrip().endswith(("{", "[")):
            repeated = line if line.endswith(",\n") else line.rstrip("\n") + ",\n"
            refuse("".join([*lines[:i], repeated, *lines[i:]]).encode())


def _at(root: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        root = root[key]
    return root


INTEGERS = [("version",), ("statement", "token"), ("statement", "competitors"), ("statement", "gain_offset")]
INTEGERS += [("claim", "state", "k"), ("claim", "residual", "k")]


@pytest.mark.parametrize("path", INTEGERS, ids="/".join)
@pytest.mark.parametrize(
    "spelling",
    ["1.0", "1e0", "1e400", "-1", "-0", "NaN", "Infinity", "-Infinity", "true", "false", "null", '"1"', "[1]",
     "0x1", "01", "+1", "1_0", "1" * 17, "1" * 5000, str((1 << 40) + 1), "\u0661", "{}"],
)  # fmt: skip
def test_small_integers_have_one_spelling(path: tuple[str, ...], spelling: str) -> None:
    data = edited(SPEAKABLE, put(*path, value="PLACE")).replace(b'"PLACE"', spelling.encode())
    refuse(data)


WORDS = [("claim", "state", "p"), ("claim", "residual", "p"), ("claim", "ceiling", "values")]
BAD_HEX = ["", " ", "1  1", " 1", "1 ", "1\t1", "\u0661", "\uff11", "\u0430", "1\n", "1\u00a01"]
BAD_HEX += ["A", "0x1", "01", "-0", "+1", "1_0", "1,1", "g", "--1", "-", "1.0", "1e-1", "nan", "00", "-01"]


@pytest.mark.parametrize("path", WORDS, ids="/".join)
@pytest.mark.parametrize("word", BAD_HEX)
def test_hexadecimal_integers_have_one_spelling(path: tuple[str, ...], word: str) -> None:
    refuse(edited(SPEAKABLE, put(*path, value=word)))
    refuse(edited(SPEAKABLE, put(*path, value=f"1 {word}")))


@pytest.mark.parametrize("field", ["margin", "at_most"])
@pytest.mark.parametrize(
    "text",
    ["", " 1/2", "1 /2", "1/2\n", "\u0661/2", "2/4", "1", "1/0", "1/-2", "0/2", "-0/1", "1/1/1", "/1", "1/",
     "0x1/2", "1.5", "01/2", "1/02", "A/3", "+1/2", "inf", "nan", "-1/-2", "0/-1", "1_0/3"],
)  # fmt: skip
def test_fractions_are_in_lowest_terms_and_spelt_one_way(field: str, text: str) -> None:
    refuse(edited(SPEAKABLE, put("claim", field, value=text)))


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "+1", "01", "1 ", "1  2", "0x1", "a", "1_0", "\u0661", "1" * 17, "1,2"]
)
def test_row_ids_are_plain_decimals(text: str) -> None:
    refuse(edited(NEVER, put("claim", "multipliers", "rows", value=text)))


# fmt: off
NOT_NULL = ("model", "norm", "domain", "epsilon", "files", "tensors", "competitor_rule", "token")
BOXES = ("box:0", "box:1.0", "box:01", "box:1e1", "box:-1", "box:", "Free", "box:\u0661", "readout ")
EPSILONS = ("1e-5", "0.10", ".1", "1.", "-0.1", "00", "", 0, "0." + "0" * 199 + "01", "\u0661", "1/3", "nan")
# fmt: on
SHAPES: list[Any] = ["6 2", [], [1, 2, 3], [6, -2], [6, True], [6.0, 2], [[6], 2], None]
S, U = "statement", "statement/tensors/unembedding"
WRONG: list[tuple[str, Any]] = [
    ("format", "verify-certificat"), ("format", 0), ("version", 0), ("version", 2),
    ("version", -1), ("provenance", None),
    ("provenance/tool", 1), ("claim", []), ("claim", "speakable"), ("claim/verdict", "SPEAKABLE"),
    ("claim/verdict", "undecided"), ("claim/verdict", 1), ("claim/verdict", "unspeakable"),
    ("claim/margin", 1), ("claim/margin", None), ("claim/state", []), ("claim/state/k", (1 << 14) + 1),
    ("claim/residual/dtype", "F8"), ("claim/residual/dtype", "f32"), ("claim/ceiling/rows", None),
    ("claim/ceiling/rows", 1), ("claim/ceiling/values", 1), (S, []), (f"{S}/revision", 1), (f"{S}/text", 5),
    (f"{S}/norm", "LayerNorm"), (f"{S}/competitor_rule", "some"), *((f"{S}/{key}", None) for key in NOT_NULL),
    *((f"{S}/domain", text) for text in BOXES), *((f"{S}/epsilon", text) for text in EPSILONS),
    *((f"{S}/files", x) for x in (["x"], {"x": "0" * 63}, {"x": "A" * 64}, {"x": None})),
    (f"{S}/tensors", {}), (f"{S}/tensors", []), (f"{S}/tensors/bias", None), (f"{U}/sha256", "0" * 65),
    *((f"{U}/shape", x) for x in SHAPES), (f"{U}/dtype", "f32"), (f"{U}/dtype", "I8"), (f"{U}/name", None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), WRONG, ids=[f"{p}={str(v)[:12]!a}" for p, v in WRONG])
def test_fields_of_the_wrong_type_or_value(path: str, value: Any) -> None:
    refuse(edited(SPEAKABLE, put(*path.split("/"), value=value)))


def test_the_wrong_values_start_from_a_file_that_is_right() -> None:
    """Guard: the edits above break a file only by what they edit."""
    same: Edit = lambda root: None  # noqa: E731
    assert from_bytes(edited(SPEAKABLE, same)) == from_bytes(SPEAKABLE)
    assert isinstance(from_bytes(edited(SPEAKABLE, put("claim", "margin", value="-1/2"))).claim, Speakable)
    assert None not in json.loads(SPEAKABLE)["claim"].values()


def test_oversized_files_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_BYTES", len(SPEAKABLE) - 1)
    with pytest.raises(MalformedError, match="over the limit"):
        from_bytes(SPEAKABLE)


def accepted_only_as_itself(data: bytes) -> None:
    """The one outcome allowed besides MalformedError: a certificate that is written back as these bytes."""
    try:
        certificate = from_bytes(data)
    except MalformedError:
        return
    assert isinstance(certificate.statement, Statement)
    assert to_bytes(certificate) == data


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    refuse(data)


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=3)
)
def test_mutated_bytes(data: bytes, changes: list[tuple[float, int]]) -> None:
    mutable = bytearray(data)
    for where, byte in changes:
        mutable[int(where * (len(data) - 1))] = byte
    accepted_only_as_itself(bytes(mutable))


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(FILES),
    st.floats(0, 1),
    st.integers(0, 30),
    st.text('0123456789abcdef-/ "{}[],:\n.eE', max_size=20),
)
def test_spliced_bytes(data: bytes, where: float, removed: int, added: str) -> None:
    start = int(where * len(data))
    accepted_only_as_itself(data[:start] + added.encode() + data[start + removed :])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(FILES), st.data(), json_values)
def test_any_json_value_in_any_place(data: bytes, choose: st.DataObject, value: Any) -> None:
    root = json.loads(data)
    path = choose.draw(st.sampled_from(holders(root)))
    key = choose.draw(st.sampled_from([*sorted(_at(root, path)), "new"]))
    _at(root, path)[key] = value
    accepted_only_as_itself(written(root))

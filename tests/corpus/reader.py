"""Steps 1 to 3 of docs/certificates.md, section 4: bytes, limits, fields and canonical form, once more."""

from __future__ import annotations

import json
import re
from math import gcd
from typing import Any, NoReturn

from corpus.weights import FORMATS

_HEX, _ROW = re.compile(r"0|-?[1-9a-f][0-9a-f]*"), re.compile(r"0|[1-9][0-9]{0,15}")
_EPSILON = re.compile(r"(0|[1-9][0-9]{0,199})(\.[0-9]{0,199}[1-9])?")
_BOX = re.compile(r"box:(0|[1-9][0-9]{0,17})(\.[0-9]{0,17}[1-9])?")
_HASH, _BYTES = re.compile("[0-9a-f]{64}"), re.compile("([0-9a-f]{2})*")
_ROLES = ("unembedding", "gain", "shift", "bias")
STATEMENT = (
    "model revision tensors norm gain_offset epsilon epsilon_source files token text domain "
    "competitors competitor_rule"
)


class NoError(Exception):
    """The outcome, and the rule or step that ended the check."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome, self.detail = outcome, detail


def _malformed(rule: str) -> NoReturn:
    raise NoError("malformed", rule)


def canonical(data: object) -> bytes:
    """The one file with these contents."""
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")


# ---- bytes and fields ----


def read(data: bytes) -> dict[str, Any]:
    """Steps 1 to 3; the contents with their numbers still in text."""
    if len(data) > 1 << 28 or sum(data.count(x) for x in (b",", b"[", b"{")) > 1 << 16:
        _malformed("oversized")
    try:
        text = data.decode("ascii")
        decoder = json.JSONDecoder(
            object_pairs_hook=_once,
            parse_float=lambda _: _malformed("float"),
            parse_constant=lambda _: _malformed("not-finite"),
            parse_int=lambda x: int(x) if len(x) < 20 else -1,
        )
        value, end = decoder.raw_decode(text.lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        _malformed("not-json")
    if text.lstrip(" \t\r\n")[end:] not in ("", "\n"):
        _malformed("trailing-bytes")
    if type(value) is not dict:
        _malformed("value")
    if value.get("format") == "verify-bundle":
        _bundle(value)
    else:
        _certificate(value)
    if canonical(value) != data:
        _malformed("not-canonical")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        _malformed("duplicate-key")
    return dict(pairs)


def _keys(value: object, names: str) -> dict[str, Any]:
    if type(value) is not dict:
        _malformed("value")
    if value.keys() - set(names.split()):
        _malformed("unknown-key")
    if set(names.split()) - value.keys():
        _malformed("missing-key")
    return value


def _text(value: object, limit: int = 1 << 16) -> str:
    if type(value) is not str:
        _malformed("value")
    if len(value) > limit:
        _malformed("oversized")
    return value


def _spelled(pattern: re.Pattern[str], value: object, limit: int = 1 << 16, rule: str = "notation") -> None:
    if not pattern.fullmatch(_text(value, limit)):
        _malformed(rule)


def _among(value: object, allowed: str) -> None:
    if type(value) is not str or value not in allowed.split():
        _malformed("value")


def _count(value: object, limit: int = 1 << 40) -> None:
    if type(value) is not int or not 0 <= value <= limit:
        _malformed("value")


def _list(value: object, pattern: re.Pattern[str], digits: int) -> None:
    words = _text(value, 1 << 28).split(" ")
    if len(words) > 1 << 20 or any(len(x.removeprefix("-")) > digits for x in words):
        _malformed("oversized")
    for x in words:
        _spelled(pattern, x, digits + 1)


def _fraction(value: object) -> None:
    parts = _text(value, 1 << 17).split("/")
    if any(len(x.removeprefix("-")) > 1 << 15 for x in parts):
        _malformed("oversized")
    if len(parts) != 2 or not all(map(_HEX.fullmatch, parts)) or int(parts[1], 16) <= 0:
        _malformed("notation")
    if gcd(*(int(x, 16) for x in parts)) != 1:
        _malformed("notation")


def _certificate(value: object) -> None:
    if type(value) is dict and value.get("format", "verify-certificate") != "verify-certificate":
        _malformed("wrong-format")
    top = _keys(value, "format version statement claim provenance")
    if type(top["version"]) is not int or top["version"] != 1:
        _malformed("wrong-version")
    _statement(_keys(top["statement"], STATEMENT))
    if type(top["provenance"]) is not dict:
        _malformed("value")
    for key, text in top["provenance"].items():
        _text(key)
        _text(text)
    _claim(top["claim"])


def _statement(s: dict[str, Any]) -> None:
    for key in ("model", "epsilon_source"):
        _text(s[key])
    for key in ("revision", "text"):
        _text("" if s[key] is None else s[key])
    for value, allowed in ((s["norm"], "layernorm rmsnorm none"), (s["competitor_rule"], "all tokenizer")):
        _among(value, allowed)
    for key, limit in (("token", 1 << 40), ("competitors", 1 << 40), ("gain_offset", 1)):
        _count(s[key], limit)
    _spelled(_EPSILON, s["epsilon"])
    if _text(s["domain"]) not in ("readout", "free", "direction"):
        _spelled(_BOX, s["domain"], rule="value")
        if len(s["domain"]) > 40 or set(s["domain"][4:]) <= set("0."):
            _malformed("value")
    if type(s["files"]) is not dict or type(s["tensors"]) is not dict:
        _malformed("value")
    for name, digest in s["files"].items():
        _text(name)
        _spelled(_HASH, digest)
    if s["tensors"].keys() - set(_ROLES):
        _malformed("unknown-key")
    if "unembedding" not in s["tensors"]:
        _malformed("missing-key")
    for t in s["tensors"].values():
        _keys(t, "name dtype shape sha256 merkle")
        _text(t["name"])
        _among(t["dtype"], " ".join(FORMATS))
        if type(t["shape"]) is not list or len(t["shape"]) not in (1, 2):
            _malformed("value")
        for length in t["shape"]:
            _count(length)
        _spelled(_HASH, t["sha256"])
        _spelled(_HASH, t["merkle"])


def _claim(c: object) -> None:
    if type(c) is not dict:
        _malformed("value")
    if c.get("verdict") == "unspeakable":
        _keys(c, "verdict gap kind multipliers tie")
        _fraction(c["gap"])
        _among(c["kind"], "never tie-only unsettled")
        _multipliers(c["multipliers"])
        _state(c["tie"])
        return
    if "verdict" in c:
        _among(c["verdict"], "speakable")
    _keys(c, "verdict margin state residual ceiling at_most")
    _fraction(c["margin"])
    _state(c["state"])
    _state(c["residual"], residual=True)
    if c["ceiling"] is not None:
        _multipliers(c["ceiling"])
    if c["at_most"] is not None:
        _fraction(c["at_most"])


def _state(value: object, *, residual: bool = False) -> None:
    if value is None:
        return
    f = _keys(value, "k p dtype" if residual else "k p")
    if type(f["k"]) is int and f["k"] > 1 << 14:
        _malformed("oversized")
    _count(f["k"])
    _list(f["p"], _HEX, 1 << 12)
    if residual:
        _among(f["dtype"], " ".join(FORMATS))


def _multipliers(value: object) -> None:
    f = _keys(value, "rows values")
    _list(f["rows"], _ROW, 1 << 28)
    if f["values"] is not None:
        _list(f["values"], _HEX, 1 << 18)


def _bundle(value: dict[str, Any]) -> None:
    top = _keys(value, "format version certificate tensors")
    if type(top["version"]) is not int or top["version"] != 1:
        _malformed("wrong-version")
    _certificate(top["certificate"])
    for part in _keys(top["tensors"], " ".join(top["certificate"]["statement"]["tensors"])).values():
        _keys(part, "rows bytes proof")
        if part["rows"] is not None:
            _list(part["rows"], _ROW, 1 << 28)
        _spelled(_BYTES, part["bytes"], 1 << 28)
        if part["proof"] is not None:
            _list(part["proof"], _HASH, 1 << 28)

"""TRUSTED. JSON cut down to what has one meaning: bytes in, plain values out, or one of the MalformedErrors.

If this is wrong, a file may be read as saying something other than what a person reads in it. Every limit
and every error name is in docs/certificates.md, section 1.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from math import gcd
from typing import Any, NoReturn

from verify.errors import (
    DuplicateKeyError,
    FieldValueError,
    FloatNumberError,
    MissingKeyError,
    NotationError,
    NotCanonicalError,
    NotFiniteError,
    NotJsonError,
    OversizedError,
    TrailingBytesError,
    UnknownKeyError,
    WrongFormatError,
    WrongVersionError,
)

VERSION = 1
MAX_BYTES = 1 << 28
MAX_CONTAINERS = 1 << 16
MAX_TEXT = 1 << 16
MAX_ITEMS = 1 << 20
# Hexadecimal digits: of a multiplier, of a vector's entry, of either part of a fraction.
MULTIPLIER_DIGITS = 1 << 18
ENTRY_DIGITS = 1 << 12
FRACTION_DIGITS = 1 << 15
_MAX_COUNT = 1 << 40
_SPACE = " \t\r\n"
_HEX = re.compile(r"-?[1-9a-f][0-9a-f]*|0")
ROW = re.compile(r"0|[1-9][0-9]{0,15}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BYTES = re.compile(r"(?:[0-9a-f]{2})*+")  # possessive: no state is kept for each repetition


def write(data: dict[str, Any]) -> bytes:
    """The canonical file: ASCII JSON, sorted keys, one space of indent, one line feed at the end."""
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def parse(data: bytes) -> dict[str, Any]:
    """The object in a file, within the limits. Raises a MalformedError, and nothing else."""
    if len(data) > MAX_BYTES:
        raise OversizedError(f"{len(data)} bytes are over the limit of {MAX_BYTES}")
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_CONTAINERS:
        raise OversizedError(f"more than {MAX_CONTAINERS} objects, lists and items")
    root = _parse(data)
    if not isinstance(root, dict):
        raise FieldValueError("the file is not an object")
    return root


def file_fields(root: object, kind: str, *names: str) -> dict[str, Any]:
    """The top level of a file: its format and version first, then exactly these keys and those two."""
    if not isinstance(root, dict):
        raise FieldValueError("the file is not an object")
    found = root.get("format")
    if found != kind:
        raise WrongFormatError(f"format is {str(found)[:40]!a}, expected {kind!r}")
    version = root.get("version")
    if type(version) is not int or version != VERSION:
        hint = "; decide the token anew to have it in this version" if version == 0 else ""
        raise WrongVersionError(
            f"version is {str(version)[:40]!a}, this program reads version {VERSION}{hint}"
        )
    return fields(root, "file", "format", "version", *names)


def require_canonical(written: bytes, data: bytes) -> None:
    """Nothing hides in a file: it is what a writer would produce from what was read."""
    if written != data:
        raise NotCanonicalError("writing what was read gives other bytes: order of keys, spaces, or escapes")


def _parse(data: bytes) -> object:
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_float=_float, parse_constant=_not_finite, parse_int=_small_int
    )
    try:
        text = data.decode("ascii")
        value, end = decoder.raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"not ASCII JSON: {error}"[:200]) from None
    if text[end:] not in ("", "\n"):
        raise TrailingBytesError(f"{len(text) - end} bytes follow the JSON value")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DuplicateKeyError("an object repeats a key")
    return found


def _float(text: str) -> NoReturn:
    raise FloatNumberError(f"floats are not allowed: {text[:40]}")


def _not_finite(text: str) -> NoReturn:
    raise NotFiniteError(f"{text} is not a number of this format")


def _small_int(text: str) -> int:
    if len(text) > 16:
        raise FieldValueError(f"an integer of {len(text)} digits where small ones are expected")
    if text == "-0":
        raise NotationError("-0 is not a number of this format")
    return int(text)


def fields(value: object, what: str, *names: str) -> dict[str, Any]:
    """`value` as an object with exactly these keys."""
    if not isinstance(value, dict):
        raise FieldValueError(f"{what} is not an object")
    unknown, missing = sorted(set(value) - set(names)), sorted(set(names) - set(value))
    if unknown:
        raise UnknownKeyError(f"{what}: unknown keys {str(unknown)[:200]}")
    if missing:
        raise MissingKeyError(f"{what}: missing keys {missing}")
    return value


def count(value: object, what: str, most: int = _MAX_COUNT) -> int:
    """A JSON integer from 0 to `most`; `true` is none."""
    if type(value) is not int or not 0 <= value <= most:
        raise FieldValueError(f"{what} is not an integer between 0 and {most}")
    return value


def text(value: object, what: str, most: int | None = MAX_TEXT) -> str:
    """A string of at most `most` characters."""
    if not isinstance(value, str):
        raise FieldValueError(f"{what} is not a string")
    if most is not None and len(value) > most:
        raise OversizedError(f"{what}: a string of {len(value)} characters, at most {most} are allowed")
    return value


def optional_text(value: object, what: str) -> str | None:
    """A string or null."""
    return None if value is None else text(value, what)


def texts(value: object, what: str) -> dict[str, str]:
    """An object of strings, any keys."""
    if not isinstance(value, dict):
        raise FieldValueError(f"{what} is not an object of strings")
    return {text(key, what): text(x, what) for key, x in value.items()}


def one_of(value: object, allowed: tuple[str, ...], what: str) -> str:
    """One of the strings `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise FieldValueError(f"{what} is not one of {', '.join(allowed)}")
    return value


def words(value: object, what: str) -> list[str]:
    """The items of a *list*: separated by single spaces, at least one."""
    whole = text(value, what, most=None)
    if whole.count(" ") >= MAX_ITEMS:
        raise OversizedError(f"{what}: a list of more than {MAX_ITEMS} items")
    return whole.split(" ")


def rows(value: object, what: str) -> tuple[int, ...]:
    """A list of row ids, plain decimals."""
    items = words(value, what)
    if not all(map(ROW.fullmatch, items)):
        raise NotationError(f"{what}: a row id is not a plain decimal number")
    return tuple(map(int, items))


def hex_list(value: object, what: str, digits: int) -> tuple[int, ...]:
    """A list of integers of at most `digits` hexadecimal digits each."""
    items = words(value, what)
    if max(map(len, items)) > digits + 1 or any(len(w.removeprefix("-")) > digits for w in items):
        raise OversizedError(f"{what}: an integer of more than {digits} hexadecimal digits")
    if not all(map(_HEX.fullmatch, items)):
        raise NotationError(f"{what}: not canonical hexadecimal integers separated by single spaces")
    return tuple(int(w, 16) for w in items)


def hash_list(value: object, what: str) -> tuple[bytes, ...]:
    """A list of SHA-256 hashes."""
    return tuple(bytes.fromhex(sha256(w, what)) for w in words(value, what))


def sha256(value: object, what: str) -> str:
    """A SHA-256 in lower-case hexadecimal."""
    found = text(value, what)
    if not _SHA256.fullmatch(found):
        raise NotationError(f"{what}: not a SHA-256 in lower-case hexadecimal")
    return found


def raw_bytes(value: object, what: str) -> bytes:
    """Bytes in lower-case hexadecimal, two digits each."""
    found = text(value, what, most=None)
    if not _BYTES.fullmatch(found):
        raise NotationError(f"{what}: not bytes in lower-case hexadecimal")
    return bytes.fromhex(found)


def fraction(value: object, what: str) -> Fraction:
    """A fraction of two hexadecimal integers in lowest terms."""
    parts = text(value, what).split("/")
    if any(len(p.removeprefix("-")) > FRACTION_DIGITS for p in parts):
        raise OversizedError(f"{what}: a fraction of more than {FRACTION_DIGITS} hexadecimal digits")
    if len(parts) != 2 or not all(map(_HEX.fullmatch, parts)):
        raise NotationError(f"{what}: not a fraction of two hexadecimal integers")
    numerator, denominator = int(parts[0], 16), int(parts[1], 16)
    if denominator <= 0 or gcd(numerator, denominator) != 1:
        raise NotationError(f"{what}: the fraction is not in lowest terms with a positive denominator")
    return Fraction(numerator, denominator)

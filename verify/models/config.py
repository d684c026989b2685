"""STATEMENT. JSON files beside the weights, read strictly; numbers keep their exact decimal value.

Wrong here = a true claim about another epsilon, another width, or another vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from verify.errors import ModelUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

_DECIMAL = re.compile(r"-?([0-9]{1,400})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")
_MAX_INT_DIGITS = 400
# What a certificate can say of an epsilon: 200 digits on either side of the point.
EPSILON_RANGE = "0, or from 1e-200 to below 1e200, with at most 200 decimal places"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Decimal:
    """A JSON number with a point or an exponent, kept as it was written."""

    text: str


def exact_decimal(text: str) -> Fraction:
    """The exact value of a decimal such as "1e-5" (1/100000). ValueError if it is not one, or too long."""
    if not text.isascii() or _DECIMAL.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a decimal number")
    return Fraction(text)


def in_epsilon_range(value: Fraction) -> bool:
    """Whether a certificate can say that epsilon is `value`; see EPSILON_RANGE."""
    return 0 <= value < 10**200 and (value * 10**200).denominator == 1


def read_bytes(path: Path, limit: int) -> bytes:
    """A whole small file. ModelUnavailableError if it cannot be read or is longer than `limit` bytes."""
    try:
        if not path.is_file():
            raise ModelUnavailableError(f"{path.name} is not a file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path.name}: {error.strerror or error}") from error
    if len(data) > limit:
        raise ModelUnavailableError(
            f"{path.name} is longer than {limit} bytes; this is not the expected file"
        )
    return data


def parse_json(data: bytes, name: str) -> Any:
    """JSON without duplicate keys, NaN or infinities; numbers that are not integers become `Decimal`."""

    def refuse(why: str) -> NoReturn:
        raise ModelUnavailableError(f"{name}: {why}")

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            refuse(f"the key {twice[:80]!a} stands there twice; remove one of them")
        return found

    def integer(digits: str) -> int:
        if len(digits) > _MAX_INT_DIGITS:
            refuse(f"the integer {digits[:20]}... is too long")
        return int(digits)

    def constant(text: str) -> NoReturn:
        refuse(f"{text} is not a number")

    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=table,
            parse_int=integer,
            parse_float=Decimal,
            parse_constant=constant,
        )
    except (ValueError, RecursionError) as error:
        raise ModelUnavailableError(f"{name} is not valid JSON: {str(error)[:200]}") from error


@dataclass(frozen=True)
class Config:
    """config.json as a typed table. A key whose value is null counts as absent."""

    values: dict[str, Any]
    sha256: str
    name: str = "config.json"

    def inside(self, key: str) -> Config:
        """The table below a key, as a config of its own."""
        table = self.values.get(key)
        if type(table) is not dict:
            raise ModelUnavailableError(f"{self.name} has no table {key}, which describes the language model")
        return Config(table, self.sha256, f"{self.name}: {key}")

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self.values.get(key) is not None

    def get(self, key: str) -> Any:
        """The raw value: None, bool, int, str, Decimal, list or dict."""
        return self.values.get(key)

    def text(self, key: str) -> str | None:
        """A string, or None when absent."""
        return self._typed(key, str, "a string")

    def integer(self, key: str) -> int | None:
        """An integer, or None when absent."""
        return self._typed(key, int, "an integer")

    def flag(self, key: str, default: bool) -> bool:
        """A boolean, or `default` when absent."""
        value = self._typed(key, bool, "true or false")
        return default if value is None else value

    def number(self, key: str) -> Fraction | None:
        """The exact value of an integer or decimal, or None when absent."""
        value = self.values.get(key)
        if type(value) is int:
            return Fraction(value)
        decimal = self._typed(key, Decimal, "a number")
        if decimal is None:
            return None
        try:
            return exact_decimal(decimal.text)
        except ValueError as error:
            raise ModelUnavailableError(f"{self.name}: {key}: {error}") from error

    def _typed(self, key: str, kind: type[_T], wanted: str) -> _T | None:
        value = self.values.get(key)
        if value is not None and type(value) is not kind:
            raise ModelUnavailableError(f"{self.name}: {key} is {str(value)[:60]!a}, expected {wanted}")
        return value


def read_config(folder: Path) -> Config | None:
    """config.json of a model's folder, or None when there is none."""
    path = folder / "config.json"
    if not path.exists():
        return None
    data = read_bytes(path, limit=1 << 24)
    values = parse_json(data, "config.json")
    if type(values) is not dict:
        raise ModelUnavailableError("config.json is not a JSON object")
    return Config(values, hashlib.sha256(data).hexdigest())

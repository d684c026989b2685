"""STATEMENT. A walk over the header of a GGUF file, before the `gguf` library reads it.

Wrong here = a library that reads on beyond a truncated file. A header is: magic, version, two counts,
key-value pairs, then a description of each tensor; all numbers are little endian. Only ModelUnavailableError
leaves this module.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

FLOAT32, BOOL, STRING, ARRAY = 6, 7, 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, FLOAT32: 4, BOOL: 1, 10: 8, 11: 8, 12: 8}
_UNSIGNED = (0, 2, 4, 10)
_MOST_DIMENSIONS = 4
_VERSIONS = (2, 3)


class _BrokenError(Exception):
    """The format is broken; the message says how."""


@dataclass(frozen=True)
class Header:
    """strings and unsigned numbers by key; others: the keys of all other values.

    tensors: name -> the number of the type it is stored as.
    """

    strings: dict[str, str]
    numbers: dict[str, int]
    others: frozenset[str]
    tensors: dict[str, int]


def read_header(path: Path) -> Header:
    """What is kept of the header, all of which has been walked over.

    Raises ModelUnavailableError if the file cannot be read or its header is malformed or truncated.
    """
    try:
        if not path.is_file():
            raise _BrokenError("it is not a regular file")
        with path.open("rb") as file:
            if not file.read(1):
                raise _BrokenError("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Walk(data).header()
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"cannot read {path.name}: {error}") from error
    except _BrokenError as error:
        raise ModelUnavailableError(f"{path.name} is not a readable GGUF file: {error}") from error


class _Walk:
    """A position in the file; nothing is taken beyond its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.size, self.at = data, len(data), 0

    def header(self) -> Header:
        """As `read_header`."""
        if self.take(4) != b"GGUF":
            raise _BrokenError("it does not begin with GGUF; is it a Git LFS pointer or a web page?")
        version = self.number(4)
        if version not in _VERSIONS:
            big = version & 0xFFFF == 0
            raise _BrokenError("it is big endian" if big else f"its version {version} is not 2 or 3")
        tensors, pairs = self.number(8), self.number(8)
        strings: dict[str, str] = {}
        numbers: dict[str, int] = {}
        others: set[str] = set()
        for _ in range(pairs):
            key = self.text("a key")
            if key in strings or key in numbers or key in others:
                raise _BrokenError(f"the key {key[:80]!a} stands there twice")
            kind = self.number(4)
            if kind == STRING:
                strings[key] = self.text(key)
            elif kind in _UNSIGNED:
                numbers[key] = self.number(_SIZES[kind])
            else:
                others.add(key)
                self.skip(kind)
        return Header(strings, numbers, frozenset(others), self.tensors(tensors))

    def tensors(self, count: int) -> dict[str, int]:
        """Names and types."""
        found: dict[str, int] = {}
        for _ in range(count):
            name = self.text("a tensor's name")
            dimensions = self.number(4)
            if name in found or dimensions > _MOST_DIMENSIONS:
                raise _BrokenError(f"tensor {name[:80]!a} stands there twice, or has too many dimensions")
            self.take(8 * dimensions)
            found[name] = self.number(4)
            # The reader adds to this in 64 bits, and checks where it then is.
            if self.number(8) > self.size:
                raise _BrokenError(f"tensor {name[:80]!a} lies beyond its end; download it again")
        return found

    def skip(self, kind: int) -> None:
        """Over a value that is not kept."""
        if kind in _SIZES:
            self.take(_SIZES[kind])
            return
        if kind != ARRAY:
            raise _BrokenError(f"it holds a value of unknown type {kind}")
        item, count = self.number(4), self.number(8)
        if item in _SIZES:
            self.require(_SIZES[item] * count)
            self.at += _SIZES[item] * count
        elif item == STRING:
            for _ in range(count):
                length = self.number(8)
                self.require(length)
                self.at += length
        else:
            raise _BrokenError(f"it holds an array of values of type {item}")

    def text(self, what: str) -> str:
        """A string: its length, then UTF-8."""
        try:
            return self.take(self.number(8)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _BrokenError(f"{what[:80]!a} is not UTF-8") from error

    def number(self, size: int) -> int:
        """An unsigned number of this many bytes."""
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self.require(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def require(self, size: int) -> None:
        """Raise unless so many bytes follow."""
        if size > self.size - self.at:
            raise _BrokenError("it is truncated within its header; download it again")

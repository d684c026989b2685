"""TRUSTED. A strict reader of safetensors files. If this is wrong, a verdict is about other numbers.

A file is: 8 bytes (header length N, little endian), N bytes of JSON, then the tensors' bytes. Every byte must
be accounted for, exactly once. Whatever the bytes are, only ModelUnavailableError leaves this module.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from verify.errors import ModelUnavailableError
from verify.kernel.tensor import DTYPES, Tensor, itemsize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 32
_MAX_DIGITS = 18

# Bits of one value for every dtype of the format; only those of kernel/tensor.py are handed out.
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of the header; `begin` and `end` count from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _RuleBrokenError(Exception):
    """A rule of the format is broken; the message names it."""


def list_tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of every tensor in the file; reads the header only.

    Raises ModelUnavailableError if the file is missing, truncated, or breaks any rule of the format.
    """
    entries, _ = _read_header(path)
    return {name: (entry.dtype, entry.shape) for name, entry in entries.items()}


def read_tensors(path: Path, names: set[str] | None = None) -> dict[str, Tensor]:
    """The named tensors, memory mapped (nothing is read before it is used).

    names: None means every tensor of a dtype that kernel/tensor.py can read.
    Raises ModelUnavailableError as `list_tensors` does, and if a named tensor is absent, empty, or of
    another dtype.
    """
    entries, start = _read_header(path)
    if names is None:
        names = {name for name, entry in entries.items() if entry.dtype in DTYPES and entry.begin < entry.end}
    missing = sorted(names - entries.keys())
    if missing:
        raise ModelUnavailableError(f"{path.name} holds no tensor named {', '.join(map(repr, missing))}")
    if not names:
        return {}
    try:
        mapped: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"cannot map {path.name}: {error}") from error
    return {name: _tensor(mapped, start, name, entries[name], path) for name in sorted(names)}


def _tensor(mapped: NDArray[np.uint8], start: int, name: str, entry: Entry, path: Path) -> Tensor:
    """The tensor of one entry as a view into the mapped file."""
    if entry.dtype not in DTYPES:
        raise ModelUnavailableError(
            f"{path.name}: tensor {name!r} has dtype {entry.dtype}; supported are {', '.join(DTYPES)}"
        )
    if entry.begin == entry.end:
        raise ModelUnavailableError(
            f"{path.name}: tensor {name!r} of shape {list(entry.shape)} holds no values"
        )
    if start + entry.end > mapped.size:
        raise ModelUnavailableError(f"{path.name} changed while it was read")
    data = mapped[start + entry.begin : start + entry.end]
    return Tensor(name, entry.dtype, data.view(f"<u{itemsize(entry.dtype)}").reshape(entry.shape))


def _read_header(path: Path) -> tuple[dict[str, Entry], int]:
    """All entries, and the position in the file where the tensors' bytes start."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _RuleBrokenError("it is not a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if len(prefix) < 8:
                raise _RuleBrokenError("it is truncated: shorter than the 8 bytes of the header length")
            length = int.from_bytes(prefix, "little")
            if length > MAX_HEADER_BYTES:
                raise _RuleBrokenError(
                    f"it claims a header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed"
                )
            if length > size - 8:
                raise _RuleBrokenError(
                    f"it is truncated: a header of {length} bytes in a file of {size} bytes"
                )
            text = file.read(length)
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path.name}: {error.strerror or error}") from error
    except _RuleBrokenError as error:
        raise ModelUnavailableError(f"{path.name} is not a readable safetensors file: {error}") from error
    return parse_header(prefix + text, size, path.name), 8 + length


def parse_header(data: bytes, size: int, name: str) -> dict[str, Entry]:
    """All entries of a header, from the first 8 + N bytes of a file of `size` bytes that goes by `name`.

    Raises ModelUnavailableError where the file breaks a rule of the format.
    """
    try:
        if len(data) < 8 or len(data) != 8 + int.from_bytes(data[:8], "little"):
            raise _RuleBrokenError("it is truncated within the header")
        header = _parse_json(data[8:])
        entries = {key: _entry(key, value) for key, value in header.items() if key != "__metadata__"}
        _check_layout(entries, size - len(data))
    except _RuleBrokenError as error:
        raise ModelUnavailableError(f"{name} is not a readable safetensors file: {error}") from error
    return entries


def _parse_json(text: bytes) -> dict[str, Any]:
    """The header as a dict: UTF-8, one object, no duplicate keys, no number but plain integers."""
    if not text.startswith(b"{"):
        raise _RuleBrokenError("the header does not begin with '{'")
    try:
        header = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_int=_plain_int,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        raise _RuleBrokenError(f"the header is not JSON ({type(error).__name__})") from error
    metadata = header.get("__metadata__", {})
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise _RuleBrokenError("__metadata__ is not a map of strings")
    return dict(header)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _RuleBrokenError("the header has a duplicate key")
    return table


def _plain_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS or digits.startswith("-"):
        raise _RuleBrokenError(f"the header holds the number {digits[:24]}, out of range")
    return int(digits)


def _no_number(text: str) -> NoReturn:
    raise _RuleBrokenError(f"the header holds {text[:24]}, which is not a plain integer")


def _show(name: str) -> str:
    """A tensor's name for an error line: escaped, and of bounded length."""
    return ascii(name) if len(name) <= 100 else ascii(name[:100]) + "..."


def _integers(value: object, name: str, what: str) -> list[int]:
    if type(value) is not list or any(type(item) is not int for item in value):
        raise _RuleBrokenError(f"{what} of tensor {_show(name)} is not a list of integers")
    return value


def _entry(name: str, value: object) -> Entry:
    """One entry, its fields and its size checked; where it lies is checked with all the others."""
    if type(value) is not dict or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _RuleBrokenError(
            f"tensor {_show(name)} does not have exactly the fields dtype, shape, data_offsets"
        )
    dtype = value["dtype"]
    if type(dtype) is not str or dtype not in _BITS:
        raise _RuleBrokenError(f"tensor {_show(name)} has unknown dtype {str(dtype)[:24]!r}")
    shape = _integers(value["shape"], name, "shape")
    offsets = _integers(value["data_offsets"], name, "data_offsets")
    if len(shape) > _MAX_DIMENSIONS or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _RuleBrokenError(f"tensor {_show(name)} has a malformed shape or data_offsets")
    bits = _BITS[dtype]
    for length in shape:
        bits *= length
    if bits != 8 * (offsets[1] - offsets[0]):
        raise _RuleBrokenError(
            f"tensor {_show(name)}: {dtype} of shape {shape} does not fill {offsets[1] - offsets[0]} bytes"
        )
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _check_layout(entries: dict[str, Entry], available: int) -> None:
    """The tensors follow one another from the first byte to the last: no overlap, no hole, no rest."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            kind = "overlaps another tensor" if entry.begin < position else "leaves a hole before it"
            raise _RuleBrokenError(
                f"tensor {_show(name)} {kind} (begins at {entry.begin}, expected {position})"
            )
        position = entry.end
    if position > available:
        raise _RuleBrokenError(f"it is truncated: {position} bytes of tensors announced, {available} present")
    if position < available:
        raise _RuleBrokenError(f"{available - position} bytes after the last tensor belong to nothing")

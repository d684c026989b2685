"""TRUSTED. Weight bytes as exact integers. If this is wrong, every verdict is about other numbers.

A stored value of any supported dtype is exactly an integer times `2**unit_exponent(dtype)`.
Theorem 1 of docs/soundness.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import ModelUnavailableError
from verify.kernel import merkle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

# dtype -> (bytes, exponent bits, mantissa bits). Value 0 < x is (1.m) * 2**(e - bias), or subnormal.
_FORMATS: dict[str, tuple[int, int, int]] = {
    "F16": (2, 5, 10),
    "BF16": (2, 8, 7),
    "F32": (4, 8, 23),
    "F64": (8, 11, 52),
}
DTYPES = tuple(_FORMATS)


def itemsize(dtype: str) -> int:
    """Bytes of one stored value."""
    return _FORMATS[dtype][0]


def unit_exponent(dtype: str) -> int:
    """The u such that every finite value of `dtype` is an integer times 2**u."""
    _, exponent_bits, mantissa_bits = _FORMATS[dtype]
    return 2 - (1 << (exponent_bits - 1)) - mantissa_bits


@dataclass(frozen=True, eq=False)
class Tensor:
    """A stored tensor: its bytes and how to read them.

    `raw` holds the bit patterns as little-endian unsigned integers in row-major order, with the
    tensor's shape; it may be a memory map and is never written to.
    """

    name: str
    dtype: str
    raw: NDArray[np.unsignedinteger]
    _hashes: dict[str, str] = field(default_factory=dict, repr=False, init=False)

    def __post_init__(self) -> None:
        if self.dtype not in _FORMATS:
            raise ModelUnavailableError(
                f"tensor {self.name!r} has dtype {self.dtype}; supported are {', '.join(DTYPES)}"
            )
        if self.raw.dtype != np.dtype(f"<u{itemsize(self.dtype)}"):
            raise ModelUnavailableError(f"tensor {self.name!r}: bit patterns of the wrong width")

    @classmethod
    def from_bytes(cls, name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> Tensor:
        """A tensor that owns its bytes (little endian, row-major); as many as dtype and shape need."""
        return Tensor(name, dtype, np.frombuffer(data, dtype=f"<u{itemsize(dtype)}").reshape(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(int(n) for n in self.raw.shape)

    @property
    def sha256(self) -> str:
        """SHA-256 of the tensor's bytes (little endian, row-major), in hex."""
        if "sha256" not in self._hashes:
            digest = hashlib.sha256()
            for block in self._blocks():
                digest.update(block)
            self._hashes["sha256"] = digest.hexdigest()
        return self._hashes["sha256"]

    @property
    def merkle(self) -> str:
        """Root of the tree over the tensor's rows (of a vector: its values), in hex; see merkle.py."""
        if "merkle" not in self._hashes:
            self._hashes["merkle"] = merkle.root(self.dtype, self.shape, self.leaves())
        return self._hashes["merkle"]

    def leaves(self) -> list[bytes]:
        """The leaf hash of every row."""
        size = self.raw[:1].nbytes
        return [merkle.leaf(b[i : i + size]) for b in self._blocks() for i in range(0, len(b), size)]

    def _blocks(self) -> Iterator[bytes]:
        """The bytes, a few megabytes of whole rows at a time."""
        step = max(1, (1 << 22) // self.raw[:1].nbytes)
        for start in range(0, self.shape[0], step):
            yield self.raw[start : start + step].tobytes()

    def integers(self, rows: Iterable[int]) -> list[list[int]]:
        """The named rows as integers in units of 2**unit_exponent(dtype); rows of a vector have one entry.

        Raises ModelUnavailableError on a row that holds NaN or infinity.
        """
        return _decode(self.chosen(rows), self.dtype, self.name)

    def short_integers(self, rows: Iterable[int]) -> tuple[list[list[int]], int]:
        """`integers` without a power of two that all entries share: (rows, its exponent)."""
        mantissa, shift = _parts(self.chosen(rows), self.dtype, self.name)
        held = shift[mantissa != 0]
        common = int(held.min()) if held.size else 0
        room = 62 - (_FORMATS[self.dtype][2] + 1)
        if not held.size or int(held.max()) - common <= room:
            return (mantissa << np.clip(shift - common, 0, room)).tolist(), common
        return [
            [m << s >> common for m, s in zip(ms, ss, strict=True)]
            for ms, ss in zip(mantissa.tolist(), shift.tolist(), strict=True)
        ], common

    def chosen(self, rows: Iterable[int]) -> NDArray[np.unsignedinteger]:
        """The bit patterns of the named rows, (n, d). Errors as `integers`, but not on NaN and infinity."""
        index = np.fromiter(rows, dtype=np.int64)
        if index.size and (int(index.min()) < 0 or int(index.max()) >= self.shape[0]):
            raise ModelUnavailableError(f"tensor {self.name!r} has no such row")
        return self.raw.reshape(self.shape[0], -1)[index]

    def vector(self) -> list[int]:
        """A one-dimensional tensor as integers in units of 2**unit_exponent(dtype)."""
        return _decode(self.raw.reshape(1, -1), self.dtype, self.name)[0]

    def column_sums(self) -> list[int]:
        """The sum of all rows, exact, in units of 2**unit_exponent(dtype); of finite values."""
        sums = [0] * int(np.prod(self.shape[1:]))
        step = max(1, (1 << 20) // len(sums))
        for start in range(0, self.shape[0], step):
            mantissa, shift = _parts(
                self.raw[start : start + step].reshape(-1, len(sums)), self.dtype, self.name
            )
            # By shift and in two halves, so that no sum of fewer than 2**31 rows leaves 64 bits.
            for common in np.unique(shift).tolist():
                chosen = np.where(shift == common, mantissa, 0)
                high, low = chosen >> 32, chosen & 0xFFFFFFFF
                pairs = zip(high.sum(axis=0).tolist(), low.sum(axis=0).tolist(), strict=True)
                sums = [x + (((a << 32) + b) << common) for x, (a, b) in zip(sums, pairs, strict=True)]
        return sums

    def require_finite(self) -> None:
        """Raise ModelUnavailableError, naming the first bad entry, if any value is NaN or infinite."""
        _, exponent_bits, mantissa_bits = _FORMATS[self.dtype]
        mask = self.raw.dtype.type(((1 << exponent_bits) - 1) << mantissa_bits)
        step = max(1, (1 << 22) // max(1, int(np.prod(self.shape[1:]))))
        for start in range(0, self.shape[0], step):
            bad = (self.raw[start : start + step] & mask) == mask
            if bad.any():
                place = [int(i) for i in np.argwhere(bad)[0]]
                place[0] += start
                raise ModelUnavailableError(
                    f"tensor {self.name!r} holds NaN or infinity, first at {place}; "
                    "logits are undefined there and nothing can be decided"
                )


def _decode(bits: NDArray[np.unsignedinteger], dtype: str, name: str) -> list[list[int]]:
    """Bit patterns, shape (n, d), to Python integers in units of 2**unit_exponent(dtype)."""
    mantissa, shift = _parts(bits, dtype, name)
    return [
        [m << s for m, s in zip(ms, ss, strict=True)]
        for ms, ss in zip(mantissa.tolist(), shift.tolist(), strict=True)
    ]


def _parts(
    bits: NDArray[np.unsignedinteger], dtype: str, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(m, s) of bit patterns, shape (n, d): each value is m * 2**s in units of 2**unit_exponent(dtype)."""
    size, exponent_bits, mantissa_bits = _FORMATS[dtype]
    top = (1 << exponent_bits) - 1
    wide = np.ascontiguousarray(bits).astype(np.uint64)
    exponent = ((wide >> np.uint64(mantissa_bits)) & np.uint64(top)).astype(np.int64)
    if bool((exponent == top).any()):
        raise ModelUnavailableError(f"tensor {name!r} holds NaN or infinity")
    mantissa = (wide & np.uint64((1 << mantissa_bits) - 1)).astype(np.int64)
    mantissa += np.where(exponent > 0, np.int64(1 << mantissa_bits), np.int64(0))
    mantissa = np.where((wide >> np.uint64(8 * size - 1)) > 0, -mantissa, mantissa)
    return mantissa, np.maximum(exponent - 1, 0)


def representable(p: int, k: int, dtype: str) -> bool:
    """Whether p / 2**k is exactly a finite value of `dtype`."""
    if p == 0:
        return True
    _, exponent_bits, mantissa_bits = _FORMATS[dtype]
    low = (p & -p).bit_length() - 1
    odd, exponent = p >> low, low - k
    largest_exponent = 1 << (exponent_bits - 1)
    return (
        odd.bit_length() <= mantissa_bits + 1
        and exponent >= unit_exponent(dtype)
        and odd.bit_length() + exponent <= largest_exponent
    )

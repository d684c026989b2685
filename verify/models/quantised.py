"""STATEMENT. Quantised blocks of GGUF files as the exact numbers they stand for.

Wrong here = a true claim about other numbers than those in the file.

Why nothing rounds. Every scale is a half: an integer below 2**40 in absolute value, times 2**-24 (a half has
11 bits, and its largest exponent is 29 above that of its unit). Every value of a block is a scale times small
integers whose product is at most 2**12 in absolute value, or the sum or difference of two such terms with
products of at most 2**11: an integer of at most 2**52, times 2**-24. So all of it is done in 64-bit integers,
which cannot overflow; float64 holds every integer up to 2**53; and the factor 2**-24 only moves the exponent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verify.errors import ModelUnavailableError
from verify.kernel.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Blocks = Callable[[Integers], Integers]

UNIT = -24
_CHUNK = 1 << 20  # values dequantised at a time
_NON_LINEAR = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int64
)


def dequantised(name: str, kind: str, rows: NDArray[np.uint8], length: int) -> Tensor:
    """The matrix of these blocks, exactly, as float32 if that holds every value, else as float64.

    rows: (n, bytes of a row). length: values of a row.
    Raises ModelUnavailableError for a kind that is not listed here, and for scales that are NaN or infinite.
    """
    if kind not in KINDS:
        raise ModelUnavailableError(
            f"tensor {name!r} is stored as {kind}, which is not dequantised here; supported are F16, BF16, "
            f"F32, F64, {', '.join(KINDS)}: requantise the file, with --output-tensor-type q8_0 for example"
        )
    for dtype in ("F32", "F64"):
        matrix = _filled(name, kind, rows, length, dtype)
        if matrix is not None:
            return Tensor(name, dtype, matrix.view("<u4" if dtype == "F32" else "<u8"))
    raise ModelUnavailableError(f"tensor {name!r} holds values that float64 does not")


def _filled(
    name: str, kind: str, rows: NDArray[np.uint8], length: int, dtype: str
) -> NDArray[np.floating] | None:
    """The values in `dtype`, or None if one of them is not exactly a value of it."""
    matrix: NDArray[np.floating] = np.empty((len(rows), length), "<f4" if dtype == "F32" else "<f8")
    for start, integers in _integers(name, kind, rows, length):
        if int(np.abs(integers).max()) > 1 << 53:
            return None
        values = np.ldexp(integers.astype(np.float64), UNIT)
        part = matrix[start : start + len(values)]
        part[:] = values
        if not np.array_equal(part, values):
            return None
    return matrix


def _integers(name: str, kind: str, rows: NDArray[np.uint8], length: int) -> Iterator[tuple[int, Integers]]:
    """(first row, its and the next rows' values in units of 2**UNIT)."""
    per_block, size, blocks_of = KINDS[kind]
    if length < 1 or length % per_block or rows.shape[1:] != (length // per_block * size,):
        raise ModelUnavailableError(f"tensor {name!r}: {kind} blocks do not fill rows of {length} values")
    step = max(1, _CHUNK // length)
    for start in range(0, len(rows), step):
        blocks = rows[start : start + step].reshape(-1, size).astype(np.int64)
        try:
            yield start, blocks_of(blocks).reshape(-1, length)
        except _NotFiniteError as error:
            raise ModelUnavailableError(
                f"tensor {name!r} has a scale that is NaN or infinite, in rows {start} to "
                f"{min(start + step, len(rows)) - 1}; nothing can be decided about such weights"
            ) from error


class _NotFiniteError(Exception):
    """A scale is NaN or infinite."""


def _half(pair: Integers) -> Integers:
    """Two bytes a row to the half they spell, in units of 2**-24: shape (n, 1)."""
    bits = pair[:, 0] | pair[:, 1] << 8
    exponent, mantissa = bits >> 10 & 31, bits & 1023
    if bool((exponent == 31).any()):
        raise _NotFiniteError
    size = np.where(exponent > 0, mantissa + 1024, mantissa) << np.maximum(exponent - 1, 0)
    signed: Integers = np.where(bits >> 15 > 0, -size, size)
    return signed[:, None]


def _signed(octet: Integers) -> Integers:
    return np.where(octet > 127, octet - 256, octet)


def _split(octets: Integers, bits: int, run: int) -> Integers:
    """Fields of `bits` bits, lowest first: of each `run` bytes all first fields, then all second ones."""
    n = len(octets)
    shifts = np.arange(0, 8, bits)[:, None]
    fields = octets.reshape(n, -1, 1, run) >> shifts & ((1 << bits) - 1)
    return fields.reshape(n, -1)


def _q4_0(b: Integers) -> Integers:
    return _half(b[:, :2]) * (_split(b[:, 2:], 4, 16) - 8)


def _q4_1(b: Integers) -> Integers:
    return _half(b[:, :2]) * _split(b[:, 4:], 4, 16) + _half(b[:, 2:4])


def _five_bits(low: Integers, high: Integers) -> Integers:
    """16 bytes of low halves, and 4 bytes with one high bit a value."""
    return _split(low, 4, 16) | (high[:, :, None] >> np.arange(8) & 1).reshape(len(high), 32) << 4


def _q5_0(b: Integers) -> Integers:
    return _half(b[:, :2]) * (_five_bits(b[:, 6:], b[:, 2:6]) - 16)


def _q5_1(b: Integers) -> Integers:
    return _half(b[:, :2]) * _five_bits(b[:, 8:], b[:, 4:8]) + _half(b[:, 2:4])


def _q8_0(b: Integers) -> Integers:
    return _half(b[:, :2]) * _signed(b[:, 2:])


def _by_group(scales: Integers, values: Integers) -> Integers:
    """Each scale times its own run of values, all runs equally long."""
    n, groups = scales.shape
    products: Integers = scales[:, :, None] * values.reshape(n, groups, -1)
    flat: Integers = products.reshape(n, -1)
    return flat


def _spread(lows: Integers, times: int) -> Integers:
    """Each of a row's entries so many times, one after the other."""
    spread: Integers = np.repeat(lows, times, axis=1)
    return spread


def _q2_k(b: Integers) -> Integers:
    scale, low = _half(b[:, 80:82]) * (b[:, :16] & 15), _half(b[:, 82:84]) * (b[:, :16] >> 4)
    q = _split(b[:, 16:80], 2, 32)
    return _by_group(scale, q) - _spread(low, 16)


def _q3_k(b: Integers) -> Integers:
    packed = b[:, 96:108]
    scales = (_split(packed[:, :8], 4, 8) | _split(packed[:, 8:], 2, 4) << 4) - 32
    # A high bit that is set takes nothing away; one that is not, takes 4.
    q = _split(b[:, 32:96], 2, 32) + 4 * _split(b[:, :32], 1, 32) - 4
    return _by_group(_half(b[:, 108:110]) * scales, q)


def _scales_and_lows(packed: Integers) -> tuple[Integers, Integers]:
    """12 bytes to eight scales and eight minima of 6 bits: four of each plain, four with top bits apart."""
    a, m, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([a & 63, rest & 15 | a >> 6 << 4], axis=1)
    return scales, np.concatenate([m & 63, rest >> 4 | m >> 6 << 4], axis=1)


def _q4_k(b: Integers) -> Integers:
    scales, lows = _scales_and_lows(b[:, 4:16])
    q = _split(b[:, 16:], 4, 32)
    return _by_group(_half(b[:, :2]) * scales, q) - _spread(_half(b[:, 2:4]) * lows, 32)


def _q5_k(b: Integers) -> Integers:
    scales, lows = _scales_and_lows(b[:, 4:16])
    q = _split(b[:, 48:], 4, 32) | _split(b[:, 16:48], 1, 32) << 4
    return _by_group(_half(b[:, :2]) * scales, q) - _spread(_half(b[:, 2:4]) * lows, 32)


def _q6_k(b: Integers) -> Integers:
    q = (_split(b[:, :128], 4, 64) | _split(b[:, 128:192], 2, 32) << 4) - 32
    return _by_group(_half(b[:, 208:210]) * _signed(b[:, 192:208]), q)


def _iq4_nl(b: Integers) -> Integers:
    return _half(b[:, :2]) * _NON_LINEAR[_split(b[:, 2:], 4, 16)]


def _iq4_xs(b: Integers) -> Integers:
    high = b[:, 2:3] | b[:, 3:4] << 8
    scales = (_split(b[:, 4:8], 4, 1) | (high >> np.arange(0, 16, 2) & 3) << 4) - 32
    return _by_group(_half(b[:, :2]) * scales, _NON_LINEAR[_split(b[:, 8:], 4, 16)])


# Kind -> (values of a block, its bytes, how to read blocks).
KINDS: dict[str, tuple[int, int, Blocks]] = {
    "Q4_0": (32, 18, _q4_0),
    "Q4_1": (32, 20, _q4_1),
    "Q5_0": (32, 22, _q5_0),
    "Q5_1": (32, 24, _q5_1),
    "Q8_0": (32, 34, _q8_0),
    "Q2_K": (256, 84, _q2_k),
    "Q3_K": (256, 110, _q3_k),
    "Q4_K": (256, 144, _q4_k),
    "Q5_K": (256, 176, _q5_k),
    "Q6_K": (256, 210, _q6_k),
    "IQ4_NL": (32, 18, _iq4_nl),
    "IQ4_XS": (256, 136, _iq4_xs),
}

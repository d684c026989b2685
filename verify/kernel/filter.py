"""TRUSTED. The only file of the kernel that computes in floats: a filter with a proved error bound.

If the bound were wrong, a rival above the token could be overlooked and a witness wrongly accepted.
Theorems 2 and 15 of docs/soundness.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from verify.kernel.tensor import Tensor

    Floats = NDArray[np.floating]
    Multiply = Callable[[Floats, Floats], Floats]

_BLOCK_BYTES = 1 << 23
_MAX_WIDTH = 1 << 20
_VIEW = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def as_float64(tensor: Tensor, start: int, stop: int) -> NDArray[np.float64]:
    """Rows start..stop-1 as float64. Exact: every supported dtype is a subset of float64."""
    raw = tensor.raw[start:stop]
    if tensor.dtype == "BF16":
        return (raw.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float64)
    return np.ascontiguousarray(raw).view(_VIEW[tensor.dtype]).astype(np.float64)


def possible_maximisers(
    matrix: Tensor,
    bias: Tensor | None,
    state: list[int],
    bias_scale: int,
    unit: int,
    count: int,
    token: int,
    slack: int = 0,
) -> list[int]:
    """Rows that may attain max over j < count, j != token of  matrix_j . g + s * bias_j.

    g = state * 2**unit, s = bias_scale * 2**unit >= 1, and each g_i and s is known only to within
    slack * 2**unit. Rows that are left out provably do not attain the maximum (Theorem 2);
    rows that are returned may or may not. NaN, infinity or overflow: every row is returned.
    """
    everything = [j for j in range(count) if j != token]
    d = len(state)
    norm1 = sum(map(abs, state))
    try:
        g = np.array([math.ldexp(float(x), unit) for x in state], dtype=np.float64)
        s = math.ldexp(float(bias_scale), unit)
        g_norm1 = math.ldexp(float(norm1), unit)
        fuzz = math.ldexp(float(slack), unit)
    except OverflowError:
        return everything
    if d > _MAX_WIDTH or not (np.isfinite(g).all() and math.isfinite(s + g_norm1 + fuzz)):
        return everything

    logits = np.empty(count, dtype=np.float64)
    largest_weight = largest_bias = 0.0
    step = max(1, _BLOCK_BYTES // (8 * d))
    with np.errstate(all="ignore"):
        for start in range(0, count, step):
            stop = min(start + step, count)
            block = as_float64(matrix, start, stop)
            logits[start:stop] = block @ g
            largest = float(np.abs(block).max())
            if not math.isfinite(largest):
                return everything
            largest_weight = max(largest_weight, largest)
            if bias is not None:
                c = as_float64(bias, start, stop)
                logits[start:stop] += c * s
                largest = float(np.abs(c).max())
                if not math.isfinite(largest):
                    return everything
                largest_bias = max(largest_bias, largest)
        # Theorem 2: |computed - true| <= error for every row, in any order of summation. The floors
        # pay for weights and states that a process flushing subnormal numbers to zero would lose.
        weight = max(largest_weight, 2.0**-70)
        shift = 0.0 if bias is None else max(largest_bias, 2.0**-70)
        size = weight * (g_norm1 + 2.0**-960) + shift * abs(s)
        error = (d + 8) * 2.0**-52 * size + 2.0 * fuzz * (d * weight + shift) + 2.0**-960
    if token < count:
        logits[token] = -math.inf
    top = float(logits.max())
    if not (math.isfinite(top) and math.isfinite(error)) or bool(np.isnan(logits).any()):
        return everything
    # The slack 2**-50 * |top| covers the rounding of this subtraction itself.
    threshold = top - 2.0 * error - 2.0**-50 * abs(top)
    return [int(j) for j in np.flatnonzero(logits >= threshold) if j != token]


@dataclass(frozen=True)
class Comparison:
    """A token against its competitors at one state. sign: of its margin where floats settle it, else 0.

    rivals: every competitor that may attain the maximum, and others perhaps.
    """

    sign: int
    rivals: list[int]


class BatchFilter:
    """Theorem 15: `possible_maximisers` of many states by one matrix product, in the narrowest dtype that
    holds the weights exactly (float32, or float64 for F64).

    multiply: (n, m), (V, m) -> (n, V), the first times the transpose of the second; numpy's unless given.
    A sum of products in any order, at the precision of its operands.
    """

    def __init__(
        self,
        matrix: Tensor,
        bias: Tensor | None,
        count: int,
        multiply: Multiply | None = None,
    ) -> None:
        """Holds a float copy of all rows, the bias as one more column."""
        wide = "F64" in (matrix.dtype, "" if bias is None else bias.dtype)
        self.dtype: np.dtype[np.floating] = np.dtype(np.float64) if wide else np.dtype(np.float32)
        self.count, self.multiply = count, multiply or _product
        V, d = matrix.shape
        self.biased = bias is not None
        self.rows: Floats = np.empty((V, d + self.biased), self.dtype)
        squares = 0.0
        step = max(1, _BLOCK_BYTES // (8 * d))
        with np.errstate(all="ignore"):
            for start in range(0, V, step):
                stop = min(start + step, V)
                block = as_float64(matrix, start, stop)
                if bias is not None:
                    block = np.column_stack([block, as_float64(bias, start, stop)])
                self.rows[start:stop] = block
                squares = np.fmax(squares, np.einsum("ij,ij->i", block, block).max())
                if not np.isfinite(block).all():
                    squares = math.inf
            # An upper bound on every |row|: rounding of the squares is far below 2**-30.
            self.longest = max(math.sqrt(squares) * (1 + 2.0**-30), 2.0**-70)

    def compare(
        self, tokens: Sequence[int], states: Sequence[list[int]], scales: Sequence[int]
    ) -> list[Comparison]:
        """Each token's comparison at (g, s) = (its state, its scale > 0), which may have any common unit."""
        size = self.rows.shape[1]
        g = np.zeros((len(tokens), size))
        for i, (state, s) in enumerate(zip(states, scales, strict=True)):
            entries = [*state, s] if self.biased else state
            # Only the ratios matter: scaled by a power of two the largest entry lies between 1/2 and 1.
            # Of longer integers the bits below 2**-1000 are dropped.
            top = max(map(abs, entries)).bit_length()
            spare = max(top - 1000, 0)
            g[i] = [math.ldexp(x >> spare, spare - top) for x in entries]
        error = self._errors(g, self.dtype)
        with np.errstate(all="ignore"):
            logits = self.multiply(g.astype(self.dtype), self.rows)
        return [
            self._compare(t, logits[i], float(error[i]), g[i])
            if math.isfinite(error[i])
            else Comparison(0, [j for j in range(self.count) if j != t])
            for i, t in enumerate(tokens)
        ]

    def _errors(self, g: Floats, dtype: np.dtype[np.floating]) -> Floats:
        """Theorem 15: bounds on |computed - true| of the logits of each state, (n,); NaN: no bound."""
        roundoff, tiny, largest = (2.0**-23, 2.0**-120, 2.0**120)
        if dtype == np.float64:
            roundoff, tiny, largest = (2.0**-52, 2.0**-960, 2.0**900)
        terms = g.shape[1]
        with np.errstate(all="ignore"):
            size = np.sqrt(np.einsum("ij,ij->i", g, g)) * (1 + 2.0**-30) * self.longest
            out: Floats = (terms + 8) * (roundoff * size + tiny * (1 + self.longest))
        out[~(size < largest) | (terms > _MAX_WIDTH)] = math.nan
        return out

    def _compare(self, token: int, logits: Floats, error: float, g: Floats) -> Comparison:
        own = float(logits[token])
        if token < self.count:
            logits[token] = -math.inf
        top = float(logits[: self.count].max())
        rivals = np.flatnonzero(logits[: self.count] >= _below(top, error, self.dtype))
        sign = _sign(own - top, error, own, top)
        if len(rivals) > _REFINED and self.dtype == np.float32:
            # Few of many near ties survive at double precision, at a thousandth of the product's cost.
            fine = float(self._errors(g[None, :], np.dtype(np.float64))[0])
            step = max(1, _BLOCK_BYTES // (8 * len(g)))
            parts = [rivals[i : i + step] for i in range(0, len(rivals), step)]
            values = np.concatenate([self.rows[part].astype(np.float64) @ g for part in parts])
            own = float(self.rows[token].astype(np.float64) @ g)
            top = float(values.max())
            rivals = rivals[values >= _below(top, fine, np.dtype(np.float64))]
            sign = sign or _sign(own - top, fine, own, top)
        return Comparison(sign, [int(j) for j in rivals if j != token])


def _product(a: Floats, b: Floats) -> Floats:
    return a @ b.T


# More possible maximisers than this are compared again in float64 before they go to exact integers.
_REFINED = 4


def _below(top: float, error: float, dtype: np.dtype[np.floating]) -> np.floating:
    """A number of `dtype` not above top - 2 * error."""
    exact = top - 2.0 * error - 2.0**-50 * abs(top)
    out = dtype.type(exact)
    # As Python floats: numpy would round `exact` to float32 before it compared the two.
    return np.nextafter(out, dtype.type(-math.inf)) if float(out) > exact else out


def _sign(difference: float, error: float, own: float, top: float) -> int:
    """The sign of a margin whose two logits are known to within `error`; 0 if that does not settle it."""
    room = 2.0 * error + 2.0**-50 * (abs(own) + abs(top))
    return (difference > room) - (difference < -room)

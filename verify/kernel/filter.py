"""TRUSTED. The only file of the kernel that computes in floats: a filter with a proved error bound.

If the bound were wrong, a rival above the token could be overlooked and a witness wrongly accepted.
Theorem 2 of docs/soundness.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verify.kernel.tensor import Tensor

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

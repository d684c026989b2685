"""PROPOSER. A residual-stream vector in a given dtype whose norm lands near a witness z.

A guess by rounding at many scales; the kernel decides whether it speaks the token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verify.kernel.evidence import Residual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from verify.kernel.system import System
    from verify.propose.problem import Problem

    Array = NDArray[np.float64]

WIDER = {"F16": ("F16", "F32", "F64"), "BF16": ("BF16", "F32", "F64"), "F32": ("F32", "F64"), "F64": ("F64",)}
_RIVALS = 2000
_LARGEST = {"F16": 6e4, "BF16": 3e38, "F32": 3e38, "F64": 1e300}


def residuals(system: System, problem: Problem, z: Array) -> Iterator[Residual]:
    """Candidates r with N(r) near z, in the unembedding's dtype first, then in wider ones.

    z: (d,), float. Within a dtype, those with the best float margin first; only hopeful ones are yielded.
    """
    readout = system.readout
    epsilon = float(readout.epsilon)
    # A few thousand nearest rivals tell a hopeful candidate; the kernel looks at all of them.
    margins = problem.margins(problem.coordinates(z))
    near = np.argsort(margins)[:_RIVALS]
    near = near[np.isfinite(margins[near])]
    D, e = problem.differences(near)
    for dtype in WIDER[readout.unembedding.dtype]:
        found: list[tuple[float, Array]] = []
        for scale in _scales(z, epsilon, _LARGEST[dtype], readout.norm):
            r = round_to(z * scale, dtype)
            y = problem.coordinates(normed(r, readout.norm, epsilon))
            if not np.isfinite(y).all():
                continue
            margin = float((D @ y + e).min())
            if margin > 0:
                found.append((margin, r))
        for _, r in sorted(found, key=lambda pair: -pair[0])[:3]:
            yield exact_residual(r, dtype)


def normed(r: Array, norm: str, epsilon: float) -> Array:
    """N(r) in float64."""
    if norm == "none":
        return r
    y = r - r.mean() if norm == "layernorm" else r
    size = float(np.sqrt(np.mean(y * y) + epsilon))
    out: Array = y / size if size > 0 else np.zeros_like(y)
    return out


def _scales(z: Array, epsilon: float, largest: float, norm: str) -> Iterator[float]:
    if norm == "none":
        yield 1.0
        return
    d, top = len(z), float(np.abs(z).max())
    share = min(float(z @ z) / d, 1 - 2.0**-44)
    # N(r) = z exactly at r = z sqrt(var + eps), var = eps share / (1 - share).
    exact = float(np.sqrt(epsilon / (1 - share))) if epsilon > 0 else 1.0
    for factor in (1.0, *(2.0**i for i in np.linspace(-1.0, 6.0, 57))):
        if exact * factor * top < largest:
            yield exact * factor


def round_to(x: Array, dtype: str) -> Array:
    """x rounded to the nearest values of a dtype, as float64."""
    if dtype == "F64":
        return x
    with np.errstate(over="ignore"):
        if dtype == "BF16":
            bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
            bits = ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)) << np.uint64(
                16
            )
            return bits.astype(np.uint32).view(np.float32).astype(np.float64)
        return x.astype(np.float16 if dtype == "F16" else np.float32).astype(np.float64)


def exact_residual(r: Array, dtype: str) -> Residual:
    """The float vector as integers over one power of two, exactly."""
    ratios = [x.as_integer_ratio() for x in r.tolist()]
    k = max(q.bit_length() - 1 for _, q in ratios)
    return Residual(tuple(p << (k - q.bit_length() + 1) for p, q in ratios), k, dtype)

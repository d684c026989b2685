"""PROPOSER. Floats to the integers that a certificate stores. May round badly; the kernel checks."""

from __future__ import annotations

from fractions import Fraction
from math import frexp
from typing import TYPE_CHECKING

import numpy as np

from verify.kernel.evidence import Multipliers, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from verify.kernel.system import System
    from verify.propose.problem import Problem

    Array = NDArray[np.float64]


def true_state(problem: Problem, y: Array) -> Array:
    """z, x or h from the proposer's y (n,); for (h, tau) it is h / tau."""
    if not problem.homogeneous:
        return y
    h, tau = y[:-1], float(y[-1]) * problem.tau_scale
    size = float(np.linalg.norm(h)) or 1.0
    return h / max(tau, 1e-7 * size)


# (bits of the coordinates, log2 of how far inside the ball): |z|^2 / d = 1 - 2**-20 already needs a
# residual variance of a million epsilon, so the sphere is approached further only when nothing else works.
_GRIDS = ((12, 12), (20, 20), (28, 20), (36, 20), (44, 30), (53, 44), (70, 44))


def states(system: System, y: Array) -> Iterator[State]:
    """z-form states near the float state y (z, h or x), shape (d,), coarse grids first."""
    size = float(np.abs(y).max(initial=0.0))
    if size == 0.0:
        yield State((0,) * len(y), 0)  # with biases, zero itself may be the witness
    if not np.isfinite(size) or size == 0.0:
        return
    # After a LayerNorm a step of p is a step of d in z: that many more bits keep the grid as fine.
    spread = len(y).bit_length() if system.projects and system.region != "box" else 0
    top = frexp(size)[1]
    for bits, inside in _GRIDS:
        grid = max(0, bits + spread - top)
        yield State(_on_grid(system, y, grid, inside), grid)


def _on_grid(system: System, y: Array, grid: int, inside: int) -> tuple[int, ...]:
    """y rounded to multiples of 2**-grid, pulled inside the domain, as the p of a State."""
    d = system.readout.d
    # After a LayerNorm z = (d p - sum p) / 2**k: p stands for y / d.
    divisor = d if system.projects and system.region != "box" else 1
    if system.region == "ball":
        square, limit = float(y @ y), d * (1.0 - 2.0**-inside)
        if square > limit:
            y = y * np.sqrt(limit / square)
    p = [_nearest(x, grid, divisor) for x in y.tolist()]
    if system.region == "box":
        edge = (system.domain.bound.numerator << grid) // system.domain.bound.denominator
        p = [max(-edge, min(edge, x)) for x in p]
    return tuple(p)


def _nearest(x: float, grid: int, divisor: int) -> int:
    return round(Fraction(x) * (1 << grid) / divisor)


def integer_multipliers(rows: NDArray[np.intp], values: Array, bits: int) -> Multipliers | None:
    """Multipliers rounded to integers of at most `bits` bits, zeros left out; None if all vanish."""
    top = float(values.max(initial=0.0))
    if not np.isfinite(values).all() or top <= 0.0:
        return None
    scaled = [round(Fraction(x) * (1 << bits) / Fraction(top)) for x in values.tolist()]
    pairs = sorted((int(j), v) for j, v in zip(rows.tolist(), scaled, strict=True) if v > 0)
    if not pairs:
        return None
    return Multipliers(tuple(j for j, _ in pairs), tuple(v for _, v in pairs))

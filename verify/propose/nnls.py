"""PROPOSER. Non-negative least squares on the rows: the point of their hull nearest to zero.

min |G^T x|^2 + (1 - sum x)^2 over x >= 0 (Lawson & Hanson). Its residual separates the rows from zero
when anything does, and its support is small. Offsets enter as one more coordinate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verify.propose.working_set import Answer, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verify.propose.problem import Constraints, Problem
    from verify.propose.proposal import Proposal


class NonNegativeLeastSquares:
    """scipy.optimize.nnls on working sets."""

    name = "nnls"

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """Guesses on growing working sets."""
        inhomogeneous = not problem.cone or problem.view.kind == "box"
        scale = problem.radius if problem.view.kind != "box" else problem.radius * problem.view.bound

        def method(c: Constraints, fixed: int) -> Answer:
            return _nearest_point(c, fixed, inhomogeneous, scale)

        yield from run(problem, method, self.name)


def _nearest_point(c: Constraints, fixed: int, inhomogeneous: bool, scale: float) -> Answer:
    from scipy.optimize import nnls

    # In the coordinates (y / scale, 1) the rows are (scale G, g): solutions need a positive last entry.
    V = np.column_stack([c.G * scale, c.g]) if inhomogeneous else c.G
    if inhomogeneous:
        V = np.vstack([V, np.eye(V.shape[1])[-1]])
    V = V / np.maximum(np.linalg.norm(V, axis=1), 1e-300)[:, None]
    if not len(V) or not np.isfinite(V).all():
        return Answer(None, None, "unknown", "rows beyond the range of floats")
    target = np.zeros(V.shape[1] + 1)
    target[-1] = 1.0
    try:
        x, distance = nnls(np.vstack([V.T, np.ones(len(V))]), target, maxiter=20 * V.shape[1])
    except RuntimeError as error:
        return Answer(None, None, "unknown", str(error))
    direction = V.T @ x
    rows = slice(fixed, len(c.g))
    length = np.sqrt(scale**2 + c.g[rows] ** 2) if inhomogeneous else 1.0
    multipliers = x[rows] / length
    words = f"residual {distance:.1e}"
    if distance < 1e-10:
        return Answer(None, multipliers, "unspeakable", words)
    y = direction
    if inhomogeneous:
        if direction[-1] <= 0:
            return Answer(None, multipliers, "unknown", words)
        y = scale * direction[:-1] / direction[-1]
    return Answer(y, multipliers, "speakable", words)

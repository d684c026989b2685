"""PROPOSER. Directions that cost a few matrix-vector products: good starts, and one step from each.

A start brings a token's cluster to the top: its own direction, or what a neighbour was spoken by. A step
separates it from its nearest rows. On cones only, where the first witness is as good as any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verify.propose.proposal import Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from verify.propose.problem import Problem

    Array = NDArray[np.float64]

# Neighbours whose directions are starts, and how many of the nearest rows a step leads away from.
_STARTS = 3
_AWAY_FROM = (16, 64)
_MOST_CUTS = 60


class NeighbourDirections:
    """Keeps the directions it is told of, and tries those of a token's nearest neighbours."""

    name = "neighbours"

    def __init__(self) -> None:
        self._known: dict[int, Array] = {}

    def remember(self, token: int, state: Array) -> None:
        """A direction (d,) that speaks `token`; its length does not matter."""
        size = float(np.linalg.norm(state))
        if np.isfinite(size) and size > 0:
            self._known[token] = state / size

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """The best combination of a start and a step, if it brings the token to the top."""
        if not problem.cone or problem.homogeneous:
            return
        rows = problem.competitors()
        starts = np.array([problem.own_direction() / problem.radius, *self._nearest(problem)])
        nearest = rows[np.argsort(problem.distances[rows])[: max(_AWAY_FROM)]]
        away = [problem.a_t - problem.view.rows[nearest[:k]].mean(axis=0) for k in _AWAY_FROM]
        steps = np.array([*away, starts[0]])
        margins = problem.margins(np.vstack([starts, steps]))[:, rows]
        at_starts, of_steps = margins[: len(starts)], margins[len(starts) :]
        best, size = 0.0, problem.radius
        found: Array | None = None
        for start, own in zip(starts, at_starts, strict=True):
            for step, along in zip(steps, of_steps, strict=True):
                multiple = best_multiple(own, along)
                y = start + multiple * step
                norm = float(np.linalg.norm(y))
                low = float(np.min(own + multiple * along)) / norm if norm > 0 else -np.inf
                if low > best:
                    best, found = low, y * (size / norm)
        if found is not None:
            yield Proposal(state=found, low=best * size, claim="speakable", effort=f"{len(starts)} starts")

    def _nearest(self, problem: Problem) -> list[Array]:
        ids = np.array([t for t in self._known if t < problem.count and t != problem.token], dtype=np.intp)
        order = np.argsort(problem.distances[ids], kind="stable")[:_STARTS]
        return [self._known[int(t)] for t in ids[order]]


def best_multiple(own: Array, along: Array) -> float:
    """The b >= 0 at which  min_j own_j + b along_j  is largest, by cuts; 0 if that is no better.

    The function is concave and piecewise linear: where the tangents of the two sides cross is an upper
    bound, and the next point.
    """
    left, right = int(np.argmin(own)), int(np.argmin(along))
    if along[left] <= 0:
        return 0.0
    if along[right] >= 0:
        # Grows for ever: far enough for every margin that can become positive.
        rising = along > 0
        return 2.0 * float(np.max(-own[rising] / along[rising], initial=0.0)) + 1.0
    b = 0.0
    for _ in range(_MOST_CUTS):
        b = float((own[right] - own[left]) / (along[left] - along[right]))
        value = own + b * along
        j = int(np.argmin(value))
        if value[j] >= value[left] - 1e-12 * abs(float(value[left])) or j in (left, right):
            break
        left, right = (j, right) if along[j] > 0 else (left, j)
    return max(b, 0.0)

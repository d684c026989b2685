"""PROPOSER. Reflections: from a direction, across the hyperplane of whoever is on top, until the token is.

Grivas, Bogoychev and Lopez (2022) search so from the token's own row. Here it also starts from what a nearby
token was spoken by. On cones only, and only where the token ends with room to spare: thin witnesses are left
to the interior-point method, which finds nearly the largest margin.
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

_MOST = 30
# Logits at a state of length sqrt(d); a witness with less is not worth keeping (see above).
_ROOM = 0.01


class Reflections:
    """Keeps the directions it is told of, and starts from a token's own and from its nearest neighbour's."""

    name = "reflections"

    def __init__(self) -> None:
        self._known: dict[int, Array] = {}

    def remember(self, token: int, state: Array) -> None:
        """A direction (d,) that speaks `token`; its length does not matter."""
        size = float(np.linalg.norm(state))
        if np.isfinite(size) and size > 0:
            self._known[token] = state / size

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """The first direction that speaks the token with room to spare, if one is reached."""
        if not problem.cone or problem.homogeneous:
            return
        for start in (problem.own_direction(), *self._nearest(problem)):
            y, count = start, 0
            while (size := float(np.linalg.norm(y))) > 0 and np.isfinite(size):
                y = y * (problem.radius / size)
                margins = problem.margins(y)
                rival = int(np.argmin(margins))
                low = float(margins[rival])
                if low >= _ROOM:
                    yield Proposal(state=y, low=low, claim="speakable", effort=f"{count} reflections")
                if low > 0 or count == _MOST:
                    break
                D = problem.a_t - problem.view.rows[rival]
                y = y - (2.0 * low / max(float(D @ D), 1e-300)) * D
                count += 1

    def _nearest(self, problem: Problem) -> list[Array]:
        ids = np.array([t for t in self._known if t < problem.count and t != problem.token], dtype=np.intp)
        return [self._known[int(ids[np.argmin(problem.distances[ids])])]] if ids.size else []

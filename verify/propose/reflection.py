"""PROPOSER. Reflections: from a direction, across the hyperplane of whoever is on top, until the token is.

Grivas, Bogoychev and Lopez (2022) search so from the token's own row. Here many tokens do so side by side,
one matrix product a step, and one token starts from what a nearby one was spoken by. On cones only, and only
where the token ends with room to spare: thin witnesses are left to the interior-point method, which finds
nearly the largest margin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verify.propose.proposal import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from verify.propose.problem import FloatReadout, Problem

    Array = NDArray[np.float64]
    Logits = Callable[[Array], NDArray[np.floating]]

# Most tokens that are reached at all are reached in one or two.
_MOST, _MOST_FROM_NEIGHBOUR = 30, 8
# Logits at a state of length sqrt(d); a witness with less is not worth keeping (see above).
ROOM = 0.01
_NEAREST = 16
_LEAST = 1e-300
# Of the directions that are kept, in bytes: far more than near ones are needed.
_KEPT = 1 << 27


def reflect(view: FloatReadout, tokens: NDArray[np.intp], logits: Logits) -> list[tuple[Array, float] | None]:
    """For each token a state (d,) of length sqrt(d) that speaks it with ROOM or more, and its float margin.

    In a cone without offsets. First from the tokens' own directions, then from halfway between those and the
    directions away from their nearest rows. logits: states (k, d) -> those of all competitors, (k, count),
    rounded in whatever way.
    """
    own = view.rows[tokens] - view.centre
    found = _reflect(view, tokens, logits, own)
    left = np.flatnonzero([x is None for x in found])
    if left.size:
        apart = own[left] / _length(own[left]) + _away(view, tokens[left], logits)
        for i, again in zip(left, _reflect(view, tokens[left], logits, apart), strict=True):
            found[i] = again
    return found


def _away(view: FloatReadout, tokens: NDArray[np.intp], logits: Logits) -> Array:
    """Unit vectors from the mean of a token's nearest competitors to its own row, (k, d)."""
    rows = view.rows[tokens]
    products = logits(rows)
    count = products.shape[1]
    squares = view.squares[:count] - 2.0 * products
    inside = np.flatnonzero(tokens < count)
    squares[inside, tokens[inside]] = np.inf
    most = min(_NEAREST, count - 1)
    nearest = np.argpartition(squares, most - 1, axis=1)[:, :most]
    apart = rows - np.stack([view.rows[j].mean(axis=0) for j in nearest])
    unit: Array = apart / _length(apart)
    return unit


def _reflect(
    view: FloatReadout, tokens: NDArray[np.intp], logits: Logits, starts: Array
) -> list[tuple[Array, float] | None]:
    own, y = view.rows[tokens], starts.copy()
    found: list[tuple[Array, float] | None] = [None] * len(tokens)
    active = np.arange(len(tokens))
    for _ in range(_MOST + 1):
        y[active] *= float(np.sqrt(own.shape[1])) / _length(y[active])
        values = logits(y[active])
        inside = np.flatnonzero(tokens[active] < values.shape[1])
        values[inside, tokens[active[inside]]] = -np.inf
        D = own[active] - view.rows[values.argmax(axis=1)]
        low = np.einsum("ij,ij->i", D, y[active])
        for i in np.flatnonzero(low >= ROOM):
            found[active[i]] = (y[active[i]].copy(), float(low[i]))
        y[active] -= (2.0 * low / np.maximum(np.einsum("ij,ij->i", D, D), _LEAST))[:, None] * D
        active = active[low <= 0]
        if not active.size:
            break
    return found


def _length(y: Array) -> Array:
    """Lengths of the rows of y (k, n), (k, 1), never zero."""
    length: Array = np.maximum(np.linalg.norm(y, axis=1, keepdims=True), _LEAST)
    return length


class Reflections:
    """Keeps the directions that tokens were last spoken by, and starts from the nearest such token's."""

    name = "reflections"

    def __init__(self) -> None:
        self._known: dict[int, Array] = {}

    def remember(self, token: int, state: Array) -> None:
        """A direction (d,) that speaks `token`; its length does not matter."""
        size = float(np.linalg.norm(state))
        if np.isfinite(size) and size > 0:
            self._known[token] = state / size
            if len(self._known) > max(1, _KEPT // state.nbytes):
                self._known.pop(next(iter(self._known)))

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """A direction that speaks the token with room to spare, if one is reached."""
        if not problem.cone or problem.homogeneous:
            return
        y = self._nearest(problem)
        for count in range(_MOST_FROM_NEIGHBOUR + 1):
            if y is None:
                return
            y = y * (problem.radius / float(np.linalg.norm(y)))
            margins = problem.margins(y)
            rival = int(np.argmin(margins))
            low = float(margins[rival])
            if low >= ROOM:
                yield Proposal(state=y, low=low, claim="speakable", effort=f"{count} reflections")
            if low > 0:
                return
            D = problem.a_t - problem.view.rows[rival]
            y = y - (2.0 * low / max(float(D @ D), _LEAST)) * D

    def _nearest(self, problem: Problem) -> Array | None:
        """The direction of the nearest known token, if any."""
        ids = np.array([t for t in self._known if t < problem.count and t != problem.token], dtype=np.intp)
        return self._known[int(ids[np.argmin(problem.distances[ids])])] if ids.size else None

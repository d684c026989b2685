"""PROPOSER. Working sets for methods that take a fixed list of rows: solve, add the most violated, repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verify.propose.proposal import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from verify.propose.problem import Constraints, Problem

    Array = NDArray[np.float64]

_FIRST = 300
_ADD = 200
_MAX_ROUNDS = 40
# Rounds without a margin a tenth better before a method with a witness stops.
_PATIENCE = 3


@dataclass
class Answer:
    """What a method says of one working set: a state (n,), row multipliers (m,), and its own words.

    multipliers are for the normalised rows, fixed rows and cuts left out.
    """

    state: Array | None
    multipliers: Array | None
    claim: str
    words: str


def cuts_for_ball(points: list[Array], radius: float, n: int) -> Constraints:
    """Half-spaces that hold the ball of `radius`: its tangents at `points` / |points|."""
    from verify.propose.problem import Constraints

    normals = [p / np.linalg.norm(p) for p in points]
    G = -np.array(normals).reshape(-1, n)
    return Constraints(G, np.full(len(normals), radius), np.zeros(len(normals)))


def run(problem: Problem, method: Callable[[Constraints, int], Answer], name: str) -> Iterator[Proposal]:
    """Proposals of `method(constraints, fixed)` on growing working sets; the last one is its best.

    The first `fixed` constraints are the problem's own and tangent cuts of the ball; the rest are rows.
    """
    rows = np.unique(
        np.concatenate(
            [
                np.argsort(problem.distances)[:_FIRST],
                np.argsort(problem.margins(problem.own_direction()))[:_FIRST],
            ]
        )
    )
    rows = rows[np.isfinite(problem.distances[rows])]
    if not rows.size:
        return
    points: list[Array] = []
    best, stalled = Proposal(), 0
    for rounds in range(1, _MAX_ROUNDS + 1):
        fixed = problem.fixed
        if problem.view.kind == "readout" and points:
            fixed = fixed.extended(cuts_for_ball(points, problem.radius, problem.n))
        answer = method(fixed.extended(problem.constraints(rows)), len(fixed.g))
        best.claim = answer.claim
        best.effort = f"{name}: {rounds} rounds, {len(rows)} rows, {answer.words}"
        if answer.multipliers is not None and answer.multipliers.max(initial=0.0) > 0:
            best.rows, best.multipliers = rows.copy(), answer.multipliers * problem.constraints(rows).weight
            best.high = min(best.high, problem.ceiling(best.rows, best.multipliers))
        if answer.state is None:
            yield best
            return
        y, low = _best_multiple(problem, answer.state)
        stalled = stalled + 1 if best.low > 0 and low < 1.1 * best.low else 0
        if low > best.low:
            best.low, best.state = low, y
        outside = problem.view.kind == "readout" and np.linalg.norm(answer.state) > problem.radius * (
            1 + 1e-9
        )
        if outside:
            points.append(answer.state.copy())
        raw = problem.margins(answer.state)
        worst = np.argsort(raw)[:_ADD]
        worst = worst[(raw[worst] <= 0) & ~np.isin(worst, rows)]
        done = answer.claim == "unspeakable" or (worst.size == 0 and not outside) or stalled == _PATIENCE
        if done or (low > 0 and stalled == 0):
            yield best
        if done:
            return
        rows = np.concatenate([rows, worst])
    best.claim = "speakable" if best.low > 0 else "unknown"  # the rounds ran out, not the method
    yield best


def _best_multiple(problem: Problem, y: Array) -> tuple[Array, float]:
    """The multiple of y inside the domain with the best margin, and that margin.

    Margins are concave along a ray, so a handful of scales finds the best to a factor near one.
    """
    size = float(np.linalg.norm(y))
    if problem.view.kind == "box" or size == 0.0:
        margins = problem.margins(y)
        return y, float(margins.min())
    top = (1 - 1e-12) * problem.radius / size
    scales = [top] if problem.cone else [top, *(top * 0.8**i for i in range(1, 25))]
    if not problem.cone and top >= 1.0:
        scales.append(1.0)
    tried = [(s, problem.margins(s * y)) for s in scales]
    s, margins = max(tried, key=lambda pair: float(pair[1].min()))
    return s * y, float(margins.min())

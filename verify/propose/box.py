"""PROPOSER. The largest margin, or ball, in a box: one linear program on a growing set of rows. Not believed.

maximise s  with  D_j.x + e_j >= weight_j s  and |x_i| <= B; weight_j = 1 for margins, |D_j| for balls. It
always has a solution and multipliers, and both come near the best one: what `verify.posed` needs where the
best is near what a program asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verify.propose.problem import Problem

    Array = NDArray[np.float64]

_FIRST, _ADD, _MAX_ROUNDS = 300, 200, 30
_CLOSE = 1e-9


def largest_in_box(problem: Problem, balls: bool) -> tuple[Array, NDArray[np.intp], Array] | None:
    """x (d,), competitors (m,) and their multipliers (m,); None where the solver gives none.

    problem: of a box. Rows equal to the token's take no part.
    """
    rows = problem.competitors()
    D, e = problem.differences(rows)
    length = np.linalg.norm(D, axis=1)
    rows, D, e, length = rows[length > 0], D[length > 0], e[length > 0], length[length > 0]
    weight = length if balls else np.ones(len(rows))
    y = problem.own_direction()
    limit, chosen, multipliers = np.inf, np.zeros(0, dtype=np.intp), np.zeros(0)
    for _ in range(_MAX_ROUNDS):
        ratio = (D @ y + e) / weight
        worst = np.argsort(ratio)[: _ADD if chosen.size else _FIRST]
        new = np.setdiff1d(worst[ratio[worst] < limit], chosen)
        if not new.size:
            break
        chosen = np.concatenate([chosen, new])
        # Each row divided by its length: never trained tokens lie in clusters a thousandth wide.
        found = _solve(
            D[chosen] / length[chosen, None],
            e[chosen] / length[chosen],
            weight[chosen] / length[chosen],
            problem.view.bound,
        )
        if found is None:
            return None
        y, s, multipliers = found
        limit = s - _CLOSE * abs(s)
    return y, rows[chosen], multipliers / length[chosen]


def _solve(G: Array, g: Array, weight: Array, bound: float) -> tuple[Array, float, Array] | None:
    """x, s and multipliers of the rows G x + g >= weight s."""
    from scipy.optimize import linprog

    d = G.shape[1]
    try:
        found = linprog(
            np.append(np.zeros(d), -1.0),
            A_ub=np.column_stack([-G, weight]),
            b_ub=g,
            bounds=[(-bound, bound)] * d + [(None, None)],
            method="highs",
        )
    except ValueError:  # numbers beyond the range of floats
        return None
    if found.x is None or not np.isfinite(found.x).all():
        return None
    return found.x[:d], float(found.x[d]), np.maximum(-found.ineqlin.marginals, 0.0)

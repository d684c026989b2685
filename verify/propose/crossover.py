"""PROPOSER. From float multipliers on many rows to a basic support, ready for an exact solve.

The push phase of a crossover (Megiddo 1991): non-basic multipliers are pushed to zero one by one, the
basic ones follow, and a basic one that reaches zero first leaves in exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import qr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_REFRESH = 50


def basic_support(vectors: Array, multipliers: Array, rank_tolerance: float = 1e-9) -> NDArray[np.intp]:
    """Indices of rows whose multipliers, in floats, can carry  sum x_i vectors_i = const, x >= 0, alone.

    vectors: (m, n), rows scaled to comparable length. multipliers: (m,), positive. The result is at
    most rank + 1 rows. Rows with the largest multipliers are preferred in the starting basis.
    """
    M = np.vstack([vectors.T, np.ones(len(vectors))])
    x = multipliers / multipliers.sum()
    _, R, order = qr(M * x, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(R))
    rank = int((diagonal > rank_tolerance * diagonal[0]).sum())
    # Work with the rank rows that matter, in coordinates where the columns are well scaled.
    Q, _ = np.linalg.qr(M[:, order[:rank]])
    M = Q.T @ M
    basis, rest = list(order[:rank]), list(order[rank:])
    inverse = np.linalg.inv(M[:, basis])
    for count, k in enumerate(sorted(rest, key=lambda i: x[i])):
        if count % _REFRESH == _REFRESH - 1:
            inverse = np.linalg.inv(M[:, basis])
        move = inverse @ M[:, k]  # basic multipliers grow by move * (decrease of x_k)
        inside = x[basis]
        falling = move < -1e-12
        limits = np.full(len(basis), np.inf)
        limits[falling] = inside[falling] / -move[falling]
        leaving = int(np.argmin(limits))
        if limits[leaving] >= x[k]:
            x[basis] = np.maximum(inside + move * x[k], 0.0)
            x[k] = 0.0
            continue
        drop = limits[leaving]
        x[basis] = np.maximum(inside + move * drop, 0.0)
        x[k] -= drop
        x[basis[leaving]] = 0.0
        # Sherman-Morrison: column `leaving` of the basis becomes M_k.
        pivot_row = inverse[leaving] / move[leaving]
        inverse = inverse - np.outer(move, pivot_row)
        inverse[leaving] = pivot_row
        basis[leaving] = k
    return np.array([i for i in basis if x[i] > 1e-13], dtype=np.intp)

"""TRUSTED only to end: exact multipliers on a given support. What it returns is checked by check.py.

A wrong answer here is refused there; no verdict rests on this file (Theorem 6 does not use it).
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING

import flint

from verify.errors import RefutedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verify.kernel.evidence import Multipliers
    from verify.kernel.system import System

_PRIME = 9223372036854775783


def solve_support(system: System, rows: Sequence[int]) -> tuple[int, ...]:
    """The positive integers lambda, unique up to scale, with P sum(lambda_j D_j) = 0 on `rows`.

    In a region where biases count and the support is affinely independent with its biases, also
    sum(lambda_j e_j) = 0 if that is what leaves one solution. Raises RefutedError when the kernel of
    the support is not one-dimensional or not of one sign.
    """
    if not rows or len(set(rows)) != len(rows):
        raise RefutedError("the support is empty or repeats a row")
    differences = system.differences(list(rows))
    columns = [flat(system, x.D) for x in differences]
    relation = linear_relation(columns)
    if relation is None:
        relation = linear_relation([[*c, x.e] for c, x in zip(columns, differences, strict=True)])
    if relation is None:
        raise RefutedError("the support does not determine its multipliers")
    if not all(x > 0 for x in relation):
        raise RefutedError("the multipliers on this support are not all positive")
    return tuple(relation)


def determines(system: System, rows: Sequence[int]) -> bool:
    """Whether multipliers with P sum(lambda_j D_j) = 0 on these rows are unique up to scale.

    Rank n - 1 modulo a prime is enough: it never exceeds the rank over the rationals.
    """
    columns = [flat(system, x.D) for x in system.differences(list(rows))]
    return len(pivot_columns(columns)) >= len(rows) - 1


def in_full(system: System, multipliers: Multipliers) -> Multipliers:
    """The multipliers themselves; a bare support is solved for first, and believed no more for it."""
    if multipliers.values is not None:
        return multipliers
    return replace(multipliers, values=solve_support(system, multipliers.rows))


def flat(system: System, u: list[int]) -> list[int]:
    """Coordinates that vanish exactly when P u does: u_i - u_0 after a LayerNorm, u otherwise."""
    return [x - u[0] for x in u[1:]] if system.projects else u


def linear_relation(vectors: list[list[int]]) -> list[int] | None:
    """The primitive integer relation among n vectors, if there is exactly one up to scale.

    The sign is such that the first non-zero entry is positive. Pivots are chosen modulo a prime, then
    one solve over the rationals (Dixon lifting) gives the relation. None also when the prime misleads.
    """
    n = len(vectors)
    equations = [_content_free(list(c)) for c in zip(*vectors, strict=True) if any(c)]
    if n == 1 and not equations:
        return [1]
    if n == 1 or len(equations) < n - 1:
        return None
    columns = pivot_columns(equations)
    if len(columns) != n - 1:
        return None
    chosen = [equations[i] for i in pivot_columns([list(c) for c in zip(*equations, strict=True)])]
    free = next(j for j in range(n) if j not in set(columns))
    left = flint.fmpz_mat([[e[j] for j in columns] for e in chosen])
    right = flint.fmpz_mat([[-e[free]] for e in chosen])
    # Regular modulo the prime by the choice of rows and columns, hence over the rationals.
    solution = left.solve(right)
    numerator, denominator = solution.numer_denom()  # type: ignore[attr-defined] # missing in its stubs
    values = [int(x) for x in numerator.entries()]
    values.insert(free, int(denominator))
    # The equations that were left out are multiples of the chosen ones modulo the prime; are they exactly?
    if any(int(x) for x in (flint.fmpz_mat([values]) * flint.fmpz_mat(vectors)).entries()):
        return None
    content = gcd(*values)
    sign = 1 if next(x for x in values if x) > 0 else -1
    return [sign * x // content for x in values]


def pivot_columns(matrix: list[list[int]]) -> list[int]:
    """Columns of the first maximal independent set, going left to right, modulo a large prime."""
    echelon, rank = flint.nmod_mat([[x % _PRIME for x in row] for row in matrix], _PRIME).rref()
    pivots, column = [], 0
    for i in range(rank):
        while int(echelon[i, column]) == 0:
            column += 1
        pivots.append(column)
        column += 1
    return pivots


def _content_free(values: list[int]) -> list[int]:
    content = gcd(*values)
    return [x // content for x in values]

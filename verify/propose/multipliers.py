"""PROPOSER. From float multipliers to integers that may pass the kernel's check. Nothing is believed.

Slack gaps: rounding is enough. Gap 0 (ties, cones): a basic support and an exact linear solve on it.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING

import flint
import numpy as np

from verify.errors import RefutedError
from verify.kernel.check import check_bound
from verify.kernel.evidence import Multipliers
from verify.kernel.solve import linear_relation, solve_support
from verify.propose.crossover import basic_support
from verify.propose.rounding import integer_multipliers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from verify.kernel.system import System
    from verify.propose.problem import Problem
    from verify.propose.proposal import Proposal

    Array = NDArray[np.float64]

_BITS = (10, 14, 18, 24, 32, 44, 60)


def best_bound(system: System, multipliers: Multipliers) -> Fraction | None:
    """The least bound on every state's margin that these multipliers prove, rounded up to 48 bits.

    None where they prove none (a cone whose rows do not cancel).
    """
    if multipliers.values is None:
        return None
    differences = system.differences(list(multipliers.rows))
    d, total = system.readout.d, sum(multipliers.values)
    u = [0] * d
    v = 0
    for x, weight in zip(differences, multipliers.values, strict=True):
        u = [a + weight * b for a, b in zip(u, x.D, strict=True)]
        v += weight * x.e
    pu = system.project(u)
    scale = d if system.projects else 1
    if system.region in ("space", "cone"):
        if any(pu):
            return None
        reach = Fraction(0)
    elif system.region == "box":
        reach = system.domain.bound * sum(map(abs, pu)) / scale
    else:
        square = d * sum(x * x for x in pu)
        root = isqrt(square << 128)
        exact = root * root == square << 128
        reach = Fraction(root + (0 if exact else 1), scale << 64)
    unit = Fraction(2) ** system.unit
    return rounded_up((v + reach) * unit / total)


def rounded_up(x: Fraction, bits: int = 48) -> Fraction:
    """The least fraction m * 2**k >= x with m of about `bits` bits."""
    if x == 0:
        return x
    k = abs(x.numerator).bit_length() - x.denominator.bit_length() - bits
    unit = Fraction(2) ** k
    return -((-x) // unit) * unit


def rounded(system: System, proposal: Proposal, worst: Fraction) -> tuple[Multipliers, Fraction] | None:
    """The shortest rounding of a proposal's multipliers that proves a bound of at most `worst`."""
    for bits in _BITS:
        candidate = integer_multipliers(proposal.rows, proposal.multipliers, bits)
        if candidate is None:
            return None
        bound = best_bound(system, candidate)
        if bound is not None and bound <= worst:
            return candidate, bound
    return None


def exact_at_zero(system: System, problem: Problem, proposal: Proposal) -> Iterator[tuple[str, Multipliers]]:
    """Multipliers that prove the bound 0 exactly, by one way after another: (how, multipliers)."""
    rows, weights = proposal.rows, proposal.multipliers
    ways = (
        ("one row", _single_rows(system, problem)),
        ("basic support", _basic_supports(system, problem, rows, weights)),
        ("interior multipliers", _interior(system, problem, rows, weights)),
        ("tangent support", _tangent(system, problem, rows, weights)),
    )
    for how, candidates in ways:
        for candidate in candidates:
            try:
                check_bound(system, candidate, Fraction(0))
            except RefutedError:
                continue
            yield how, candidate


def _single_rows(system: System, problem: Problem) -> Iterator[Multipliers]:
    """Rows that dominate alone, best first: e_j + (reach of D_j) <= 0, up to rounding."""
    rows = problem.competitors()
    if problem.view.kind == "box":
        size = np.abs(problem.a_t - problem.view.rows[rows]).sum(axis=1) * problem.view.bound
    elif problem.cone or problem.homogeneous:
        size = problem.distances[rows]
    else:
        size = np.sqrt(np.maximum(problem.distances[rows] ** 2 - _e(problem, rows) ** 2, 0)) * problem.radius
    value = size + (_e(problem, rows) if problem.view.kind != "direction" else 0)
    order = np.argsort(value)[:8]
    scale = float(np.median(size)) if size.size else 0.0
    for i in order:
        if value[i] <= 1e-6 * scale:
            yield Multipliers((int(rows[i]),), (1,))


def _e(problem: Problem, rows: NDArray[np.intp]) -> Array:
    out: Array = problem.view.offsets[problem.token] - problem.view.offsets[rows]
    return out


def _vectors(problem: Problem, rows: NDArray[np.intp]) -> tuple[Array, Array]:
    """Rows (with their offsets where biases count) scaled to length 1, and the scales."""
    D, e = problem.differences(rows)
    if not problem.homogeneous and not problem.cone:
        D = np.column_stack([D, e])
    length = np.maximum(np.linalg.norm(D, axis=1), 1e-300)
    return D / length[:, None], length


def _basic_supports(
    system: System, problem: Problem, rows: NDArray[np.intp], weights: Array
) -> Iterator[Multipliers]:
    """Exact solves on supports of at most dimension + 1 rows, from several cut-offs of the floats."""
    tried: set[tuple[int, ...]] = set()
    for cutoff in (1e-7, 1e-4, 1e-10, 1e-2):
        keep = weights > cutoff * weights.max(initial=0.0)
        if not keep.any():
            continue
        V, length = _vectors(problem, rows[keep])
        try:
            basis = basic_support(V, weights[keep] * length)
        except np.linalg.LinAlgError:
            continue
        support = tuple(sorted(int(j) for j in rows[keep][basis]))
        if not support or support in tried:
            continue
        tried.add(support)
        try:
            yield Multipliers(support, solve_support(system, support))
        except RefutedError:
            continue


def _interior(
    system: System, problem: Problem, rows: NDArray[np.intp], weights: Array
) -> Iterator[Multipliers]:
    """Keep all multipliers but a basis at rounded values, and solve the basis for the rest exactly.

    Works where no basic support is positive in floats, as long as the float multipliers lie well
    inside the set of solutions.
    """
    keep = weights > 1e-6 * weights.max(initial=0.0)
    rows, weights = rows[keep], weights[keep]
    if not 2 <= len(rows) <= 4 * system.readout.d + 50:
        return
    values = integer_multipliers(rows, weights, 40)
    if values is None or values.values is None:
        return
    exact = system.differences(list(values.rows))
    vectors = [
        [*([x - y.D[0] for x in y.D[1:]] if system.projects else y.D), *([y.e] if system.biased else [])]
        for y in exact
    ]
    V, length = _vectors(problem, np.array(values.rows))
    order = np.argsort(-np.array(values.values, dtype=float) * length)
    for solved in _complete(vectors, list(values.values), order):
        yield Multipliers(values.rows, tuple(solved))


def _complete(vectors: list[list[int]], weights: list[int], order: NDArray[np.intp]) -> Iterator[list[int]]:
    """Integer multipliers near `weights` with sum = 0: one relation among a basis and the given sum."""
    prime = 9223372036854775783
    reduced = flint.nmod_mat([[vectors[i][c] % prime for i in order] for c in range(len(vectors[0]))], prime)
    echelon, rank = reduced.rref()
    pivots, column = [], 0
    for i in range(rank):
        while int(echelon[i, column]) == 0:
            column += 1
        pivots.append(int(order[column]))
    chosen = set(pivots)
    rest = [i for i in range(len(vectors)) if i not in chosen]
    if not rest:
        return
    given = [sum(weights[i] * vectors[i][c] for i in rest) for c in range(len(vectors[0]))]
    relation = linear_relation([given, *[vectors[i] for i in pivots]])
    if relation is None or relation[0] <= 0 or any(x <= 0 for x in relation[1:]):
        return
    out = [0] * len(vectors)
    for i in rest:
        out[i] = weights[i] * relation[0]
    for i, x in zip(pivots, relation[1:], strict=True):
        out[i] = x
    yield out


def _tangent(
    system: System, problem: Problem, rows: NDArray[np.intp], weights: Array
) -> Iterator[Multipliers]:
    """The kernel of d D P D^T - e e^T on a small support: the bound 0 reached on the sphere itself."""
    if system.region not in ("ball", "sphere"):
        return
    order = rows[np.argsort(-weights)]
    d, scale = system.readout.d, system.readout.d if system.projects else 1
    for size in range(1, min(len(order), 12) + 1):
        support = sorted(int(j) for j in order[:size])
        exact = system.differences(support)
        projected = [system.project(x.D) for x in exact]
        # x.D . P y.D = x.D . project(y.D) / scale
        gram = [
            [
                d * sum(p * q for p, q in zip(x.D, py, strict=True)) - x.e * y.e * scale
                for y, py in zip(exact, projected, strict=True)
            ]
            for x in exact
        ]
        relation = linear_relation(gram)
        if relation is not None and all(x > 0 for x in relation):
            yield Multipliers(tuple(support), tuple(relation))

"""PROPOSER. From float multipliers to integers that may pass the kernel's check. Nothing is believed.

Slack gaps: rounding is enough. Gap 0 (ties, cones): a basic support and an exact linear solve on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import RefutedError
from verify.kernel.check import Combination, check_bound, combine
from verify.kernel.evidence import Multipliers
from verify.kernel.solve import flat, linear_relation, pivot_columns
from verify.propose.crossover import basic_support
from verify.propose.interior import InteriorPoint
from verify.propose.problem import Problem
from verify.propose.rounding import integer_multipliers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from verify.kernel.system import System
    from verify.propose.proposal import Proposal

    Array = NDArray[np.float64]

_ROWS_A_DIMENSION = (2.6, 3.3, 4.2)
_BITS = (10, 14, 18, 24, 32, 44, 60)


def best_bound(system: System, c: Combination) -> Fraction | None:
    """The least bound on every state's margin that these sums prove, rounded up to 48 bits.

    None where they prove none (a cone whose rows do not cancel).
    """
    d, v, pu = system.readout.d, c.v, system.project(c.u)
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
    return rounded_up((v + reach) * unit / c.total)


def rounded_up(x: Fraction, bits: int = 48) -> Fraction:
    """The least fraction m * 2**k >= x with m of about `bits` bits."""
    if x == 0:
        return x
    k = abs(x.numerator).bit_length() - x.denominator.bit_length() - bits
    unit = Fraction(2) ** k
    return -((-x) // unit) * unit


def rounded(
    system: System, problem: Problem, proposal: Proposal, worst: Fraction
) -> tuple[Multipliers, Fraction] | None:
    """The shortest rounding of a proposal's multipliers that proves a bound of at most `worst`."""
    # Floats say which roundings are not worth the exact sums; they err by far less than this.
    hopeless = float(worst) + 1e-3 * abs(float(worst))
    for bits in _BITS:
        candidate = integer_multipliers(proposal.rows, proposal.multipliers, bits)
        if candidate is None:
            return None
        weights = np.array(candidate.values, dtype=np.float64)
        if problem.ceiling(np.array(candidate.rows), weights) > hopeless:
            continue
        bound = best_bound(system, combine(system, candidate))
        if bound is not None and bound <= worst:
            return candidate, bound
    return None


def exact_at_zero(
    system: System, problem: Problem, proposal: Proposal
) -> Iterator[tuple[str, Multipliers, Combination]]:
    """Multipliers that prove the bound 0 exactly, by one way after another: (how, they, their sums)."""
    ways = (
        ("one row", _single_rows(problem)),
        ("basic support", _basic_supports(system, problem, proposal)),
        ("interior multipliers", _interior(system, problem, proposal)),
        ("tangent support", _tangent(system, proposal)),
    )
    for how, candidates in ways:
        for candidate in candidates:
            try:
                combination = combine(system, candidate)
                check_bound(system, combination, Fraction(0))
            except RefutedError:
                continue
            yield how, candidate, combination


def _single_rows(problem: Problem) -> Iterator[Multipliers]:
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


@dataclass
class _Equations:
    """Which sums must vanish for the bound 0: exact and float vectors of rows, and of helpers.

    A helper is a condition of the domain that takes part like a row but is left out of the multipliers:
    in R^d the offsets may sum to anything <= 0.
    """

    float_vectors: Array  # (m, q), of length 1
    length: Array  # (m,)
    helpers: Array  # (h, q)
    exact: Callable[[list[int]], list[list[int]]]
    exact_helpers: list[list[int]]


def _equations(system: System, problem: Problem, rows: NDArray[np.intp], state: Array | None) -> _Equations:
    if system.region == "box":
        return _box_equations(system, problem, rows, state)
    D, e = problem.differences(rows)
    with_offsets = problem.homogeneous or not problem.cone

    def exact(chosen: list[int]) -> list[list[int]]:
        return [[*flat(system, x.D), *([x.e] if with_offsets else [])] for x in system.differences(chosen)]

    if with_offsets and not problem.homogeneous:
        D = np.column_stack([D, e])
    q = len(exact([int(rows[0])])[0])
    length = np.maximum(np.linalg.norm(D, axis=1), 1e-300)
    helpers, exact_helpers = np.zeros((0, D.shape[1])), []
    if problem.homogeneous:
        helpers, exact_helpers = np.eye(D.shape[1])[-1:], [[0] * (q - 1) + [1]]
    return _Equations(D / length[:, None], length, helpers, exact, exact_helpers)


def _box_equations(
    system: System, problem: Problem, rows: NDArray[np.intp], state: Array | None
) -> _Equations:
    """At a maximiser x: Pu vanishes where |x_i| < B, and v + B sum |Pu_i| over the others vanishes."""
    x = np.zeros(problem.n) if state is None else state
    edge = np.where(np.abs(x) > 0.999 * problem.view.bound, np.sign(x), 0.0)
    D, e = problem.differences(rows)
    inner = np.flatnonzero(edge == 0)
    vectors = np.column_stack([D[:, inner], e + problem.view.bound * (D @ edge)])
    bound, d = system.domain.bound, system.readout.d if system.projects else 1

    def exact(chosen: list[int]) -> list[list[int]]:
        out = []
        for y in system.differences(chosen):
            pd = system.project(y.D)
            on_edge = sum(int(s) * c for s, c in zip(edge, pd, strict=True))
            out.append([*(pd[i] for i in inner), y.e * d * bound.denominator + bound.numerator * on_edge])
        return out

    length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-300)
    return _Equations(vectors / length[:, None], length, np.zeros((0, vectors.shape[1])), exact, [])


def _basic_supports(system: System, problem: Problem, proposal: Proposal) -> Iterator[Multipliers]:
    """Exact solves on supports of at most dimension + 1 rows, from several cut-offs of the floats."""
    tried: set[tuple[int, ...]] = set()
    proposal = _fewer_rows(problem, proposal)
    weights = proposal.multipliers
    for cutoff in (1e-7, 1e-4, 1e-10, 1e-2):
        keep = weights > cutoff * weights.max(initial=0.0)
        if not keep.any():
            continue
        rows = proposal.rows[keep]
        eq = _equations(system, problem, rows, proposal.state)
        h = len(eq.helpers)
        V = np.vstack([eq.helpers, eq.float_vectors])
        scaled = weights[keep] * eq.length
        helper_weight = np.maximum(-(eq.float_vectors.T @ scaled)[-1:], 0.0)[:h]
        if h and helper_weight[0] < 1e-9 * scaled.max():
            h, V, helper_weight = 0, eq.float_vectors, helper_weight[:0]
        try:
            basis = basic_support(V, np.concatenate([helper_weight, scaled]))
        except (np.linalg.LinAlgError, ValueError):
            continue
        support = tuple(sorted(int(rows[i - h]) for i in basis if i >= h))
        if not support or support in tried:
            continue
        tried.add(support)
        vectors = eq.exact(list(support))
        relation = linear_relation(vectors) or linear_relation([*eq.exact_helpers, *vectors])
        if relation is not None:
            relation = relation[len(relation) - len(support) :]
            if all(x > 0 for x in relation):
                yield Multipliers(support, tuple(relation))


def _fewer_rows(problem: Problem, proposal: Proposal) -> Proposal:
    """Multipliers on a random part of the rows, where a token deep inside the hull left thousands."""
    shuffled = np.random.default_rng(0).permutation(proposal.rows)
    for rows_a_dimension in _ROWS_A_DIMENSION:
        most = int(rows_a_dimension * problem.n) + 50
        if 1.2 * most >= len(shuffled):
            break
        others = np.ones(problem.count, dtype=bool)
        others[shuffled[:most]] = False
        small = Problem(problem.view, problem.token, problem.count, np.flatnonzero(others))
        again = next(InteriorPoint(1e-6).propose(small), proposal)
        if again.claim == "unspeakable":
            return again
    return proposal


def _interior(system: System, problem: Problem, proposal: Proposal) -> Iterator[Multipliers]:
    """Keep all multipliers but a basis at rounded values, and solve the basis for the rest exactly.

    Works where no basic support is positive in floats, as long as the float multipliers lie well
    inside the set of solutions; its support is the largest there is.
    """
    for cutoff in (1e-5, 1e-3):
        keep = proposal.multipliers > cutoff * proposal.multipliers.max(initial=0.0)
        if not 2 <= keep.sum() <= 4 * system.readout.d + 50:
            continue
        values = integer_multipliers(proposal.rows[keep], proposal.multipliers[keep], 40)
        if values is None or values.values is None:
            continue
        eq = _equations(system, problem, np.array(values.rows), proposal.state)
        order = np.argsort(-np.array(values.values, dtype=float) * eq.length)
        vectors = eq.exact(list(values.rows))
        for helpers in ([], eq.exact_helpers) if eq.exact_helpers else ([],):
            solved = _complete(vectors, list(values.values), order, helpers)
            if solved is not None:
                yield Multipliers(values.rows, tuple(solved))


def _complete(
    vectors: list[list[int]], weights: list[int], order: NDArray[np.intp], helpers: list[list[int]]
) -> list[int] | None:
    """Integer multipliers near `weights` whose sum vanishes: a basis solved for, the rest as given."""
    q = len(vectors[0])
    columns = [*helpers, *(vectors[i] for i in order)]
    pivots = pivot_columns([[c[i] for c in columns] for i in range(q)])
    basis = [int(order[i - len(helpers)]) for i in pivots if i >= len(helpers)]
    chosen = set(basis)
    rest = [i for i in range(len(vectors)) if i not in chosen]
    if not rest:
        return None
    given = [sum(weights[i] * vectors[i][c] for i in rest) for c in range(q)]
    used = [helpers[i] for i in pivots if i < len(helpers)]
    relation = linear_relation([given, *used, *(vectors[i] for i in basis)])
    if relation is None or relation[0] <= 0 or any(x <= 0 for x in relation[1 + len(used) :]):
        return None
    out = [0] * len(vectors)
    for i in rest:
        out[i] = weights[i] * relation[0]
    for i, x in zip(basis, relation[1 + len(used) :], strict=True):
        out[i] = x
    return out


def _tangent(system: System, proposal: Proposal) -> Iterator[Multipliers]:
    """The kernel of d D P D^T - e e^T on a small support: the bound 0 reached on the sphere itself."""
    if system.region not in ("ball", "sphere"):
        return
    order = proposal.rows[np.argsort(-proposal.multipliers)]
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

"""PROPOSER. The interior-point method once more, in arithmetic of 320 bits, for small dimensions.

For systems whose rows differ by more orders of magnitude than float64 holds. Slow (mpmath), so it comes
last, on at most a few hundred rows; it hands over integers, since floats could not carry its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from verify.errors import RefutedError
from verify.kernel.check import state_margin
from verify.kernel.evidence import Multipliers, State
from verify.propose.proposal import Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from verify.kernel.system import System
    from verify.propose.problem import Problem

    Numbers = NDArray[np.object_]  # of mpmath.mpf

_BITS = 320
_LARGEST_DIMENSION = 24
_FIRST_ROWS = 60
_MAX_ROWS = 300
_MAX_ROUNDS = 12
_MAX_STEPS = 160
# Bits kept of a state's coordinates, and how far inside the ball it is drawn (log2).
_GRID, _INSIDE = 220, 160


class PreciseInterior:
    """Interior point on exact rows, in 320-bit arithmetic."""

    name = "precise"

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """Guesses on growing working sets; nothing for large dimensions or without exact rows."""
        import mpmath

        system = problem.system
        if system is None or problem.n > _LARGEST_DIMENSION or problem.competitors().size == 0:
            return
        rows = set(map(int, np.argsort(problem.distances)[:_FIRST_ROWS]))
        rows |= set(map(int, np.argsort(problem.margins(problem.own_direction()))[:_FIRST_ROWS]))
        rows &= set(map(int, problem.competitors()))
        with mpmath.workprec(_BITS):
            for rounds in range(1, _MAX_ROUNDS + 1):
                proposal, rivals = _solve(problem, system, sorted(rows))
                proposal.effort = f"{rounds} rounds, {len(rows)} rows, {_BITS} bits"
                yield proposal
                fresh = rivals - rows
                if not fresh or len(rows) > _MAX_ROWS:
                    return
                rows |= fresh


def _solve(problem: Problem, system: System, rows: list[int]) -> tuple[Proposal, set[int]]:
    """A proposal from these rows, and the rivals that its state meets among all competitors."""
    G, g, weight, scale = _constraints(problem, system, rows)
    y, lam = _interior(G, g, weight, _number(problem.outer_radius))
    proposal = Proposal(rows=np.array(rows), multipliers=np.zeros(len(rows)))
    values = lam[len(lam) - len(rows) :] / scale
    top = max(values)
    if top > 0:
        proposal.multipliers = np.array([float(x / top) for x in values])
        integers = [int(x / top * 2 ** (_BITS - 40)) for x in values]
        kept = [(j, v) for j, v in zip(rows, integers, strict=True) if v > 0]
        proposal.exact_multipliers = Multipliers(tuple(j for j, _ in kept), tuple(v for _, v in kept))
    proposal.exact_state = _state(problem, system, y)
    try:
        margin, rivals = state_margin(system, proposal.exact_state)
    except RefutedError:
        return proposal, set()
    proposal.claim = "speakable" if margin > 0 else "unknown"
    return proposal, set(rivals)


def _number(x: Any) -> Any:
    import mpmath

    return mpmath.mpf(x)


def _constraints(
    problem: Problem, system: System, rows: list[int]
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Fixed rows and then `rows`, G y + g >= weight s, of length 1; and the lengths taken out of `rows`."""
    import mpmath

    unit = mpmath.mpf(2) ** system.unit
    tau = _number(problem.tau_scale)
    divisor = system.readout.d if system.projects else 1
    G, g, lengths = [], [], []
    for x in system.differences(rows):
        D = [_number(c) * unit / divisor for c in system.project(x.D)]
        e = _number(x.e) * unit
        if problem.homogeneous:
            D, e = [*D, e * tau], _number(0)
        size = mpmath.sqrt(sum(c * c for c in D)) or _number(1)
        G.append([c / size for c in D])
        g.append(e / size)
        lengths.append(size)
    f = problem.fixed
    all_G = [[_number(c) for c in row] for row in f.G.tolist()] + G
    all_g = [_number(c) for c in f.g.tolist()] + g
    weight = [_number(0)] * len(f.g) + [1 / size for size in lengths]
    return _array(all_G), _array(all_g), _array(weight), _array(lengths)


def _array(values: list[Any]) -> Numbers:
    return np.array(values, dtype=object)


def _interior(G: Numbers, g: Numbers, weight: Numbers, radius: Any) -> tuple[Numbers, Numbers]:
    """maximise s with G y + g - weight s >= 0 and |y| <= radius: y (n,) and the multipliers (m,)."""
    m, n = G.shape
    y = _array([_number(0)] * n)
    live = weight > 0
    s = min(g[live] / weight[live])
    s -= abs(s) + 1
    tiny = _number(2) ** -200
    sigma = np.maximum(G @ y + g - weight * s, tiny)
    lam = 1 / sigma
    lam = lam / (weight @ lam)
    q = radius * radius / 2
    mu = (lam @ sigma) / m
    eta = mu / q
    for _ in range(_MAX_STEPS):
        if mu < _number(2) ** -240:
            break
        residual = sigma - (G @ y + g - weight * s)
        target = mu / 8
        ratio = lam / sigma
        M = (G * ratio[:, None]).T @ G + np.outer(y, y) * (eta / q)
        for i in range(n):
            M[i, i] += eta
        coupling = G.T @ (ratio * weight)
        # Arrays stand first in mixed sums: mpmath would try to convert a whole array to one number.
        pull = (lam * residual + target) / sigma
        right = G.T @ pull - y * (target / q)
        solved = _linear(M, np.column_stack([coupling, right]))
        if solved is None:
            break
        along, rest = solved[:, 0], solved[:, 1]
        pivot = weight @ (ratio * weight) - coupling @ along
        ds = (1 - weight @ pull + coupling @ rest) / pivot
        dy = rest + along * ds
        dsigma = G @ dy - weight * ds - residual
        dlam = (-(lam * sigma) - lam * dsigma + target) / sigma
        deta = (target - eta * q + eta * (y @ dy)) / q
        a = _longest([*sigma, *lam, eta], [*dsigma, *dlam, deta])
        while (y + dy * a) @ (y + dy * a) >= radius * radius:
            a = a * _number("0.8")
        y, s, sigma, lam, eta = y + dy * a, s + ds * a, sigma + dsigma * a, lam + dlam * a, eta + deta * a
        q = (radius * radius - y @ y) / 2
        mu = (lam @ sigma + eta * q) / (m + 1)
    return y, lam


def _longest(values: list[Any], changes: list[Any]) -> Any:
    """A step that keeps all values positive, at most 1."""
    a = _number(1)
    for value, change in zip(values, changes, strict=True):
        if change < 0:
            a = min(a, -value / change * _number("0.97"))
    return a


def _linear(M: Numbers, B: Numbers) -> Numbers | None:
    """Solve M X = B by elimination with pivoting; None when M is singular."""
    n = len(M)
    A = np.column_stack([M, B])
    for i in range(n):
        k = i + int(np.argmax([abs(x) for x in A[i:, i]]))
        if A[k, i] == 0:
            return None
        A[[i, k]] = A[[k, i]]
        A[i] = A[i] / A[i, i]
        for r in range(n):
            if r != i:
                A[r] = A[r] - A[i] * A[r, i]
    return A[:, n:]


def _state(problem: Problem, system: System, y: Numbers) -> State:
    """y as a z-form state on a fine grid, drawn inside the domain."""
    import mpmath

    d = system.readout.d
    values = list(y)
    if problem.homogeneous:
        size = max(map(abs, values)) or _number(1)
        tau = max(values[-1] * _number(problem.tau_scale), size * _number(2) ** -100)
        values = [x / tau for x in values[:-1]]
    if system.region == "ball":
        square, limit = sum(x * x for x in values), d * (1 - _number(2) ** -_INSIDE)
        if square > limit:
            values = [x * mpmath.sqrt(limit / square) for x in values]
    if system.region == "box":
        edge = (system.domain.bound.numerator << _GRID) // system.domain.bound.denominator
        return State(tuple(max(-edge, min(edge, int(mpmath.nint(x * 2**_GRID)))) for x in values), _GRID)
    divisor = d if system.projects else 1
    return State(tuple(int(mpmath.nint(x * 2**_GRID / divisor)) for x in values), _GRID)

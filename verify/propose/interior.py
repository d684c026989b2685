"""PROPOSER. A primal-dual interior-point method that takes in violated rows as it goes.

maximise s  with  G y + g - weight s = sigma >= 0,  (R^2 - |y|^2) / 2 = q >= 0,  normal equations of
size n + 1, Mehrotra's predictor and corrector, and Newton steps that may start infeasible: a row that
turns out violated joins the working set with a slack of its own and no restart (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.blas import dsyrk

from verify.propose.proposal import Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from verify.propose.problem import Constraints, Problem

    Array = NDArray[np.float64]

_NEAREST = 300
_ADD = 300
_MAX_STEPS = 200
# A row joins with at least this fraction of the median slack, so that it does not stall the step.
_JOIN_SLACK = 0.1


@dataclass
class _Iterate:
    y: Array
    s: float
    sigma: Array
    lam: Array
    eta: float
    residual: Array  # sigma - (G y + g - weight s), driven to zero
    radius: float

    @property
    def q(self) -> float:
        return 0.5 * (self.radius**2 - float(self.y @ self.y))

    def gap(self) -> float:
        """The average complementarity product mu."""
        return float(self.lam @ self.sigma + self.eta * self.q) / (len(self.lam) + 1)


@dataclass
class _Step:
    y: Array
    s: float
    sigma: Array
    lam: Array
    eta: float


class InteriorPoint:
    """The default proposer. `precision`: relative bracket at which it stops refining."""

    name = "interior"

    def __init__(self, precision: float = 0.05) -> None:
        self.precision = precision

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """One refined guess; a second, tighter one if the first does not satisfy the caller."""
        if problem.competitors().size == 0:
            return
        for precision in (self.precision, 1e-6):
            yield _Run(problem).refine(precision)


class _Run:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.radius = problem.outer_radius
        self.rows = self._first_rows()
        self.member = np.zeros(problem.count, dtype=bool)
        self.member[self.rows] = True
        self.fixed = len(problem.fixed.g)
        self.constraints: Constraints = problem.fixed.extended(problem.constraints(self.rows))
        self.point = self._start()

    def _first_rows(self) -> NDArray[np.intp]:
        p = self.problem
        nearest = np.argsort(p.distances)[:_NEAREST]
        strongest = np.argsort(p.objective(p.own_direction()))[:_NEAREST]
        rows = np.unique(np.concatenate([nearest, strongest]))
        found: NDArray[np.intp] = rows[np.isfinite(p.distances[rows])]
        return found

    def _start(self) -> _Iterate:
        c, m0 = self.constraints, self.fixed
        y = self.problem.own_direction()
        value = c.G @ y + c.g
        margins = value[m0:] / c.weight[m0:]
        s = float(margins.min())
        s -= 0.5 * max(float(np.median(margins)) - s, 1e-9 * (1 + abs(s)))
        sigma = np.maximum(value - c.weight * s, 1e-12)
        lam = 1.0 / sigma
        lam /= c.weight @ lam
        q = 0.5 * (self.radius**2 - float(y @ y))
        eta = float(np.mean(lam * sigma)) / q
        return _Iterate(y, s, sigma, lam, eta, np.zeros(len(sigma)), self.radius)

    def refine(self, precision: float) -> Proposal:
        """Newton steps until the bracket [low, high] of the best margin is narrow or stops moving."""
        best = Proposal(effort="no step")
        scale = float(np.median(np.abs(1.0 / self.constraints.weight[self.fixed :]))) * self.radius
        for steps in range(1, _MAX_STEPS + 1):
            step = self._newton()
            if step is None:
                break
            self._apply(step)
            high, lam = self._ceiling()
            margins = self.problem.objective(self.point.y)
            low = float(margins.min())
            if low > best.low:
                best.low, best.state = low, self.point.y.copy()
            if high < best.high:
                best.high, best.rows, best.multipliers = high, self.rows.copy(), lam
            best.effort = f"{steps} Newton steps, {len(self.rows)} rows"
            if _narrow(best.low, best.high, precision, (1e-11 if self.problem.cone else 1e-13) * scale):
                break
            # A state shrinking to zero says that these rows alone hold the token: no more are needed.
            shrinking = self.problem.cone and self.point.s < 0
            frozen = shrinking and float(np.linalg.norm(self.point.y)) < 0.01 * self.radius
            added = self._take_in(margins if not frozen else np.full(self.problem.count, np.inf))
            if not added and self.point.gap() < 1e-17 * scale:
                break
        best.claim = (
            "speakable" if best.low > 0 else "unspeakable" if best.high <= 1e-9 * scale else "unknown"
        )
        return best

    def _ceiling(self) -> tuple[float, Array]:
        """The bound that the present multipliers give on every state's margin, and they themselves."""
        c, m0 = self.constraints, self.fixed
        lam = self.point.lam[m0:] * c.weight[m0:]
        total = float(lam.sum())
        u = c.G[m0:].T @ self.point.lam[m0:]
        v = float(c.g[m0:] @ self.point.lam[m0:])
        return (v + self.problem.reach(u)) / total, lam / total

    def _take_in(self, margins: Array) -> int:
        """Add the rows most violated at (y, s); their slacks start positive, the rest is residual."""
        excess = margins - self.point.s
        excess[self.member] = np.inf
        found = np.flatnonzero(excess < 0)
        if found.size:
            scale = 1.0 if self.problem.by_distance else self.problem.distances[found]
            order = np.argsort(excess[found] / scale)
            found = found[order[:_ADD]]
            new = self.problem.constraints(found)
            x = self.point
            true = new.G @ x.y + new.g - new.weight * x.s
            sigma = np.maximum(true, _JOIN_SLACK * float(np.median(x.sigma)))
            mu = float(x.lam @ x.sigma) / len(x.lam)
            x.sigma = np.concatenate([x.sigma, sigma])
            x.lam = np.concatenate([x.lam, mu / sigma])
            self.constraints = self.constraints.extended(new)
            self.rows = np.concatenate([self.rows, found])
            self.member[found] = True
        c, x = self.constraints, self.point
        x.residual = x.sigma - (c.G @ x.y + c.g - c.weight * x.s)
        x.residual[np.abs(x.residual) < 1e-13 * x.sigma] = 0.0
        return int(found.size)

    def _newton(self) -> _Step | None:
        """Predictor, corrector, and the step length folded in. None when the equations break down."""
        x, c = self.point, self.constraints
        ratio = x.lam / x.sigma
        half = np.sqrt(ratio)[:, None] * c.G
        M = dsyrk(1.0, half.T, lower=1)
        n = len(x.y)
        M[np.diag_indices(n)] += x.eta + 1e-15 * float(np.trace(M)) / n
        M += (x.eta / x.q) * np.outer(x.y, x.y)
        try:
            factor = cho_factor(M, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            return None
        coupling = c.G.T @ (ratio * c.weight)
        along = cho_solve(factor, coupling, check_finite=False)
        pivot = float(c.weight @ (ratio * c.weight)) - float(coupling @ along)

        def solve(target: Array | float, target_eta: float) -> _Step:
            """Newton direction for sigma*lam -> target, q*eta -> target_eta."""
            pull = (target + x.lam * x.residual) / x.sigma
            right = c.G.T @ pull - (target_eta / x.q) * x.y
            rest = cho_solve(factor, right, check_finite=False)
            ds = (1.0 - float(c.weight @ pull) + float(coupling @ rest)) / pivot
            dy = rest + ds * along
            dsigma = c.G @ dy - c.weight * ds - x.residual
            dlam = (target - x.lam * x.sigma - x.lam * dsigma) / x.sigma
            deta = (target_eta - x.eta * x.q + x.eta * float(x.y @ dy)) / x.q
            return _Step(dy, ds, dsigma, dlam, deta)

        mu = x.gap()
        ahead = solve(0.0, 0.0)
        a = min(1.0, self._longest(ahead))
        mu_ahead = _gap_after(x, ahead, a)
        centring = min(1.0, max(mu_ahead / mu, 0.0)) ** 3 * mu
        second_order = ahead.eta * float(x.y @ ahead.y) + 0.5 * x.eta * float(ahead.y @ ahead.y)
        step = solve(centring - ahead.sigma * ahead.lam, centring + second_order)
        a = min(1.0, 0.98 * self._longest(step))
        parts = (step.y, step.sigma, step.lam)
        if not all(np.isfinite(p).all() for p in parts) or not np.isfinite(step.s + step.eta):
            return None
        return _Step(a * step.y, a * step.s, a * step.sigma, a * step.lam, a * step.eta)

    def _longest(self, step: _Step) -> float:
        """The largest a at which sigma, lambda, eta and q stay non-negative."""
        x = self.point
        a = 1e9
        for value, change in ((x.sigma, step.sigma), (x.lam, step.lam)):
            falling = change < 0
            if falling.any():
                a = min(a, float(np.min(-value[falling] / change[falling])))
        if step.eta < 0:
            a = min(a, -x.eta / step.eta)
        square, cross = float(step.y @ step.y), float(x.y @ step.y)
        if square > 0:
            a = min(a, (-cross + float(np.sqrt(cross * cross + square * 2 * x.q))) / square)
        return a

    def _apply(self, step: _Step) -> None:
        x = self.point
        x.y = x.y + step.y
        x.s += step.s
        x.sigma = x.sigma + step.sigma
        x.lam = x.lam + step.lam
        x.eta += step.eta


def _gap_after(x: _Iterate, step: _Step, a: float) -> float:
    y = x.y + a * step.y
    q = 0.5 * (x.radius**2 - float(y @ y))
    products = (x.lam + a * step.lam) @ (x.sigma + a * step.sigma)
    return float(products + (x.eta + a * step.eta) * q) / (len(x.lam) + 1)


def _narrow(low: float, high: float, precision: float, floor: float) -> bool:
    """Whether the bracket settles the sign and the size, or has shrunk to rounding noise."""
    if high - low <= floor:
        return True
    if low > 0:
        return low >= (1.0 - precision) * high
    return high < 0 and high <= (1.0 - precision) * low

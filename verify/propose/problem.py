"""PROPOSER. A float copy of one token's inequalities. May be wrong without harm.

Everything here is rounded: rows folded and projected in float64, states of R^n. The proposers work on
this; what they find is rounded to integers and handed to the kernel.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from verify.kernel.filter import as_float64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verify.kernel.domain import Domain
    from verify.kernel.readout import Readout
    from verify.kernel.system import System

    Array = NDArray[np.float64]

_BLOCK = 4096


class FloatReadout:
    """Rows a_j (V, d) and offsets b_j (V,) of a readout in one domain, projected where states are.

    gain: what the rows were multiplied by, (d,), if anything.
    """

    def __init__(self, readout: Readout, domain: Domain) -> None:
        folds, biased = domain.kind != "free", domain.kind != "direction"
        self.kind = domain.kind
        if self.kind == "readout" and readout.norm == "none":
            self.kind = "free"
        self.bound = float(domain.bound)
        self.projects = readout.norm == "layernorm" and folds
        V, d = readout.vocabulary, readout.d
        self.rows: Array = np.empty((V, d))
        self.offsets: Array = np.zeros(V)
        shift = None
        self.gain: Array | None = None
        if folds and readout.gain is not None:
            self.gain = as_float64(readout.gain, 0, d) + readout.gain_offset
        if folds and biased and readout.shift is not None:
            shift = as_float64(readout.shift, 0, d)
        for start in range(0, V, _BLOCK):
            stop = min(start + _BLOCK, V)
            block = as_float64(readout.unembedding, start, stop)
            if shift is not None:
                self.offsets[start:stop] = block @ shift
            if self.gain is not None:
                block *= self.gain
            if self.projects:
                block -= block.mean(axis=1, keepdims=True)
            self.rows[start:stop] = block
        if biased and readout.bias is not None:
            self.offsets += as_float64(readout.bias, 0, V)

    def as_box(self, bound: float) -> FloatReadout:
        """The same rows, for the box |x_i| <= bound."""
        other = copy.copy(self)
        other.kind, other.bound = "box", bound
        return other

    @cached_property
    def squares(self) -> Array:
        """Squared norms of the rows, shape (V,)."""
        out: Array = np.einsum("ij,ij->i", self.rows, self.rows)
        return out

    @cached_property
    def centre(self) -> Array:
        """The mean row, shape (d,)."""
        out: Array = self.rows.mean(axis=0)
        return out


@dataclass
class Constraints:
    """Rows G y + g - weight * s >= 0, scaled to |G_i| = 1; s is the margin, in logits."""

    G: Array
    g: Array
    weight: Array

    def extended(self, other: Constraints) -> Constraints:
        """Both sets of rows."""
        return Constraints(
            np.vstack([self.G, other.G]),
            np.concatenate([self.g, other.g]),
            np.concatenate([self.weight, other.weight]),
        )


class Problem:
    """maximise s over |y| <= radius with  D_j y + e_j >= s  for every competitor, and fixed rows >= 0.

    y is z for the ball and the cone, x for the box, and (h, tau) for `free` with a logit bias, where
    the true state is h / tau and one fixed row says tau >= 0. Rows in `excluded` (the token's own,
    equal ones) are no competitors. `by_distance`: s is the distance to the nearest face |D_j| instead of
    the margin in logits, which leaves the most room for rounding the state.
    """

    def __init__(
        self,
        view: FloatReadout,
        token: int,
        count: int,
        excluded: NDArray[np.intp] | list[int],
        by_distance: bool = False,
    ) -> None:
        self.by_distance = by_distance
        self.system: System | None = None  # the exact rows, for methods that want them
        self.view, self.token, self.count = view, token, count
        d = view.rows.shape[1]
        self.homogeneous = view.kind == "free" and bool(np.ptp(view.offsets[:count]) > 0)
        self.cone = view.kind in ("free", "direction") or not np.ptp(
            np.append(view.offsets[:count], view.offsets[token])
        )
        self.n = d + 1 if self.homogeneous else d
        self.radius = float(np.sqrt(d))
        self.tau_scale = 1.0
        if self.homogeneous:
            spread = float(np.std(view.offsets[:count])) or 1.0
            self.tau_scale = max(float(np.sqrt(view.squares[:count].mean() / d)) / spread, 1e-12)
        self._open = np.ones(count, dtype=bool)
        self._open[[j for j in {token, *map(int, excluded)} if j < count]] = False

    @property
    def a_t(self) -> Array:
        """The token's own row."""
        row: Array = self.view.rows[self.token]
        return row

    @cached_property
    def distances(self) -> Array:
        """|D_j| of every competitor, shape (count,); infinite for excluded rows."""
        c, a = self.count, self.a_t
        square = self.view.squares[:c] - 2 * (self.view.rows[:c] @ a) + a @ a
        if self.view.kind != "direction":
            square += (self.view.offsets[:c] - self.view.offsets[self.token]) ** 2
        out: Array = np.sqrt(np.maximum(square, 1e-300))
        out[~self._open] = np.inf
        return out

    def margins(self, y: Array) -> Array:
        """l_t - l_j of every competitor at y, (count,), or at each of k states (k, n); infinite for excluded
        rows.
        """
        d = self.view.rows.shape[1]
        logits = (self.view.rows[: self.count] @ y[..., :d].T).T
        own = y[..., :d] @ self.a_t
        if self.view.kind != "direction":
            tau = y[..., d:] * self.tau_scale if self.homogeneous else 1.0
            logits += tau * self.view.offsets[: self.count]
            own = own + (tau * self.view.offsets[[self.token]])[..., 0]
        out: Array = own[..., None] - logits
        out[..., ~self._open] = np.inf
        return out

    def objective(self, y: Array) -> Array:
        """What s is the least of: margins, or distances to the faces; infinite for excluded rows."""
        margins = self.margins(y)
        if self.by_distance:
            np.divide(margins, self.distances, out=margins, where=np.isfinite(margins))
        return margins

    def differences(self, rows: NDArray[np.intp]) -> tuple[Array, Array]:
        """D (m, n) and e (m,) of the named competitors, not normalised."""
        D = self.a_t - self.view.rows[rows]
        e = self.view.offsets[self.token] - self.view.offsets[rows]
        if self.homogeneous:
            return np.column_stack([D, e * self.tau_scale]), np.zeros(len(rows))
        return D, e if self.view.kind != "direction" else np.zeros(len(rows))

    def constraints(self, rows: NDArray[np.intp]) -> Constraints:
        """The named competitors as normalised constraints. Rows at distance 0 keep length 0."""
        D, e = self.differences(rows)
        scale = np.sqrt(np.einsum("ij,ij->i", D, D))
        scale[scale == 0.0] = 1.0
        weight = (self.distances[rows] if self.by_distance else 1.0) / scale
        return Constraints(D / scale[:, None], e / scale, weight)

    @cached_property
    def fixed(self) -> Constraints:
        """Rows that hold whatever the margin: tau >= 0, or the faces of the box. weight is 0."""
        n = self.n
        if self.homogeneous:
            return Constraints(np.eye(n)[n - 1 :], np.zeros(1), np.zeros(1))
        if self.view.kind == "box":
            eye = np.eye(n)
            return Constraints(np.vstack([eye, -eye]), np.full(2 * n, self.view.bound), np.zeros(2 * n))
        return Constraints(np.zeros((0, n)), np.zeros(0), np.zeros(0))

    @property
    def outer_radius(self) -> float:
        """Radius of the ball constraint: the domain's own, or one that holds the box with room."""
        return 1.5 * self.radius * self.view.bound if self.view.kind == "box" else self.radius

    def reach(self, u: Array) -> float:
        """The largest u . y over the domain; a cone takes the ball of its radius."""
        if self.view.kind == "box":
            return self.view.bound * float(np.abs(u).sum())
        if self.homogeneous:
            u = np.append(u[:-1], max(float(u[-1]), 0.0))  # tau >= 0 takes any negative part
        return self.radius * float(np.linalg.norm(u))

    def ceiling(self, rows: NDArray[np.intp], multipliers: Array) -> float:
        """The bound on every state's margin that multipliers of the rows as they are give, in floats."""
        D, e = self.differences(rows)
        return (float(multipliers @ e) + self.reach(multipliers @ D)) / float(multipliers.sum())

    def own_direction(self) -> Array:
        """The token's row minus the mean row, scaled well into the domain."""
        d = self.view.rows.shape[1]
        c = self.a_t - self.view.centre
        size = float(np.linalg.norm(c))
        y = np.zeros(self.n)
        if size > 0:
            y[:d] = c * (0.9 * self.radius / size)
        if self.view.kind == "box":
            top = float(np.abs(y).max()) or 1.0
            y *= 0.9 * self.view.bound / top
        if self.homogeneous:
            y *= 0.7
            y[d] = 0.3 * self.radius
        return y

    def coordinates(self, state: Array) -> Array:
        """A true state z, h or x as y."""
        return np.append(state, 1.0 / self.tau_scale) if self.homogeneous else state

    def competitors(self) -> NDArray[np.intp]:
        """Ids of the competitors that are not excluded."""
        return np.flatnonzero(self._open)

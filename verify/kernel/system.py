"""TRUSTED. The exact inequalities D_j . z + e_j > 0 of one token in one domain, over the integers.

If this is wrong, evidence is checked against inequalities that are not the model's.
Theorem 3 (folding) of docs/soundness.md.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify.errors import UsageError
from verify.kernel.tensor import unit_exponent

if TYPE_CHECKING:
    from verify.kernel.domain import Domain
    from verify.kernel.readout import Readout
    from verify.kernel.tensor import Tensor


@dataclass(frozen=True)
class Difference:
    """One inequality D . z + e > 0 against competitor `row`, in units of 2**`System.unit`."""

    row: int
    D: list[int]
    e: int


class System:
    """Token `token` against the competitors 0..count-1 other than itself, in `domain`.

    `region` is the set of states: `ball` (open, radius sqrt(d)), `sphere` (epsilon = 0), `space`
    (R^d), `cone` (R^d, biases dropped) or `box`. `projects`: states are z = Px, P onto the
    complement of (1, ..., 1).
    """

    def __init__(self, readout: Readout, domain: Domain, token: int, count: int) -> None:
        """Raises UsageError when the token or the number of competitors is out of range."""
        if not 1 <= count <= readout.vocabulary:
            raise UsageError(f"competitors 0..{count - 1} are not all rows of {readout.vocabulary}")
        if not 0 <= token < readout.vocabulary:
            raise UsageError(
                f"token id {token} is out of range: this model has rows 0..{readout.vocabulary - 1}"
            )
        self.readout, self.domain, self.token, self.count = readout, domain, token, count
        self.region = {"free": "space", "direction": "cone", "box": "box", "readout": "ball"}[domain.kind]
        if domain.kind == "readout" and readout.norm == "none":
            self.region = "space"
        elif domain.kind == "readout" and readout.epsilon == 0:
            self.region = "sphere"
        self.projects = readout.norm == "layernorm" and domain.kind != "free"
        self.folds = domain.kind != "free"
        self.biased = domain.kind != "direction"
        d = readout.d
        shift = readout.shift if self.folds else None
        self._own_gain, self._own_gain_unit = _vector(readout.gain, 1, d, readout.gain_offset)
        self._gain, self._gain_unit = self._own_gain, self._own_gain_unit
        if not self.folds:
            self._gain, self._gain_unit = [1] * d, 0
        self._shift, self._shift_unit = _vector(shift if self.biased else None, 0, d, 0)
        self._bias = readout.bias if self.biased else None
        w = unit_exponent(readout.unembedding.dtype)
        self.unit = min(w + self._gain_unit, w + self._shift_unit)
        if self._bias is not None:
            self.unit = min(self.unit, unit_exponent(self._bias.dtype))

    def of(self, token: int) -> System:
        """The same for another token, which must be a row."""
        other = copy.copy(self)
        other.token = token
        return other

    @property
    def dimension(self) -> int:
        """Dimension of the linear span of the states."""
        return self.readout.d - (1 if self.projects else 0)

    def fold(self, w: list[int], c: int) -> tuple[list[int], int]:
        """(a, b) in units of 2**unit of a row w and its bias c, in their tensors' units; linear in (w, c)."""
        unit = unit_exponent(self.readout.unembedding.dtype)
        up_a, up_b = unit + self._gain_unit - self.unit, unit + self._shift_unit - self.unit
        up_c = unit_exponent(self._bias.dtype) - self.unit if self._bias is not None else 0
        a = [(x * y) << up_a for x, y in zip(w, self._gain, strict=True)]
        return a, (sum(x * y for x, y in zip(w, self._shift, strict=True)) << up_b) + (c << up_c)

    def require_competitors(self, rows: list[int]) -> None:
        """Raise UsageError unless every one of these rows competes with the token."""
        for j in rows:
            if not 0 <= j < self.count or j == self.token:
                raise UsageError(f"row {j} is not a competitor of token {self.token}")

    def differences(self, rows: list[int]) -> list[Difference]:
        """The inequalities of the named competitors: D_j = a_t - a_j, e_j = b_t - b_j."""
        self.require_competitors(rows)
        some = [self.token, *rows]
        matrix, biases = self.readout.unembedding.integers(some), self.bias_integers(some)
        (a_t, b_t), *others = [self.fold(w, c) for w, c in zip(matrix, biases, strict=True)]
        return [
            Difference(j, [x - y for x, y in zip(a_t, a_j, strict=True)], b_t - b_j)
            for j, (a_j, b_j) in zip(rows, others, strict=True)
        ]

    def logits(self, rows: list[int], g: list[int], s: int, unit: int) -> tuple[list[int], int]:
        """Exact `w_j . g + s * c_j` of the named rows: (integers, their unit)."""
        w = unit_exponent(self.readout.unembedding.dtype)
        b = w if self._bias is None else unit_exponent(self._bias.dtype)
        low = min(w, b) + unit
        up_w, up_c = w + unit - low, b + unit - low
        c = self.bias_integers(rows)
        return [
            (sum(x * y for x, y in zip(w_j, g, strict=True)) << up_w) + ((s * c_j) << up_c)
            for w_j, c_j in zip(self.readout.unembedding.integers(rows), c, strict=True)
        ], low

    def bias_integers(self, rows: list[int]) -> list[int]:
        """The logit biases of these rows in units of their dtype; 0 where the domain has none."""
        if self._bias is None:
            return [0] * len(rows)
        return [entry[0] for entry in self._bias.integers(rows)]

    def own_direction(self, row: list[int], sums: list[int]) -> list[int]:
        """A folded row minus the mean one, times V: gain * (V w_t - sum_j w_j); `sums` are those of all rows.

        In `box` that is projected. In `free` it is what gain and norm make of it: gain * P of it.
        """
        V = self.readout.vocabulary
        p = [(V * x - y) * g for x, y, g in zip(row, sums, self._own_gain, strict=True)]
        if self.folds:
            return self.project(p) if self.region == "box" else p
        z = _centred(p) if self.readout.norm == "layernorm" else p
        return [x * g for x, g in zip(z, self._own_gain, strict=True)]

    @property
    def direction_unit(self) -> int:
        """An own direction is in units of 2**(this), times V, and times d where it is projected."""
        gains = 1 if self.folds else 2
        return unit_exponent(self.readout.unembedding.dtype) + gains * self._own_gain_unit

    def project(self, u: list[int]) -> list[int]:
        """d * P u after a LayerNorm, u itself otherwise (an exact multiple of Pu either way)."""
        return _centred(u) if self.projects else u

    def final_state(self, z: list[int], scale: int, unit: int) -> tuple[list[int], int, int]:
        """g and s of Theorem 3 as (integers, integer, unit): scale * logit_j = w_j . g + s * c_j.

        The state is z * 2**unit / scale; integers of g and s are in units of 2**(returned unit).
        """
        low = min(unit + self._gain_unit, self._shift_unit, 0)
        up_z, up_s = unit + self._gain_unit - low, self._shift_unit - low
        g = [
            ((x * y) << up_z) + ((scale * b) << up_s)
            for x, y, b in zip(z, self._gain, self._shift, strict=True)
        ]
        return g, scale << -low, low


def _centred(u: list[int]) -> list[int]:
    """d * P u."""
    d, total = len(u), sum(u)
    return [d * x - total for x in u]


def _vector(tensor: Tensor | None, default: int, d: int, offset: int) -> tuple[list[int], int]:
    """A stored gain or shift, plus offset, as integers and their unit, common factors of two removed.

    `default` where there is none: the offset is of stored values only.
    """
    if tensor is None:
        return [default] * d, 0
    unit = unit_exponent(tensor.dtype)
    values = [x + (offset << -unit) for x in tensor.vector()]
    common = 0
    for x in values:
        common |= x
    spare = (common & -common).bit_length() - 1 if common else 0
    return [x >> spare for x in values], unit + spare

"""GLUE. Whether a float program of the field, exactly as it is posed, has a solution.

Wrong here = a method is misjudged; no verdict depends on it. Decided by evidence that the kernel's rules
check: a state in the program's box that keeps every constraint, or multipliers by which none does. The rows
are the checkpoint's own, not the program's rounded ones. docs/soundness.md, Theorem 13 and its corollary.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, isqrt
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import RefutedError
from verify.kernel import Multipliers, Readout, Speakable, State, System, Unspeakable
from verify.kernel.check import check_bound, combine, state_margin
from verify.kernel.domain import Domain
from verify.kernel.filter import as_float64
from verify.propose.box import largest_in_box
from verify.propose.field import DOMAIN_OF, GRIVAS, LEAST_RADIUS, OWN_ROW, box_of
from verify.propose.multipliers import best_bound
from verify.propose.problem import FloatReadout, Problem
from verify.propose.rounding import integer_multipliers, states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verify.kernel import Claim

    # The proved claim about a token in a domain; None where it is undecided.
    Claims = Callable[[int, Domain], Claim | None]

_BLOCK = 1024
_BITS = (44, 60)


class Posed:
    """The programs over one readout, each token against rows 0..count-1.

    claims: of the kernel, about the same competitors, in the domains that the programs ask about.
    """

    def __init__(self, readout: Readout, count: int, claims: Claims) -> None:
        self._readout, self._count, self._claims = readout, count, claims
        self._margins: dict[int, _Margins] = {}
        self._radii: dict[int, bool | None] = {}

    def has_own_row(self, program: str, token: int) -> bool:
        """Whether the token's own row is among the program's constraints."""
        return program == OWN_ROW and token < self._count

    def feasible(self, program: str, token: int, margin: float) -> bool | None:
        """Whether some x in the program's box keeps every constraint; None where that stays open.

        margin: in logits, of the post's programs; `grivas` has its own radius.
        """
        if program == GRIVAS:
            if token not in self._radii:
                self._radii[token] = self._radius(token, Fraction(LEAST_RADIUS))
            return self._radii[token]
        if self.has_own_row(program, token):
            return False  # Theorem 13
        return self._margin(token, Fraction(margin))

    def _margin(self, token: int, asked: Fraction) -> bool | None:
        """`post-without-own-row`: whether the token's margin reaches `asked` in the box, biases dropped."""
        claim = self._claims(token, DOMAIN_OF[OWN_ROW])
        if isinstance(claim, Unspeakable):
            return False  # the box is a part of the cone, where no margin is above 0
        box = self._post
        system = box.system(token, self._count)
        if token not in self._margins:
            self._margins[token] = _Margins()
            if claim is not None and claim.state is not None:
                self._margins[token].raise_to(system, stretched(claim.state, box.domain.bound))
        found = self._margins[token]
        if found.reaches(asked) is None and not found.searched:
            found.searched = True
            for evidence in box.search(system, balls=False):
                if isinstance(evidence, State):
                    found.raise_to(system, evidence)
                else:
                    found.lower_to(system, evidence)
        return found.reaches(asked)

    def _radius(self, token: int, radius: Fraction) -> bool | None:
        """`grivas`: whether a ball of that radius fits between the token's faces, its centre in the box."""
        claim = self._claims(token, DOMAIN_OF[GRIVAS])
        box = self._grivas
        system = box.system(token, self._count)
        if isinstance(claim, Unspeakable) and not box.equal_rows(system):
            return False  # corollary: a ball would be a witness
        seed = claim.state if isinstance(claim, Speakable) else claim.tie if claim is not None else None
        if seed is not None and box.holds_ball(system, stretched(seed, box.domain.bound), radius):
            return True
        for evidence in box.search(system, balls=True):
            if isinstance(evidence, State):
                if box.holds_ball(system, evidence, radius):
                    return True
            elif box.excludes_ball(system, evidence, radius):
                return False
        return None

    @cached_property
    def _post(self) -> _Box:
        r = self._readout
        kept = Readout(r.norm, r.unembedding, r.gain, gain_offset=r.gain_offset, epsilon=r.epsilon)
        return _Box(kept, OWN_ROW)

    @cached_property
    def _grivas(self) -> _Box:
        return _Box(Readout("none", self._readout.unembedding, bias=self._readout.bias), GRIVAS)


@dataclass
class _Margins:
    """Proved: some state of the box has margin `low`, none has one above `high` (None: not known)."""

    low: Fraction | None = None
    high: Fraction | None = None
    searched: bool = False

    def reaches(self, asked: Fraction) -> bool | None:
        if self.low is not None and self.low >= asked:
            return True
        return False if self.high is not None and self.high < asked else None

    def raise_to(self, system: System, state: State) -> None:
        margin = proved_margin(system, state)
        if margin is not None:
            self.low = margin if self.low is None else max(self.low, margin)

    def lower_to(self, system: System, multipliers: Multipliers) -> None:
        bound = proved_bound(system, multipliers)
        if bound is not None:
            self.high = bound if self.high is None else min(self.high, bound)


def proved_margin(system: System, state: State) -> Fraction | None:
    """Theorem 4: the least l_t - l_j at a state; None outside the box."""
    try:
        return state_margin(system, state)[0]
    except RefutedError:
        return None


def proved_bound(system: System, multipliers: Multipliers) -> Fraction | None:
    """Theorem 6: at most this is the mean of l_t - l_j, weighted by the multipliers, anywhere in the box."""
    c = combine(system, multipliers)
    bound = best_bound(system, c)
    if bound is None:
        return None
    try:
        check_bound(system, c, bound)
    except RefutedError:
        return None
    return bound


class _Box:
    """The readout as a program sees it: parts that it drops are left out, its states are a box."""

    def __init__(self, readout: Readout, program: str) -> None:
        bound = Fraction(box_of(program))
        self.readout, self.domain = readout, Domain(f"box:{bound}", bound)

    def system(self, token: int, count: int) -> System:
        """The token's exact inequalities."""
        return System(self.readout, self.domain, token, count)

    @cached_property
    def _view(self) -> FloatReadout:
        return FloatReadout(self.readout, self.domain)

    def search(self, system: System, balls: bool) -> Iterator[State | Multipliers]:
        """What a float program finds, in integers."""
        found = largest_in_box(Problem(self._view, system.token, system.count, []), balls)
        if found is None:
            return
        x, rows, values = found
        yield from states(system, x)
        for bits in _BITS:
            multipliers = integer_multipliers(rows, values, bits)
            if multipliers is not None:
                yield multipliers

    def equal_rows(self, system: System) -> list[int]:
        """Competitors with the token's own row and bias, compared by value."""
        own = as_float64(self.readout.unembedding, system.token, system.token + 1)[0]
        found: list[int] = []
        for start in range(0, system.count, _BLOCK):
            rows = as_float64(self.readout.unembedding, start, min(start + _BLOCK, system.count))
            found += (start + np.flatnonzero((rows == own).all(axis=1))).tolist()
        others = system.differences([j for j in found if j != system.token])
        return [x.row for x in others if x.e == 0]

    @cached_property
    def _largest_entry(self) -> Fraction:
        """The largest |entry| of the unembedding, exact."""
        V = self.readout.vocabulary
        blocks = (as_float64(self.readout.unembedding, s, min(s + _BLOCK, V)) for s in range(0, V, _BLOCK))
        return max(Fraction(float(np.abs(block).max())) for block in blocks)

    def holds_ball(self, system: System, state: State, radius: Fraction) -> bool:
        """Whether D_j.x + e_j >= radius |D_j| for every competitor, x being the state, in the box."""
        margin = proved_margin(system, state)
        if margin is None or margin < 0:
            return False
        # |D_j|^2 <= 4 d M^2, M the largest entry: a margin of `enough` is enough for every row.
        longest = 4 * self.readout.d * self._largest_entry**2
        if margin * margin >= radius * radius * longest:
            return True
        g, scale, low = system.final_state(list(state.p), 1, -state.k)
        (own,), unit = system.logits([system.token], g, scale, low)
        enough = isqrt(ceil(radius * radius * longest / Fraction(4) ** unit)) + 1
        others = [j for j in range(system.count) if j != system.token]
        for start in range(0, len(others), _BLOCK):
            some = others[start : start + _BLOCK]
            found = zip(some, system.logits(some, g, scale, low)[0], strict=True)
            near = {j: own - value for j, value in found if own - value < enough}
            for x in system.differences(list(near)):
                square = radius * radius * sum(a * a for a in x.D) * Fraction(4) ** (system.unit - unit)
                if near[x.row] < 0 or near[x.row] ** 2 < square:
                    return False
        return True

    def excludes_ball(self, system: System, multipliers: Multipliers, radius: Fraction) -> bool:
        """Whether sum lambda_j (D_j.x + e_j) < radius sum lambda_j |D_j| is proved for every x in the box."""
        bound = proved_bound(system, multipliers)
        rows, values = list(multipliers.rows), multipliers.values
        if bound is None or values is None:
            return False
        lengths = [isqrt(sum(a * a for a in x.D)) for x in system.differences(rows)]  # rounded down
        total = sum(value * length for value, length in zip(values, lengths, strict=True))
        return bound * sum(values) < radius * total * Fraction(2) ** system.unit


def stretched(state: State, bound: Fraction) -> State:
    """The largest multiple of a state, nearly, with |x_i| <= bound."""
    top = max(map(abs, state.p))
    if top == 0:
        return state
    more = 20 + max(0, top.bit_length() - state.k)
    factor = (bound.numerator << (state.k + more)) // (bound.denominator * top)
    return State(tuple(x * factor for x in state.p), state.k + more)

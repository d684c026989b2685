"""TRUSTED. Rows of a ledger checked against the weights: own states, standings there, and what each claims.

If this is wrong, a scan's verdict is wrong. Each row rests on the theorems of one certificate (4 to 7), the
own states on Theorem 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.errors import RefutedError, UsageError
from verify.kernel.check import (
    REALISTIC_VARIANCE,
    Margins,
    Standing,
    check_bound,
    check_never,
    check_tie,
    combine,
    realism_share,
)
from verify.kernel.domain import DIRECTION, READOUT
from verify.kernel.evidence import State
from verify.kernel.filter import BatchFilter
from verify.kernel.solve import in_full
from verify.kernel.system import System

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verify.kernel.domain import Domain
    from verify.kernel.evidence import Multipliers
    from verify.kernel.filter import Multiply
    from verify.kernel.ledger import Row
    from verify.kernel.readout import Readout

# The own state fills the ball, or the box, up to this share (of the square of the radius, or of the side).
FILL, FULL = 1023, 1024
# A grid too coarse for the longest direction would put own states far inside, or at zero.
LEAST_SCALE = 1 << 10


class OwnStates:
    """Theorem 16: the own direction of every token, and the largest multiple of it inside a domain.

    The state is p = m * own_direction over 2**grid; m is the largest at which |state|^2 <= 1023/1024 d
    (in `box`: |x_i| <= 1023/1024 B) and at least 2**10, or 0 where the direction is zero.
    """

    def __init__(self, system: System, sums: list[int], grid: int) -> None:
        self.system, self.sums, self.grid = system, sums, grid

    def direction(self, row: list[int]) -> list[int]:
        """The own direction of a row of the matrix."""
        return self.system.own_direction(row, self.sums)

    def room(self, direction: list[int]) -> tuple[int, int, int]:
        """(a, b, n): m >= 0 times the direction is inside if and only if a * m**n <= b. a is 0 for zero."""
        if self.system.region == "box":
            bound = self.system.domain.bound
            return (
                max(map(abs, direction)) * bound.denominator * FULL,
                (bound.numerator << self.grid) * FILL,
                1,
            )
        square = sum(x * x for x in self.system.project(direction))
        return square * FULL, (self.system.readout.d << (2 * self.grid)) * FILL, 2

    def is_scale(self, direction: list[int], m: int) -> bool:
        """Whether m is the one that the rule prescribes."""
        a, b, n = self.room(direction)
        if a == 0:
            return m == 0
        return m >= LEAST_SCALE and a * m**n <= b < a * (m + 1) ** n

    def state_of(self, row: list[int], m: int) -> State:
        """The own state of a row of the matrix, at scale m."""
        return self.state(self.direction(row), m)

    def state(self, direction: list[int], m: int) -> State:
        """The own state at scale m."""
        return State(tuple(m * x for x in direction), self.grid)


class Views:
    """The own states of tokens, and how they stand there: in a domain, in `readout` and in `direction`."""

    def __init__(
        self, readout: Readout, domain: Domain, count: int, grid: int, multiply: Multiply | None = None
    ) -> None:
        """Raises UsageError where a ledger cannot be kept: epsilon = 0 under a norm, or no competitors."""
        if readout.norm != "none" and readout.epsilon == 0:
            raise UsageError(
                "with epsilon = 0 own states lie outside the norm's image: no ledger can be kept"
            )
        if count < 2:
            raise UsageError("a ledger needs at least two competitors")
        self.readout = readout
        plain = BatchFilter(readout.unembedding, None, count, multiply)
        biased = plain
        if readout.bias is not None:
            biased = BatchFilter(readout.unembedding, readout.bias, count, multiply)
        sums = readout.unembedding.column_sums()
        self.margins: dict[str, Margins] = {}
        self.own: dict[str, OwnStates] = {}
        for name, each in (("here", domain), ("model", READOUT), ("post", DIRECTION)):
            system = System(readout, each, 0, count)
            self.margins[name] = Margins(system, biased if system.biased else plain)
            self.own[name] = OwnStates(system, sums, grid)
        self.domain = domain
        self.system = self.margins["here"].system

    def check(self, rows: Sequence[Row]) -> None:
        """Check rows of tokens in range, in any order."""
        tokens = [row.token for row in rows]
        if len(set(tokens)) != len(tokens):
            raise RefutedError("a token stands twice")
        matrix = dict(zip(tokens, self.readout.unembedding.integers(tokens), strict=True))
        if self.domain == READOUT and any(row.model_scale != row.scale for row in rows):
            raise RefutedError("in `readout` the two scales are the same")
        own, model, post = self.at_own_states(rows, matrix, [row.own for row in rows])
        chosen = [row for row in rows if row.witness is not None and row.cls == "hard"]
        states = [row.witness for row in chosen if row.witness is not None]
        found = self.margins["here"].at([row.token for row in chosen], states, [True] * len(chosen))
        elsewhere = dict(zip([row.token for row in chosen], found, strict=True))
        for row, a, b, c in zip(rows, own, model, post, strict=True):
            try:
                if row.hard_model != (b.sign <= 0) or row.hard_post != (c.sign <= 0):
                    raise RefutedError("whether it is hard to speak is misstated")
                self._check_row(row, a, elsewhere.get(row.token), matrix[row.token])
            except (RefutedError, UsageError) as error:
                raise RefutedError(f"token {row.token}: {error}") from None

    def at_own_states(
        self, rows: Sequence[Row], matrix: Mapping[int, list[int]], exact: Sequence[bool]
    ) -> tuple[list[Standing], list[Standing], list[Standing]]:
        """`standings` here (with its margin where `exact`), in `readout` and in `direction`; none twice."""
        nothing = [False] * len(rows)
        own = self.standings("here", rows, matrix, exact)
        model = own if self.domain == READOUT else self.standings("model", rows, matrix, nothing)
        post = own if self.domain == DIRECTION else self.standings("post", rows, matrix, nothing)
        return own, model, post

    def standings(
        self, name: str, rows: Sequence[Row], matrix: Mapping[int, list[int]], exact: Sequence[bool]
    ) -> list[Standing]:
        """How each row's token stands at its own state, after checking that this is the one of the rule."""
        own, states = self.own[name], []
        for row in rows:
            direction = own.direction(matrix[row.token])
            m = row.scale if name == "here" else row.model_scale
            # On a cone any positive multiple is the same direction: the post's column needs no scale.
            if name == "post":
                m = 1
            elif not own.is_scale(direction, m):
                raise RefutedError(f"token {row.token}: its own state is not at the scale of the rule")
            states.append(own.state(direction, m))
        return self.margins[name].at([row.token for row in rows], states, exact)

    def _check_row(self, row: Row, own: Standing, elsewhere: Standing | None, matrix_row: list[int]) -> None:
        if row.cls == "own":
            self._check_speakable(row, own, self.own["here"].state_of(matrix_row, row.scale))
            return
        if own.sign > 0:
            raise RefutedError("its own direction suffices, and the row says otherwise")
        if row.cls == "hard":
            if elsewhere is None or row.witness is None or row.own:
                raise RefutedError("there is no witness")
            self._check_speakable(row, elsewhere, row.witness)
        elif row.cls == "undecided":
            self._require(row, "kind", "realism", "amount", "rival", "witness", "multipliers", "ceiling")
            if row.own:
                raise RefutedError("an undecided token has no witness")
        else:
            self._check_unspeakable(row, matrix_row)

    def _check_speakable(self, row: Row, standing: Standing, state: State) -> None:
        """Theorem 4; the margin is exact and the rival the first of the nearest."""
        self._require(row, "kind", "multipliers")
        if row.cls == "own" and not row.own:
            raise RefutedError("its class is own, its witness another state")
        if standing.sign <= 0 or row.amount != standing.margin:
            raise RefutedError("the margin is not that of the witness")
        if row.rival != standing.nearest[0]:
            raise RefutedError(f"the nearest rival is {standing.nearest[0]}, not {row.rival}")
        if row.realism != self.realism(state):
            raise RefutedError("whether the witness needs near-constant residuals is misstated")
        if row.ceiling is not None and row.at_most is not None:
            system = self.system.of(row.token)
            check_bound(system, combine(system, in_full(system, row.ceiling)), row.at_most)

    def realism(self, state: State) -> str | None:
        """Whether the residual variance that a state of the ball needs is at least 100 epsilon."""
        if self.system.region != "ball":
            return None
        share = realism_share(self.system, state)
        return "realistic" if share >= REALISTIC_VARIANCE * (1 - share) else "near-constant"

    def _check_unspeakable(self, row: Row, matrix_row: list[int]) -> None:
        """Theorems 5 to 7, as `prove` does."""
        self._require(row, "realism", "ceiling")
        if row.multipliers is None or row.amount is None or row.kind is None or row.rival is None:
            raise RefutedError("multipliers, gap, kind or rival are missing")
        if row.amount < 0:
            raise RefutedError("a gap is not negative")
        system = self.system.of(row.token)
        multipliers = in_full(system, row.multipliers)
        c = combine(system, multipliers)
        check_bound(system, c, -row.amount)
        tie = self.own["here"].state_of(matrix_row, row.scale) if row.own else row.witness
        if (row.kind == "tie-only") != (tie is not None):
            raise RefutedError("tie-only needs a tie state, and no other kind has one")
        if row.kind == "never":
            check_never(system, c)
        if tie is not None:
            check_tie(system, tie)
        if row.cls == "tied":
            (x,) = system.differences([row.rival])
            if x.e or any(system.project(x.D)):
                raise RefutedError(f"row {row.rival} is not equal to the token's")
        elif row.rival != heaviest(multipliers):
            raise RefutedError("the rival is not the row with the largest multiplier")

    def _require(self, row: Row, *absent: str) -> None:
        for name in absent:
            if getattr(row, name) is not None:
                raise RefutedError(f"a row of class {row.cls} has no {name}")


def heaviest(multipliers: Multipliers) -> int:
    """The row with the largest multiplier, the lowest id among equals; of multipliers in full."""
    values = multipliers.values or ()
    return -max(zip(values, (-j for j in multipliers.rows), strict=True))[1]

"""TRUSTED. The checks: each rule takes evidence and returns what it proves, or raises RefutedError.

If one of these is wrong, a verdict is wrong. Every rule is a theorem of docs/soundness.md and carries
its number; all arithmetic is on Python integers and fractions, but for the filter of Theorem 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING

import flint

from verify.errors import RefutedError
from verify.kernel.filter import possible_maximisers
from verify.kernel.tensor import representable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verify.kernel.evidence import Multipliers, Residual, State
    from verify.kernel.filter import BatchFilter
    from verify.kernel.system import Difference, System

# A prime below 2**63: a set of rows that is independent modulo a prime is independent over Q.
_RANK_PRIME = 9223372036854775783
# Bounds the memory and time of a product: bits of the longest multiplier times the width.
_MAX_PRODUCT_BITS = 1 << 32
# Rows that are decoded at once when many may be the nearest rival.
_MOST_ROWS = 2048
# Bits to which sqrt(s) is enclosed before rivals are compared exactly (Theorem 8).
_ROOT_BITS = 192


def state_margin(system: System, state: State) -> tuple[Fraction, list[int]]:
    """Theorem 4. min over competitors of (l_t - l_j) at `state`, exact, and the rivals that attain it.

    Membership in the domain is checked first. Sound because the filter returns every possible
    maximiser among the competitors and those are compared in integers.
    """
    z, scale, unit = _member(system, state)
    g, s, low = system.final_state(z, scale, unit)
    return _margin_at(system, g, s, low, scale)


@dataclass(frozen=True)
class Standing:
    """How a token stands at a state. sign: of its margin; margin and nearest: exact, where asked for."""

    sign: int
    margin: Fraction
    nearest: list[int]


class Margins:
    """`state_margin` of many tokens at once: Theorem 4, with the filter of Theorem 15."""

    def __init__(self, system: System, batch: BatchFilter) -> None:
        """`batch` is of the system's matrix, its bias where biases count, and its competitors."""
        self.system, self.batch = system, batch

    def at(self, tokens: Sequence[int], states: Sequence[State], exact: Sequence[bool]) -> list[Standing]:
        """Each token at its state. Where `exact` is false and floats settle the sign, only that is found.

        Raises RefutedError, naming the token, if a state lies outside the domain.
        """
        at = []
        for t, state in zip(tokens, states, strict=True):
            try:
                z, scale, unit = _member(self.system, state)
            except RefutedError as error:
                raise RefutedError(f"token {t}: {error}") from None
            at.append((*self.system.final_state(z, scale, unit), scale))
        found = self.batch.compare(tokens, [x[0] for x in at], [x[1] for x in at])
        out = []
        for t, (g, s, low, scale), comparison, wanted in zip(tokens, at, found, exact, strict=True):
            margin, nearest = Fraction(0), comparison.rivals
            if not nearest:
                raise RefutedError("there are no competitors: nothing to be more likely than")
            sign = comparison.sign
            if wanted or not sign:
                margin, nearest = _margin_over(self.system.of(t), comparison.rivals, g, s, low, scale)
                sign = (margin > 0) - (margin < 0)
            out.append(Standing(sign, margin, nearest))
        return out


def _member(system: System, state: State) -> tuple[list[int], int, int]:
    """The state as (z, scale, unit), state = z * 2**unit / scale, after checking it is in the domain."""
    d, p, unit = system.readout.d, list(state.p), -state.k
    if len(p) != d:
        raise RefutedError(f"the witness has {len(p)} coordinates, the model {d}")
    z = system.project(p)
    scale = 1
    if system.region == "box":
        bound = system.domain.bound
        limit = bound.numerator << state.k
        if any(abs(x) * bound.denominator > limit for x in p):
            raise RefutedError(f"the witness leaves the box |x_i| <= {bound}")
        scale = d if system.projects else 1
    elif system.region == "ball":
        if sum(x * x for x in z) >= d << (2 * state.k):
            raise RefutedError("the witness lies outside the norm's image: |z|^2 >= d")
    elif system.region == "sphere":
        raise RefutedError("with epsilon = 0 a z-form witness proves nothing: a residual vector is needed")
    return z, scale, unit


def _margin_at(system: System, g: list[int], s: int, unit: int, scale: int) -> tuple[Fraction, list[int]]:
    readout, token = system.readout, system.token
    bias = readout.bias if system.biased else None
    rivals = possible_maximisers(readout.unembedding, bias, g, s, unit, system.count, token)
    if not rivals:
        raise RefutedError("there are no competitors: nothing to be more likely than")
    return _margin_over(system, rivals, g, s, unit, scale)


def _margin_over(
    system: System, rivals: list[int], g: list[int], s: int, unit: int, scale: int
) -> tuple[Fraction, list[int]]:
    """The margin over `rivals`, which hold every maximiser among the competitors; exact."""
    (own,), low = system.logits([system.token], g, s, unit)
    values = [value for some in _blocks(rivals) for value in system.logits(some, g, s, unit)[0]]
    top = max(values)
    nearest = [j for j, value in zip(rivals, values, strict=True) if value == top]
    return Fraction(own - top, scale) * _power(low), nearest


def _blocks(rows: list[int]) -> Iterator[list[int]]:
    """The rows a few at a time, so that the exact integers of all never stand in memory at once."""
    for start in range(0, len(rows), _MOST_ROWS):
        yield rows[start : start + _MOST_ROWS]


# A residual variance of at least this many epsilon is called realistic; below it the norm's input is nearly
# constant.
REALISTIC_VARIANCE = 100


def realism_share(system: System, state: State) -> Fraction:
    """|z|^2 / d of a z-form state, exact: near 1 for real residual streams."""
    z = system.project(list(state.p))
    return Fraction(sum(x * x for x in z), system.readout.d << (2 * state.k))


def check_witness(system: System, state: State, margin: Fraction) -> None:
    """Theorem 4. Proves: the token leads every competitor by at least `margin` > 0 at `state`."""
    if margin <= 0:
        raise RefutedError("a margin must be positive: a tie is not a witness")
    found, nearest = state_margin(system, state)
    if found < margin:
        raise RefutedError(
            f"at the witness the token leads row {nearest[0]} by {_short(found)}, not {_short(margin)}"
        )


def check_tie(system: System, state: State) -> None:
    """Theorem 5. Proves: at `state`, not the zero state, no competitor is above the token."""
    z, _, _ = _member(system, state)
    if not any(z):
        raise RefutedError("the zero state is no tie witness")
    found, nearest = state_margin(system, state)
    if found < 0:
        raise RefutedError(f"at the tie state row {nearest[0]} is above the token by {_short(-found)}")


@dataclass(frozen=True)
class Combination:
    """u = sum lambda_j D_j, v = sum lambda_j e_j in units of 2**system.unit, sum lambda_j; exact. rows: j."""

    u: list[int]
    v: int
    total: int
    rows: tuple[int, ...]


def check_bound(system: System, c: Combination, bound: Fraction) -> None:
    """Theorem 6. Proves: at every state of the domain, min_j (l_t - l_j) <= `bound`.

    `bound` <= 0 proves UNSPEAKABLE with gap -bound; `bound` > 0 is a ceiling on every margin.
    With u = sum lambda_j D_j, v = sum lambda_j e_j, L = sum lambda_j the weighted mean of the margins
    is (u.z + v) / L, so its maximum over the domain bounds the least of them.
    """
    d = system.readout.d
    room = bound * c.total * _power(-system.unit) - c.v
    if room < 0:
        raise RefutedError("the multipliers do not prove the bound: v > bound * sum(lambda)")
    pu = system.project(c.u)
    scale = d if system.projects else 1
    if system.region in ("space", "cone"):
        if any(pu):
            raise RefutedError("the multipliers do not cancel: P sum(lambda_j D_j) is not zero")
    elif system.region == "box":
        if system.domain.bound * sum(map(abs, pu)) > room * scale:
            raise RefutedError("the multipliers do not prove the bound over the box")
    # Ball: |z| <= sqrt(d), so u.z <= sqrt(d) |Pu|, compared as squares of non-negative numbers.
    elif d * sum(x * x for x in pu) > room * room * (scale * scale):
        raise RefutedError("the multipliers do not prove the bound over the ball: d |Pu|^2 > v^2")


def check_never(system: System, c: Combination) -> None:
    """Theorem 7. Proves, given bound 0 by the same multipliers: only at z = 0 can the token tie.

    Three ways: a positive gap; the supremum 0 reached on the boundary of the open ball alone; or all
    slacks of the support zero only at z = 0, because its rows span the space of states.
    """
    v, pu = c.v, system.project(c.u)
    if system.region == "ball" and any(pu):
        return
    if system.region in ("space", "cone", "ball") and v < 0 and not any(pu):
        return
    if system.region == "box":
        scale = system.readout.d if system.projects else 1
        if system.domain.bound * sum(map(abs, pu)) + v * scale < 0:
            return
    if system.region == "sphere":
        d, scale = system.readout.d, system.readout.d if system.projects else 1
        if d * sum(x * x for x in pu) < (v * scale) ** 2:
            return
    if not any(pu) and v == 0:
        differences = system.differences(list(c.rows))
        rows = [system.project(x.D) for x in differences]
        if not any(x.e for x in differences) and _rank_at_least(rows, system.dimension):
            return
    raise RefutedError("these multipliers do not exclude that the token ties at some state")


def check_residual(system: System, residual: Residual, margin: Fraction | None) -> None:
    """Theorem 8. Proves: at N(r) the token leads every competitor, by at least `margin` if one is given.

    The logits, times sqrt(s) > 0, are w_j.(gain * y) + sqrt(s) (w_j.shift + c_j); signs are found by
    comparing squares.
    """
    rivals, y, square, _, _ = _rivals_at(system, residual)
    least = Fraction(0) if margin is None else margin * _power(-system.unit)
    for x, a in _products(system, rivals, y):
        if _sign(a, x.e, square) <= 0:
            raise RefutedError(f"at the residual vector row {x.row} is not below the token")
        if _sign(a, x.e - least, square) < 0:
            raise RefutedError(f"at the residual vector the margin over row {x.row} is less than claimed")


def residual_margin(system: System, residual: Residual) -> Fraction:
    """Theorem 8. A lower bound >= 0 on the margin at N(r), within 2**-191 of it; RefutedError if it loses."""
    check_residual(system, residual, None)
    rivals, y, _, bits, root = _rivals_at(system, residual)
    # (a + e sqrt(square)) / sqrt(square), from below: a / sqrt + e
    products = _products(system, rivals, y)
    least = min(Fraction(a << bits, root + 1 if a > 0 else root) + x.e for x, a in products)
    return max(least * _power(system.unit), Fraction(0))


def _products(system: System, rivals: list[int], y: list[int]) -> Iterator[tuple[Difference, int]]:
    """Each rival's inequality, and D.y."""
    for some in _blocks(rivals):
        for x in system.differences(some):
            yield x, sum(p_i * q_i for p_i, q_i in zip(x.D, y, strict=True))


def _rivals_at(system: System, residual: Residual) -> tuple[list[int], list[int], Fraction, int, int]:
    """(rivals, y, square, bits, root): every possible maximiser at N(r) = y / sqrt(square), and
    root <= sqrt(square) * 2**bits < root + 1. RefutedError where the residual is none of this readout's.

    sqrt(square) is enclosed in an interval of 192 bits for the filter alone.
    """
    if system.domain.kind != "readout":
        raise RefutedError("a residual vector is a witness in the domain readout only")
    d, p = system.readout.d, list(residual.p)
    if len(p) != d:
        raise RefutedError(f"the residual vector has {len(p)} coordinates, the model {d}")
    if not all(representable(x, residual.k, residual.dtype) for x in p):
        raise RefutedError(f"the residual vector is not exact in {residual.dtype}")
    y = system.project(p)
    m = d if system.projects else 1  # y = z-direction times m * 2**k
    square = Fraction(sum(x * x for x in y), d) + system.readout.epsilon * (m * m << (2 * residual.k))
    if system.readout.norm == "none":
        square = Fraction(m * m << (2 * residual.k))
    if square == 0:
        raise RefutedError("the residual vector is constant and epsilon is 0: the norm is undefined")
    bits = _ROOT_BITS + _bits_below_one(square)
    root = isqrt((square.numerator << (2 * bits)) // square.denominator)
    g, s, low = system.final_state([x << bits for x in y], root, 0)
    readout, token = system.readout, system.token
    # root is off by less than 1, which moves g and s by less than what root = 1 alone would give.
    one_g, one_s, _ = system.final_state([0] * d, 1, 0)
    slack = max(one_s, *map(abs, one_g))
    rivals = possible_maximisers(
        readout.unembedding, readout.bias, g, s, low, system.count, token, slack=slack
    )
    if not rivals:
        raise RefutedError("there are no competitors: nothing to be more likely than")
    return rivals, y, square, bits, root


def _sign(a: Fraction | int, e: Fraction | int, square: Fraction) -> int:
    """The sign of a + e * sqrt(square), by comparing squares; `square` > 0."""
    if a >= 0 and e >= 0:
        return int(a > 0 or e > 0)
    if a <= 0 and e <= 0:
        return -1
    squares = a * a - e * e * square
    sign = (squares > 0) - (squares < 0)
    return sign if a > 0 else -sign


def _bits_below_one(square: Fraction) -> int:
    """Extra bits so that sqrt(square) * 2**bits keeps at least 192 significant bits."""
    return max(0, (square.denominator.bit_length() - square.numerator.bit_length()) // 2 + 1)


def combine(system: System, multipliers: Multipliers) -> Combination:
    """The weighted sums of the inequalities named; RefutedError unless every weight is admissible, UsageError
    unless every row is a competitor (`System.differences`).
    """
    rows, values = list(multipliers.rows), multipliers.values
    if values is None:
        raise RefutedError("a support alone proves nothing until its multipliers are solved for")
    if not rows or len(rows) != len(values):
        raise RefutedError("there must be one multiplier a row, and at least one row")
    if any(x <= 0 for x in values):
        raise RefutedError("a multiplier is not positive")
    if len(set(rows)) != len(rows):
        raise RefutedError("a row stands twice in the support")
    d = system.readout.d
    if max(x.bit_length() for x in values) * d > _MAX_PRODUCT_BITS:
        raise RefutedError("multipliers of that length are not checked in so many dimensions")
    system.require_competitors(rows)
    # sum lambda_j D_j = fold(L w_t - sum lambda_j w_j), since folding is linear; without the factors of two
    # that all entries share.
    (own, *others), spare = system.readout.unembedding.short_integers([system.token, *rows])
    c_t, *biases = system.bias_integers([system.token, *rows])
    total = sum(values)
    product = (flint.fmpz_mat([list(values)]) * flint.fmpz_mat(others)).entries()
    w = [(total * x - int(y)) << spare for x, y in zip(own, product, strict=True)]
    c = total * c_t - sum(x * y for x, y in zip(values, biases, strict=True))
    return Combination(*system.fold(w, c), total, tuple(rows))


def _rank_at_least(rows: list[list[int]], rank: int) -> bool:
    """Whether rank(rows) >= rank is certain. Rank modulo a prime never exceeds the rank over Q."""
    if len(rows) < rank:
        return False
    reduced = [[x % _RANK_PRIME for x in row] for row in rows]
    return int(flint.nmod_mat(reduced, _RANK_PRIME).rank()) >= rank


def _power(exponent: int) -> Fraction:
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def _short(value: Fraction) -> str:
    """A margin for an error message, to three digits."""
    if value == 0:
        return "0"
    digits = value.numerator.bit_length() - value.denominator.bit_length()
    return f"about 2^{digits}" if value > 0 else f"about -2^{digits}"

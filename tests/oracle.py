"""TEST ORACLE: decides small models by exact brute force. Wrong here = a wrong verdict may pass the tests.

It imports nothing of the package under test and uses other theorems than it (the minimum-norm point of a
polyhedron instead of multipliers), so that a mistake in one is not repeated in the other.

Throughout, l_j is the logit of row j, t the token, A_j.z + b_j a positive multiple of l_t - l_j at a state z,
Q = {z : A_j.z + b_j >= 0 for all j}, where t attains the maximum, and
Q+ = {z : A_j.z + b_j > 0 for all j}, where t alone does.

Two routes that share only the rows A_j, b_j:
  `decide`       simplex for Q+, minimum-norm point of Q for the ball: rational numbers only;
  `decide_again` Fourier-Motzkin for polyhedra, minimax over supports for the ball: numbers a + b*sqrt(c).
Two checkers of certificates, straight from the definitions: `witness_margin` and `multipliers_prove`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product
from math import gcd, isqrt, lcm
from operator import mul
from typing import NamedTuple

TIE_ONLY, NEVER = "tie-only", "never"
NORMS = ("layernorm", "rmsnorm", "none")
Vector = list[Fraction]


@dataclass(frozen=True)
class SmallModel:
    """Logits l_j = w_j.(gain*z + shift) + bias_j, where z leaves a norm with epsilon > 0 (or none)."""

    norm: str
    W: list[Vector]
    gain: Vector | None = None
    shift: Vector | None = None
    bias: Vector | None = None


@dataclass(frozen=True)
class DyadicModel:
    """For real models: row j is integers times 2**exponent; `rows` is read once per call, in order."""

    norm: str
    rows: Iterable[tuple[Sequence[int], int]]
    gain: Sequence[Fraction] | None = None
    shift: Sequence[Fraction] | None = None
    bias: Sequence[Fraction] | None = None


@dataclass(frozen=True)
class Answer:
    """`kind` is None exactly when the token is speakable: this oracle settles every kind."""

    speakable: bool
    kind: str | None = None


class Row(NamedTuple):
    """A.z + b, integers, positive where t beats the competitor."""

    A: tuple[int, ...]
    b: int


def _dot(x: Iterable[Fraction | int], y: Iterable[Fraction | int]) -> Fraction:
    return sum(map(mul, x, y), Fraction(0))


def _primitive(values: Sequence[Fraction | int]) -> list[int]:
    """The smallest integer vector on the same ray."""
    common = lcm(*(Fraction(x).denominator for x in values))
    integers = [int(x * common) for x in values]
    divisor = gcd(*integers) or 1
    return [x // divisor for x in integers]


# ------------------------------------------------------------------ the definitions


def _domain(domain: str) -> tuple[str, Fraction | None]:
    name, _, bound = domain.partition(":")
    if name == "box":
        if Fraction(bound) <= 0:
            raise ValueError(f"a box needs B > 0, not {bound}")
        return name, Fraction(bound)
    if domain not in ("readout", "free", "direction"):
        raise ValueError(f"unknown domain {domain!r}")
    return name, None


def _projects(norm: str, domain: str) -> bool:
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}")
    return norm == "layernorm" and domain != "free"


def _is_ball(norm: str, domain: str) -> bool:
    return domain == "readout" and norm != "none"


def _project(x: Sequence[Fraction]) -> Vector:
    mean = sum(x, Fraction(0)) / len(x)
    return [c - mean for c in x]


def differences(
    model: SmallModel, token: int, domain: str, competitors: Collection[int] | None = None
) -> list[tuple[Vector, Fraction]]:
    """(P D_j, e_j) of every competitor but the token itself: l_t - l_j = P D_j.z + e_j on the domain."""
    d = len(model.W[0])
    ones, zeros = [Fraction(1)] * d, [Fraction(0)] * d
    gain, shift = model.gain or ones, model.shift or zeros
    bias = model.bias or [Fraction(0)] * len(model.W)
    out = []
    for j in range(len(model.W)) if competitors is None else sorted(set(competitors)):
        if j == token:
            continue
        D = [x - y for x, y in zip(model.W[token], model.W[j], strict=True)]
        c = bias[token] - bias[j]
        if domain == "free":
            out.append((D, c))
            continue
        a = [g * x for g, x in zip(gain, D, strict=True)]
        e = Fraction(0) if domain == "direction" else _dot(D, shift) + c
        out.append((_project(a) if model.norm == "layernorm" else a, e))
    return out


def _rows(model: SmallModel, token: int, domain: str, competitors: Collection[int] | None) -> list[Row]:
    """The differences as primitive integer rows, each once: a positive factor keeps every sign."""
    seen: dict[Row, None] = {}
    for D, e in differences(model, token, domain, competitors):
        *A, b = _primitive([*D, e])
        seen[Row(tuple(A), b)] = None
    return list(seen)


def _walls(B: Fraction | None, d: int) -> list[Row]:
    """|x_i| <= B as rows that must be >= 0."""
    if B is None:
        return []
    p, q = B.numerator, B.denominator
    return [Row(tuple(sign * q * (k == i) for k in range(d)), p) for i in range(d) for sign in (1, -1)]


def _coordinates(projected: bool, d: int) -> list[tuple[int, ...]]:
    """Functionals of x whose values are the coordinates of z = Px, up to the factor d."""
    return [tuple((d if projected else 1) * (k == i) - projected for k in range(d)) for i in range(d)]


# ------------------------------------------------------------------ route one: simplex and minimum-norm point


def _pivot(table: list[list[int]], dens: list[int], r: int, k: int) -> None:
    """Exchange the basic variable of row r and the nonbasic one of column k; dens[i]*basic_i = table[i]."""
    a = table[r][k]
    sign, size = (1, a) if a > 0 else (-1, -a)
    new = [-sign * x for x in table[r]]
    new[k] = sign * dens[r]
    for i, row in enumerate(table):
        factor = row[k]
        if i == r or factor == 0:
            continue
        row[k] = 0
        changed = [size * x + factor * y for x, y in zip(row, new, strict=True)]
        divisor = gcd(dens[i] * size, *changed)
        table[i], dens[i] = [x // divisor for x in changed], dens[i] * size // divisor
    divisor = gcd(size, *new)
    table[r], dens[r] = [x // divisor for x in new], size // divisor


def _maximise(objective: Sequence[int], rows: Iterable[Row]) -> Vector:
    """A point y maximising objective.y over {y : A.y + b >= 0 for all rows}; every b >= 0, so 0 is feasible.

    Primal simplex in integers with Bland's rule; y is free in sign: it enters the basis and never leaves it.
    """
    n = len(objective)
    table = [[*A, b] for A, b in rows]
    if any(row[-1] < 0 for row in table):
        raise ValueError("the origin is not feasible")
    basic, nonbasic = list(range(n, n + len(table))), list(range(n))
    table.append([*objective, 0])
    dens = [1] * len(table)
    while True:
        cost = table[-1]
        entering = [k for k in range(n) if cost[k] > 0 or (cost[k] < 0 and nonbasic[k] < n)]
        if not entering:
            break
        k = min(entering, key=nonbasic.__getitem__)
        sign = 1 if cost[k] > 0 else -1
        blocking = [i for i, label in enumerate(basic) if label >= n and sign * table[i][k] < 0]
        if not blocking:
            raise ArithmeticError("the linear program is unbounded")
        r = min(blocking, key=lambda i: (Fraction(table[i][-1], -sign * table[i][k]), basic[i]))
        _pivot(table, dens, r, k)
        basic[r], nonbasic[k] = nonbasic[k], basic[r]
    y = [Fraction(0)] * n
    for i, label in enumerate(basic):
        if label < n:
            y[label] = Fraction(table[i][-1], dens[i])
    return y


def _max_margin(rows: Sequence[Row], walls: Sequence[Row], d: int) -> tuple[Vector, Fraction]:
    """max s subject to A_j.x + b_j >= s, s <= 1, walls >= 0: s > 0 iff Q+ meets the box, >= 0 iff Q does."""
    start = min([1, *(b for _, b in rows)])
    program = [Row((*A, -1), b - start) for A, b in rows]
    program += [Row((*A, 0), b) for A, b in walls]
    program.append(Row((0,) * d + (-1,), 1 - start))
    *x, s = _maximise([0] * d + [1], program)
    return x, s + start


def _nonzero_state(
    rows: Sequence[Row], walls: Sequence[Row], x0: Vector, coordinates: Sequence[tuple[int, ...]]
) -> Vector | None:
    """From x0 that satisfies rows and walls, some x that does too and has z = Px != 0; None if there is none.

    If z(x0) = 0, one exists iff a coordinate of z or its negative has a positive maximum: 2d programs.
    """
    if any(_dot(c, x0) != 0 for c in coordinates):
        return x0
    moved = []
    for A, b in (*rows, *walls):
        *A0, b0 = _primitive([*A, _dot(A, x0) + b])
        moved.append(Row(tuple(A0), b0))
    for c, sign in product(coordinates, (1, -1)):
        goal = [sign * v for v in c]
        y = _maximise(goal, [*moved, Row(tuple(-v for v in goal), 1)])
        if _dot(goal, y) > 0:
            return [p + q for p, q in zip(x0, y, strict=True)]
    return None


def _reduced(matrix: Sequence[Sequence[Fraction | int]]) -> tuple[list[Vector], list[int]]:
    """Reduced row echelon form and its pivot columns."""
    M = [[Fraction(x) for x in row] for row in matrix]
    pivots: list[int] = []
    for k in range(len(M[0]) if M else 0):
        top = len(pivots)
        r = next((i for i in range(top, len(M)) if M[i][k] != 0), None)
        if r is None:
            continue
        M[top], M[r] = M[r], M[top]
        head = M[top][k]
        M[top] = [x / head for x in M[top]]
        for i, row in enumerate(M):
            if i != top and row[k] != 0:
                factor = row[k]
                M[i] = [x - factor * y for x, y in zip(row, M[top], strict=True)]
        pivots.append(k)
    return M, pivots


def _minimum_norm(rows: Sequence[Row], d: int) -> Vector:
    """The point of Q nearest to 0 among the states; Q must not be empty. The A_j are states themselves.

    Karush-Kuhn-Tucker, sufficient since the problem is convex: z is that point iff z lies in Q and
    z = sum over S of mu_j A_j, mu >= 0, A_j.z + b_j = 0 on S. By Caratheodory some S has independent rows.
    """
    G = [[sum(map(mul, x.A, y.A)) for y in rows] for x in rows]
    for size in range(d + 1):
        for S in combinations(range(len(rows)), size):
            M, pivots = _reduced([[*(G[i][k] for k in S), -rows[i].b] for i in S])
            if pivots != list(range(size)):
                continue
            weights = [row[-1] for row in M]
            if min(weights, default=0) < 0:
                continue
            if all(_dot(weights, (G[i][k] for k in S)) + b >= 0 for i, (_, b) in enumerate(rows)):
                return [_dot(weights, (rows[k].A[i] for k in S)) for i in range(d)]
    raise ArithmeticError("the polyhedron is empty")


def settle(
    model: SmallModel, token: int, domain: str, competitors: Collection[int] | None = None
) -> tuple[Answer, Vector | None]:
    """The answer and, if speakable or tie-only, a state that shows it, in the form of `witness_margin`.

    Polyhedral domains: speakable iff Q+ is not empty, never iff Q is contained in {0}.
    Open ball |z|^2 < d, with z* the point of Q nearest to 0:
      Q empty or |z*|^2 >= d: Q misses the open ball: never.
      Q+ not empty and |z*|^2 < d: Q is the closure of Q+, so points of Q+ near z* are in the ball: speakable.
      Q+ empty and 0 < |z*|^2 < d: z* is a tie.
      Q+ empty and z* = 0: tie-only iff Q != {0}, since Q holds the segments from 0.
    """
    name, B = _domain(domain)
    projected = _projects(model.norm, domain)
    d = len(model.W[0])
    rows, walls, coordinates = (
        _rows(model, token, domain, competitors),
        _walls(B, d),
        _coordinates(projected, d),
    )
    x, margin = _max_margin(rows, walls, d)
    if margin < 0:
        return Answer(False, NEVER), None
    ball = _is_ball(model.norm, domain)
    nearest = _minimum_norm(rows, d) if ball else []
    if ball and _dot(nearest, nearest) >= d:
        return Answer(False, NEVER), None
    if margin > 0:
        answer, shown = Answer(True), x
    else:
        tie = nearest if any(nearest) else _nonzero_state(rows, walls, x, coordinates)
        if tie is None:
            return Answer(False, NEVER), None
        answer, shown = Answer(False, TIE_ONLY), tie
    if projected and name != "box":
        shown = _project(shown)
    while ball and _dot(shown, shown) >= d:
        shown = [(p + q) / 2 for p, q in zip(shown, nearest, strict=True)]
    return answer, shown


def decide(model: SmallModel, token: int, domain: str, competitors: Collection[int] | None = None) -> Answer:
    """Can the token be the unique argmax somewhere in the domain? Exact; see `settle` for the theorem."""
    return settle(model, token, domain, competitors)[0]


# ------------------------------------------------------------------ route two: Fourier-Motzkin, minimax


@dataclass(frozen=True)
class Surd:
    """The real number a + b*sqrt(c), c >= 0."""

    a: Fraction
    b: Fraction = Fraction(0)
    c: Fraction = Fraction(0)

    def sign(self) -> int:
        """Exact: where the signs of a and b*sqrt(c) differ, compare their squares."""
        left = (self.a > 0) - (self.a < 0)
        right = ((self.b > 0) - (self.b < 0)) * (self.c > 0)
        if left * right >= 0:
            return left or right
        gap = self.a**2 - self.b**2 * self.c
        return 0 if gap == 0 else left if gap > 0 else right

    def value(self, bits: int = 400) -> Fraction:
        """A rational within 2**-bits * |b| of it."""
        root = isqrt((self.c.numerator << 2 * bits) // self.c.denominator)
        return self.a + self.b * Fraction(root, 1 << bits)


def _feasible(strict: Sequence[Row], weak: Sequence[Row], n: int) -> bool:
    """Is there x in R^n with A.x + b > 0 on strict and >= 0 on weak rows? Fourier-Motzkin elimination.

    Kohler's rule: after k eliminations a row made from more than k + 1 originals follows from the others.
    """
    live = {
        (row, is_strict, 1 << i)
        for i, (row, is_strict) in enumerate([(row, True) for row in strict] + [(row, False) for row in weak])
    }
    for k in range(n):
        kept = {item for item in live if item[0].A[k] == 0}
        lower = [item for item in live if item[0].A[k] > 0]
        upper = [item for item in live if item[0].A[k] < 0]
        for (p, p_strict, p_from), (q, q_strict, q_from) in product(lower, upper):
            if (p_from | q_from).bit_count() <= k + 2:
                f, g = -q.A[k], p.A[k]
                *A, b = _primitive([f * x + g * y for x, y in zip((*p.A, p.b), (*q.A, q.b), strict=True)])
                kept.add((Row(tuple(A), b), p_strict or q_strict, p_from | q_from))
        live = kept
    return all(row.b > 0 or (row.b == 0 and not is_strict) for row, is_strict, _ in live)


def _ball_candidates(diffs: Sequence[tuple[Vector, Fraction]], d: int) -> Iterator[tuple[Surd, bool]]:
    """Values (-gap) of every stationary lambda, one per support S, and whether its P u is not 0.

    Minimax: sup over the ball of min_j (D_j.z + e_j) = min over lambda >= 0, sum 1, of g = v + sqrt(d)|Pu|.
    Some minimiser has a support S with Gram matrix G that is either a circuit (G singular, Pu = 0, g = v)
    or has G invertible and is stationary: G lambda sqrt(d)/|Pu| = theta 1 - e, whence g = theta,
    (theta 1 - e)' G^-1 (theta 1 - e) = d, and 1.lambda > 0 selects the greater root.
    """
    G = [[_dot(x, y) for y, _ in diffs] for x, _ in diffs]
    for size in range(1, min(d + 1, len(diffs)) + 1):
        for S in combinations(range(len(diffs)), size):
            e = [diffs[j][1] for j in S]
            M, pivots = _reduced([[*(G[i][j] for j in S), Fraction(1), diffs[i][1]] for i in S])
            rank = sum(k < size for k in pivots)
            if rank == size:
                p, q = [row[-2] for row in M], [row[-1] for row in M]
                alpha, beta, delta = sum(p, Fraction(0)), sum(q, Fraction(0)), _dot(e, q) - d
                disc = beta**2 - alpha * delta
                weights = [Surd((x * beta) / alpha - y, x / alpha, disc) for x, y in zip(p, q, strict=True)]
                if disc > 0 and all(w.sign() >= 0 for w in weights):
                    yield Surd(beta / alpha, 1 / alpha, disc), True
            elif rank == size - 1:
                free = next(k for k in range(size) if k not in pivots)
                kernel = [Fraction(0)] * size
                kernel[free] = Fraction(1)
                for row, k in zip(M, [k for k in pivots if k < size], strict=False):
                    kernel[k] = -row[free]
                if min(kernel) >= 0:
                    yield Surd(_dot(kernel, e) / sum(kernel, Fraction(0))), False


def ball_supremum(model: SmallModel, token: int, competitors: Collection[int] | None = None) -> Surd:
    """sup over the ball of min_j (l_t - l_j), in logits; its negative is the gap. `readout` after a norm."""
    if not _is_ball(model.norm, "readout"):
        raise ValueError("without a norm the readout is not a ball")
    diffs = differences(model, token, "readout", competitors)
    return min((theta for theta, _ in _ball_candidates(diffs, len(model.W[0]))), key=Surd.value)


def decide_again(
    model: SmallModel, token: int, domain: str, competitors: Collection[int] | None = None
) -> Answer:
    """`decide` by the second route.

    Ball: t is speakable iff the minimax value theta* > 0 (positive on the sphere, positive inside).
    theta* < 0: never. theta* = 0 at a lambda with Pu != 0: u.z + v < 0 inside the ball: never. Otherwise
    Q meets the open ball (if it touched the sphere only, at z*, the multipliers of z* as nearest point would
    be such a lambda), so tie-only iff Q != {0}.
    Polyhedra: Fourier-Motzkin on Q+, then on Q with z_i > 0 or z_i < 0.
    """
    _, B = _domain(domain)
    d = len(model.W[0])
    rows = _rows(model, token, domain, competitors)
    if not rows:
        return Answer(True)
    walls, coordinates = _walls(B, d), _coordinates(_projects(model.norm, domain), d)
    if _is_ball(model.norm, domain):
        found = list(_ball_candidates(differences(model, token, domain, competitors), d))
        signs = [(theta.sign(), slanted) for theta, slanted in found]
        if all(sign > 0 for sign, _ in signs):
            return Answer(True)
        if any(sign < 0 or (sign == 0 and slanted) for sign, slanted in signs):
            return Answer(False, NEVER)
    elif _feasible(rows, walls, d):
        return Answer(True)
    for c, sign in product(coordinates, (1, -1)):
        if _feasible([Row(tuple(sign * v for v in c), 0)], [*rows, *walls], d):
            return Answer(False, TIE_ONLY)
    return Answer(False, NEVER)


# ------------------------------------------------------------------ checkers of certificates


def _scaled_rows(model: SmallModel | DyadicModel) -> Iterator[tuple[Sequence[int], Fraction]]:
    """Row j as (integers, scale)."""
    if isinstance(model, SmallModel):
        for row in model.W:
            common = lcm(*(x.denominator for x in row))
            yield [int(x * common) for x in row], Fraction(1, common)
    else:
        for numerators, exponent in model.rows:
            yield numerators, Fraction(2) ** exponent


def _state(model: SmallModel | DyadicModel, domain: str, z: Sequence[Fraction]) -> Vector:
    """The vector h that meets the rows; ValueError when z is not in the domain."""
    name, B = _domain(domain)
    d = len(z)
    if name == "free":
        return list(z)
    if B is not None:
        if any(abs(x) > B for x in z):
            raise ValueError("the state leaves the box")
        z = _project(z) if _projects(model.norm, domain) else z
    elif _projects(model.norm, domain) and sum(z) != 0:
        raise ValueError("the coordinates of the state do not sum to 0")
    if _is_ball(model.norm, domain) and _dot(z, z) >= d:
        raise ValueError("the state is not inside the ball")
    h = list(z) if model.gain is None else [g * x for g, x in zip(model.gain, z, strict=True)]
    if model.shift is None or name == "direction":
        return h
    return [x + s for x, s in zip(h, model.shift, strict=True)]


def witness_margin(
    model: SmallModel | DyadicModel,
    token: int,
    domain: str,
    z: Sequence[Fraction],
    competitors: Collection[int] | None = None,
) -> Fraction:
    """min over the competitors j != t of l_t - l_j at the state z (`free`: h; `box`: x, z its projection).

    By definition of speakable, a positive value proves it. ValueError: z is outside the domain, no
    competitor, or a row's length is not d. About 0.1 microseconds a multiply-add.
    """
    h = _state(model, domain, z)
    common = lcm(*(x.denominator for x in h))
    H = [int(x * common) for x in h]
    bias = None if domain == "direction" else model.bias
    wanted = None if competitors is None else set(competitors)
    best: Fraction | None = None
    own: Fraction | None = None
    for j, (numerators, scale) in enumerate(_scaled_rows(model)):
        if j != token and wanted is not None and j not in wanted:
            continue
        if len(numerators) != len(H):
            raise ValueError(f"row {j} has length {len(numerators)}, the state {len(H)}")
        logit = sum(map(mul, numerators, H)) * scale / common
        if bias is not None:
            logit += bias[j]
        if j == token:
            own = logit
        elif best is None or logit > best:
            best = logit
    if own is None or best is None:
        raise ValueError("the token or its competitors are missing")
    return own - best


def multipliers_prove(
    model: SmallModel | DyadicModel,
    token: int,
    domain: str,
    rows: Sequence[int],
    lam: Sequence[int | Fraction],
    competitors: Collection[int] | None = None,
) -> bool:
    """Do the multipliers prove the token unspeakable? With u = sum lam_j D_j and v = sum lam_j e_j:

    form F (`direction`, `free`, no norm): Pu = 0 and v <= 0;
    form B (`readout` after a norm): v <= 0 and d|Pu|^2 <= v^2;
    form X (`box:B`): v + B|Pu|_1 <= 0;
    in each case sum lam_j (l_t - l_j) = u.z + v <= 0 on the domain, so not all differences are positive.
    Single-row domination is one row with multiplier 1. False too for negative, absent or all-zero
    multipliers, rows given twice, the token's own row and rows that are not competitors.
    """
    name, B = _domain(domain)
    if len(rows) != len(lam) or len(set(rows)) != len(rows) or token in rows:
        return False
    if any(x < 0 for x in lam) or not any(lam):
        return False
    if competitors is not None and not set(rows) <= set(competitors):
        return False
    weight = dict(zip(rows, map(Fraction, lam), strict=True))
    total = sum(weight.values(), Fraction(0))
    signed = {j: -x for j, x in weight.items()} | {token: total}
    found: list[tuple[Sequence[int], Fraction]] = []
    v = Fraction(0)
    for j, (numerators, scale) in enumerate(_scaled_rows(model)):
        if j in signed:
            found.append((numerators, signed[j] * scale))
            if model.bias is not None and name != "direction":
                v += signed[j] * model.bias[j]
    if len(found) != len(signed):
        return False
    common = lcm(*(f.denominator for _, f in found))
    factors = [int(f * common) for _, f in found]
    columns = zip(*(numerators for numerators, _ in found), strict=True)
    u = [Fraction(sum(map(mul, factors, column)), common) for column in columns]
    if name != "free":
        if model.shift is not None and name != "direction":
            v += _dot(u, model.shift)
        if model.gain is not None:
            u = [g * x for g, x in zip(model.gain, u, strict=True)]
        if _projects(model.norm, domain):
            u = _project(u)
    if B is not None:
        return v + B * sum(map(abs, u), Fraction(0)) <= 0
    if _is_ball(model.norm, domain):
        return v <= 0 and len(u) * _dot(u, u) <= v * v
    return v <= 0 and not any(u)


# ------------------------------------------------------------------ instances


def _small(rng: random.Random, size: int, low: int = -3, high: int = 3) -> Vector:
    return [Fraction(rng.randint(low, high)) for _ in range(size)]


def _special_row(rng: random.Random, W: list[Vector], d: int) -> Vector:
    """A row in special position to earlier ones: equal, zero, collinear, a midpoint or in their hull."""
    x, y = rng.choice(W), rng.choice(W)
    kind = rng.choice(("equal", "zero", "collinear", "midpoint", "hull", "shifted"))
    if kind == "equal":
        return list(x)
    if kind == "zero":
        return [Fraction(0)] * d
    if kind == "collinear":
        factor = rng.choice((-2, -1, Fraction(1, 2), 2))
        return [factor * c for c in x]
    if kind == "midpoint":
        return [(p + q) / 2 for p, q in zip(x, y, strict=True)]
    if kind == "shifted":  # equal to x for a LayerNorm
        return [c + 1 for c in x]
    weights = [rng.randint(0, 2) for _ in W]
    total = sum(weights) or 1
    return [_dot(weights, column) / total for column in zip(*W, strict=True)]


def _make_tangent(rng: random.Random, model: SmallModel) -> SmallModel:
    """Set a bias so that one row dominates another with equality, d|PD|^2 = e^2, if e is rational."""
    d, V = len(model.W[0]), len(model.W)
    bias = list(model.bias or [Fraction(0)] * V)
    pairs = [(t, j) for t in range(V) for j in range(V) if t != j]
    rng.shuffle(pairs)
    for t, j in pairs:
        D, e = differences(model, t, "readout", [j])[0]
        square = d * _dot(D, D)
        root = Fraction(isqrt(square.numerator), isqrt(square.denominator))
        if square != 0 and root * root == square:
            bias[t] -= e + root
            break
    return SmallModel(model.norm, model.W, model.gain, model.shift, bias)


def random_small_model(
    rng: random.Random,
    norm: str | None = None,
    d: int | None = None,
    V: int | None = None,
    special: float = 0.4,
) -> SmallModel:
    """A random model, entries in [-3, 3] (midpoints, hulls: fractions), many rows in special position.

    `special` is the chance of such a row. Sizes default to d in 1..4 (LayerNorm: 2..4) and V in 1..12.
    """
    norm = norm or rng.choice(NORMS)
    d = d or rng.randint(2 if norm == "layernorm" else 1, 4)
    V = V or rng.randint(1, 12)
    spread = rng.choice((1, 3))
    base = [_small(rng, d, -spread, spread) for _ in range(rng.choice((1, 2, d, d, d)))]
    low_rank = rng.random() < 0.2
    W: list[Vector] = []
    for _ in range(V):
        if W and rng.random() < special:
            W.append(_special_row(rng, W, d))
        elif low_rank:
            weights = _small(rng, len(base), -1, 1)
            W.append([_dot(weights, column) for column in zip(*base, strict=True)])
        else:
            W.append(_small(rng, d, -spread, spread))
    rng.shuffle(W)
    gain = rng.choice((None, _small(rng, d, 1, 2), _small(rng, d, -1, 2)))
    shift = rng.choice((None, _small(rng, d, -2, 2)))
    bias = rng.choice((None, _small(rng, V, -1, 1), _small(rng, V, -3, 3)))
    model = SmallModel(norm, W, gain, shift, bias)
    return _make_tangent(rng, model) if rng.random() < 0.2 else model


Number = int | str | Fraction


def small(
    norm: str,
    W: Sequence[Sequence[Number]],
    gain: Sequence[Number] | None = None,
    shift: Sequence[Number] | None = None,
    bias: Sequence[Number] | None = None,
) -> SmallModel:
    """A SmallModel written with ints and strings such as '-1/2'."""

    def vector(x: Sequence[Number] | None) -> Vector | None:
        return None if x is None else [Fraction(c) for c in x]

    return SmallModel(
        norm, [[Fraction(c) for c in row] for row in W], vector(gain), vector(shift), vector(bias)
    )


_YES, _TIE, _NO = Answer(True), Answer(False, TIE_ONLY), Answer(False, NEVER)
# corners 0-3, centre 4, midpoint 5 of the edge between corners 0 and 1
_SQUARE = [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 0), (1, 0)]
_CROSS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]


def _halfspace(norm: str, d: int, bias: Number) -> SmallModel:
    """Token 0 wins iff z_1 + bias > 0."""
    return small(norm, [[1] + [0] * (d - 1), [0] * d], bias=[bias, 0])


def _tricky() -> Iterator[tuple[SmallModel, int, str, Answer]]:
    """Instances with the answer found by hand; the comment is the reason."""
    rms_square, ln_line = small("rmsnorm", _SQUARE), small("layernorm", [(1, 0), (0, 0), (-1, 0)])
    for domain in ("readout", "direction", "free", "box:1"):
        yield rms_square, 0, domain, _YES  # z = (1/2, 1/2): 1 against at most 1/2
        yield rms_square, 4, domain, _NO  # max over the corners = |z1| + |z2| > 0 unless z = 0
        yield rms_square, 5, domain, _TIE  # z1 - (z1 + |z2|) = -|z2|: a tie iff z2 = 0, z1 >= 0
    yield small("none", _SQUARE), 5, "readout", _TIE
    # equal rows; the third is a corner
    twins = small("rmsnorm", [(1, 0), (1, 0), (-1, 0)])
    yield twins, 0, "readout", _TIE
    yield twins, 2, "readout", _YES
    # equal rows, unequal bias: the lower one loses by 1 everywhere, unless the bias is dropped
    biased_twins = small("rmsnorm", [(1, 0), (1, 0)], bias=[0, 1])
    yield biased_twins, 0, "readout", _NO
    yield biased_twins, 0, "free", _NO
    yield biased_twins, 0, "box:3", _NO
    yield biased_twins, 0, "direction", _TIE
    yield biased_twins, 1, "readout", _YES
    # tangency: z1 > 2 and |z|^2 < 4; 4*|(1,0,0,0)|^2 = (-2)^2
    yield _halfspace("rmsnorm", 4, -2), 0, "readout", _NO
    yield _halfspace("rmsnorm", 4, "-199/100"), 0, "readout", _YES
    yield _halfspace("rmsnorm", 4, "-201/100"), 0, "readout", _NO
    yield _halfspace("rmsnorm", 4, -2), 0, "free", _YES
    yield _halfspace("rmsnorm", 4, -2), 0, "direction", _YES
    yield _halfspace("rmsnorm", 4, -2), 0, "box:1", _NO
    yield _halfspace("rmsnorm", 4, -2), 0, "box:2", _TIE  # x1 = 2
    yield _halfspace("rmsnorm", 4, -2), 0, "box:2.5", _YES
    # irrational: sup z1 = sqrt(3) on the ball of d = 3; 1.7320508 < sqrt(3) < 1.7320509
    yield _halfspace("rmsnorm", 3, "-17320508/10000000"), 0, "readout", _YES
    yield _halfspace("rmsnorm", 3, "-17320509/10000000"), 0, "readout", _NO
    # tangency with two rows: z1 > 1 and z2 > 1 meet |z|^2 <= 2 at (1, 1) only
    wedge = small("rmsnorm", [(0, 0), (-1, 0), (0, -1)], bias=[0, 1, 1])
    yield wedge, 0, "readout", _NO
    yield wedge, 0, "box:1", _TIE
    yield wedge, 0, "box:2", _YES
    yield wedge, 0, "direction", _YES
    yield small("rmsnorm", [(0, 0), (-1, 0), (0, -1)], bias=[0, 1, "99/100"]), 0, "readout", _YES
    # opposite rows: -|z1 - c|: a tie on the line z1 = c where that meets the domain
    for c, norm, d, domain, answer in (
        (1, "rmsnorm", 2, "readout", _TIE),
        (1, "rmsnorm", 1, "readout", _NO),  # z = 1 is on the sphere, not inside
        (1, "none", 1, "readout", _TIE),
        (1, "none", 1, "free", _TIE),
        (1, "none", 1, "box:1", _TIE),
        (1, "none", 1, "box:0.5", _NO),
        (0, "none", 1, "readout", _NO),  # only z = 0
        (0, "rmsnorm", 1, "direction", _NO),
        (0, "rmsnorm", 2, "readout", _TIE),  # z = (0, z2)
    ):
        zeros = [0] * (d - 1)
        yield small(norm, [[0, *zeros], [1, *zeros], [-1, *zeros]], bias=[0, -c, c]), 0, domain, answer
    # single-row domination with room: -z1 - 2 < 0 where |z|^2 < 2
    dominated = small("rmsnorm", [(0, 0), (1, 0)], bias=[0, 2])
    for domain, answer in (
        ("readout", _NO),
        ("box:2", _TIE),
        ("box:3", _YES),
        ("free", _YES),
        ("direction", _YES),
    ):
        yield dominated, 0, domain, answer
    # far away only: h - 1000 > 0
    far = small("rmsnorm", [[1], [0]], bias=[-1000, 0])
    yield far, 0, "free", _YES
    yield far, 0, "readout", _NO
    yield far, 1, "readout", _YES
    # the box decides
    yield small("rmsnorm", [[1], [0]], bias=["-3/2", 0]), 0, "box:1", _NO
    yield small("rmsnorm", [[1], [0]], bias=["-3/2", 0]), 0, "box:2", _YES
    # LayerNorm, d = 2: z = s(1, -1), |s| < 1, logits s, 0, -s
    yield ln_line, 0, "readout", _YES
    yield ln_line, 1, "readout", _NO
    yield ln_line, 1, "direction", _NO
    yield ln_line, 1, "free", _TIE  # h = (0, 1)
    # rows that differ by a multiple of 1 are equal after a LayerNorm
    parallel = small("layernorm", [(3, 3), (0, 0)])
    for domain, answer in (("readout", _TIE), ("direction", _TIE), ("box:1", _TIE), ("free", _YES)):
        yield parallel, 0, domain, answer
    # LayerNorm tangency: 2s > 2 with |s| < 1; x = (1, -1) is the corner of the box B = 1
    ln_tangent = small("layernorm", [(1, -1), (0, 0)], bias=[-2, 0])
    for domain, answer in (("readout", _NO), ("box:1", _TIE), ("box:2", _YES), ("direction", _YES)):
        yield ln_tangent, 0, domain, answer
    yield small("layernorm", [(1, -1), (0, 0)], bias=[-1, 0]), 0, "readout", _YES
    # LayerNorm tangency, d = 4: 4*|(1,1,-1,-1)|^2 = 16 = (-4)^2
    yield small("layernorm", [(1, 1, -1, -1), (0, 0, 0, 0)], bias=[-4, 0]), 0, "readout", _NO
    yield small("layernorm", [(1, 1, -1, -1), (0, 0, 0, 0)], bias=["-399/100", 0]), 0, "readout", _YES
    # LayerNorm, d = 3: sup z1 = sqrt(3 * 2/3) = 1.41421..; over the box B = 1 it is 1 - 1/3 + 2/3 = 4/3
    for bias, domain, answer in (
        ("-7/5", "readout", _YES), ("-71/50", "readout", _NO),
        (-1, "box:1", _YES), ("-4/3", "box:1", _TIE), ("-7/5", "box:1", _NO),
    ):  # fmt: skip
        yield _halfspace("layernorm", 3, bias), 0, domain, answer
    # simplex and its centroid: max z_i > 0 on 1-perp without 0
    simplex = small("layernorm", [(1, 0, 0), (0, 1, 0), (0, 0, 1), ("1/3", "1/3", "1/3")])
    yield simplex, 0, "readout", _YES
    yield simplex, 3, "readout", _NO
    yield simplex, 3, "free", _TIE  # h = (1, 1, 1)
    # a gain of 0 kills the coordinate in which the rows differ; the shift puts a constant back
    killed = small("rmsnorm", [(0, 1), (0, -1)], gain=[1, 0])
    yield killed, 0, "readout", _TIE
    yield killed, 0, "free", _YES
    shifted = small("rmsnorm", [(0, 1), (0, -1)], gain=[1, 0], shift=[0, 1])
    for token, domain, answer in (
        (0, "readout", _YES),
        (1, "readout", _NO),
        (1, "direction", _TIE),
        (1, "free", _YES),
    ):
        yield shifted, token, domain, answer
    # gain (1, 2) makes the difference (2, 1) a multiple of 1
    yield small("layernorm", [(2, 1), (0, 0)], gain=[1, 2]), 0, "readout", _TIE
    # all rows equal
    for domain in ("readout", "direction", "free", "box:1"):
        yield small("layernorm", [(1, 2), (1, 2), (1, 2)]), 1, domain, _TIE
    flat = small("rmsnorm", [(0, 0), (0, 0)], bias=[1, 0])
    for token, domain, answer in (
        (0, "readout", _YES),
        (1, "readout", _NO),
        (1, "free", _NO),
        (0, "direction", _TIE),
    ):
        yield flat, token, domain, answer
    yield small("rmsnorm", [(0, 0), (0, 0)], bias=[1, 1]), 1, "readout", _TIE
    # V = 1, V = 2
    for domain in ("readout", "direction", "free", "box:1"):
        yield small("layernorm", [(0, 0)]), 0, domain, _YES
        yield small("layernorm", [(1, 0), (0, 1)]), 1, domain, _YES
    # in the hull: a bias lifts the row out near z = 0, a negative one buries it
    yield small("rmsnorm", _CROSS, bias=[1, 0, 0, 0, 0]), 0, "readout", _YES
    yield small("rmsnorm", _CROSS, bias=[1, 0, 0, 0, 0]), 0, "free", _YES
    yield small("rmsnorm", _CROSS, bias=[1, 0, 0, 0, 0]), 0, "direction", _NO
    yield small("rmsnorm", _CROSS, bias=[-1, 0, 0, 0, 0]), 0, "free", _NO


TRICKY: list[tuple[SmallModel, int, str, Answer]] = list(_tricky())

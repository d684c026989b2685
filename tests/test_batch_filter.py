"""Theorems 15 and 16: many states at once, and the own states of tokens.

Theorem 15: every competitor that attains the maximum is among `rivals`, t is not, and a sign that is not 0
is that of the margin. Compared with exact fractions, on inputs built to sit where rounding decides.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from built_models import model as build_model
from built_models import tensor

from verify.errors import ModelUnavailableError, RefutedError
from verify.kernel import DIRECTION, FREE, READOUT, Readout, State, System, Tensor
from verify.kernel import filter as filter_module
from verify.kernel.check import Margins, state_margin
from verify.kernel.domain import Domain, parse_domain
from verify.kernel.filter import BatchFilter, _below, _sign, as_float64
from verify.kernel.ledger_rows import OwnStates
from verify.kernel.tensor import DTYPES, itemsize, unit_exponent

# dtype -> (exponent bits, mantissa bits)
LAYOUT = {"F16": (5, 10), "BF16": (8, 7), "F32": (8, 23), "F64": (11, 52)}


def bits_tensor(bits: np.ndarray, dtype: str) -> Tensor:
    return Tensor("t", dtype, bits.astype(f"<u{itemsize(dtype)}"))


def random_bits(rng: random.Random, dtype: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    e, m = LAYOUT[dtype]
    flat = [
        (rng.getrandbits(1) << (e + m)) | (rng.randint(low, high) << m) | rng.getrandbits(m)
        for _ in range(math.prod(shape))
    ]
    return np.array(flat, dtype=np.uint64).reshape(shape)


def middle(dtype: str) -> tuple[int, int]:
    bias = (1 << (LAYOUT[dtype][0] - 1)) - 1
    return bias - 4, bias + 2


def flushed(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, x.dtype.type(0), x)


def permuted(a: Any, b: Any) -> Any:
    order = np.random.default_rng(1).permutation(a.shape[1])
    out = np.zeros((len(a), len(b)), a.dtype)
    for i in order:
        out = out + np.outer(a[:, i], b[:, i])
    return out


def pairwise(a: Any, b: Any) -> Any:
    """All terms at once, added two by two, in reverse."""
    terms = list((a.T[::-1, :, None] * b.T[::-1, None, :]).astype(a.dtype))
    while len(terms) > 1:
        terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=False)] + terms[len(terms) & ~1 :]
    return terms[0]


def flushing(a: Any, b: Any) -> Any:
    """From the left; operands and results that are subnormal count as 0."""
    a, b = flushed(a), flushed(b)
    out = np.zeros((len(a), len(b)), a.dtype)
    for i in range(a.shape[1]):
        out = flushed(out + flushed(np.outer(a[:, i], b[:, i])))
    return out


def fused(a: Any, b: Any) -> Any:
    """Products unrounded (in the extended format), sums rounded: fused multiply-add."""
    out = np.zeros((len(a), len(b)), a.dtype)
    for i in range(a.shape[1]):
        product = np.outer(a[:, i].astype(np.longdouble), b[:, i].astype(np.longdouble))
        out = (product + out).astype(a.dtype)
    return out


PRODUCTS = [None, permuted, pairwise, flushing, fused]


def exact(matrix: Tensor, bias: Tensor | None, state: list[int], s: int) -> list[Fraction]:
    V = matrix.shape[0]
    rows = as_float64(matrix, 0, V).tolist()
    biases = [0.0] * V if bias is None else as_float64(bias, 0, V).tolist()
    return [
        sum((Fraction(w) * x for w, x in zip(row, state, strict=True)), Fraction(c) * s)
        for row, c in zip(rows, biases, strict=True)
    ]


def agree(
    matrix: Tensor,
    bias: Tensor | None,
    tokens: list[int],
    states: list[list[int]],
    scales: list[int],
    count: int,
    multiply: Any = None,
    kind: type[BatchFilter] = BatchFilter,
) -> int:
    """How many rows are returned in all; asserts the claim of Theorem 15."""
    found = kind(matrix, bias, count, multiply).compare(tokens, states, scales)
    for t, state, s, comparison in zip(tokens, states, scales, found, strict=True):
        values = exact(matrix, bias, state, s)
        others = [j for j in range(count) if j != t]
        top = max(values[j] for j in others)
        assert {j for j in others if values[j] == top} <= set(comparison.rivals) <= set(others)
        assert comparison.rivals == sorted(set(comparison.rivals))
        difference = values[t] - top
        assert comparison.sign in (0, (difference > 0) - (difference < 0))
    return sum(len(x.rivals) for x in found)


def hostile(dtype: str, rng: random.Random) -> list[tuple[np.ndarray, np.ndarray | None, list[list[int]]]]:
    """(bits, bits of a bias, states) of each hostile kind."""
    V, d = rng.randint(3, 12), rng.choice((1, 3, 7))
    top = (1 << LAYOUT[dtype][0]) - 2
    sign = np.uint64(1 << (8 * itemsize(dtype) - 1))
    states = [[rng.getrandbits(n) - (1 << (n - 1)) for _ in range(d)] for n in (3, 53, 1200)]
    states.append([0] * d)
    states.append([(1 << rng.choice((0, 200, 1100))) * rng.choice((-1, 1)) for _ in range(d)])
    near = np.repeat(random_bits(rng, dtype, (1, d), *middle(dtype)), V, axis=0)
    for row in near:  # they differ by one unit in the last place
        row[rng.randrange(d)] ^= np.uint64(rng.randint(0, 1))
    plain = random_bits(rng, dtype, (V, d), *middle(dtype))
    cancelling = np.hstack([plain, plain ^ sign, near])
    long = [[*x, *x, *x] for x in states]
    out: list[tuple[np.ndarray, np.ndarray | None, list[list[int]]]] = [
        (plain, None, states),
        (near, None, states),
        (near, random_bits(rng, dtype, (V,), *middle(dtype)), states),
        (cancelling, None, long),
        (near & np.uint64(0) | sign, None, states),
    ]
    for low, high in ((0, 0), (top, top), (0, top)):  # subnormal, largest, all exponents
        out.append((random_bits(rng, dtype, (V, d), low, high), None, states))
        out.append((out[-1][0], random_bits(rng, dtype, (V,), low, high), states))
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("multiply", PRODUCTS, ids=lambda f: getattr(f, "__name__", "numpy"))
def test_no_maximiser_is_dropped_and_no_sign_is_wrong(dtype: str, multiply: Any) -> None:
    """Theorem 15, against exact integers, for products in several orders, also with flush to zero."""
    with np.errstate(all="ignore"):
        for seed in range(5):
            rng = random.Random(f"{dtype}{seed}")
            for bits, shift, states in hostile(dtype, rng):
                V = len(bits)
                bias = None if shift is None else bits_tensor(shift, dtype)
                for count in (V, V - 1):
                    tokens = [0, V - 1, *(rng.randrange(V) for _ in states[2:])]
                    scales = [1 << rng.choice((0, 50, 1100)) for _ in states]
                    agree(bits_tensor(bits, dtype), bias, tokens, states, scales, count, multiply)


@pytest.mark.parametrize("multiply", PRODUCTS, ids=lambda f: getattr(f, "__name__", "numpy"))
@pytest.mark.parametrize("weights", ["F32", "BF16", "F16"])
def test_a_bias_in_another_dtype(weights: str, multiply: Any) -> None:
    """The product is in float64 iff either tensor is F64."""
    rng = random.Random(0)
    top = (1 << LAYOUT[weights][0]) - 2
    for dtype in DTYPES:
        for low, high in (middle(weights), (0, 0), (top, top)):
            matrix = bits_tensor(random_bits(rng, weights, (6, 3), low, high), weights)
            bias = bits_tensor(random_bits(rng, dtype, (6,), *middle(dtype)), dtype)
            assert (BatchFilter(matrix, bias, 6).dtype == np.float64) == (dtype == "F64")
            with np.errstate(all="ignore"):
                agree(matrix, bias, [0, 5], [[1, -2, 3], [0, 0, 0]], [1, 1 << 40], 6, multiply)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("multiply", PRODUCTS[1:], ids=lambda f: f.__name__)
def test_the_products_are_within_five_eighths_of_the_bound(dtype: str, multiply: Any) -> None:
    """Theorem 15, the bound itself: |computed - true| <= (5/8) e for every row."""
    for seed in range(3):
        for bits, shift, states in hostile(dtype, random.Random(f"{dtype}{seed}")):
            matrix = bits_tensor(bits, dtype)
            bias = None if shift is None else bits_tensor(shift, dtype)
            seen: list[Any] = []

            def record(a: Any, b: Any, seen: list[Any] = seen) -> Any:
                seen.append((a.astype(np.float64), multiply(a, b)))
                return seen[0][1].copy()

            with np.errstate(all="ignore"):
                batch_filter = BatchFilter(matrix, bias, len(bits), record)
                batch_filter.compare([0] * len(states), states, [3] * len(states))
            g, computed = seen[0]
            errors = batch_filter._errors(g, batch_filter.dtype)
            for state, row, error in zip(states, computed.tolist(), errors.tolist(), strict=True):
                top = max(abs(x) for x in [*state, *([3] if bias else [])]).bit_length()
                if math.isnan(error):
                    continue
                for value, true in zip(row, exact(matrix, bias, state, 3), strict=True):
                    assert abs(Fraction(value) - true / (1 << top)) <= Fraction(5, 8) * Fraction(error)


def ties(n: int = 30, d: int = 40) -> tuple[Tensor, list[int]]:
    """Rows and a state at which all logits agree to about 1e-9 of their size; row 0 is far below."""
    rng = np.random.default_rng(4)
    W = rng.integers(-8, 9, (n + 1, d)).astype(np.float64)
    x = [int(v) for v in rng.integers(1 << 30, 1 << 31, d)]
    # The last entries are corrected to nearly the same logit: by a multiple of one coordinate, 1 of 2^31.
    x[-1] = 1 << 31
    x[-2] = 1
    for j in range(1, n + 1):
        rest = sum(int(w) * v for w, v in zip(W[j, :-2], x[:-2], strict=True))
        W[j, -1] = round(Fraction(10**12 - rest, 1 << 31) * 4096) / 4096
        W[j, -2] = 10**12 - rest - int(W[j, -1] * 4096) * (1 << 19) + int(rng.integers(-500, 501))
    W[0] = -1
    return tensor("t", W, "F32"), x


class Careless(BatchFilter):
    """The filter with a bound of 0."""

    def _errors(self, g: Any, dtype: np.dtype[np.floating]) -> Any:
        return np.zeros(len(g))


@pytest.mark.parametrize("multiply", PRODUCTS, ids=lambda f: getattr(f, "__name__", "numpy"))
def test_near_ties_of_a_relative_1e_9(multiply: Any) -> None:
    """Theorem 15: float32 cannot tell the logits apart, the second pass can tell most."""
    matrix, x = ties()
    values = exact(matrix, None, x, 1)
    assert 0 < max(values[1:]) - min(values[1:]) < Fraction(1, 10**9) * max(values)
    assert len({np.float32(float(v)) for v in values[1:]}) == 1
    assert agree(matrix, None, [0], [x], [1], 31, multiply) < 5
    for t in range(1, 31):
        agree(matrix, None, [t], [x], [1], 31, multiply)


def tuned(dtype: str, seed: int, n: int = 16, d: int = 40) -> tuple[Tensor, list[int]]:
    """Unlike rows whose logits agree to about the precision of the product: the last entries see to it."""
    rng = np.random.default_rng(seed)
    bits = LAYOUT[dtype][1] + 1
    columns = {"BF16": 3, "F16": 2, "F32": 1, "F64": 1}[dtype]
    rows = as_float64(tensor("t", rng.normal(size=(n, d)), dtype), 0, n)
    x = [int(v * 2**30) << 30 for v in rng.normal(size=d)]
    for c in range(columns):
        x[d - columns + c] = 1 << (60 - c * bits)
    rows[:, d - columns :] = 0
    for row in rows:
        for c in range(columns):
            rest = sum(Fraction(w) * v for w, v in zip(row.tolist(), x, strict=True))
            value = [[float(((1 << 60) - rest) / x[d - columns + c])]]
            row[d - columns + c] = as_float64(tensor("t", value, dtype), 0, 1)[0, 0]
    return tensor("t", rows, dtype), x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("refined", [4, 1 << 30])
def test_the_bound_has_teeth(dtype: str, refined: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the error of Theorem 15 replaced by 0 a maximiser is missed, or a sign is wrong, on near ties."""
    monkeypatch.setattr(filter_module, "_REFINED", refined)
    cases = [tuned(dtype, seed) for seed in range(8)]
    for multiply in PRODUCTS:
        missed = 0
        for matrix, x in cases:
            agree(matrix, None, [0, 1], [x, x], [1, 1], 16, multiply)
            try:
                agree(matrix, None, [0, 1], [x, x], [1, 1], 16, multiply, Careless)
            except AssertionError:
                missed += 1
        assert missed > 0


@pytest.mark.parametrize("block", [1, 1 << 10])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, x = ties()
    whole = BatchFilter(matrix, None, 31)
    monkeypatch.setattr(filter_module, "_BLOCK_BYTES", block)
    parts = BatchFilter(matrix, None, 31)
    assert parts.longest == whole.longest
    assert agree(matrix, None, [0, 3], [x, [0] * 40], [1, 1], 31) < 40


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [20, 60, 100])
def test_huge_cancellation(dtype: str, exponent: int) -> None:
    """Entries 2^k that cancel but for a small rest."""
    k = min(exponent, 14) if dtype == "F16" else exponent
    big = 2.0**k
    W = [[big, 1, -big], [-big, 1.5, big], [big, 1.25, -big], [0, 1.5, 0], [big, -1, -big]]
    for multiply in PRODUCTS:
        agree(tensor("t", W, dtype), None, [0, 1, 4], [[1, 1, 1]] * 3, [1] * 3, 5, multiply)
        x = [(1 << 200) + 1, 3, 1 << 200]
        agree(tensor("t", W, dtype), tensor("c", [1, 2, 3, 4, 5], dtype), [0, 1], [x, x], [7, 1], 5, multiply)


def special(dtype: str, kind: str) -> int:
    e, m = LAYOUT[dtype]
    return ((1 << e) - 1) << m | (kind == "nan") | (int(kind == "-inf") << (e + m))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("row", [0, 2, 5])
def test_nan_and_infinity_return_every_row(dtype: str, kind: str, row: int) -> None:
    """Whether in a competitor, in the token, or in a row beyond both."""
    bits = random_bits(random.Random(0), dtype, (6, 3), *middle(dtype))
    bits[row, 1] = special(dtype, kind)
    for state in ([1, 2, 3], [0, 0, 0], [0, -1, 0]):
        (found,) = BatchFilter(bits_tensor(bits, dtype), None, 5).compare([2], [state], [1])
        assert (found.sign, found.rivals) == (0, [0, 1, 3, 4])
    c = np.zeros(6)
    c[row] = math.nan
    plain = bits_tensor(random_bits(random.Random(0), dtype, (6, 3), *middle(dtype)), dtype)
    (found,) = BatchFilter(plain, tensor("c", c, "F64"), 5).compare([2], [[1, 2, 3]], [1])
    assert (found.sign, found.rivals) == (0, [0, 1, 3, 4])


def test_nothing_is_proved_where_a_row_is_not_finite() -> None:
    W = np.eye(4)
    W[2, 1] = math.nan
    built = build_model(W, "rmsnorm").readout
    margins = Margins(System(built, FREE, 0, 4), BatchFilter(built.unembedding, None, 4))
    with pytest.raises(ModelUnavailableError, match="NaN or infinity"):
        margins.at([0], [State((1, 0, 0, 0), 0)], [False])


@pytest.mark.parametrize("entry", [1e200, 1e280])
def test_norms_beyond_the_floats_return_every_row(entry: float) -> None:
    """F64: |row|^2 overflows, or the size is not below 2^900."""
    W = tensor("t", [[entry, 1], [1, 2], [3, 4]], "F64")
    (found,) = BatchFilter(W, None, 3).compare([1], [[1, 1]], [1])
    assert (found.sign, found.rivals) == (0, [0, 2])
    (found,) = BatchFilter(tensor("t", [[2.0**125, 1], [1, 2], [3, 4]]), None, 3).compare([1], [[1, 1]], [1])
    assert (found.sign, found.rivals) == (0, [0, 2])


def test_rows_too_wide_for_the_bound_return_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_module, "_MAX_WIDTH", 1)
    (found,) = BatchFilter(tensor("t", [[1, 1], [1, 2], [3, 4]]), None, 3).compare([1], [[1, 1]], [1])
    assert (found.sign, found.rivals) == (0, [0, 2])


def test_clear_cases_leave_one_row_and_have_a_sign() -> None:
    """Guard of this file: the filter does filter."""
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        W = tensor("t", rng.normal(size=(200, 32)), dtype)
        states = [[int(v * 2**40) for v in rng.normal(size=32)] for _ in range(20)]
        found = BatchFilter(W, None, 200).compare(list(range(20)), states, [1] * 20)
        assert all(x.sign and len(x.rivals) == 1 for x in found)
        long = [[(x << 4000) - 1 for x in state] for state in states]
        assert BatchFilter(W, None, 200).compare(list(range(20)), long, [1] * 20) == found
    assert BatchFilter(W, None, 200).compare([], [], []) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_threshold_is_rounded_down(dtype: type[np.floating]) -> None:
    """`_below` is at most top - 2 error, as an exact number."""
    rng = random.Random(2)
    for _ in range(300):
        top, error = rng.uniform(-9, 9), rng.choice((0.0, rng.random() * 1e-9, rng.random()))
        bound = Fraction(top) - 2 * Fraction(error)
        assert Fraction(float(_below(top, error, np.dtype(dtype)))) <= bound


def test_a_sign_is_given_only_outside_the_error() -> None:
    assert [_sign(x, 1.0, 0.0, 0.0) for x in (-3.0, -2.0, 0.0, 2.0, 3.0)] == [-1, 0, 0, 0, 1]
    assert _sign(2.0, 1.0, 2.0, 0.0) == 0
    assert _sign(2.0**-40, 0.0, 2.0**20, 2.0**20) == 0


DOMAINS = [READOUT, FREE, DIRECTION, parse_domain("box:1"), parse_domain("box:0.5")]


def readouts() -> list[Readout]:
    rng = np.random.default_rng(7)
    out = []
    for norm in ("layernorm", "rmsnorm", "none"):
        for rest in (False, True):
            W = rng.integers(-6, 7, (12, 5)) / 4
            W[7] = W[3]
            extra: dict[str, Any] = {}
            if rest:
                bias = np.round(rng.normal(size=12) * 8) / 64
                bias[7] = bias[3]
                extra["gain"] = rng.integers(1, 9, 5) / 4
                extra["shift"] = rng.integers(-3, 4, 5) / 8
                extra["bias"] = bias
            out.append(build_model(W, norm, **extra).readout)
    return out


def batch(system: System) -> BatchFilter:
    readout = system.readout
    return BatchFilter(readout.unembedding, readout.bias if system.biased else None, system.count)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda x: x.name)
@pytest.mark.parametrize("count", [12, 9])
def test_margins_agree_with_those_of_one_state(domain: Domain, count: int) -> None:
    """Theorems 4 and 15: the same margin, rivals and sign as `state_margin`."""
    rng = random.Random(domain.name)
    for readout in readouts():
        system = System(readout, domain, 0, count)
        margins = Margins(system, batch(system))
        tokens = list(range(12))
        states = [State(tuple(rng.randint(-8, 8) for _ in range(5)), 5) for _ in tokens]
        states[0] = State((0,) * 5, 0)
        full = margins.at(tokens, states, [True] * 12)
        brief = margins.at(tokens, states, [False] * 12)
        for t, state, a, b in zip(tokens, states, full, brief, strict=True):
            margin, nearest = state_margin(System(readout, domain, t, count), state)
            assert (a.margin, a.nearest) == (margin, nearest)
            assert a.sign == b.sign == (margin > 0) - (margin < 0)
            assert b.margin in (0, margin)


def test_a_state_outside_is_refused_and_the_token_named() -> None:
    readout = readouts()[0]
    for domain, word in ((READOUT, "norm's image"), (DOMAINS[3], "leaves the box")):
        system = System(readout, domain, 0, 12)
        with pytest.raises(RefutedError, match=f"token 4: .*{word}"):
            Margins(system, batch(system)).at([4], [State((9, 0, 0, 0, -9), 0)], [True])


def test_without_competitors_there_is_no_margin() -> None:
    readout = build_model([[math.inf, 1.0]], "none").readout
    for W in (readout, build_model([[1.0, 1.0]], "none").readout):
        system = System(W, FREE, 0, 1)
        for asked in (False, True):
            with pytest.raises(RefutedError, match="no competitors"):
                Margins(system, batch(system)).at([0], [State((1, 1), 0)], [asked])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3), (40, 1), (7,), (3, 2, 2)])
def test_column_sums_are_those_of_fractions(dtype: str, shape: tuple[int, ...]) -> None:
    """Theorem 16, item 1: exact, with subnormal and the largest values, zeros of both signs."""
    rng = random.Random(1)
    top = (1 << LAYOUT[dtype][0]) - 2
    sign = 1 << (8 * itemsize(dtype) - 1)
    for low, high in ((0, 0), (0, top), (top, top), middle(dtype)):
        bits = random_bits(rng, dtype, shape, low, high)
        bits.flat[0], bits.flat[-1] = sign, 0
        values = bits_tensor(bits.reshape(shape[0], -1), dtype)
        rows = as_float64(values, 0, shape[0]).tolist()
        unit = Fraction(2) ** unit_exponent(dtype)
        sums = bits_tensor(bits, dtype).column_sums()
        assert [x * unit for x in sums] == [sum(map(Fraction, c)) for c in zip(*rows, strict=True)]
        assert all(type(x) is int for x in sums)


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sums_over_several_blocks(dtype: str) -> None:
    wide = 1 << 19  # two rows a block
    bits = np.zeros((5, wide), np.uint64)
    bits[:, 0] = [1, 2, 3, 4, 5]
    bits[:, -1] = np.uint64((1 << (8 * itemsize(dtype) - 1)) | 7)
    sums = bits_tensor(bits, dtype).column_sums()
    assert (sums[0], sums[-1], any(sums[1:-1])) == (15, -35, False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["nan", "inf", "-inf"])
def test_column_sums_of_what_is_not_finite(dtype: str, kind: str) -> None:
    bits = np.zeros((4, 2), np.uint64)
    bits[3, 1] = special(dtype, kind)
    with pytest.raises(ModelUnavailableError, match="NaN or infinity"):
        bits_tensor(bits, dtype).column_sums()


def folded(readout: Readout) -> list[list[Fraction]]:
    """Rows times gain, as fractions."""
    W = as_float64(readout.unembedding, 0, readout.vocabulary).tolist()
    gain = [1.0] * readout.d
    if readout.gain is not None:
        gain = as_float64(readout.gain, 0, readout.d).tolist()
    return [[Fraction(w) * Fraction(g) for w, g in zip(row, gain, strict=True)] for row in W]


@pytest.mark.parametrize("count", [12, 9])
def test_hard_to_speak_is_what_the_post_says(count: int) -> None:
    """Theorem 16, item 4: the token is the one argmax at its own vector, on the centred folded matrix."""
    seen = set()
    for readout in readouts():
        rows = folded(readout)
        mean = [sum(c) / 12 for c in zip(*rows, strict=True)]
        A = [[x - y for x, y in zip(row, mean, strict=True)] for row in rows]
        if readout.norm == "layernorm":
            A = [[x - sum(row) / 5 for x in row] for row in A]
        system = System(readout, DIRECTION, 0, count)
        own = OwnStates(system, readout.unembedding.column_sums(), 10)
        directions = [own.direction(row) for row in readout.unembedding.integers(range(12))]
        for m in (1, 5):
            states = [own.state(x, m) for x in directions]
            found = Margins(system, batch(system)).at(list(range(12)), states, [False] * 12)
            for t, standing in enumerate(found):
                dots = [sum(x * y for x, y in zip(A[t], A[j], strict=True)) for j in range(count)]
                square = sum(x * x for x in A[t])
                leads = all(square > dots[j] for j in range(count) if j != t)
                assert (standing.sign > 0) == leads
                seen.add(leads)
    assert seen == {False, True}


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda x: x.name)
@pytest.mark.parametrize("grid", [0, 6, 30, 200])
def test_there_is_one_scale_and_its_state_is_inside(domain: Domain, grid: int) -> None:
    """Theorem 16, items 1 to 3: a_t - mean up to a factor; one m; the state is inside, and nearly full."""
    for readout in readouts():
        system = System(readout, domain, 0, 12)
        own = OwnStates(system, readout.unembedding.column_sums(), grid)
        rows = folded(readout)
        mean = [sum(c) / 12 for c in zip(*rows, strict=True)]
        unit, once = system.direction_unit, System(readout, READOUT, 0, 12).direction_unit
        gain_unit = Fraction(2) ** (unit - once)
        factor = 12 / Fraction(2) ** once
        for t, row in enumerate(readout.unembedding.integers(range(12))):
            q = own.direction(row)
            expected = [(x - y) * factor for x, y in zip(rows[t], mean, strict=True)]
            if readout.norm == "layernorm" and domain.kind in ("box", "free"):
                expected = [5 * x - sum(expected) for x in expected]
            if domain.kind == "free":
                expected = [x * g / gain_unit for x, g in zip(expected, gain_of(readout), strict=True)]
            assert q == expected
            m = largest(own, q)
            right = [m] if m >= 1 << 10 or not any(q) else []
            assert [x for x in range(max(m - 5, -9), m + 6) if own.is_scale(q, x)] == right
            assert not own.is_scale(q, -1)
            assert not own.is_scale(q, 2 * m + 7)
            standing = Margins(system, batch(system)).at([t], [own.state(q, m)], [True])
            assert standing[0].margin == state_margin(System(readout, domain, t, 12), own.state(q, m))[0]


def gain_of(readout: Readout) -> list[Fraction]:
    if readout.gain is None:
        return [Fraction(1)] * readout.d
    return [Fraction(x) + readout.gain_offset for x in as_float64(readout.gain, 0, readout.d).tolist()]


def fits(own: OwnStates, direction: list[int], m: int) -> bool:
    a, b, n = own.room(direction)
    inside: bool = a * m**n <= b
    return inside


def largest(own: OwnStates, q: list[int]) -> int:
    """By bisection; by the definition of the theorem in fractions at the end."""
    low, high = 0, 1
    while fits(own, q, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle_ = (low + high) // 2
        low, high = (middle_, high) if fits(own, q, middle_) else (low, middle_)
    system, share = own.system, Fraction(1023, 1024)
    for m in (low, low + 1):
        z = [Fraction(m * x, 1 << own.grid) for x in q]
        if system.region == "box":
            inside = max(map(abs, z)) <= share * system.domain.bound
        else:
            if system.projects:
                z = [5 * x - sum(z) for x in z]
            inside = sum(x * x for x in z) <= share * 5
        assert inside == (m == low)
    return low


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda x: x.name)
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_a_direction_of_zero_has_scale_zero(domain: Domain, norm: str) -> None:
    """A row that is the mean row, or differs from it by a multiple of (1, ..., 1) that P takes away."""
    W = [[1, 0, 2], [-1, 0, -2], [0, 0, 0], [3, 3, 3], [-3, -3, -3]]
    readout = build_model(W, norm).readout
    system = System(readout, domain, 0, 5)
    own = OwnStates(system, readout.unembedding.column_sums(), 8)
    rows = readout.unembedding.integers([2, 3])
    zero = [own.direction(rows[0])]
    if system.projects:
        zero.append(own.direction(rows[1]))
    for q in zero:
        assert [m for m in range(-2, 5) if own.is_scale(q, m)] == [0]


def test_a_system_of_another_token_is_the_same_but_for_the_token() -> None:
    readout = readouts()[1]
    system = System(readout, READOUT, 0, 12)
    other = system.of(5)
    assert (system.token, other.token) == (0, 5)
    assert other.differences([1, 2]) == System(readout, READOUT, 5, 12).differences([1, 2])

"""Theorem 2: `possible_maximisers` never drops a row that attains the maximum, whatever the floats do.

Compared with exact fractions on inputs built to sit where rounding decides: ties within one unit in the
last place, cancellation, subnormal and largest values, wide rows, overflow, NaN.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from built_models import model as build_model

from verify.errors import ModelUnavailableError
from verify.kernel import DIRECTION, FREE, READOUT, Multipliers, Readout, Residual, State, System, Tensor
from verify.kernel.check import combine, residual_margin, state_margin
from verify.kernel.filter import as_float64, possible_maximisers
from verify.kernel.tensor import DTYPES, itemsize

# dtype -> (exponent bits, mantissa bits)
LAYOUT = {"F16": (5, 10), "BF16": (8, 7), "F32": (8, 23), "F64": (11, 52)}
Case = tuple[Tensor, Tensor | None, list[int], int, int]


def bits_tensor(bits: np.ndarray, dtype: str) -> Tensor:
    return Tensor("t", dtype, bits.astype(f"<u{itemsize(dtype)}"))


def random_bits(rng: random.Random, dtype: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Finite bit patterns with biased exponents in [low, high], all mantissas and signs."""
    e, m = LAYOUT[dtype]
    top = (1 << e) - 2
    flat = [
        (rng.getrandbits(1) << (e + m)) | (rng.randint(max(low, 0), min(high, top)) << m) | rng.getrandbits(m)
        for _ in range(math.prod(shape))
    ]
    return np.array(flat, dtype=np.uint64).reshape(shape)


def exact_maximisers(case: Case, count: int, token: int, change: list[int], s_change: int) -> set[int]:
    """Rows that attain the maximum exactly, with the state moved by `change` and s by `s_change` units."""
    matrix, bias, state, s, _ = case
    rows = as_float64(matrix, 0, count).tolist()
    biases = [0.0] * count if bias is None else as_float64(bias, 0, count).tolist()
    g = [x + y for x, y in zip(state, change, strict=True)]
    values = {
        j: sum(Fraction(w) * x for w, x in zip(rows[j], g, strict=True))
        + Fraction(biases[j]) * (s + s_change)
        for j in range(count)
        if j != token
    }
    top = max(values.values())
    return {j for j, value in values.items() if value == top}


def agree(case: Case, slack: int = 0, count: int | None = None, token: int = 0, seed: int = 0) -> int:
    """Every exact maximiser, for several states within `slack`, is returned. How many rows are."""
    matrix, bias, state, s, unit = case
    count = count or matrix.shape[0]
    found = possible_maximisers(matrix, bias, state, s, unit, count, token, slack=slack)
    assert found == sorted(set(found))
    assert token not in found
    assert all(0 <= j < count for j in found)
    rng = random.Random(seed)
    for _ in range(4 if slack else 1):
        change = [rng.choice((-slack, slack, 0)) for _ in state]
        assert exact_maximisers(case, count, token, change, rng.choice((-slack, slack))) <= set(found)
    return len(found)


def moderate(dtype: str) -> tuple[int, int]:
    middle = (1 << (LAYOUT[dtype][0] - 1)) - 1
    return middle - 4, middle + 2


def cases(dtype: str, seed: int) -> Iterator[Case]:
    """One case of each hostile kind."""
    rng = random.Random(f"{dtype}{seed}")
    V, d = rng.randint(2, 40), rng.choice((1, 2, 3, 8, 65))
    middle = moderate(dtype)
    top = (1 << LAYOUT[dtype][0]) - 2
    state = [rng.getrandbits(53) - (1 << 52) for _ in range(d)]
    # ties up to one unit in the last place of one entry
    base = random_bits(rng, dtype, (1, d), *middle)
    near = np.repeat(base, V, axis=0)
    for row in near:
        row[rng.randrange(d)] ^= np.uint64(rng.randint(0, 1))
    yield bits_tensor(near, dtype), None, state, 1 << 50, -50
    # cancellation: every row is w and -w on the two halves, up to the last bit
    half = random_bits(rng, dtype, (V, d), *middle)
    sign = np.uint64(1 << (8 * itemsize(dtype) - 1))
    cancelling = np.hstack([half, (half ^ sign) ^ np.uint64(rng.randint(0, 1)), near])
    yield bits_tensor(cancelling, dtype), None, [*state, *state, *state], 1 << 50, -50
    # subnormals, the largest values, and all exponents at once; state from tiny to huge
    for low, high in ((0, 0), (top, top), (0, top)):
        bits = random_bits(rng, dtype, (V, d), low, high)
        bias = bits_tensor(random_bits(rng, dtype, (V,), low, high), dtype)
        for unit in (-1000, -300, -52, 0, 200, 900):
            yield bits_tensor(bits, dtype), rng.choice((None, bias)), state, 1 << rng.randint(0, 60), unit
    # a bias that undoes the product
    W = random_bits(rng, dtype, (V, 1), *middle)
    yield bits_tensor(W, dtype), bits_tensor(W[:, 0] ^ sign, dtype), [(1 << 60) + 1], 1 << 60, -60
    # integers far beyond floats, brought back by the unit or not
    long = [rng.getrandbits(3000) - (1 << 2999) for _ in range(d)]
    for unit in (-3000, -2990, 0):
        yield bits_tensor(near, dtype), None, long, 1 << 2999, unit
    # nothing but zeros, and zeros of both signs
    yield bits_tensor(np.zeros((V, d), np.uint64), dtype), None, state, 1, 0
    yield bits_tensor(near & np.uint64(0) | sign, dtype), None, [0] * d, 1, 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(12))
def test_no_true_maximiser_is_dropped(dtype: str, seed: int) -> None:
    for case in cases(dtype, seed):
        V = case[0].shape[0]
        for token in (0, V - 1):
            agree(case, token=token, seed=seed)
        if V > 3:
            agree(case, count=V - 1, token=1, seed=seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slack", [1, 1 << 20, 1 << 49])
def test_no_row_is_dropped_that_is_a_maximiser_within_the_slack(dtype: str, slack: int) -> None:
    """g_i and s known to within slack * 2^unit: a row on top for some such g and s is returned."""
    for seed in range(6):
        for case in cases(dtype, seed):
            agree(case, slack=slack, seed=seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1000, 4096])
def test_wide_rows_where_summation_errors_add_up(dtype: str, d: int) -> None:
    rng = random.Random(d)
    bits = random_bits(rng, dtype, (6, d), *moderate(dtype))
    bits[1:] = bits[0]
    for j in range(1, 6):
        bits[j, rng.randrange(d)] ^= np.uint64(1)
    state = [rng.getrandbits(50) - (1 << 49) for _ in range(d)]
    agree((bits_tensor(bits, dtype), None, state, 1, -40))
    agree((bits_tensor(bits, dtype), None, state, 1, -40), slack=3)


def test_a_sum_whose_float_is_wrong_keeps_the_true_maximiser() -> None:
    """2^53 + 1 - 2^53 is 1, and 0 in floats summed from the left; the other row has 1/2 in both."""
    W = np.array([[0, 0, 0], [2.0**53, 1.0, -(2.0**53)], [0, 0.5, 0], [-(2.0**53), 1.0, 2.0**53]])
    found = possible_maximisers(Tensor("t", "F64", W.view("<u8")), None, [1, 1, 1], 1, 0, 4, 0)
    assert {1, 3} <= set(found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [0, 4])
@pytest.mark.parametrize("kind", ["nan", "inf", "-inf"])
def test_nan_and_infinity_return_every_row(dtype: str, row: int, kind: str) -> None:
    bits = random_bits(random.Random(0), dtype, (5, 3), *moderate(dtype))
    bits[row, 1] = special(dtype, kind)
    for state in ([1, 2, 3], [0, 0, 0], [0, -1, 0]):
        assert possible_maximisers(bits_tensor(bits, dtype), None, state, 1, 0, 5, 2) == [0, 1, 3, 4]


def special(dtype: str, kind: str) -> int:
    e, m = LAYOUT[dtype]
    return ((1 << e) - 1) << m | (kind == "nan") | (int(kind == "-inf") << (e + m))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_nothing_is_proved_of_a_token_whose_own_row_is_not_finite(dtype: str, kind: str) -> None:
    bits = random_bits(random.Random(0), dtype, (5, 3), *moderate(dtype))
    bits[2, 1] = special(dtype, kind)
    readout = Readout("rmsnorm", bits_tensor(bits, dtype), epsilon=Fraction(1, 10))
    for domain in (READOUT, DIRECTION, FREE):
        system = System(readout, domain, 2, 5)
        with pytest.raises(ModelUnavailableError, match="NaN or infinity"):
            state_margin(system, State((1, 2, 3), 4))
        with pytest.raises(ModelUnavailableError, match="NaN or infinity"):
            combine(system, Multipliers((0, 1), (1, 1)))
    with pytest.raises(ModelUnavailableError, match="NaN or infinity"):
        residual_margin(System(readout, READOUT, 2, 5), Residual((1, 2, 3), 0, "F32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_the_row_of_the_token_returns_every_row(dtype: str) -> None:
    bits = random_bits(random.Random(0), dtype, (5, 3), *moderate(dtype))
    bits[2, 1] = special(dtype, "nan")
    assert possible_maximisers(bits_tensor(bits, dtype), None, [1, 2, 3], 1, 0, 5, 2) == [0, 1, 3, 4]


def test_nan_in_the_bias_returns_every_row() -> None:
    W, c = np.eye(4), np.array([0.0, np.nan, 0.0, 0.0])
    for s in (0, 1):
        found = possible_maximisers(
            Tensor("t", "F64", W.view("<u8")), Tensor("c", "F64", c.view("<u8")), [1, 2, 3, 4], s, 0, 4, 3
        )
        assert found == [0, 1, 2]


@pytest.mark.parametrize(("state", "unit"), [([1 << 2000], 0), ([1], 1024), ([1 << 1023, 1 << 1023], 0)])
def test_overflow_returns_every_row(state: list[int], unit: int) -> None:
    W = np.array([[1.0] * len(state), [2.0] * len(state), [3.0] * len(state)])
    found = possible_maximisers(Tensor("t", "F64", W.view("<u8")), None, state, 1, unit, 3, 2)
    assert found == [0, 1]


def test_overflow_of_partial_sums_keeps_the_true_maximiser() -> None:
    big = 1.7e308
    W = np.array([[0, 0, 0], [big, big, -big], [-big, big, big], [-big, -big, big], [1, 0, 0]])
    agree((Tensor("t", "F64", W.view("<u8")), None, [1, 1, 1], 1, 0))
    agree((Tensor("t", "F64", W.view("<u8")), None, [1, 1, 1], 1, -1))


def test_a_token_beyond_the_competitors_is_no_row_of_theirs() -> None:
    W = np.diag([1.0, 2.0, 3.0, 4.0])
    assert possible_maximisers(Tensor("t", "F64", W.view("<u8")), None, [1, 1, 1, 1], 1, 0, 2, 3) == [1]


def test_clear_cases_leave_one_row() -> None:
    """Guard of this file: the filter does filter, so the comparisons above are not idle."""
    rng = np.random.default_rng(0)
    for dtype in ("F64", "F32"):
        W = rng.normal(size=(500, 64))
        x = W.astype("<f8").view("<u8") if dtype == "F64" else W.astype("<f4").view("<u4")
        case = (Tensor("t", dtype, x), None, [int(v * 2**40) for v in rng.normal(size=64)], 1, -40)
        assert agree(case) == 1
        assert agree(case, slack=1 << 10) == 1
        assert agree(case, slack=1 << 45) == 499


# The state (3, 5) 2^-1075 rounds to a multiple of (1, 1); row 2 is above the token there, row 1 is not.
UNDERFLOW = np.array([[0, 0], [1, -0.75], [-1, 1]])


@pytest.mark.parametrize(("dtype", "scale"), [("F32", 2.0**127), ("BF16", 2.0**127), ("F64", 2.0**1000)])
@pytest.mark.parametrize("domain", [DIRECTION, FREE, READOUT], ids=lambda x: x.name)
def test_states_below_the_floats_do_not_mislead_the_kernel(dtype: str, scale: float, domain: object) -> None:
    for k in range(1015, 1085, 3):
        for p in ((3, 5), (1, 2), (7, 9), (1, 1)):
            built = build_model(UNDERFLOW * scale, "rmsnorm", dtype=dtype)
            margin, rivals = state_margin(System(built.readout, domain, 0, 3), State(p, k))  # type: ignore[arg-type]
            logits = [Fraction(a * scale) * p[0] + Fraction(b * scale) * p[1] for a, b in UNDERFLOW.tolist()]
            assert margin == -max(logits[1:]) / (1 << k)
            assert all(logits[j] == max(logits[1:]) for j in rivals)


def test_a_state_that_underflows_drops_no_true_maximiser() -> None:
    W = (UNDERFLOW * 2.0**127).astype("<f4")
    agree((Tensor("t", "F32", W.view("<u4")), None, [3, 5], 0, -1075))

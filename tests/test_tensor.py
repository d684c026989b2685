"""Stored bytes become exact integers: every half-precision pattern, random single and double ones."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest

from verify.errors import ModelUnavailableError
from verify.kernel.tensor import DTYPES, Tensor, itemsize, unit_exponent


def values(tensor: Tensor) -> list[Fraction]:
    unit = Fraction(2) ** unit_exponent(tensor.dtype)
    return [integer * unit for integer in tensor.vector()]


def from_numpy(values: np.ndarray, dtype: str) -> Tensor:
    return Tensor("t", dtype, values.view(f"<u{itemsize(dtype)}"))


def test_every_finite_float16_pattern() -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    finite = bits[np.isfinite(bits.view(np.float16))]
    assert finite.size == (1 << 16) - (1 << 11)
    expected = [Fraction(float(x)) for x in finite.view(np.float16)]
    assert values(Tensor("t", "F16", finite)) == expected


def test_every_finite_bfloat16_pattern() -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    single = (bits.astype("<u4") << 16).view(np.float32)
    finite = bits[np.isfinite(single)]
    assert finite.size == (1 << 16) - (1 << 8)
    expected = [Fraction(float(x)) for x in single[np.isfinite(single)]]
    assert values(Tensor("t", "BF16", finite)) == expected


@pytest.mark.parametrize(("dtype", "mantissa"), [("F32", 23), ("F64", 52)])
def test_random_and_extreme_single_and_double_values(dtype: str, mantissa: int) -> None:
    rng = np.random.default_rng(0)
    size = itemsize(dtype)
    bits = np.frombuffer(rng.bytes(4000 * size), dtype=f"<u{size}").copy()
    subnormal = bits[:500] & ((1 << mantissa) - 1)
    sign = bits.dtype.type(1 << (8 * size - 1))
    extremes = np.array([0, 1, (1 << mantissa) - 1, 1 << mantissa], dtype=bits.dtype)
    bits = np.concatenate([bits, subnormal, subnormal | sign, extremes, extremes | sign])
    floats = bits.view(f"<f{size}")
    bits = bits[np.isfinite(floats)]
    assert values(Tensor("t", dtype, bits)) == [Fraction(float(x)) for x in bits.view(f"<f{size}")]


@pytest.mark.parametrize("dtype", DTYPES)
def test_largest_and_smallest_values_have_the_announced_unit(dtype: str) -> None:
    one = np.array([1], dtype=f"<u{itemsize(dtype)}")
    assert Tensor("t", dtype, one).vector() == [1]


def test_integers_picks_rows_in_the_order_asked() -> None:
    matrix = from_numpy(np.array([[1, 2], [3, 4], [5, -6]], np.float32), "F32")
    unit = 1 << -unit_exponent("F32")
    assert matrix.integers([2, 0]) == [[5 * unit, -6 * unit], [unit, 2 * unit]]
    assert matrix.integers([]) == []
    for row in (-1, 3):
        with pytest.raises(ModelUnavailableError, match="no such row"):
            matrix.integers([row])


def test_negative_zero_is_zero() -> None:
    assert from_numpy(np.array([-0.0, 0.0], np.float64), "F64").vector() == [0, 0]


def test_sha256_is_of_the_bytes_in_row_major_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert from_numpy(array, "F32").sha256 == hashlib.sha256(array.tobytes()).hexdigest()
    strided = Tensor("t", "F32", array.view("<u4")[:, ::2])
    assert strided.sha256 == hashlib.sha256(array[:, ::2].tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_nan_and_infinity_are_refused(dtype: str, bad: str) -> None:
    if dtype == "BF16":
        bits = (np.array([[1, 2], [float(bad), 3]], np.float32).view("<u4") >> 16).astype("<u2")
    else:
        size = itemsize(dtype)
        bits = np.array([[1, 2], [float(bad), 3]], dtype=f"<f{size}").view(f"<u{size}")
    tensor = Tensor("t", dtype, bits)
    with pytest.raises(ModelUnavailableError, match=r"first at \[1, 0\]"):
        tensor.require_finite()
    assert len(tensor.integers([0])) == 1
    with pytest.raises(ModelUnavailableError, match="NaN"):
        tensor.integers([1])


def test_unknown_dtype_and_wrong_width_are_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="I8"):
        Tensor("t", "I8", np.zeros(1, "<u1"))
    with pytest.raises(ModelUnavailableError, match="width"):
        Tensor("t", "F16", np.zeros(1, "<u4"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["any", "alike", "zeros", "one", "widest"])
def test_short_integers_are_the_integers_without_a_power_of_two(dtype: str, case: str) -> None:
    """short * 2**spare == integers, whatever the spread of exponents; alike, the entries are short."""
    rng = np.random.default_rng(5)
    size = itemsize(dtype)
    bits = np.frombuffer(rng.bytes(600 * size), dtype=f"<u{size}").copy()
    if case == "alike":
        wide = rng.normal(0, 1, 600).astype({2: "<f2", 4: "<f4", 8: "<f8"}[size])
        bits = wide.view(f"<u{size}")
    elif case == "zeros":
        bits[:] = 0
    elif case == "one":
        bits[1:] = 0
    elif case == "widest":
        one, top = Tensor("t", dtype, bits[:1]).raw.dtype.type(1), bits.dtype.type((1 << (8 * size - 2)) - 1)
        bits[:2] = one, top
    t = Tensor("t", dtype, bits.reshape(100, 6))
    finite = [i for i in range(100) if is_finite(t, i)]
    for rows in (finite, finite[:1], finite[3:5] * 2, []):
        short, spare = t.short_integers(rows)
        assert [[x << spare for x in row] for row in short] == t.integers(rows)
        entries = [x for row in short for x in row]
        assert all(type(x) is int for x in entries)
        assert case != "alike" or dtype == "BF16" or all(abs(x) < 1 << 80 for x in entries)


def is_finite(t: Tensor, row: int) -> bool:
    try:
        t.integers([row])
    except ModelUnavailableError:
        return False
    return True

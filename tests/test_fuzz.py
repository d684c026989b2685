"""The targets of tests/fuzz.py on inputs of Hypothesis: any bytes, and real files cut, spliced and edited."""

from __future__ import annotations

import pytest
from fuzz import TARGETS, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = {name: list(seeds(name)) for name in TARGETS}
# Pieces that mean something to a reader of JSON, of numbers, or of safetensors.
PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"null",
    b"true",
    b"NaN",
    b"1e9",
    b"1.5",
    b"-",
    b"0",
    b"/",
]
PIECES += [
    b"\n",
    b" ",
    b"\\u0000",
    b"\xff",
    b"9" * 30,
    b"f" * 50,
    b"[" * 500,
    b'{"a":' * 200,
    (1 << 63).to_bytes(8, "little"),
]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str) -> None:
    assert SEEDS[name]
    for data in SEEDS[name]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_end_in_a_declared_error(name: str) -> None:
    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(st.binary(max_size=300))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_edited_files_end_in_a_declared_error(name: str) -> None:
    edits = st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 60), st.sampled_from(PIECES) | st.binary(max_size=8)),
        min_size=1, max_size=4,
    )  # fmt: skip

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(SEEDS[name]), edits)
    def run(data: bytes, changes: list[tuple[float, int, bytes]]) -> None:
        for where, dropped, added in changes:
            start = int(where * len(data))
            data = data[:start] + added + data[start + dropped :]
        TARGETS[name](data)

    run()

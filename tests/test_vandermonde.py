"""Rows on a rounded moment curve: 1000 tokens in R^5 with regions far thinner than any solver's tolerance.

Row i is (1, x, x^2, x^3, x^4) at a point x_i, rounded to the dtype. Before rounding every row is speakable:
the polynomial -(x - x_i)^2 (x^2 + 1) is negative at all other points. How much of that survives the rounding
is for exact arithmetic to say; no token may be left UNDECIDED.
VERIFY_VANDERMONDE_TOKENS: how many tokens of each model and domain (10 by default; 1000 for all of them).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from built_models import model as build_model
from oracle import SmallModel
from test_brute_force import recheck

from verify.decide import Decider
from verify.kernel import parse_domain
from verify.models import Model

V, D = 1000, 5
TOKENS = int(os.environ.get("VERIFY_VANDERMONDE_TOKENS", "10"))
GAIN = [1.0, 2.0, 1.0, 0.5, 1.0]
# Shifts that outweigh the thin regions of some tokens and not of others.
SHIFT = [0.0, 2.0**-19, -(2.0**-17), 2.0**-18, 0.0]


def curve(dtype: str, low: float, high: float) -> np.ndarray:
    """Powers 0..4 of V points, rounded to `dtype`."""
    x = np.linspace(low, high, V)
    powers = np.vander(x, D, increasing=True)
    return powers.astype(np.float32).astype(np.float64) if dtype == "F32" else powers


def oracle_model(built: Model, W: np.ndarray) -> SmallModel:
    """The same numbers as exact fractions."""
    exact = [[Fraction(x) for x in row] for row in W.tolist()]
    gain = [Fraction(x) for x in GAIN] if built.readout.gain is not None else None
    shift = [Fraction(x) for x in SHIFT] if built.readout.shift is not None else None
    return SmallModel(built.readout.norm, exact, gain, shift)


@pytest.mark.parametrize("dtype", ["F32", "F64"])
@pytest.mark.parametrize("interval", [(-1.0, 1.0), (0.0, 1.0), (0.0, 1000.0)])
@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("shifted", [False, True])
def test_every_token_is_decided_and_holds_without_the_kernel(
    dtype: str, interval: tuple[float, float], norm: str, shifted: bool
) -> None:
    W = curve(dtype, *interval)
    built = build_model(W, norm, GAIN if shifted else None, SHIFT if shifted else None, dtype=dtype)
    model, decider = oracle_model(built, W), Decider(built)
    sample = random.Random(f"{dtype}{interval}{norm}{shifted}").sample(range(V), min(TOKENS, V))
    undecided = []
    for domain in ("direction", "readout"):
        for token in sample:
            decision = decider.decide(token, parse_domain(domain))
            if decision.verdict == "UNDECIDED":
                undecided.append(f"token {token} in {domain}: {decision.reason}")
            else:
                recheck(decision, model)
    assert not undecided, "\n".join(undecided)


def test_unbiased_directions_and_readouts_agree() -> None:
    """Without biases all e_j = 0, so `readout` and `direction` agree: a cone has no scale."""
    for dtype in ("F32", "F64"):
        W = curve(dtype, -1.0, 1.0)
        decider = Decider(build_model(W, "layernorm", dtype=dtype))
        for token in random.Random(dtype).sample(range(V), min(TOKENS, V)):
            verdicts = {decider.decide(token, parse_domain(x)).verdict for x in ("direction", "readout")}
            assert len(verdicts) == 1


def test_rows_between_their_neighbours_are_told_from_rows_above_them() -> None:
    """On a line a row strictly between two others is in their hull; on the parabola it is a vertex.

    Points (x, 0) and (x, x^2): the margins of the second are of the order of the spacing squared.
    """
    x = np.arange(1000) / 1024.0
    for bend, want in ((0.0, {"UNSPEAKABLE"}), (1.0, {"SPEAKABLE"}), (2.0**-24, {"SPEAKABLE"})):
        W = np.column_stack([x, bend * x * x, np.zeros_like(x)])
        decider = Decider(build_model(W, "rmsnorm", dtype="F64"))
        model = SmallModel("rmsnorm", [[Fraction(y) for y in row] for row in W.tolist()])
        found: Counter[str] = Counter()
        for token in random.Random(0).sample(range(1, 999), min(TOKENS, 998)):
            decision = decider.decide(token, parse_domain("readout"))
            found[decision.verdict] += 1
            recheck(decision, model)
        assert set(found) == want

"""Where float64 cannot hold the rows: the 320-bit proposer, and floats that are wrong about it."""

from __future__ import annotations

import numpy as np
import pytest
from built_models import model

from verify.decide import Decider
from verify.kernel import READOUT, Speakable, from_bytes, parse_domain, prove


@pytest.mark.parametrize("flatness", [28, 36, 44])
@pytest.mark.parametrize("domain", ["readout", "direction"])
def test_every_point_of_a_nearly_straight_line_is_speakable(flatness: int, domain: str) -> None:
    """Rows (x, 2^-k x^2) lie on a strictly convex curve: each is a vertex of the hull, however flat it is."""
    x = np.arange(1000) / 1024
    bent = model(np.column_stack([x, 2.0**-flatness * x * x, 0 * x]), "rmsnorm", dtype="F64")
    decider = Decider(bent)
    for token in (3, 997):
        decision = decider.decide(token, parse_domain(domain))
        assert decision.verdict == "SPEAKABLE"
        prove(from_bytes(decision.certificate), bent.readout)


def test_floats_that_see_a_tie_are_overruled_by_a_witness() -> None:
    """Rows of size 2^-60 beside biases of 1: float methods see a tie, exact arithmetic a witness."""
    W = [[0, -(2.0**-60)], [-(2.0**-60), 0]]
    tiny = model(W, "layernorm", bias=[-1, -1], dtype="F64")
    decision = Decider(tiny).decide(0, parse_domain("box:1"))
    assert decision.verdict == "SPEAKABLE"
    assert isinstance(decision.claim, Speakable)
    assert decision.maximised
    assert decision.attempts[-1].proposer == "precise"
    assert not any("witness, margin" in a.found for a in decision.attempts[:-1])


@pytest.mark.parametrize("proposer", ["interior", "nnls", "pulp"])
def test_floats_alone_do_not_decide_it_wrongly(proposer: str) -> None:
    x = np.arange(200) / 256
    bent = model(np.column_stack([x, 2.0**-44 * x * x, 0 * x]), "rmsnorm", dtype="F64")
    assert Decider(bent, proposer=proposer).decide(7, READOUT).verdict in ("SPEAKABLE", "UNDECIDED")

"""Which vector stands for a witness, by domain; how a token stands at it, against fractions and floats."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from built_models import model

from verify.kernel import Readout, Residual, Speakable, State, System, parse_domain
from verify.witness import HEAD, NORM, Vector, lead, vectors

W = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]]
GAIN, SHIFT, BIAS = [1, 2, 0.5], [0.25, 0, -1], [0, 0.5, 0, 0]


def built(norm: str, epsilon: Fraction = Fraction(1, 100)) -> Readout:
    shift = SHIFT if norm == "layernorm" else None
    return model(W, norm, None if norm == "none" else GAIN, shift, BIAS, epsilon=epsilon).readout


def one(readout: Readout, domain: str, p: tuple[int, ...], k: int = 0) -> Vector:
    system = System(readout, parse_domain(domain), 0, 4)
    (found,) = vectors(system, Speakable(Fraction(1), State(p, k)))
    return found


def normed(readout: Readout, r: list[float]) -> np.ndarray:
    """N(r) in floats."""
    y = np.array(r) - (np.mean(r) if readout.norm == "layernorm" else 0)
    return np.asarray(y / np.sqrt(np.mean(y * y) + float(readout.epsilon)))


@pytest.mark.parametrize(
    ("norm", "domain", "p", "k", "z"),
    [
        ("layernorm", "readout", (1, -1, 0), 2, [0.75, -0.75, 0]),  # d p - sum(p)
        ("layernorm", "box:3", (3, 1, 2), 0, [1, -1, 0]),  # P x
        ("rmsnorm", "readout", (2, 1, 0), 1, [1, 0.5, 0]),
        ("rmsnorm", "box:3", (2, 1, 0), 1, [1, 0.5, 0]),
    ],
)
def test_the_norm_gives_the_state_back(
    norm: str, domain: str, p: tuple[int, ...], k: int, z: list[float]
) -> None:
    readout = built(norm)
    found = one(readout, domain, p, k)
    assert found.place == NORM
    assert np.allclose(normed(readout, found.values), z, rtol=1e-12, atol=1e-15)


def test_a_direction_keeps_its_direction_at_full_length() -> None:
    for epsilon in (Fraction(1, 10**5), Fraction(4)):
        found = one(built("rmsnorm", epsilon), "direction", (3, 0, 4), 40)
        z = normed(built("rmsnorm", epsilon), found.values)
        assert found.place == NORM
        assert np.allclose(z / np.linalg.norm(z), [0.6, 0, 0.8])
        assert 0.999 < z @ z / 3 < 1


def test_what_no_residual_vector_gives_goes_to_the_unembedding() -> None:
    far = one(built("rmsnorm"), "box:3", (3, 0, -3))
    assert (far.place, far.values) == (HEAD, [3.0, 0.0, -1.5])
    far = one(built("layernorm"), "box:3", (3, 0, -3))
    assert (far.place, far.values) == (HEAD, [3.25, 0.0, -2.5])
    free = one(built("layernorm"), "free", (3, 0, -3), 1)
    assert (free.place, free.values) == (HEAD, [1.5, 0.0, -1.5])
    plain = one(built("none"), "readout", (3, 0, -3), 1)
    assert (plain.place, plain.values) == (HEAD, [1.5, 0.0, -1.5])
    claim = Speakable(Fraction(1), None, Residual((3, 0, -3), 1, "F16"))
    (found,) = vectors(System(built("none"), parse_domain("readout"), 0, 4), claim)
    assert (found.place, found.values) == (HEAD, [1.5, 0.0, -1.5])


def test_both_witnesses_the_residual_vector_first() -> None:
    claim = Speakable(Fraction(1), State((1, -1, 0), 3), Residual((9, 1, -2), 2, "F16"))
    first, second = vectors(System(built("layernorm"), parse_domain("readout"), 0, 4), claim)
    assert (first.place, first.values) == (NORM, [2.25, 0.25, -0.5])
    assert "F16" in first.source
    assert second.place == NORM


def test_how_a_token_stands_is_exact() -> None:
    system = System(built("layernorm"), parse_domain("direction"), 0, 4)
    at_head = lead(system, [2.0, 0.25, -1.0], HEAD)
    assert (at_head.there, at_head.margin) == (True, Fraction(5, 4))  # 2 against 0.25 + 0.5
    tied = lead(system, [1.0, 0.5, -1.0], HEAD)
    assert (tied.there, tied.margin, tied.words) == (False, Fraction(0), "it ties with row 1")
    behind = lead(system, [1.0, 0.75, -1.0], HEAD)
    assert (behind.there, behind.margin) == (False, Fraction(-1, 4))
    assert "row 1 is 0.25 logits above it" in behind.words
    r = [2.0, -1.0, -1.0]
    logits = np.array(W) @ (np.array(GAIN) * normed(system.readout, r) + SHIFT) + BIAS
    at_norm = lead(system, r, NORM)
    assert at_norm.there
    assert at_norm.margin is not None
    assert float(at_norm.margin) == pytest.approx(logits[0] - max(logits[1:]))
    lost = lead(system, [-1.0, 2.0, -1.0], NORM)
    assert (lost.there, lost.margin) == (False, None)

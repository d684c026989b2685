"""The reflections of a scan: what they propose speaks the token, and they keep away from thin witnesses."""

from __future__ import annotations

import numpy as np
import pytest
from built_models import model as built

from verify.decide import Decider
from verify.kernel import DIRECTION, FREE, READOUT, Domain
from verify.propose.problem import Problem
from verify.propose.reflection import Reflections

# Row 0 is a member of a cluster and loses at its own direction to row 1, which is longer.
ROWS = np.array([[2.0, 0.5, 0.0], [3.0, 0.4, 0.0], [-2.0, 0.0, 1.0], [0.0, -2.0, -1.0], [-1.0, 0.0, -3.0]])


def problem(rows: np.ndarray, token: int, domain: Domain = DIRECTION) -> Problem:
    decider = Decider(built(rows, "rmsnorm"))
    return Problem(decider.view(domain), token, len(rows), [])


def test_a_token_that_loses_at_its_own_direction_is_reached() -> None:
    p = problem(ROWS, 0)
    assert p.margins(p.own_direction()).min() < 0
    (found,) = Reflections().propose(p)
    assert found.claim == "speakable"
    assert found.state is not None
    assert p.margins(found.state).min() == pytest.approx(found.low)
    assert found.low >= 0.01
    assert np.linalg.norm(found.state) == pytest.approx(np.sqrt(3))


def test_a_token_inside_the_hull_is_not() -> None:
    rows = np.array([[0.1, 0.0], [1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert list(Reflections().propose(problem(rows, 0))) == []


def test_a_thin_witness_is_left_to_others() -> None:
    rows = ROWS.copy()
    rows[1] = rows[0] + [1e-4, -1e-5, 0.0]
    assert list(Reflections().propose(problem(rows, 0))) == []


def test_the_ball_and_a_zero_direction_are_left_to_others() -> None:
    biased = Decider(built(ROWS, "rmsnorm", bias=[0, 1, 2, 3, 4]))
    for domain in (READOUT, FREE):
        assert list(Reflections().propose(Problem(biased.view(domain), 0, 5, []))) == []
    rows = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    assert list(Reflections().propose(problem(rows, 0))) == []


def test_a_neighbour_is_a_second_start() -> None:
    """Where reflections from the own direction fail, what the nearest known token was spoken by is tried."""
    p = problem(ROWS, 0)
    (found,) = Reflections().propose(p)
    assert found.state is not None
    many = Reflections()
    many.remember(1, found.state)
    many.remember(2, np.array([0.0, 0.0, 1.0]))
    many.remember(3, np.zeros(3))
    many.remember(4, np.array([np.nan, 0.0, 0.0]))
    proposals = list(many.propose(p))
    assert [x.effort for x in proposals][1:] == ["0 reflections"]

"""The reflections of a scan: what they propose speaks the token, and they keep away from thin witnesses."""

from __future__ import annotations

import numpy as np
import pytest
from built_models import model as built

from verify.decide import Decider
from verify.kernel import DIRECTION, FREE, READOUT, Domain, parse_domain
from verify.propose import reflection
from verify.propose.problem import Problem
from verify.propose.reflection import ROOM, Reflections, reflect
from verify.scan.run import grid_of
from verify.scan.worker import Question, Worker

Reached = tuple[np.ndarray, float] | None

# Row 0 is a member of a cluster and loses at its own direction to row 1, which is longer.
ROWS = np.array([[2.0, 0.5, 0.0], [3.0, 0.4, 0.0], [-2.0, 0.0, 1.0], [0.0, -2.0, -1.0], [-1.0, 0.0, -3.0]])
# The same, with the token 0 so near to row 1 that no witness has room.
THIN = np.vstack([ROWS[0], ROWS[0] + [1e-4, -1e-5, 0.0], ROWS[2:]])
HULL = np.array([[0.1, 0.0], [1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])


def problem(rows: np.ndarray, token: int, domain: Domain = DIRECTION) -> Problem:
    decider = Decider(built(rows, "rmsnorm"))
    return Problem(decider.view(domain), token, len(rows), [])


def reached(rows: np.ndarray, tokens: list[int], count: int | None = None) -> list[Reached]:
    view = problem(rows, 0).view
    return reflect(view, np.array(tokens), lambda y: (y @ view.rows.T)[:, : count or len(rows)])


def test_tokens_that_lose_at_their_own_direction_are_reached_side_by_side() -> None:
    p = problem(ROWS, 0)
    assert p.margins(p.own_direction()).min() < 0
    for token, found in enumerate(reached(ROWS, [0, 1, 2, 3, 4])):
        assert found is not None
        state, low = found
        assert problem(ROWS, token).margins(state).min() == pytest.approx(low)
        assert low >= ROOM
        assert np.linalg.norm(state) == pytest.approx(np.sqrt(3))


def test_a_token_that_is_no_competitor_meets_only_those_that_are() -> None:
    """With two competitors, the fifth row has to beat the first two alone."""
    (found,) = reached(ROWS, [4], count=2)
    assert found is not None
    state, low = found
    assert ((ROWS[4] - ROWS[:2]) @ state).min() == pytest.approx(low)


def test_a_token_inside_the_hull_is_not_reached() -> None:
    assert reached(HULL, [0]) == [None]


def test_a_thin_witness_is_left_to_others() -> None:
    assert reached(THIN, [0]) == [None]


def test_a_corner_of_a_cluster_is_reached_from_its_direction_away_from_the_others() -> None:
    """A cross-polytope of tiny differences on a long base row: from the own directions there is no way."""
    rng = np.random.default_rng(1)
    d, base = 24, 3.0 * rng.normal(size=24)
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    rows = np.vstack([base + 0.01 * q, base - 0.01 * q, rng.normal(size=(20, d))])
    view, corners = problem(rows, 0).view, np.arange(2 * d)
    found = reflect(view, corners, lambda y: y @ view.rows.T)
    assert sum(x is not None for x in found) > d
    assert all(
        ((rows[t] - np.delete(rows, t, 0)) @ x[0]).min() >= ROOM - 1e-5 for t, x in enumerate(found) if x
    )


def test_a_zero_direction_is_left_to_others() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    assert reached(rows, [0]) == [None]


def test_rounded_logits_cost_proposals_only() -> None:
    """With noise of the size of the logits tokens may be missed; no margin told is below the true one."""
    view, rng = problem(ROWS, 0).view, np.random.default_rng(0)
    noisy = reflect(view, np.arange(5), lambda y: y @ view.rows.T + rng.normal(size=(len(y), 5)))
    for token, found in enumerate(noisy):
        if found is not None:
            rivals = np.delete(ROWS, token, axis=0)
            assert found[1] >= ((ROWS[token] - rivals) @ found[0]).min() - 1e-6


def test_the_oldest_directions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    (own,) = reached(ROWS, [0])
    assert own is not None
    monkeypatch.setattr(reflection, "_KEPT", 2 * own[0].nbytes)
    for forgotten, others in ((False, [2]), (True, [2, 4])):
        many = Reflections()
        for token in (1, *others):
            many.remember(token, own[0] if token == 1 else np.array([0.0, 0.0, 1.0]))
        found = [x.effort for x in many.propose(problem(ROWS, 0))]
        assert (found != ["0 reflections"]) == forgotten


def test_a_neighbours_state_is_a_start() -> None:
    p = problem(ROWS, 0)
    (own,) = reached(ROWS, [0])
    assert own is not None
    many = Reflections()
    assert list(many.propose(p)) == []
    many.remember(1, own[0])
    many.remember(2, np.array([0.0, 0.0, 1.0]))
    many.remember(3, np.zeros(3))
    many.remember(4, np.array([np.nan, 0.0, 0.0]))
    (found,) = many.propose(p)
    assert found.effort == "0 reflections"
    assert found.state is not None
    assert p.margins(found.state).min() == pytest.approx(found.low)
    # From far away it takes reflections; with no way there, and without room, nothing is proposed.
    far = Reflections()
    far.remember(2, ROWS[2])
    (found,) = far.propose(p)
    assert found.effort not in ("", "0 reflections")
    for rows in (HULL, THIN):
        none = Reflections()
        none.remember(1, rows[1])
        assert list(none.propose(problem(rows, 0))) == []


def test_the_ball_is_left_to_others() -> None:
    biased = Decider(built(ROWS, "rmsnorm", bias=[0, 1, 2, 3, 4]))
    many = Reflections()
    many.remember(1, ROWS[1])
    for domain in (READOUT, FREE):
        assert list(many.propose(Problem(biased.view(domain), 0, 5, []))) == []


@pytest.mark.parametrize(
    ("domain", "bias", "reflects"),
    [
        ("direction", None, True),
        ("direction", [0, 1, 2, 3, 4], True),
        ("free", None, True),
        ("free", [0, 1, 2, 3, 4], False),
        ("readout", None, False),
    ],
)
def test_a_worker_reflects_on_cones_alone(domain: str, bias: list[int] | None, reflects: bool) -> None:
    """What it settles is checked by the kernel; rows it does not settle come back as they were."""
    decider = Decider(built(ROWS, "rmsnorm", bias=bias, gain=[1, 2, 1]))
    grid = grid_of(decider, parse_domain(domain))
    question = Question(None, decider.model.readout.fingerprint, domain, "all", grid)
    worker = Worker(question, decider)
    _, rest = worker.own(list(range(5)))
    assert rest
    settled, left = worker.reflect(rest)
    assert bool(settled) == reflects
    assert sorted(row.token for row in settled + left) == sorted(row.token for row in rest)
    worker.views.check(settled + left)
    assert all(row.cls == "hard" and row.witness is not None for row in settled)
    assert all(row in rest for row in left)
    assert worker.reflect([]) == ([], [])

"""Proposers that lie, fail or hand over garbage: the verdict is right, or UNDECIDED with a reason.

Soundness may not rest on a proposer: evidence reaches a verdict only through the kernel.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
from built_models import from_small
from oracle import SmallModel, decide, random_small_model, small
from test_brute_force import DOMAINS, cleared, recheck

from verify.decide import Decider, Decision
from verify.errors import RefutedError
from verify.kernel import Multipliers, Unspeakable, parse_domain
from verify.models import Model
from verify.propose.problem import Problem
from verify.propose.proposal import Proposal

Lie = Callable[[Problem, random.Random], Iterator[Proposal]]
SQUARE = small("rmsnorm", [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 0), (1, 0)])
CORNER, CENTRE, EDGE = 0, 4, 5


class Liar:
    """A proposer that hands over what `lie` makes up."""

    name = "liar"

    def __init__(self, lie: Lie, seed: int = 0) -> None:
        self.lie, self.rng = lie, random.Random(seed)

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        yield from self.lie(problem, self.rng)


def others(p: Problem) -> np.ndarray:
    """Every row but the token's own."""
    return np.array([j for j in range(p.count) if j != p.token])


def normal(rng: random.Random, n: int, scale: float = 1.0) -> np.ndarray:
    return np.array([rng.gauss(0, scale) for _ in range(n)])


def random_evidence(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    """Random states and multipliers, both claims at once."""
    for scale in (1e-9, 1.0, 1e9):
        rows = np.array(rng.sample(others(p).tolist(), rng.randint(1, p.count - 1)))
        weights = np.abs(normal(rng, len(rows)))
        yield Proposal(normal(rng, p.n, scale), rows, weights, 1.0, -1.0, "speakable")
        yield Proposal(None, rows, weights, claim="unspeakable")


def not_numbers(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    for bad in (np.nan, np.inf, -np.inf):
        state = normal(rng, p.n)
        state[rng.randrange(p.n)] = bad
        yield Proposal(state, others(p), np.full(p.count - 1, bad), bad, bad, "speakable")
        yield Proposal(np.full(p.n, bad), others(p), np.ones(p.count - 1), bad, bad, "unspeakable")


def zeros(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    yield Proposal(np.zeros(p.n), others(p), np.zeros(p.count - 1), 1.0, -1.0, "speakable")
    yield Proposal(-np.zeros(p.n), others(p), -np.zeros(p.count - 1), 0.0, 0.0, "unspeakable")


def tiny_negative_entries(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    """The signs that a solver's tolerance lets through."""
    for tiny in (-1e-300, -1e-17, -1e-9, -1e-3):
        weights = np.abs(normal(rng, p.count - 1))
        weights[rng.randrange(p.count - 1)] = tiny
        yield Proposal(None, others(p), weights, high=-1e-12, claim="unspeakable")
        yield Proposal(None, others(p), np.full(p.count - 1, tiny), high=-1.0, claim="unspeakable")


def own_row_in_the_support(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    """D_t = 0 and e_t = 0: with its own row any token would be dominated."""
    for high in (-1.0, 0.0):
        yield Proposal(None, np.array([p.token]), np.ones(1), high=high, claim="unspeakable")
        yield Proposal(None, np.array([p.token, (p.token + 1) % p.count]), np.ones(2), high=high)


def repeated_rows(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    rows = np.array([(p.token + 1) % p.count] * 3)
    yield Proposal(None, rows, np.array([1.0, 2.0, 3.0]), high=-1.0, claim="unspeakable")


def rows_out_of_range(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    for row in (-1, p.count, 10**9, -(2**62)):
        yield Proposal(None, np.array([row]), np.ones(1), high=-1.0, claim="unspeakable")


def huge_values(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    for size in (1e150, 1e300, 1.7e308):
        state = normal(rng, p.n)
        weights = np.full(p.count - 1, size)
        yield Proposal(state / np.abs(state).max() * size, others(p), weights, size, -size, "speakable")


def subnormal_values(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    yield Proposal(np.full(p.n, 5e-324), others(p), np.full(p.count - 1, 5e-324), 5e-324, -5e-324)


def wrong_shapes(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    for shape in ((), (p.n + 1,), (p.n, 2), (0,), (1, p.n)):
        yield Proposal(np.ones(shape), others(p), np.ones(p.count + 3), high=-1.0)


def multipliers_without_rows(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    yield Proposal(None, np.zeros(0, dtype=np.intp), np.ones(3), high=-1.0, claim="unspeakable")
    yield Proposal(None, others(p), np.ones(1), high=-1.0, claim="unspeakable")


def wrong_types(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    words: object = ["one", None]
    yield Proposal(words, words, np.ones(2), claim="speakable")  # type: ignore[arg-type]


def no_proposal_object(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    nothing: object = None
    yield nothing  # type: ignore[misc]


def an_exception(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    raise ArithmeticError("the solver gave up")
    yield Proposal()


def an_exception_after_a_lie(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    yield Proposal(normal(rng, p.n), others(p), np.ones(p.count - 1), 9.0, -9.0, "unspeakable")
    raise MemoryError


def nothing_at_all(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    yield from ()


def spoilt_problem(p: Problem, rng: random.Random) -> Iterator[Proposal]:
    """Writes into what it was given: the float copy may be spoilt, the exact rows may not."""
    p.view.rows[:] = normal(rng, p.view.rows.size).reshape(p.view.rows.shape)
    p.view.offsets[:] = 3.0
    p._open[:] = True
    yield from random_evidence(p, rng)


LIES: list[Lie] = [
    random_evidence, not_numbers, zeros, tiny_negative_entries, repeated_rows, huge_values, subnormal_values,
    wrong_shapes, multipliers_without_rows, wrong_types, no_proposal_object, an_exception,
    an_exception_after_a_lie, nothing_at_all, spoilt_problem,
]  # fmt: skip
MODELS = [cleared(random_small_model(random.Random(f"liar-{i}"), V=5 + i % 4)) for i in range(6)]


def decided_with(model: Model, token: int, domain: str, *proposers: Liar) -> Decision:
    decider = Decider(model)
    decider.proposers = list(proposers)
    return decider.decide(token, parse_domain(domain))


def right_or_undecided(decision: Decision, model: SmallModel) -> str:
    want = decide(model, decision.token, decision.domain.name)
    if decision.verdict == "UNDECIDED":
        assert decision.reason
        assert decision.certificate == b""
        assert decision.claim is None
    else:
        assert decision.verdict == ("SPEAKABLE" if want.speakable else "UNSPEAKABLE")
        if isinstance(decision.claim, Unspeakable):
            assert decision.claim.kind in (want.kind, "unsettled")
        recheck(decision, model)
    return decision.verdict


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_lie_never_makes_a_wrong_verdict(lie: Lie) -> None:
    for number, model in enumerate([SQUARE, *MODELS]):
        built = from_small(model, "F64")
        for domain in DOMAINS:
            for token in range(len(model.W)):
                right_or_undecided(decided_with(built, token, domain, Liar(lie, number)), model)


@pytest.mark.parametrize("lie", [own_row_in_the_support, rows_out_of_range], ids=lambda lie: lie.__name__)
def test_rows_that_are_no_competitors_do_no_harm(lie: Lie) -> None:
    for domain in DOMAINS:
        for token in range(6):
            decider = Decider(from_small(SQUARE))
            decider.proposers = [Liar(lie), *decider.proposers]
            decision = decider.decide(token, parse_domain(domain))
            assert right_or_undecided(decision, SQUARE) != "UNDECIDED"


@pytest.mark.parametrize("domain", ["readout", "direction", "free", "box:1"])
def test_nothing_proposed_is_undecided_with_a_reason(domain: str) -> None:
    """Without evidence there is no verdict, though any solver status might have been at hand."""
    for lie in (nothing_at_all, an_exception, zeros):
        decision = decided_with(from_small(SQUARE), CORNER, domain, Liar(lie))
        assert decision.verdict == "UNDECIDED"
        assert "no proposal passed" in decision.reason


def test_a_proposer_that_fails_is_named_and_the_next_one_decides() -> None:
    decider = Decider(from_small(SQUARE))
    decider.proposers = [Liar(an_exception), Liar(not_numbers), *decider.proposers]
    found = [decider.decide(t, parse_domain("readout")) for t in range(6)]
    for decision in found:
        assert right_or_undecided(decision, SQUARE) != "UNDECIDED"
        assert any("the solver gave up" in attempt.found for attempt in decision.attempts)


def test_true_evidence_among_lies_is_found() -> None:
    """The centre's multipliers (1, 0, 0, 1) hold; so does a corner's own direction as its witness."""

    def honest(p: Problem, rng: random.Random) -> Iterator[Proposal]:
        yield from zeros(p, rng)
        yield from subnormal_values(p, rng)
        yield Proposal(p.own_direction(), low=1e-9, claim="speakable")
        yield Proposal(None, np.array([0, 3]), np.ones(2), high=0.0, claim="unspeakable")

    verdicts = [
        decided_with(from_small(SQUARE), t, "direction", Liar(honest)).verdict for t in (CORNER, CENTRE)
    ]
    assert verdicts == ["SPEAKABLE", "UNSPEAKABLE"]


def test_float_claims_that_the_exact_verdict_contradicts_are_named() -> None:
    def claims(word: str) -> Lie:
        def lie(p: Problem, rng: random.Random) -> Iterator[Proposal]:
            yield Proposal(np.full(p.n, 1e-3), claim=word)

        return lie

    for token, word, name in (
        (CENTRE, "speakable", "FAKE FEASIBLE"),
        (CORNER, "unspeakable", "FAKE INFEASIBLE"),
    ):
        decider = Decider(from_small(SQUARE))
        decider.proposers = [Liar(claims(word)), *decider.proposers]
        decision = decider.decide(token, parse_domain("direction"))
        assert decision.proved is not None
        assert decision.attempts[0].fake == name


def test_a_broken_evidence_store_is_caught_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the search keeps, only `prove` on the saved bytes makes the verdict."""
    monkeypatch.setattr("verify.search.check_never", lambda system, multipliers: None)
    monkeypatch.setattr("verify.search.state_margin", lambda system, state: (Fraction(1), []))
    for token in range(6):
        decision = Decider(from_small(SQUARE)).decide(token, parse_domain("readout"))
        want = decide(SQUARE, token, "readout")
        if decision.verdict == "UNDECIDED":
            assert "the kernel refused" in decision.reason
        else:
            assert (decision.verdict == "SPEAKABLE") == want.speakable


def test_multipliers_are_checked_before_anything_is_kept() -> None:
    """The centre is not proved by a corner's support, nor any token by an empty one."""
    from verify.kernel import READOUT, System
    from verify.kernel.check import check_bound, combine

    system = System(from_small(SQUARE).readout, READOUT, CENTRE, 6)
    for rows, values in (((0,), (1,)), ((), ()), ((0, 3), (1, 2)), ((0, 3), (1,)), ((0, 1), (1, 1))):
        with pytest.raises(RefutedError):
            check_bound(system, combine(system, Multipliers(rows, values)), Fraction(0))
    check_bound(system, combine(system, Multipliers((0, 3), (1, 1))), Fraction(0))


def test_lies_are_told_apart_from_the_truth_often_enough_to_mean_something() -> None:
    """Guard of this file: random evidence does decide some tokens, so the checks above are not idle."""
    seen: Counter[str] = Counter()
    for number, model in enumerate(MODELS):
        built = from_small(model, "F64")
        for token in range(len(model.W)):
            seen[
                right_or_undecided(decided_with(built, token, "free", Liar(random_evidence, number)), model)
            ] += 1
    assert seen["SPEAKABLE"] >= 5
    assert seen["UNSPEAKABLE"] >= 5
    assert seen["UNDECIDED"] >= 5

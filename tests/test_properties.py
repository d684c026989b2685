"""Theorems that verdicts obey whatever the proposers do: invariances, inclusions of domains, monotonicity."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from built_models import from_small
from built_models import model as build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import SmallModel, decide, random_small_model, settle
from test_brute_force import DOMAINS, cleared, exact_dtypes, recheck

from verify.decide import Decider, Decision
from verify.errors import RefutedError, UsageError
from verify.kernel import (
    Multipliers,
    State,
    System,
    Unspeakable,
    from_bytes,
    parse_domain,
    prove,
    tensor_ids,
)
from verify.kernel.check import check_bound, check_tie, check_witness, combine
from verify.models import Model

EPS = Fraction(1, 1 << 300)
seeds = st.integers(0, 10**6)
domains = st.sampled_from(DOMAINS)
few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def random_model(seed: int, norm: str | None = None) -> SmallModel:
    rng = random.Random(f"properties-{seed}")
    return cleared(random_small_model(rng, norm=norm, V=rng.randint(2, 8)))


def stored(model: SmallModel) -> Model:
    return from_small(model, exact_dtypes(model)[-1])


def decisions(model: Model, domain: str, count: int | None = None) -> list[Decision]:
    """One decision a token below `count`; none may be UNDECIDED."""
    decider = Decider(model)
    if count is not None:
        decider.count, decider.rule = count, "tokenizer"
    found = [decider.decide(t, parse_domain(domain)) for t in range(decider.count)]
    for decision in found:
        assert decision.verdict in ("SPEAKABLE", "UNSPEAKABLE"), decision.reason
    return found


def same_answers(ours: list[Decision], theirs: list[Decision]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.verdict == b.verdict
        if isinstance(a.claim, Unspeakable) and isinstance(b.claim, Unspeakable):
            kinds = {a.claim.kind, b.claim.kind} - {"unsettled"}
            assert len(kinds) <= 1


@few
@given(seeds, domains, st.integers(-20, 20))
def test_powers_of_two_do_not_change_verdicts(seed: int, domain: str, power: int) -> None:
    """Logits times 2^k > 0 keep their order: W and bias scaled together change no verdict."""
    model = random_model(seed)
    factor = Fraction(2) ** power
    bias = None if model.bias is None else [x * factor for x in model.bias]
    scaled = replace(model, W=[[x * factor for x in row] for row in model.W], bias=bias)
    dtype = "F64" if "F32" not in exact_dtypes(model) else "F32"
    W = [[float(x) for x in row] for row in scaled.W]
    gain, shift, bias_ = (
        None if x is None else [float(y) for y in x] for x in (model.gain, model.shift, scaled.bias)
    )
    built = build_model(W, model.norm, gain, shift, bias_, dtype)
    found = decisions(built, domain)
    same_answers(decisions(from_small(model, dtype), domain), found)
    for decision in found:
        recheck(decision, scaled)


@few
@given(seeds, domains)
def test_the_order_of_the_rows_does_not_matter(seed: int, domain: str) -> None:
    """A verdict is about a set of competitors: permuting rows (and biases) permutes the verdicts."""
    model = random_model(seed)
    order = list(range(len(model.W)))
    random.Random(seed).shuffle(order)
    bias = model.bias
    moved = replace(
        model, W=[model.W[j] for j in order], bias=None if bias is None else [bias[j] for j in order]
    )
    before = decisions(stored(model), domain)
    after = decisions(stored(moved), domain)
    same_answers([before[j] for j in order], after)


@few
@given(seeds, domains)
def test_a_vector_added_to_all_rows_cancels(seed: int, domain: str) -> None:
    """D_j = a_t - a_j: a vector (and a constant bias) added to all rows leaves every difference as it was."""
    model = random_model(seed)
    rng = random.Random(seed)
    v = [Fraction(rng.randint(-50, 50)) for _ in model.W[0]]
    bias = None if model.bias is None else [x + 7 for x in model.bias]
    moved = replace(model, W=[[x + y for x, y in zip(row, v, strict=True)] for row in model.W], bias=bias)
    before = decisions(stored(model), domain)
    after = decisions(stored(moved), domain)
    same_answers(before, after)


@settings(few, max_examples=40)
@given(seeds)
def test_inclusions_between_domains(seed: int) -> None:
    """SPEAKABLE passes from a domain to a larger one.

    box:B with B <= 1 lies in the ball |z|^2 <= d; the ball in box:B with B^2 >= d; readout in free; and
    direction implies free since a large multiple of a direction outweighs every bias. With all e_j = 0
    readout and direction agree: a cone has no scale.
    """
    model = random_model(seed)
    d = len(model.W[0])
    names = ["box:0.5", "box:1", "readout", "direction", "free", "box:2"]
    built = stored(model)
    answers = {x: [y.verdict == "SPEAKABLE" for y in decisions(built, x)] for x in names}
    pairs = [("box:0.5", "box:1"), ("box:1", "box:2"), ("box:1", "readout"), ("readout", "free")]
    pairs.append(("direction", "free"))
    if model.norm != "none" and d <= 4:
        pairs.append(("readout", "box:2"))
    for small, large in pairs:
        for token, (inner, outer) in enumerate(zip(answers[small], answers[large], strict=True)):
            assert outer or not inner, f"token {token}: speakable in {small}, not in {large}"
    if model.shift is None and model.bias is None:
        assert answers["readout"] == answers["direction"] == answers["box:1"]


@settings(few, max_examples=60)
@given(seeds, domains)
def test_no_evidence_proves_the_opposite(seed: int, domain: str) -> None:
    """A token is SPEAKABLE or UNSPEAKABLE, so the kernel must refuse all evidence for the wrong one.

    Tried: the oracle's own tie states, states around them and at random; random multipliers.
    """
    model = random_model(seed)
    rng = random.Random(seed)
    V, d = len(model.W), len(model.W[0])
    built = stored(model)
    for token in range(V):
        system = System(built.readout, parse_domain(domain), token, V)
        answer, shown = settle(model, token, domain)
        if answer.speakable:
            for _ in range(20):
                rows = rng.sample([j for j in range(V) if j != token], rng.randint(1, min(V - 1, d + 1)))
                values = tuple(rng.randint(1, 9) for _ in rows)
                with pytest.raises(RefutedError):
                    check_bound(system, combine(system, Multipliers(tuple(rows), values)), Fraction(0))
            continue
        centre = shown or [Fraction(0)] * d
        # After a LayerNorm, outside box and free, p stands for z / d.
        divisor = d if system.projects and system.region != "box" else 1
        for k in (0, 1, 4, 30, 60):
            for _ in range(4):
                p = tuple(round(x * (1 << k) / divisor) + rng.randint(-2, 2) for x in centre)
                with pytest.raises(RefutedError):
                    check_witness(system, State(p, k), EPS)
                if answer.kind == "never":
                    with pytest.raises(RefutedError):
                        check_tie(system, State(p, k))


@pytest.mark.parametrize("d", range(2, 9))
@pytest.mark.parametrize("power", [0, 7, 30, 70, 100, 130, 149])
def test_every_vertex_of_a_simplex_is_speakable_at_any_scale(d: int, power: int) -> None:
    """Every vertex of a simplex is exposed: max over z of (a_t - a_j).z is positive for all j at once.

    Scaled by 2^-k the margins shrink as far as one likes (to float32's last subnormal); verdicts stay.
    """
    W = np.vstack([np.eye(d), np.zeros(d)]) * 2.0**-power
    small = SmallModel("rmsnorm", [[Fraction(x) for x in row] for row in W.tolist()])
    for norm, rows in (("rmsnorm", W), ("layernorm", W[:d])):
        for domain in ("readout", "direction", "free"):
            for decision in decisions(build_model(rows, norm), domain):
                assert decision.verdict == "SPEAKABLE"
                recheck(decision, replace(small, norm=norm, W=small.W[: len(rows)]))


@pytest.mark.parametrize("d", range(2, 6))
def test_the_centroid_of_a_simplex_is_not_speakable_at_any_scale(d: int) -> None:
    """The mean of the vertices is in their hull: sum over j of (a_t - a_j) = 0, at scale 2^-k too."""
    for power in (0, 60, 120):
        W = np.vstack([d * np.eye(d), np.ones(d), np.zeros(d), (d + 1) * np.eye(d)]) * 2.0**-power
        for norm in ("rmsnorm", "none"):
            verdicts = [x.verdict for x in decisions(build_model(W, norm), "readout")]
            assert verdicts[:d] == ["UNSPEAKABLE"] * d
            assert verdicts[d] == "UNSPEAKABLE"
            assert verdicts[d + 1 :] == ["SPEAKABLE"] * (d + 1)


@few
@given(seeds, domains)
def test_more_competitors_never_help(seed: int, domain: str) -> None:
    """SPEAKABLE passes to smaller competitor sets, UNSPEAKABLE to larger ones."""
    model = random_model(seed)
    V = len(model.W)
    built = stored(model)
    by_count = [decisions(built, domain, count) for count in range(2, V + 1)]
    for fewer, more in pairwise(by_count):
        for a, b in zip(fewer, more, strict=False):
            assert a.verdict == "SPEAKABLE" or b.verdict == "UNSPEAKABLE"
    for count, found in enumerate(by_count, start=2):
        for decision in found:
            want = decide(model, decision.token, domain, range(count))
            assert (decision.verdict == "SPEAKABLE") == want.speakable
            recheck(decision, model, range(count))


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_row_beyond_the_competitors_is_decided_too(domain: str) -> None:
    """The competitors are ids 0..count-1 but the token's own; the token itself may be a padded row."""
    model = build_model(np.eye(6), "rmsnorm")
    decider = Decider(model)
    decider.count, decider.rule = 3, "tokenizer"
    assert decider.decide(5, parse_domain(domain)).verdict == "SPEAKABLE"


@settings(few, max_examples=12)
@given(seeds)
def test_evidence_moved_to_other_statements_is_accepted_only_when_true(seed: int) -> None:
    """Every certificate of a model under every other token, domain, norm and choice of biases.

    What `prove` accepts there agrees with brute force: it believes nothing but what it checks.
    """
    model = random_model(seed)
    evidence = [
        from_bytes(x.certificate) for name in ("readout", "free") for x in decisions(stored(model), name)
    ]
    seen = 0
    for variant in (model, replace(model, bias=None), replace(model, shift=None, gain=None)):
        readout = stored(variant).readout
        ids = {"tensors": tensor_ids(readout), "norm": readout.norm, "epsilon": readout.epsilon}
        for domain in DOMAINS:
            truth = [decide(variant, t, domain).speakable for t in range(len(model.W))]
            for certificate in evidence:
                for token, speakable in enumerate(truth):
                    fields = {**ids, "domain": parse_domain(domain), "token": token}
                    try:
                        statement = replace(certificate.statement, **fields)  # type: ignore[arg-type]
                        proved = prove(replace(certificate, statement=statement), readout)
                    except (RefutedError, UsageError):
                        continue
                    seen += 1
                    assert (proved.verdict == "speakable") == speakable
    assert seen >= len(model.W)

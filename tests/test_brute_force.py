"""Every verdict on small models against exact brute force; every certificate re-checked without the kernel.

VERIFY_BRUTE_CASES: how many random models (100 by default; about a quarter of a second each).
The oracle imports nothing of the package and rests on other theorems than it (see tests/oracle.py).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import isqrt, lcm

import pytest
from built_models import from_small
from oracle import (
    TRICKY,
    Answer,
    DyadicModel,
    SmallModel,
    Surd,
    Vector,
    ball_supremum,
    decide,
    differences,
    multipliers_prove,
    random_small_model,
    small,
    witness_margin,
)

from verify.decide import Decider, Decision
from verify.errors import UsageError
from verify.kernel import Residual, Speakable, State, Unspeakable, from_bytes, parse_domain, prove
from verify.models import Model

CASES = int(os.environ.get("VERIFY_BRUTE_CASES", "100"))
DOMAINS = ("readout", "free", "direction", "box:1", "box:2")
# The largest integer up to which every integer is a value of the dtype.
EXACT_INTEGERS = {"BF16": 1 << 8, "F16": 1 << 11, "F32": 1 << 24, "F64": 1 << 53}
TINY = Fraction(1, 1 << 200)


def cleared(model: SmallModel) -> SmallModel:
    """The model with W and bias times one integer, so that all entries are integers; no sign changes."""
    scale = lcm(*(x.denominator for row in [*model.W, model.bias or []] for x in row))
    bias = None if model.bias is None else [x * scale for x in model.bias]
    return replace(model, W=[[x * scale for x in row] for row in model.W], bias=bias)


def exact_dtypes(model: SmallModel) -> list[str]:
    """The dtypes that hold every entry of a cleared model exactly."""
    parts = [*model.W, model.gain or [], model.shift or [], model.bias or []]
    entries = [x for part in parts for x in part]
    assert all(x.denominator == 1 for x in entries)
    return [name for name, limit in EXACT_INTEGERS.items() if max(map(abs, entries)) <= limit]


def z_of(state: State, norm: str, domain: str) -> Vector:
    """The state as the definition in docs/certificates.md gives it: z, h in `free`, x in a box."""
    p, d = state.p, len(state.p)
    if norm == "layernorm" and domain in ("readout", "direction"):
        return [Fraction(d * x - sum(p), 1 << state.k) for x in p]
    return [Fraction(x, 1 << state.k) for x in p]


def raised(model: SmallModel | DyadicModel, token: int, amount: Fraction, V: int) -> SmallModel | DyadicModel:
    """The same model with the token's logit raised by `amount` everywhere."""
    bias = list(model.bias or [Fraction(0)] * V)
    bias[token] += amount
    return replace(model, bias=bias)


def residual_speaks(
    model: SmallModel, token: int, residual: Residual, epsilon: Fraction, competitors: Sequence[int] | None
) -> bool:
    """N(r) through its definition: y = r or r - mean(r), s = mean(y^2) + epsilon, sign of D.y + e sqrt(s)."""
    r = [Fraction(x, 1 << residual.k) for x in residual.p]
    d = len(r)
    y = [x - sum(r, Fraction(0)) / d for x in r] if model.norm == "layernorm" else r
    s: Fraction = Fraction(1) if model.norm == "none" else sum((x * x for x in y), Fraction(0)) / d + epsilon
    return s > 0 and all(
        Surd(sum((p * q for p, q in zip(D, y, strict=True)), Fraction(0)), e, s).sign() > 0
        for D, e in differences(model, token, "readout", competitors)
    )


def residual_margin(
    model: DyadicModel, token: int, residual: Residual, epsilon: Fraction, competitors: Sequence[int] | None
) -> Fraction:
    """The margin at N(r) to about 1e-60: sqrt(s) is taken to 400 bits, then h meets the rows as in `free`."""
    r = [Fraction(x, 1 << residual.k) for x in residual.p]
    d = len(r)
    y = [x - sum(r, Fraction(0)) / d for x in r] if model.norm == "layernorm" else r
    s: Fraction = sum((x * x for x in y), Fraction(0)) / d + epsilon
    root = Fraction(isqrt((s.numerator << 800) // s.denominator), 1 << 400)
    ones, zeros = [Fraction(1)] * d, [Fraction(0)] * d
    gain, shift = model.gain or ones, model.shift or zeros
    h = [
        Fraction(int((g * x / root + b) * (1 << 400)), 1 << 400)
        for g, x, b in zip(gain, y, shift, strict=True)
    ]
    return witness_margin(model, token, "free", h, competitors)


def recheck(
    decision: Decision, model: SmallModel | DyadicModel, competitors: Sequence[int] | None = None
) -> None:
    """Everything the certificate's BYTES claim, checked without the kernel's arithmetic.

    Margins and ties by the definition; multipliers for a gap g prove the token unspeakable with its logit
    raised by g, those for a ceiling m prove it unspeakable with its logit lowered by m.
    """
    assert decision.proved is not None, decision.reason
    claim = from_bytes(decision.certificate).claim
    token, domain, V = decision.token, decision.domain.name, decision.model.readout.vocabulary
    if isinstance(claim, Speakable):
        assert decision.verdict == "SPEAKABLE"
        assert claim.margin > 0
        if claim.state is not None:
            z = z_of(claim.state, model.norm, domain)
            assert witness_margin(model, token, domain, z, competitors) >= claim.margin
        if claim.residual is not None:
            epsilon = decision.model.readout.epsilon
            assert domain == "readout"
            if isinstance(model, SmallModel):
                assert residual_speaks(model, token, claim.residual, epsilon, competitors)
            else:
                assert residual_margin(model, token, claim.residual, epsilon, competitors) > TINY
        assert claim.state or claim.residual
        if claim.ceiling is not None and claim.at_most is not None and claim.ceiling.values is not None:
            lowered = raised(model, token, -claim.at_most, V)
            assert claim.at_most >= claim.margin
            assert multipliers_prove(
                lowered, token, domain, claim.ceiling.rows, claim.ceiling.values, competitors
            )
        return
    assert isinstance(claim, Unspeakable)
    assert decision.verdict == "UNSPEAKABLE"
    assert claim.multipliers.values is not None
    lifted = model if domain == "direction" else raised(model, token, claim.gap, V)
    assert claim.gap >= 0
    assert domain != "direction" or claim.gap == 0
    assert multipliers_prove(
        lifted, token, domain, claim.multipliers.rows, claim.multipliers.values, competitors
    )
    if claim.tie is not None:
        z = z_of(claim.tie, model.norm, domain)
        mean = sum(z, Fraction(0)) / len(z) if model.norm == "layernorm" and domain != "free" else Fraction(0)
        assert any(x != mean for x in z)
        assert witness_margin(model, token, domain, z, competitors) == 0


def agree(decision: Decision, model: SmallModel, want: Answer) -> None:
    """The verdict is the oracle's; the kind too unless unsettled; margins and gaps are on the right side."""
    assert decision.verdict == ("SPEAKABLE" if want.speakable else "UNSPEAKABLE"), decision.reason
    claim = decision.claim
    assert claim is not None
    if isinstance(claim, Unspeakable):
        assert claim.kind in (want.kind, "unsettled")
        assert claim.gap == 0 or want.kind == "never"
    if decision.domain.name == "readout" and model.norm != "none":
        supremum = ball_supremum(model, decision.token)
        values = [supremum.a - x for x in ([claim.margin] if isinstance(claim, Speakable) else [-claim.gap])]
        assert Surd(values[0], supremum.b, supremum.c).sign() * (1 if want.speakable else -1) >= 0
        if isinstance(claim, Speakable) and claim.at_most is not None:
            assert Surd(supremum.a - claim.at_most, supremum.b, supremum.c).sign() <= 0
    recheck(decision, model)


@pytest.mark.parametrize("number", range(len(TRICKY)))
def test_instances_solved_by_hand(number: int) -> None:
    small, token, domain, want = TRICKY[number]
    model = cleared(small)
    for dtype in exact_dtypes(model):
        decider = Decider(from_small(model, dtype))
        if len(model.W) == 1:
            with pytest.raises(UsageError, match="no competitors"):
                decider.decide(token, parse_domain(domain))
            continue
        agree(decider.decide(token, parse_domain(domain)), model, want)


def built_exactly(model: SmallModel, built: Model) -> bool:
    """Whether the stored bytes are the oracle's numbers."""
    rows = range(len(model.W))
    stored = built.readout.unembedding.integers(rows)
    one = from_small(SmallModel("none", [[Fraction(1)]]), built.readout.unembedding.dtype)
    scale = one.readout.unembedding.integers([0])[0][0]
    return all(
        Fraction(x, scale) == y
        for xs, ys in zip(stored, model.W, strict=True)
        for x, y in zip(xs, ys, strict=True)
    )


@pytest.mark.parametrize("batch", range(10))
def test_random_models_in_every_domain(batch: int) -> None:
    """All tokens, all domains; none may be UNDECIDED on these seeds."""
    undecided: list[str] = []
    seen: Counter[str] = Counter()
    for number in range(batch, CASES, 10):
        rng = random.Random(f"brute-{number}")
        model = cleared(random_small_model(rng, V=rng.randint(2, 12)))
        dtypes = exact_dtypes(model)
        built = from_small(model, rng.choice([x for x in dtypes if x != "F64"] or dtypes))
        assert built_exactly(model, built)
        decider = Decider(built)
        for domain in DOMAINS:
            for token in range(len(model.W)):
                decision = decider.decide(token, parse_domain(domain))
                seen[decision.verdict] += 1
                if decision.verdict == "UNDECIDED":
                    undecided.append(f"brute-{number} token {token} {domain}: {decision.reason}")
                    continue
                agree(decision, model, decide(model, token, domain))
    assert not undecided, "\n".join(undecided)
    assert CASES < 50 or (seen["SPEAKABLE"] > 0 and seen["UNSPEAKABLE"] > 0)


def test_epsilon_zero_never_contradicts_brute_force() -> None:
    """With epsilon = 0 the states are the sphere, a subset of what closes the ball.

    Without biases its rays are those of `direction`, so the answers agree. With them: a proof of
    unspeakability is checked by its multipliers, a witness through the norm itself.
    """
    decided: Counter[str] = Counter()
    for number in range(40):
        rng = random.Random(f"sphere-{number}")
        model = cleared(
            random_small_model(rng, norm=rng.choice(("layernorm", "rmsnorm")), V=rng.randint(2, 8))
        )
        if number % 2:
            model = replace(model, shift=None, bias=None)
        stored = from_small(model)
        built = replace(stored, readout=replace(stored.readout, epsilon=Fraction(0)))
        decider = Decider(built)
        for token in range(len(model.W)):
            decision = decider.decide(token, parse_domain("readout"))
            decided[decision.verdict] += 1
            if decision.verdict == "UNDECIDED":
                assert decision.reason
                continue
            if number % 2:
                same = decide(model, token, "direction").speakable
                assert decision.verdict == ("SPEAKABLE" if same else "UNSPEAKABLE")
            recheck(decision, model)
    assert decided["SPEAKABLE"] > 50
    assert decided["UNSPEAKABLE"] > 50


def test_decisions_hold_the_certificate_that_was_proved() -> None:
    """The bytes of a decision prove the same verdict again, from the bytes alone."""
    model = cleared(random_small_model(random.Random("again"), V=6))
    built = from_small(model)
    for token in range(6):
        decision = Decider(built).decide(token, parse_domain("readout"))
        again = prove(from_bytes(decision.certificate), built.readout)
        assert again.verdict.upper() == decision.verdict
        assert decision.proved is not None
        assert again.certificate == decision.proved.certificate


def test_a_model_without_norm_whose_witness_does_not_round_to_its_own_dtype() -> None:
    """`readout` without a norm is R^d, where proposers work on (h, tau): a residual vector is h alone."""
    model = small("none", [(0, 2), (1, -2), (2, 2), (2, 0)], bias=[-2, 1, 1, -2])
    decider = Decider(from_small(model, "F16"))
    for token in range(4):
        agree(decider.decide(token, parse_domain("readout")), model, decide(model, token, "readout"))

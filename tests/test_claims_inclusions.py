"""Evidence passes between domains by Theorem 10 alone, and what passes is true."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from built_models import model as build_model

from verify.claims.inclusions import Shape, passes, related, shape_of, speakable_passes
from verify.decide import Decider
from verify.kernel import parse_domain

LN = Shape(4, "layernorm", smooth=True, biased=True)
PLAIN = Shape(4, "rmsnorm", smooth=True, biased=False)
SPHERE = Shape(4, "layernorm", smooth=False, biased=True)
NONE = Shape(4, "none", smooth=True, biased=True)
DOMAINS = ("readout", "free", "direction", "box:0.5", "box:1", "box:1.5", "box:2")


def arrows(shape: Shape) -> set[tuple[str, str]]:
    pairs = itertools.permutations(DOMAINS, 2)
    return {(a, b) for a, b in pairs if speakable_passes(parse_domain(a), parse_domain(b), shape) is not None}


def test_the_arrows_are_those_of_the_theorem() -> None:
    """With d = 4, box:2 is the first that holds the norm's image."""
    nested = {(f"box:{a}", f"box:{b}") for a, b in itertools.combinations(("0.5", "1", "1.5", "2"), 2)}
    small = {(f"box:{b}", x) for b in ("0.5", "1") for x in ("readout", "free")}
    both = {("readout", "free"), ("direction", "free")}
    assert arrows(LN) == nested | small | both | {("readout", "box:2")}
    assert arrows(SPHERE) == nested | both | {("readout", "box:2")}
    assert arrows(NONE) == nested | small | both
    cones = [x for x in DOMAINS if x != "free"]
    assert arrows(PLAIN) == {(a, b) for a in DOMAINS for b in DOMAINS if a != b and a in cones}


def test_the_inclusion_used_is_named() -> None:
    readout, free, box = (parse_domain(x) for x in ("readout", "free", "box:1"))
    (way,) = passes("speakable", (readout, 9), (free, 9), LN) or ("",)
    assert way == "readout lies in free (Theorem 10.2)"
    assert len(passes("speakable", (box, 9), (free, 8), LN) or ()) == 3
    assert passes("speakable", (readout, 9), (readout, 9), LN) == ()


def test_nothing_passes_the_wrong_way() -> None:
    readout, free, direction, box = (parse_domain(x) for x in ("readout", "free", "direction", "box:1"))
    assert passes("speakable", (free, 9), (readout, 9), LN) is None
    assert passes("unspeakable", (readout, 9), (free, 9), LN) is None
    assert passes("unspeakable", (free, 9), (readout, 9), LN) is not None
    assert passes("speakable", (readout, 8), (readout, 9), LN) is None
    assert passes("unspeakable", (readout, 9), (readout, 8), LN) is None
    assert passes("unspeakable", (readout, 8), (readout, 9), LN) is not None
    assert not related(direction, readout, LN)
    assert not related(direction, box, LN)
    assert related(free, readout, LN)


def small_model(norm: str, biased: bool, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    W = rng.integers(-2, 3, (8, 4)).tolist()
    bias = rng.integers(-2, 3, 8).tolist() if biased else None
    return build_model(W, norm, gain=[1, 2, 1, 1] if norm != "none" else None, bias=bias)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
@pytest.mark.parametrize("biased", [True, False])
def test_what_passes_is_true(norm: str, biased: bool) -> None:
    """All tokens in all domains: a verdict that passes is the verdict there."""
    model, passed = small_model(norm, biased, 3), 0
    decider = Decider(model)
    found = {
        (token, name): decider.decide(token, parse_domain(name)) for token in range(8) for name in DOMAINS
    }
    for (token, a), decision in found.items():
        if decision.proved is None:
            continue
        statement, verdict = decision.proved.certificate.statement, decision.proved.verdict
        for b in DOMAINS:
            other = found[token, b]
            way = passes(verdict, (parse_domain(a), 8), (parse_domain(b), 8), shape_of(statement))
            if way is not None and other.proved is not None:
                assert other.proved.verdict == verdict, (token, a, b, way)
                passed += 1
    assert passed > 100

"""The oracle against answers found by hand, against its own second route, and against plain sampling."""

from __future__ import annotations

import ast
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, product
from math import lcm
from pathlib import Path

import numpy as np
import oracle
import pytest
from oracle import (
    NEVER,
    NORMS,
    TIE_ONLY,
    TRICKY,
    Answer,
    DyadicModel,
    SmallModel,
    Surd,
    ball_supremum,
    decide,
    decide_again,
    differences,
    multipliers_prove,
    random_small_model,
    settle,
    small,
    witness_margin,
)

DOMAINS = ("readout", "free", "direction", "box:1", "box:0.5", "box:2")
F = Fraction


def _cases(
    seed: int, models: int, domains: tuple[str, ...] = DOMAINS, d: int | None = None, max_V: int = 12
) -> Iterator[tuple[SmallModel, int, str]]:
    """Two tokens of each of so many random models, in every domain."""
    rng = random.Random(seed)
    for _ in range(models):
        norm = rng.choice(NORMS)
        model = random_small_model(rng, norm=norm, d=d, V=rng.randint(1, max_V))
        for _ in range(2):
            token = rng.randrange(len(model.W))
            for domain in domains:
                yield model, token, domain


def _is_box(domain: str) -> bool:
    return domain.startswith("box")


# ------------------------------------------------------------------ by hand, and route against route


def test_oracle_imports_nothing_of_the_package() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] == "verify" for name in names)


@pytest.mark.parametrize(("model", "token", "domain", "answer"), TRICKY)
def test_answers_found_by_hand(model: SmallModel, token: int, domain: str, answer: Answer) -> None:
    assert decide(model, token, domain) == answer
    assert decide_again(model, token, domain) == answer


@pytest.mark.parametrize("seed", range(4))
def test_two_routes_agree(seed: int) -> None:
    for model, token, domain in _cases(seed, 60, max_V=8):
        if len(model.W[0]) < 4:
            assert decide(model, token, domain) == decide_again(model, token, domain), (model, token, domain)


def test_two_routes_agree_in_four_dimensions() -> None:
    for model, token, domain in _cases(10, 40, ("readout", "direction", "free"), d=4, max_V=7):
        assert decide(model, token, domain) == decide_again(model, token, domain), (model, token, domain)


def test_two_routes_agree_on_tangent_balls() -> None:
    """Supremum exactly 0 at a point of the sphere: decided by signs of a + b*sqrt(c), by no tolerance."""
    rng, tangent = random.Random(11), 0
    for _ in range(150):
        norm = rng.choice(("layernorm", "rmsnorm"))
        model = oracle._make_tangent(
            rng, random_small_model(rng, norm=norm, d=rng.randint(2, 4), V=rng.randint(2, 5))
        )
        for token in range(len(model.W)):
            answer = decide(model, token, "readout")
            assert answer == decide_again(model, token, "readout"), (model, token)
            tangent += answer == Answer(False, NEVER) and ball_supremum(model, token).sign() == 0
    assert tangent >= 20


def test_instances_are_varied() -> None:
    """At least a tenth of the answers of every kind in every domain."""
    for domain in ("readout", "free", "direction", "box:1"):
        found = Counter(decide(*case) for case in _cases(12, 200, (domain,)))
        assert len(found) == 3
        assert min(found.values()) >= 0.1 * sum(found.values()), (domain, found)


def test_one_coordinate_after_a_layernorm_is_the_single_state_zero() -> None:
    model = small("layernorm", [[1], [5]], bias=[1, 0])
    assert decide(model, 0, "readout") == decide_again(model, 0, "readout") == Answer(True)
    assert decide(model, 1, "readout") == decide_again(model, 1, "readout") == Answer(False, NEVER)
    assert decide(model, 0, "direction") == decide_again(model, 0, "direction") == Answer(False, NEVER)


# ------------------------------------------------------------------ states


def test_the_state_shown_has_the_margin_claimed() -> None:
    """Speakable: a positive margin, by the definition alone. Tie-only: margin 0 at a state that is not 0."""
    for model, token, domain in _cases(13, 250):
        answer, state = settle(model, token, domain)
        assert (state is None) == (answer.kind == NEVER)
        if state is None or len(model.W) == 1:
            continue
        margin = witness_margin(model, token, domain, state)
        assert margin > 0 if answer.speakable else margin == 0
        if answer.kind == TIE_ONLY:
            project = model.norm == "layernorm" and domain != "free"
            assert len(set(state)) > 1 if project else any(state)


def _grid_states(model: SmallModel, domain: str, steps: int) -> tuple[np.ndarray, int]:
    """Integer vectors Z and K such that every Z/K is a state of the domain; dense at several radii."""
    d = len(model.W[0])
    K = 2 * steps
    X = np.array(list(product(range(-steps, steps + 1), repeat=d)), dtype=np.int64)
    if _is_box(domain):
        B = F(domain[4:])  # x = X / steps * B
        X, K = X * B.numerator, steps * B.denominator
    else:
        X = np.vstack([X * s for s in (1, 2, 3, 4)])
    if model.norm == "layernorm" and domain != "free":
        X, K = d * X - X.sum(axis=1, keepdims=True), d * K
    if domain == "readout" and model.norm != "none":
        X = X[(X * X).sum(axis=1) < d * K * K]
    return X, K


def _grid_margins(model: SmallModel, token: int, domain: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """States and the signs of the margins there, exact: 64-bit integers that are too small to overflow."""
    Z, K = _grid_states(model, domain, steps)
    rows = [[*D, e * K] for D, e in differences(model, token, domain)]
    scaled = []
    for row in rows:
        common = lcm(*(x.denominator for x in row))
        scaled.append([int(x * common) for x in row])
    table = np.array(scaled, dtype=object)
    assert max(abs(x) for x in table.flat) < 2**40
    A = table.astype(np.int64)
    return Z, (Z @ A[:, :-1].T + A[:, -1]).min(axis=1)


def test_a_dense_grid_never_contradicts_the_answer() -> None:
    checked = Counter[Answer]()
    for model, token, domain in _cases(14, 150):
        if len(model.W) == 1:
            continue
        answer = decide(model, token, domain)
        d = len(model.W[0])
        Z, margins = _grid_margins(model, token, domain, {1: 60, 2: 20, 3: 7, 4: 3}[d])
        if not answer.speakable:
            assert margins.max() <= 0, (model, token, domain)
        if answer.kind == NEVER:
            nonzero = Z.any(axis=1)
            assert not nonzero.any() or margins[nonzero].max() < 0, (model, token, domain)
        checked[answer] += 1
    assert min(checked.values()) > 100


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_the_supremum_over_the_ball_is_what_sampling_sees(norm: str) -> None:
    """In a plane: no sample exceeds it, and samples come within the mesh times the Lipschitz constant."""
    rng = random.Random(15)
    d = 3 if norm == "layernorm" else 2
    plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]]) if d == 3 else np.eye(2)
    radii, angles = np.linspace(0, np.sqrt(d), 60), np.linspace(0, 2 * np.pi, 240, endpoint=False)
    polar = np.array([(r * np.cos(a), r * np.sin(a)) for r in radii for a in angles]) @ plane
    mesh = np.sqrt(d) * (1 / 59 + np.pi / 240)
    for _ in range(60):
        model = random_small_model(rng, norm=norm, d=d, V=rng.randint(2, 7))
        token = rng.randrange(len(model.W))
        rows = differences(model, token, "readout")
        D = np.array([[float(x) for x in a] for a, _ in rows])
        sampled = (polar @ D.T + np.array([float(e) for _, e in rows])).min(axis=1).max()
        value = float(ball_supremum(model, token).value())
        assert sampled <= value + 1e-9
        assert value <= sampled + mesh * np.linalg.norm(D, axis=1).max() + 1e-9
        assert (ball_supremum(model, token).sign() > 0) == decide(model, token, "readout").speakable


def test_surd_signs() -> None:
    assert Surd(F(-3), F(2), F(9, 4)).sign() == 0
    assert Surd(F(3), F(-2), F(9, 4)).sign() == 0
    assert Surd(F(0), F(-2), F(9, 4)).sign() == -1
    assert Surd(F(0), F(5), F(0)).sign() == 0
    rng = random.Random(16)
    for _ in range(2000):
        surd = Surd(F(rng.randint(-9, 9), 2), F(rng.randint(-6, 6), 3), F(rng.randint(0, 12), 4))
        value = surd.value()
        assert surd.sign() == (0 if abs(value) < 1e-80 else 1 if value > 0 else -1)


# ------------------------------------------------------------------ theorems about the answers


def _implied(norm: str, d: int) -> Iterator[tuple[str, str]]:
    """Pairs of domains: speakable in the first implies speakable in the second."""
    yield "readout", "free"
    yield "direction", "free"
    yield from (("box:0.5", "box:1"), ("box:1", "box:2"), ("box:1", "readout"), ("box:0.5", "readout"))
    if norm != "none":
        yield "readout", f"box:{ {1: '1', 2: '1.4142136', 3: '1.7320509', 4: '2'}[d] }"


def test_inclusions_of_domains() -> None:
    for model, token, _ in _cases(17, 250, ("readout",)):
        for inner, outer in _implied(model.norm, len(model.W[0])):
            if decide(model, token, inner).speakable:
                assert decide(model, token, outer).speakable, (model, token, inner, outer)


def test_readout_and_direction_agree_without_bias() -> None:
    """All e_j = 0: a cone is scale free, so the kinds agree too."""
    for model, token, _ in _cases(18, 150, ("readout",)):
        bare = SmallModel(model.norm, model.W, model.gain)
        assert (
            decide(bare, token, "readout") == decide(bare, token, "direction") == decide(bare, token, "box:1")
        )


def test_fewer_competitors_keep_a_token_speakable() -> None:
    rng = random.Random(19)
    for model, token, domain in _cases(19, 120):
        some = [j for j in range(len(model.W)) if rng.random() < 0.6]
        part = decide(model, token, domain, some)
        assert part == decide(model, token, domain, [*some, token])
        assert part.speakable or not decide(model, token, domain).speakable
    assert decide(small("none", [(1,), (1,)]), 0, "free", []) == Answer(True)


def test_powers_of_two_change_nothing() -> None:
    """A positive scale on all logits."""
    for model, token, domain in _cases(20, 120):
        scale = F(1, 64) if token % 2 else F(2**30)
        bias = None if model.bias is None else [scale * c for c in model.bias]
        scaled = SmallModel(
            model.norm, [[scale * x for x in row] for row in model.W], model.gain, model.shift, bias
        )
        assert decide(scaled, token, domain) == decide(model, token, domain)


def test_permutations_and_signs_change_nothing() -> None:
    """Tokens and coordinates may be renamed; without a LayerNorm, coordinates may change sign as well."""
    rng = random.Random(21)
    for model, token, domain in _cases(21, 150):
        V, d = len(model.W), len(model.W[0])
        tokens, axes = rng.sample(range(V), V), rng.sample(range(d), d)
        flips = [1 if model.norm == "layernorm" else rng.choice((1, -1)) for _ in range(d)]
        renamed = SmallModel(
            model.norm,
            [[flips[k] * model.W[j][k] for k in axes] for j in tokens],
            None if model.gain is None else [model.gain[k] for k in axes],
            None if model.shift is None else [flips[k] * model.shift[k] for k in axes],
            None if model.bias is None else [model.bias[j] for j in tokens],
        )
        assert decide(renamed, tokens.index(token), domain) == decide(model, token, domain)


# ------------------------------------------------------------------ checkers


def test_states_outside_the_domain_are_refused() -> None:
    layernorm, rmsnorm = small("layernorm", [(1, 0), (0, 1)]), small("rmsnorm", [(1, 0), (0, 1)])
    one = [F(1), F(1)]
    assert witness_margin(rmsnorm, 0, "readout", [F(1), F(1, 2)]) == F(1, 2)
    assert witness_margin(layernorm, 0, "readout", [F(1, 2), F(-1, 2)]) == 1
    assert witness_margin(layernorm, 0, "free", [F(9), F(1)]) == 8
    assert witness_margin(layernorm, 0, "box:1", [F(1), F(0)]) == 1
    for model, domain, state in (
        (rmsnorm, "readout", one),  # on the sphere
        (layernorm, "readout", one),
        (layernorm, "direction", one),
        (layernorm, "readout", [F(1), F(-1)]),  # on the sphere
        (rmsnorm, "box:0.5", one),
        (rmsnorm, "box:0", one),
        (rmsnorm, "sphere", one),
        (rmsnorm, "readout", [F(0)]),  # d = 1
    ):
        with pytest.raises(ValueError, match=r".+"):
            witness_margin(model, 0, domain, state)
    with pytest.raises(ValueError, match="missing"):
        witness_margin(rmsnorm, 0, "free", one, [0])
    with pytest.raises(ValueError, match="unknown norm"):
        witness_margin(small("batchnorm", [(1,), (0,)]), 0, "readout", [F(0)])
    with pytest.raises(ValueError, match="not a ball"):
        ball_supremum(small("none", [(1,), (0,)]), 0)


def test_margin_counts_gain_shift_and_bias_where_the_domain_keeps_them() -> None:
    model = small("layernorm", [(1, 2), (0, 1)], gain=[2, 3], shift=[5, 7], bias=[11, 17])
    z = [F(1, 2), F(-1, 2)]
    # D = (1, 1): (2*1/2 - 3*1/2) = -1/2; shift 12; bias -6
    assert witness_margin(model, 0, "readout", z) == F(-1, 2) + 12 - 6
    assert witness_margin(model, 0, "direction", z) == F(-1, 2)
    assert witness_margin(model, 0, "free", z) == -6
    assert witness_margin(model, 0, "box:2", [F(2), F(1)]) == F(-1, 2) + 12 - 6
    rows = [([2, 4], -1), ([0, 1], 0)]
    dyadic = DyadicModel("layernorm", iter(rows), model.gain, model.shift, model.bias)
    assert witness_margin(dyadic, 0, "readout", z) == F(-1, 2) + 12 - 6


@pytest.mark.parametrize(
    ("model", "token", "domain", "rows", "lam", "proves"),
    [
        # F: the centre of a square against two opposite corners
        (small("none", [(0, 0), (1, 1), (-1, -1)]), 0, "readout", [1, 2], [1, 1], True),
        (small("none", [(0, 0), (1, 1), (-1, -1)]), 0, "direction", [1, 2], [3, 3], True),
        (small("none", [(0, 0), (1, 1), (-1, -1)]), 0, "free", [1, 2], [2, 1], False),
        (small("none", [(0, 0), (1, 1), (-1, -1)], bias=[1, 0, 0]), 0, "free", [1, 2], [1, 1], False),
        (small("none", [(0, 0), (1, 1), (-1, -1)], bias=[1, 0, 0]), 0, "direction", [1, 2], [1, 1], True),
        (small("none", [(0, 0), (1, 1), (-1, -1)], bias=[1, 0, 2]), 0, "readout", [1, 2], [1, 1], True),
        # F after a LayerNorm: u = (3, 3)
        (small("layernorm", [(3, 3), (0, 0)]), 0, "readout", [1], [1], True),
        (small("layernorm", [(3, 3), (0, 0)]), 0, "direction", [1], [1], True),
        (small("layernorm", [(3, 3), (0, 0)]), 0, "free", [1], [1], False),
        # B: tangent, just inside, wrong sign of v
        (small("rmsnorm", [(1, 0, 0, 0), (0, 0, 0, 0)], bias=[-2, 0]), 0, "readout", [1], [1], True),
        (small("rmsnorm", [(1, 0, 0, 0), (0, 0, 0, 0)], bias=["-1.99", 0]), 0, "readout", [1], [1], False),
        (small("rmsnorm", [(1, 0, 0, 0), (0, 0, 0, 0)], bias=[2, 0]), 0, "readout", [1], [1], False),
        (small("rmsnorm", [(0, 0), (-1, 0), (0, -1)], bias=[0, 1, 1]), 0, "readout", [1, 2], [1, 1], True),
        (small("rmsnorm", [(0, 0), (-1, 0), (0, -1)], bias=[0, 1, 1]), 0, "readout", [1, 2], [1, 2], False),
        (small("layernorm", [(1, -1), (0, 0)], bias=[-2, 0]), 0, "readout", [1], [F(1, 3)], True),
        (small("layernorm", [(1, -1), (0, 0)], bias=["-1.99", 0]), 0, "readout", [1], [1], False),
        # gain and shift: D = (2, 0), e = -2 - 1
        (
            small("rmsnorm", [(1, 0), (0, 1)], gain=[2, 0], shift=[0, 2], bias=[-1, 0]),
            0,
            "readout",
            [1],
            [1],
            True,
        ),
        (
            small("rmsnorm", [(1, 0), (0, 1)], gain=[2, 0], shift=[0, 2], bias=[0, 0]),
            0,
            "readout",
            [1],
            [1],
            False,
        ),
        # X: |PD|_1 = 4/3 with d = 3
        (small("layernorm", [(1, 0, 0), (0, 0, 0)], bias=["-4/3", 0]), 0, "box:1", [1], [1], True),
        (small("layernorm", [(1, 0, 0), (0, 0, 0)], bias=["-4/3", 0]), 0, "box:1.01", [1], [1], False),
        (small("rmsnorm", [(1, 0, 0), (0, 0, 0)], bias=["-1/2", 0]), 0, "box:0.5", [1], [1], True),
        # equal rows
        (small("rmsnorm", [(1, 0), (1, 0)]), 1, "free", [0], [1], True),
        # malformed
        (small("rmsnorm", [(1, 0), (0, 0)]), 1, "free", [1], [1], False),  # its own row
        (small("rmsnorm", [(1, 0), (1, 0)]), 1, "free", [0], [0], False),
        (small("rmsnorm", [(1, 0), (1, 0)]), 1, "free", [0], [-1], False),
        (small("rmsnorm", [(1, 0), (1, 0)]), 1, "free", [7], [1], False),
        (small("rmsnorm", [(1, 0), (1, 0)]), 1, "free", [], [], False),
        (small("rmsnorm", [(1, 0), (1, 0)]), 1, "free", [0, 0], [1, 1], False),
    ],
)
def test_multipliers_by_hand(
    model: SmallModel, token: int, domain: str, rows: list[int], lam: list[int], proves: bool
) -> None:
    assert multipliers_prove(model, token, domain, rows, lam) == proves
    scaled = DyadicModel(
        model.norm,
        [([int(x * 12) for x in row], 0) for row in model.W],
        model.gain,
        model.shift,
        None if model.bias is None else [12 * c for c in model.bias],
    )
    assert multipliers_prove(scaled, token, domain, rows, lam) == proves
    assert not multipliers_prove(model, token, domain, rows, lam, [token])


def test_small_multipliers_prove_only_unspeakable_tokens() -> None:
    """Sound on every one of them; most unspeakable tokens have a proof with multipliers up to 4."""
    proved, unspeakable = 0, 0
    for model, token, domain in _cases(22, 60, d=2, max_V=5):
        others = [j for j in range(len(model.W)) if j != token]
        lams = list(product(range(1, 5), repeat=3))
        found = any(
            multipliers_prove(model, token, domain, list(S), lam[: len(S)])
            for size in (1, 2, 3)
            for S in combinations(others, size)
            for lam in lams
            if all(x == 1 for x in lam[size:])
        )
        answer = decide(model, token, domain)
        assert not (found and answer.speakable), (model, token, domain)
        proved += found
        unspeakable += not answer.speakable
    assert unspeakable > 100
    assert proved > 0.8 * unspeakable

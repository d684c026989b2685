"""Fixed tokens of real models: their verdicts; their certificates re-checked from the weight files' bytes.

The weights are read here by other code than the package's, and the certificates checked by the oracle.
whisper-tiny.en is bundled; the others come from the folder named by VERIFY_TEST_MODELS.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from oracle import DyadicModel
from test_brute_force import recheck, z_of

from verify.decide import Decider, Decision
from verify.kernel import READOUT, Speakable, Unspeakable, parse_domain
from verify.models import Model

Load = Callable[[str], Model]
# A power of two that clears the denominators of every value of the dtype.
CLEARS = {"F16": 24, "F32": 149}


class Rows:
    """The rows of a matrix as integers over one power of two; may be read again and again."""

    def __init__(self, values: np.ndarray, clears: int) -> None:
        self.values, self.clears = values, clears

    def __iter__(self) -> Iterator[tuple[Sequence[int], int]]:
        for start in range(0, len(self.values), 1024):
            block = self.values[start : start + 1024].astype(np.float64)
            if self.clears <= 24:  # below 2^16 * 2^24: exact in 64 bits
                integers = (block * 2.0**self.clears).astype(np.int64).tolist()
            else:
                integers = [[int(Fraction(x) * (1 << self.clears)) for x in row] for row in block.tolist()]
            for row in integers:
                yield row, -self.clears


def tensors(path: Path) -> dict[str, np.ndarray]:
    """All float16 and float32 tensors of a checkpoint file."""
    if path.suffix == ".bin":
        torch = pytest.importorskip("torch")
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: x.numpy() for name, x in state.items() if x.is_floating_point()}
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        kind = {"F16": "<f2", "F32": "<f4"}.get(entry.get("dtype", ""))
        if kind:
            begin, end = (8 + size + x for x in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], kind).reshape(entry["shape"])
    return found


def exact(model: Model) -> DyadicModel:
    """The model for the oracle, from the bytes of its files."""
    stored = {name: array for path in model.weights for name, array in tensors(path).items()}
    parts: dict[str, list[Fraction] | None] = {}
    for role in ("gain", "shift", "bias"):
        tensor = getattr(model.readout, role)
        parts[role] = None if tensor is None else [Fraction(float(x)) for x in stored[tensor.name]]
    W = model.readout.unembedding
    rows = Rows(stored[W.name], CLEARS[W.dtype])
    return DyadicModel(model.readout.norm, rows, parts["gain"], parts["shift"], parts["bias"])


def decide(model: Model, tokens: Sequence[int], domain: str) -> dict[int, Decision]:
    """Decisions, each re-checked by the oracle."""
    decider, oracle = Decider(model), exact(model)
    found = {t: decider.decide(t, parse_domain(domain)) for t in tokens}
    for decision in found.values():
        recheck(decision, oracle)
    return found


def verdicts(found: dict[int, Decision]) -> dict[int, str]:
    return {token: decision.verdict for token, decision in found.items()}


def share_of_the_sphere(decision: Decision) -> Fraction:
    """|z|^2 / d of the witness; near 1 for residual streams of real prompts."""
    assert isinstance(decision.claim, Speakable)
    assert decision.claim.state is not None
    readout = decision.model.readout
    z = z_of(decision.claim.state, readout.norm, decision.domain.name)
    return sum((x * x for x in z), Fraction(0)) / readout.d


def test_tinygpt_05_the_domain_is_part_of_the_answer(real_model: Load) -> None:
    """In the hull, so unspeakable as directions; one of them is lifted out by the norm's shift near z = 0."""
    model = real_model("tinygpt-slm-05")
    assert set(verdicts(decide(model, [0, 2, 3], "direction")).values()) == {"UNSPEAKABLE"}
    found = decide(model, [0, 2, 3], "readout")
    assert verdicts(found) == {0: "SPEAKABLE", 2: "UNSPEAKABLE", 3: "UNSPEAKABLE"}
    assert share_of_the_sphere(found[0]) < Fraction(1, 10)
    for token, least, most in ((2, 0.006, 0.007), (3, 0.028, 0.030)):
        claim = found[token].claim
        assert isinstance(claim, Unspeakable)
        assert claim.kind == "never"
        assert least < claim.gap < most


def test_tinygpt_05_speaks_its_first_token_at_near_constant_residuals_only(real_model: Load) -> None:
    """No witness near the sphere: scaled to |z|^2 = d / 4 the known one loses, and so do all others tried.

    Speakable states form a convex set, so the ray through a witness leaves it once.
    """
    model = real_model("tinygpt-slm-05")
    stored, readout = tensors(model.weights[0]), model.readout
    assert readout.gain is not None
    assert readout.shift is not None
    W, gain, shift = (
        stored[x.name].astype(np.float64) for x in (readout.unembedding, readout.gain, readout.shift)
    )
    rng = np.random.default_rng(0)
    claim = decide(model, [0], "readout")[0].claim
    assert isinstance(claim, Speakable)
    assert claim.state is not None
    witness = np.array([float(x) for x in z_of(claim.state, "layernorm", "readout")])
    assert np.argmax(W @ (gain * witness + shift)) == 0
    states = witness + rng.normal(size=(20_000, 32)) * rng.uniform(0, 2, size=(20_000, 1))
    states -= states.mean(axis=1, keepdims=True)
    states *= np.sqrt(32 * rng.uniform(0.1, 1, size=(20_000, 1))) / np.linalg.norm(
        states, axis=1, keepdims=True
    )
    assert not np.any(np.argmax((states * gain + shift) @ W.T, axis=1) == 0)


@pytest.mark.parametrize("domain", ["direction", "readout", "box:1"])
def test_tinygpt_12_has_three_tokens_in_the_hull(real_model: Load, domain: str) -> None:
    found = decide(real_model("tinygpt-slm-12"), [0, 2, 3], domain)
    assert set(verdicts(found).values()) == {"UNSPEAKABLE"}


@pytest.mark.parametrize("name", ["stories260K", "rxnmapper-albert"])
def test_a_dozen_tokens_of_models_without_unspeakable_ones(real_model: Load, name: str) -> None:
    if name == "rxnmapper-albert":
        pytest.importorskip("torch")
    model = real_model(name)
    V = model.readout.vocabulary
    found = decide(model, [*range(0, V, V // 11), V - 1][:13], "readout")
    assert set(verdicts(found).values()) == {"SPEAKABLE"}
    assert all(isinstance(x.claim, Speakable) and x.claim.residual for x in found.values())


def test_whisper_30208_is_speakable_by_less_than_its_logits_resolve(whisper: Model) -> None:
    """' externalTo': a margin of 1.6e-5 logits in exact arithmetic, and a proof that 7e-5 is out of reach."""
    decision = decide(whisper, [30208], "readout")[30208]
    claim = decision.claim
    assert isinstance(claim, Speakable)
    assert 1.5e-5 < claim.margin < 7e-5
    assert claim.at_most is not None
    assert claim.at_most < 7e-5


def test_whisper_177_equals_another_row(whisper: Model) -> None:
    decision = decide(whisper, [177], "readout")[177]
    claim = decision.claim
    assert isinstance(claim, Unspeakable)
    assert claim.kind == "tie-only"
    assert claim.gap == 0
    W = tensors(whisper.weights[0])[whisper.readout.unembedding.name]
    assert claim.multipliers.rows
    for row in claim.multipliers.rows:
        assert row != 177
        assert (W[row] == W[177]).all()
    assert set(decision.equal_rows) == set(np.flatnonzero((W[177] == W).all(axis=1)).tolist()) - {177}


def test_whisper_100_is_speakable_with_ease(whisper: Model) -> None:
    decision = decide(whisper, [100], "readout")[100]
    assert isinstance(decision.claim, Speakable)
    assert decision.claim.margin > 10
    assert decision.claim.residual is not None


def test_whisper_has_78_equal_rows_in_31_groups(whisper: Model) -> None:
    """Rows equal by value (-0 = +0). Each is unspeakable: its twin's logit is its own everywhere."""
    W = tensors(whisper.weights[0])[whisper.readout.unembedding.name]
    assert W.shape == (51864, 384)
    groups = [size for size in Counter(row.tobytes() for row in W + np.float16(0)).values() if size > 1]
    assert (sum(groups), len(groups)) == (78, 31)


def test_whisper_equal_rows_are_all_unspeakable(whisper: Model) -> None:
    """Three of the 78 through the whole machine, from different groups."""
    W = tensors(whisper.weights[0])[whisper.readout.unembedding.name] + np.float16(0)
    groups: dict[bytes, list[int]] = {}
    for j, row in enumerate(W):
        groups.setdefault(row.tobytes(), []).append(j)
    twins = [ids for ids in groups.values() if len(ids) > 1]
    decider = Decider(whisper)
    for ids in (twins[0], twins[len(twins) // 2], twins[-1]):
        decision = decider.decide(ids[-1], READOUT)
        assert decision.verdict == "UNSPEAKABLE"
        assert sorted([*decision.equal_rows, ids[-1]]) == ids

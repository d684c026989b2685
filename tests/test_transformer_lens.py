"""`--readout transformer-lens` and `from_hooked`, against TransformerLens itself.

The library holds HookedTransformer up to version 3; importing it takes long, so only a fixture does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from built_models import tensor
from command import run
from conformance import CASES, build

import verify
from verify.decision import OTHER_STATES
from verify.errors import ModelUnavailableError, UsageError
from verify.kernel import System, parse_domain, to_bytes
from verify.kernel.filter import as_float64
from verify.models import Model, ReadoutOverrides, load_model
from verify.models.config import Config
from verify.models.in_place import logits_at
from verify.models.transformer_lens import FOLDED, PREFIX, processed

pytest.importorskip("torch")
pytest.importorskip("transformers")

BY_NAME = {case.name: case for case in CASES}
U = 2.0**-24
Floats = np.ndarray[Any, np.dtype[np.float64]]
LENS = "transformer-lens"
PACKED = f"--readout {LENS}"


@pytest.fixture(scope="session")
def library() -> Any:
    """TransformerLens with its HookedTransformer; skips where it is not installed."""
    found = pytest.importorskip("transformer_lens", reason='not installed: pip install "transformer-lens<4"')
    if int(found.__dict__.get("__version__", "3").split(".")[0]) > 3:
        pytest.skip("this TransformerLens has no HookedTransformer")
    import transformer_lens.loading_from_pretrained as loading
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.model_bridge import TransformerBridge

    config, bridge = HookedTransformerConfig, TransformerBridge
    return SimpleNamespace(loading=loading, model=HookedTransformer, config=config, bridge=bridge)


def hooked(library: Any, name: str, folder: Path, *, fold: bool = True, **changes: Any) -> Any:
    """The tiny model of tests/conformance.py, saved in `folder`, as TransformerLens loads it."""
    import torch

    case = BY_NAME[name]
    theirs = build(replace(case, config=case.config | changes))
    theirs.config.n_ctx = 32  # GPT-2's config.json has it on the hub
    theirs.save_pretrained(folder)
    cfg = library.loading.get_pretrained_model_config(
        str(folder), fold_ln=fold, device="cpu", dtype=torch.float32
    )
    cfg.tokenizer_name = None
    state = library.loading.get_pretrained_state_dict(str(folder), cfg, theirs)
    model = library.model(cfg, move_to_device=False)
    steps = ("fold_ln", "center_unembed", "center_writing_weights", "fold_value_biases")
    model.load_and_process_state_dict(state, **dict.fromkeys(steps, fold))
    return model


# The matrices


@dataclass
class Bounds:
    """How far the library's W_U.T (V, d) and b_U (V,) may lie from ours: docs/transformer-lens.md."""

    W: Floats
    b: Floats


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


def rounding(model: Model, *, capped: bool = False) -> Bounds:
    readout = model.readout
    V, d = readout.vocabulary, readout.d
    assert readout.gain is not None
    W = as_float64(readout.unembedding, 0, V)
    P = np.abs(W * (as_float64(readout.gain, 0, d) + readout.gain_offset))
    b = np.zeros(V) if readout.bias is None else np.abs(as_float64(readout.bias, 0, V))
    on_W, on_b = np.zeros((V, d)), np.zeros(V)
    if readout.norm == "layernorm":
        assert readout.shift is not None
        b = b + np.abs(W * as_float64(readout.shift, 0, d)).sum(axis=1)
        on_b = (gamma(d) + 4 * U) * b
        mean = P.mean(axis=1, keepdims=True)
        on_W = (gamma(d + 1) + 2 * U) * mean + 2 * U * (P + mean)
        P = P + mean
    if not capped:
        on_W = (
            on_W + on_W.mean(axis=0) + (gamma(V + 1) + 2 * U) * P.mean(axis=0) + 2 * U * (P + P.mean(axis=0))
        )
        on_b = on_b + on_b.mean() + (gamma(V + 1) + 2 * U) * b.mean() + 2 * U * (b + b.mean())
    return Bounds(1.01 * on_W, 1.01 * on_b)


def matrices(model: Model) -> tuple[Floats, Floats]:
    readout = model.readout
    V = readout.vocabulary
    b = np.zeros(V) if readout.bias is None else as_float64(readout.bias, 0, V)
    return as_float64(readout.unembedding, 0, V), b


MODELS = (
    *("gpt2-tied", "gpt2-untied", "gpt_neo-tied", "opt-tied", "bloom-tied", "llama-tied", "llama-untied"),
    *("mistral-untied", "mixtral-untied", "qwen2-untied", "qwen3-untied", "phi3-untied", "gptj-untied"),
    "gpt_neox-untied",
)
CHANGES: dict[str, dict[str, Any]] = {
    "gptj-untied": {"layer_norm_epsilon": 1e-5},
    "gpt_neox-untied": {"num_attention_heads": 2},
    "phi-untied": {"num_key_value_heads": 4},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_matrices_are_the_library_s_within_rounding(library: Any, name: str, tmp_path: Path) -> None:
    theirs = hooked(library, name, tmp_path / "net", **CHANGES.get(name, {}))
    ours, raw = (
        load_model(str(tmp_path / "net"), readout="transformer-lens"),
        load_model(str(tmp_path / "net")),
    )
    bounds = rounding(raw)
    (W, b), V = matrices(ours), raw.readout.vocabulary
    W_U, b_U = theirs.W_U.detach().double().numpy().T, theirs.b_U.detach().double().numpy()
    assert (np.abs(W - W_U) <= bounds.W).all()
    assert (np.abs(b - b_U) <= bounds.b).all()
    assert bounds.W.max() < 1e-4 < np.abs(W - as_float64(raw.readout.unembedding, 0, V)).max()
    live = verify.from_hooked(theirs)
    assert (ours.readout.norm, ours.readout.epsilon) == (live.readout.norm, live.readout.epsilon)
    assert list(ours.readout.tensors) == list(live.readout.tensors)


# What the library knows by official names only, or reads a configuration of another transformers for, is
# written down here: the module that converts the weights, and what the configuration needs beyond the sizes.
_GEMMA = {"act_fn": "gelu_new", "normalization_type": "RMS", "n_key_value_heads": 2, "gated_mlp": True}
_GEMMA |= {"final_rms": True, "eps": 3e-3}
_POST = {**_GEMMA, "use_normalization_before_and_after": True}
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma-tied": ("gemma", _GEMMA),
    "gemma2-tied": ("gemma", {**_POST, "output_logits_soft_cap": 7.0}),
    "gemma3_text-tied": ("gemma", {**_POST, "use_qk_norm": True}),
    "phi-untied": ("phi", {"act_fn": "gelu", "normalization_type": "LN", "eps": 3e-3}),
}


@pytest.mark.parametrize("name", NAMED)
def test_converted_matrices_are_the_library_s_within_rounding(
    library: Any, name: str, tmp_path: Path
) -> None:
    import torch

    convert, more = NAMED[name]
    case, capped = BY_NAME[name], "output_logits_soft_cap" in more
    theirs = build(replace(case, config=case.config | CHANGES.get(name, {})))
    theirs.save_pretrained(tmp_path)
    sizes = {"n_layers": 2, "d_model": 16, "n_ctx": 32, "d_head": 4, "n_heads": 4, "d_mlp": 24, "d_vocab": 61}
    kinds = {"positional_embedding_type": "rotary", "rotary_dim": 4, **more}
    kinds["original_architecture"] = case.of
    cfg = library.config(**sizes | kinds, dtype=torch.float32, device="cpu")
    model = library.model(cfg, move_to_device=False)
    module = import_module(f"transformer_lens.pretrained.weight_conversions.{convert}")
    state = getattr(module, f"convert_{convert}_weights")(theirs, cfg)
    model.load_and_process_state_dict(state, center_unembed=not capped)  # as from_pretrained does
    raw, ours = load_model(str(tmp_path)), load_model(str(tmp_path), readout=LENS)
    bounds, (W, b) = rounding(raw, capped=capped), matrices(ours)
    W_U, b_U = model.W_U.detach().double().numpy().T, model.b_U.detach().double().numpy()
    assert (np.abs(W - W_U) <= bounds.W).all()
    assert (np.abs(b - b_U) <= bounds.b).all()
    live = verify.from_hooked(model).readout
    assert (ours.readout.norm, ours.readout.epsilon) == (live.norm, live.epsilon)


def test_the_page_names_what_is_folded_and_all_of_it_is_compared() -> None:
    assert {BY_NAME[name].model_type for name in (*MODELS, *NAMED)} == set(FOLDED)
    page = " ".join((Path(__file__).parents[1] / "docs" / "transformer-lens.md").read_text("utf-8").split())
    assert f"Folded are: {', '.join(FOLDED)}." in page


@pytest.mark.parametrize("name", ["gpt2-tied", "llama-untied"])
def test_the_logits_are_those_of_the_checkpoint_up_to_a_constant(tmp_path: Path, name: str) -> None:
    """What processing is meant to leave alone, it leaves alone: differences of logits, within rounding."""
    build(BY_NAME[name]).save_pretrained(tmp_path)
    raw, ours = load_model(str(tmp_path)), load_model(str(tmp_path), readout="transformer-lens")
    r = np.random.default_rng(1).normal(size=(8, raw.readout.d))
    a, b = logits_at(raw.readout, r), logits_at(ours.readout, r)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    assert np.abs(a - b).max() < 1e-5 * np.abs(a).max()
    assert np.abs(matrices(ours)[0].sum(axis=0)).max() < 1e-4


@pytest.mark.parametrize("name", ["gpt2-tied", "llama-untied"])
@pytest.mark.parametrize("domain", ["readout", "direction", "box:1", "free"])
def test_which_domains_ask_the_same_of_both(tmp_path: Path, name: str, domain: str) -> None:
    """Everywhere but in `free`: the same set of states, and at each of them the same margins."""
    build(BY_NAME[name]).save_pretrained(tmp_path)
    raw, ours = load_model(str(tmp_path)), load_model(str(tmp_path), readout=LENS)
    state = np.random.default_rng(2).integers(-(2**20), 2**20, raw.readout.d).tolist()
    margins, sets = [], []
    for readout in (raw.readout, ours.readout):
        system = System(readout, parse_domain(domain), 3, readout.vocabulary)
        sets.append((system.region, system.projects, system.dimension, readout.epsilon, readout.d))
        unit, z = Fraction(2) ** system.unit, [x * Fraction(2) ** -20 for x in system.project(state)]
        z = [x / (readout.d if system.projects else 1) for x in z]
        rows = system.differences([j for j in range(system.count) if j != 3])
        margins.append([float((sum(a * x for a, x in zip(r.D, z, strict=True)) + r.e) * unit) for r in rows])
    theirs, folded = map(np.array, margins)
    close = np.abs(theirs - folded).max() < 1e-5 * np.abs(theirs).max()
    assert (close, sets[0] == sets[1]) == (domain != "free", True)


def test_the_same_tensors_every_time_and_notes_that_say_what_they_are(tmp_path: Path) -> None:
    build(BY_NAME["gpt2-tied"]).save_pretrained(tmp_path / "net")
    first, second = (load_model(str(tmp_path / "net"), readout="transformer-lens") for _ in range(2))
    assert first.readout.fingerprint == second.readout.fingerprint
    assert first.name == "net (transformer-lens)"
    assert {t.name for t in first.readout.tensors.values()} == {
        "transformer-lens:unembed.W_U.T",
        "transformer-lens:unembed.b_U",
    }
    assert "float32 matrices that TransformerLens hands out" in " ".join(first.readout.notes)
    assert first.checkpoint is not None
    assert first.checkpoint.readout.fingerprint == load_model(str(tmp_path / "net")).readout.fingerprint


def test_capped_logits_are_not_centred(tmp_path: Path) -> None:
    build(BY_NAME["gemma2-tied"]).save_pretrained(tmp_path)
    ours, raw = load_model(str(tmp_path), readout="transformer-lens"), load_model(str(tmp_path))
    assert raw.readout.gain is not None
    gain = (as_float64(raw.readout.gain, 0, raw.readout.d) + 1).astype(np.float32)
    V = raw.readout.vocabulary
    expected = as_float64(raw.readout.unembedding, 0, V).astype(np.float32) * gain
    assert np.array_equal(matrices(ours)[0], expected)
    assert "no center_unembed" in " ".join(ours.readout.notes)


def test_a_cap_that_the_library_s_classes_treat_differently_is_refused(tmp_path: Path) -> None:
    build(BY_NAME["llama-untied"]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for cap in (30.0, 0.0):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"final_logit_softcapping": cap}))
        with pytest.raises(ModelUnavailableError, match="final_logit_softcapping"):
            load_model(str(tmp_path), readout="transformer-lens")


# What is refused

SMALL = {"model_type": "llama"}


def refused(readout: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelUnavailableError, match=message):
        processed(readout, Config(config, "0" * 64))


def test_what_the_library_does_not_fold_is_refused(whisper: Model) -> None:
    rows = np.arange(12.0).reshape(4, 3)
    readout = replace(
        whisper.readout,
        norm="rmsnorm",
        unembedding=tensor("W", rows),
        gain=tensor("g", np.full(3, 1.5)),
        shift=None,
        epsilon=Fraction(1, 1000),
    )
    assert processed(readout, Config(SMALL, "0" * 64)).bias is None
    for model_type in ("whisper", "olmo2", "cohere", "t5", None):
        refused(readout, {"model_type": model_type}, "does not fold")
    refused(replace(readout, gain=None), SMALL, "no gain")
    refused(replace(readout, norm="layernorm"), SMALL, "no shift")
    refused(replace(readout, unembedding=tensor("W", rows[:3])), SMALL, "square")
    refused(replace(readout, unembedding=tensor("W", rows, "F64")), SMALL, "float64")
    refused(readout, {"model_type": "gptj"}, "takes epsilon 1e-05")
    refused(replace(readout, unembedding=tensor("W", rows * 3e37)), SMALL, "NaN or infinity")
    assert set(FOLDED) >= {"gpt2", "llama"}


def test_the_bundled_model_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="'whisper'"):
        load_model("whisper-tiny.en", readout="transformer-lens")


def test_readouts_that_do_not_go_together(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="unknown readout"):
        load_model(str(model), readout="hooked")
    with pytest.raises(UsageError, match="described by hand"):
        load_model(str(model), overrides=ReadoutOverrides("w", "none"), readout="transformer-lens")
    verify.pack(str(model), tmp_path / "p.safetensors")
    with pytest.raises(UsageError, match="needs no option"):
        load_model(str(tmp_path / "p.safetensors"), readout="transformer-lens")
    with pytest.raises(UsageError, match="a Model has its readout"):
        verify.token(1, load_model(str(model)), readout="transformer-lens")


def test_nothing_named_by_hand_counts_as_processed(tmp_path: Path) -> None:
    """A pack of processed matrices, laid into a folder and described by hand, or any tensor named so."""
    net = collapsing(tmp_path / "net")
    folder = tmp_path / "folder"
    folder.mkdir()
    pack = tmp_path / "tl.safetensors"
    verify.pack(str(net), pack, readout=LENS)
    (folder / "model.safetensors").write_bytes(pack.read_bytes())
    hand = ReadoutOverrides(PREFIX + "unembed.W_U.T", "none")
    with pytest.raises(UsageError, match="--unembedding: names that start with transformer-lens:"):
        load_model(str(folder), overrides=hand)
    file = tmp_path / "readout.toml"
    file.write_text(f'unembedding = "{hand.unembedding}"\nnorm = "none"\n')
    told = run("token", "2", "--model", folder, "--readout-file", file)
    assert (told.returncode, "cannot be named by hand" in told.stderr) == (2, True)
    # What certificates say is no way round either.
    (decision,) = verify.token(2, load_model(str(pack)))
    assert decision.proved is not None
    proved, certificate = decision.proved.certificate, tmp_path / "c.json"
    statement = replace(proved.statement, epsilon_source="by hand: 1e-6")
    certificate.write_bytes(to_bytes(replace(proved, statement=statement)))
    told = run("audit", certificate, "--model", folder)
    assert (told.returncode, "cannot be named by hand" in told.stderr) == (5, True)


# Verdicts


def collapsing(folder: Path) -> Path:
    """A checkpoint with two rows that differ in the last bit, which the product with the gain takes away."""
    from safetensors.numpy import save_file

    gain, x = np.float32(1.2), np.float32(1.9)
    while x * gain != (above := np.nextafter(x, np.float32(2))) * gain:
        x = above
    rows = np.array([[-5, 0], [x, 0], [above, 0], [0, 1], [0, -1]], np.float32)
    tensors = {"model.embed_tokens.weight": rows, "model.norm.weight": np.full(2, gain)}
    folder.mkdir()
    save_file(tensors, str(folder / "model.safetensors"))
    config = {"model_type": "llama", "hidden_size": 2, "vocab_size": 5, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_verdicts_that_differ_are_told(tmp_path: Path) -> None:
    net = collapsing(tmp_path / "net")
    told = run("token", "2", "3", "--model", net, "--out", tmp_path / "c", "--readout", "transformer-lens")
    assert told.returncode == 0, told.stderr
    assert "checkpoint's own     SPEAKABLE" in told.stdout
    assert told.stdout.count("THE VERDICTS DIFFER") == 1
    assert told.stdout.count("the same verdict") == 1
    assert "float32 matrices that TransformerLens hands out" in told.stdout
    assert f"verify pack {net} {PACKED}" in told.stdout
    told = run(
        *("token", "2", "3", "--model", net, "--out", tmp_path / "d", "--readout", "transformer-lens"),
        *("--json", "--domain", "all"),
    )
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["verdict"] for line in lines[:4]] == ["UNSPEAKABLE"] * 4
    assert [line["checkpoint"]["verdict"] for line in lines] == ["SPEAKABLE"] * 8
    # In the order readout, free, direction, box: in `free` the two are asked about other vectors.
    differs = [line["checkpoint"]["differs"] for line in lines]
    assert differs == [True, None, True, True, False, None, False, False]
    assert [line["checkpoint"]["note"] for line in lines] == [None, OTHER_STATES, None, None] * 2
    assert lines[0]["checkpoint"]["margin"]["approx"] > 0
    assert lines[0]["checkpoint"]["fingerprint"] == load_model(str(net)).readout.fingerprint
    told = run("token", "2", "--model", net, "--domain", "free", "--out", tmp_path / "d", "--readout", LENS)
    assert ("DIFFER" in told.stdout, OTHER_STATES in told.stdout) == (False, True)
    raw = run("token", "2", "--model", net, "--out", tmp_path / "e", "--json")
    assert json.loads(raw.stdout)["checkpoint"] is None


def test_certificates_are_audited_with_the_pack_alone(tmp_path: Path) -> None:
    net, out, pack = collapsing(tmp_path / "net"), tmp_path / "c", tmp_path / "tl.safetensors"
    options = ("--readout", "transformer-lens")
    assert run("token", "2", "--model", net, "--domain", "all", "--out", out, *options).returncode == 0
    assert run("pack", net, "-o", pack, *options).returncode == 0
    assert run("audit", out, "--model", pack).returncode == 0
    for model in ((), ("--model", net)):
        told = run("audit", out, *model)
        assert told.returncode == 5
        assert told.stderr.count(f"verify pack MODEL {PACKED}") == 1
        assert told.stderr.endswith(" [4 files]\n")
    raw = run("token", "2", "--model", net, "--out", tmp_path / "raw")
    assert raw.returncode == 0
    told = run("audit", tmp_path / "raw", "--model", pack)
    assert (told.returncode, "the statement is about tensors" in told.stderr) == (1, True)
    certificate = next(out.rglob("readout/*.json"))
    bundle = tmp_path / "2.bundle.json"
    assert run("bundle", certificate, "--model", pack, "--out", bundle).returncode == 0
    assert run("audit", bundle).returncode == 0
    again = run("token", "2", "--model", pack, "--domain", "all", "--out", tmp_path / "again")
    assert again.returncode == 0
    for path in (tmp_path / "again").rglob("*.json"):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "again")).read_bytes()


def test_a_scan_compares_with_the_ledger_of_the_checkpoint(tmp_path: Path) -> None:
    net, out, pack = collapsing(tmp_path / "net"), tmp_path / "l", tmp_path / "tl.safetensors"
    command = ("scan", "--model", net, "--out", out, "--workers", "2", "--readout")
    told = run(*command, "transformer-lens")
    assert told.returncode == 0, told.stderr
    assert "not compared" in told.stdout
    assert run(*command, "checkpoint").returncode == 0
    told = run(*command, "transformer-lens")
    assert "THE VERDICTS DIFFER for 1 of 5 tokens; its own are 2 (SPEAKABLE)" in told.stdout
    told = run(*command, "transformer-lens", "--json")
    beside = json.loads(told.stdout)["checkpoint"]
    assert (beside["compared"], beside["differing"]) == (5, [[2, "UNSPEAKABLE", "SPEAKABLE"]])
    assert run("pack", net, "-o", pack, "--readout", "transformer-lens").returncode == 0
    (ledger,) = (path.parent for path in out.rglob("ledger.json") if "transformer-lens" in str(path))
    assert run("audit", ledger, "--model", pack).returncode == 0
    told = run("audit", ledger, "--model", net)
    assert (told.returncode, PACKED in told.stderr) == (5, True)


def test_a_scan_in_free_compares_nothing(tmp_path: Path) -> None:
    command = ("scan", "--model", collapsing(tmp_path / "net"), "--out", tmp_path / "l", "--domain", "free")
    assert run(*command).returncode == 0
    told = run(*command, "--readout", LENS)
    assert ("DIFFER" in told.stdout, OTHER_STATES in told.stdout) == (False, True)
    beside = json.loads(run(*command, "--readout", LENS, "--json").stdout)["checkpoint"]
    assert beside == {"ledger": None, "compared": None, "differing": None, "note": OTHER_STATES}


# Models in memory


@pytest.mark.parametrize("name", ["gpt2-tied", "llama-untied"])
def test_a_hooked_transformer_without_processing(library: Any, name: str, tmp_path: Path) -> None:
    theirs = hooked(library, name, tmp_path / "net", fold=False)
    live, raw = verify.from_hooked(theirs), load_model(str(tmp_path / "net"))
    assert live.readout.norm == raw.readout.norm
    assert live.readout.epsilon == raw.readout.epsilon
    assert np.array_equal(live.readout.unembedding.raw, raw.readout.unembedding.raw)
    assert live.readout.unembedding.name == "unembed.W_U.T"
    assert live.readout.bias is None
    assert any("all zeros" in note for note in live.readout.notes)
    (decision,) = verify.token(3, live, out=tmp_path / "c")
    verify.pack(live, tmp_path / "h.safetensors")
    assert run("audit", str(decision.path), "--model", tmp_path / "h.safetensors").returncode == 0


def bridged(library: Any, name: str, folder: Path, *, fold: bool) -> Any:
    """As `hooked`, as a TransformerBridge."""
    import torch
    from test_live import fast_tokenizer

    tokenizer = fast_tokenizer()
    tokenizer.init_kwargs["name_or_path"] = str(folder)
    build(BY_NAME[name]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = library.bridge.boot_transformers(
        str(folder), device="cpu", dtype=torch.float32, tokenizer=tokenizer
    )
    if fold:
        model.enable_compatibility_mode()
    return model


@pytest.mark.parametrize("name", ["gpt2-tied", "llama-untied", "gemma-tied"])
def test_a_bridge(library: Any, name: str, tmp_path: Path) -> None:
    """As loaded it holds the checkpoint's own tensors; folded, those of `--readout transformer-lens`."""
    folder = tmp_path / "net"
    live, raw = (
        verify.from_hooked(bridged(library, name, folder, fold=False)).readout,
        load_model(str(folder)),
    )
    assert live.fingerprint == raw.readout.fingerprint
    assert (live.norm, live.gain_offset) == (raw.readout.norm, raw.readout.gain_offset)
    theirs = bridged(library, name, folder, fold=True)
    folded = verify.from_hooked(theirs)
    (W, b), bounds = matrices(load_model(str(folder), readout="transformer-lens")), rounding(raw)
    assert (np.abs(W - matrices(folded)[0]) <= bounds.W).all()
    assert (np.abs(b - matrices(folded)[1]) <= bounds.b).all()
    assert np.array_equal(matrices(folded)[0], theirs.W_U.detach().double().numpy().T)
    assert folded.tokens.find("w7") == 7


BRIDGE_EDITS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "hook": (
        lambda model: model.add_hook("ln_final.hook_out", lambda value, hook: value * 1.01),
        "own logits",
    ),
    "eps": (lambda model: setattr(model.ln_final.original_component, "eps", 1e-3), r"eps = 0\.001"),
    "no_norm": (lambda model: delattr(model.ln_final.original_component, "weight"), "no ln_final"),
}


@pytest.mark.parametrize("name", BRIDGE_EDITS)
def test_edits_of_a_bridge(library: Any, name: str, tmp_path: Path) -> None:
    edit, message = BRIDGE_EDITS[name]
    model = bridged(library, "gpt2-tied", tmp_path / "net", fold=False)
    edit(model)
    with pytest.raises(ModelUnavailableError, match=message):
        verify.from_hooked(model)


def set_(place: str, value: Any) -> Callable[[Any], None]:
    """An edit that puts `value` at a dotted place of the model."""

    def edit(model: Any) -> None:
        *path, last = place.split(".")
        for name in path:
            model = getattr(model, name)
        setattr(model, last, value)

    return edit


def hook(place: str) -> Callable[[Any], None]:
    return lambda model: model.add_hook(place, lambda value, hook: value * 1.01)


EDITS: dict[str, tuple[Callable[[Any], None], str]] = {
    "hook_scale": (hook("ln_final.hook_scale"), "own logits"),
    "hook_normalized": (hook("ln_final.hook_normalized"), "own logits"),
    "hook_in": (hook("unembed.hook_in"), "own logits"),
    "eps": (set_("ln_final.eps", 1e-3), r"eps = 0\.001"),
    "cap": (set_("cfg.output_logits_soft_cap", 1.0), ""),
    "final_rms": (set_("cfg.final_rms", True), "means RMSNorm"),
    "normalization_type": (set_("cfg.normalization_type", "RMS"), "means RMSNorm"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_of_a_hooked_transformer(library: Any, name: str, tmp_path: Path) -> None:
    edit, message = EDITS[name]
    model = hooked(library, "gpt2-tied", tmp_path / "net")
    edit(model)
    if not message:
        notes = verify.from_hooked(model).readout.notes
        assert any("soft_cap is positive" in note for note in notes)
        return
    with pytest.raises(ModelUnavailableError, match=message):
        verify.from_hooked(model)


def test_a_hooked_transformer_without_norm(library: Any) -> None:
    import torch

    cfg = {"n_layers": 1, "d_model": 8, "n_ctx": 4, "d_head": 4, "n_heads": 2, "d_vocab": 11, "device": "cpu"}
    model = library.model({**cfg, "act_fn": "relu", "normalization_type": None, "seed": 1, "d_vocab_out": 9})
    with torch.no_grad():
        model.unembed.b_U.uniform_(-1, 1)
    model.tokenizer = SimpleNamespace(is_fast=False, padding_side="right")
    readout = verify.from_hooked(model, name="toy").readout
    assert (readout.norm, readout.vocabulary, list(readout.tensors)) == ("none", 9, ["unembedding", "bias"])
    assert any("slow" in note for note in readout.notes)


def test_a_context_of_one_token_is_looked_at_as_closely(library: Any) -> None:
    cfg = {"n_layers": 1, "d_model": 8, "n_ctx": 1, "d_head": 4, "n_heads": 2, "d_vocab": 11, "device": "cpu"}
    model = library.model({**cfg, "act_fn": "relu", "normalization_type": "LN", "seed": 1})
    verify.from_hooked(model)
    model.add_hook("ln_final.hook_scale", lambda value, hook: value * (1 + 0.01 * (value < 0.01)))
    with pytest.raises(ModelUnavailableError, match="own logits"):
        verify.from_hooked(model)

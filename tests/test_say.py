"""`verify say`: witnesses put into tiny models of `transformers`, of every known type; every way to fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from command import run  # noqa: E402
from conformance import CASES, Case, build, save  # noqa: E402
from hub_server import COMMIT, HubServer  # noqa: E402
from test_hub import here  # noqa: E402, F401 - a fixture

import verify  # noqa: E402
from verify.cli.say import command  # noqa: E402
from verify.decision import Decision  # noqa: E402
from verify.errors import ModelUnavailableError, RefutedError, UsageError  # noqa: E402
from verify.files import write_atomically  # noqa: E402
from verify.kernel import Speakable, State, to_bytes  # noqa: E402
from verify.models import Model, ReadoutOverrides, load_model  # noqa: E402
from verify.models.modules import find_modules, same_values  # noqa: E402
from verify.models.packed import pack_bytes  # noqa: E402
from verify.models.transformers_model import TransformersModel  # noqa: E402
from verify.witness import NORM, vectors  # noqa: E402

BY_NAME = {case.name: case for case in CASES}
# Their classes cannot be run on text alone; see tests/conformance.py.
NOT_ON_TEXT = {case.name for case in CASES if case.part}
ONE_OF_EACH = ["gpt2-tied", "llama-untied", "whisper-tied", "bert-tied", "t5-tied-scaled"]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def asked(*arguments: Any) -> int:
    """The exit code of the command, run in this process."""
    code: int = command.main([*map(str, arguments)], standalone_mode=False)
    return code


def unlike(theirs: int, others: list[Decision]) -> Decision:
    """A speakable token other than the one that the model says by itself, with the largest margin."""
    chosen = [d for d in others if d.verdict == "SPEAKABLE" and d.token != theirs]
    return max(chosen, key=lambda d: d.claim.margin)  # type: ignore[union-attr]


def decided(folder: Path, domain: str = "readout", tokens: range = range(12)) -> Decision:
    """A certified token of the model in a folder, saved beside it, that the model does not say unasked."""
    model = load_model(str(folder))
    runner = TransformersModel(model)
    by_itself = int(runner._logits((0, 1))[0, -1].argmax())
    found = [
        d for token in tokens for d in verify.token(token, model, domain, out=folder.parent / "certificates")
    ]
    return unlike(by_itself, found)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_known_type_says_the_token(tmp_path: Path, name: str) -> None:
    case = BY_NAME[name]
    save(case, tmp_path / "model")
    if name in NOT_ON_TEXT:
        with pytest.raises(ModelUnavailableError, match="cannot be run on two tokens of text"):
            decided(tmp_path / "model")
        return
    decision = decided(tmp_path / "model", tokens=range(4))
    done = verify.say(str(decision.path), str(tmp_path / "model"))
    assert done.said
    assert done.replays[0].argmax == decision.token
    assert (done.class_name, done.dtype) == (case.of, "float32")
    if case.at:
        assert done.replays[0].module == case.at
    for replay in done.replays:
        assert replay.given.there
        assert replay.misread is None
        assert replay.vector.place == ("unembedding" if decision.model.readout.norm == "none" else NORM)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("domain", ["free", "direction", "box:1", "box:8"])
def test_every_domain(tmp_path: Path, name: str, domain: str) -> None:
    save(BY_NAME[name], tmp_path / "model")
    decision = decided(tmp_path / "model", domain)
    (replay,) = verify.say(str(decision.path), str(tmp_path / "model")).replays
    if domain == "free":
        assert replay.vector.place == "unembedding"
        assert replay.put == replay.read
    if replay.given.there:
        assert replay.said, replay.why
    else:  # only where biases that the domain drops act in the model
        assert domain == "direction"
        assert "drops the biases" in replay.why


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_in_16_bits(tmp_path: Path, name: str, dtype: str) -> None:
    """Where it says another token, the reason is rounding; every reason names the numbers."""
    save(BY_NAME[name], tmp_path / "model")
    decision = decided(tmp_path / "model")
    done = verify.say(str(decision.path), str(tmp_path / "model"), dtype=dtype)
    assert done.dtype == dtype
    assert any("not all the numbers" in note for note in done.notes)
    for replay in done.replays:
        assert replay.said == (not replay.why)
        assert replay.misread is None
    wide = verify.say(str(decision.path), str(tmp_path / "model"), dtype="float64")
    assert wide.said
    assert any("holds the stored float32 numbers exactly" in note for note in wide.notes)
    assert wide.replays[-1].rounding == 0


@pytest.mark.parametrize("domain", ["readout", "free"])
@pytest.mark.parametrize(
    "name",
    ["cohere-tied", "granite-untied", "t5-tied-scaled", "gemma2-tied", "gemma3_text-soft-cap", "gpt2-tied"],
)
def test_margins_are_compared_after_a_scale_or_soft_cap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, domain: str
) -> None:
    case = BY_NAME[name]
    save(case, tmp_path / "model")
    decision = decided(tmp_path / "model", domain)
    done = verify.say(str(decision.path), str(tmp_path / "model"), dtype="float64")
    acts = name != "gpt2-tied" and (name, domain) != ("t5-tied-scaled", "free")
    for replay in done.replays:
        assert replay.put.margin is not None
        assert replay.expected == pytest.approx(replay.margin, rel=1e-6)
        assert (replay.expected == pytest.approx(float(replay.put.margin), rel=1e-6)) != acts
        assert bool(replay.after) == acts
    asked(decision.path, "--model", tmp_path / "model", "--json")
    for replay in json.loads(capsys.readouterr().out)["replays"]:
        assert replay["expected_margin"] == pytest.approx(replay["float_margin"], rel=1e-3)
        assert (replay["after_readout"] is not None) == acts
    asked(decision.path, "--model", tmp_path / "model")
    assert ("after the model's own step, " in capsys.readouterr().out) == acts


# That it does not pass by accident


@pytest.fixture
def gpt2(tmp_path: Path) -> tuple[Path, Decision]:
    save(BY_NAME["gpt2-tied"], tmp_path / "model")
    return tmp_path / "model", decided(tmp_path / "model")


def test_without_the_hook_nothing_passes(
    gpt2: tuple[Path, Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, decision = gpt2
    hook = torch.nn.Module.register_forward_pre_hook

    def unheard(self: Any, function: Any, **options: Any) -> Any:
        return hook(self, lambda *_: None)

    monkeypatch.setattr(torch.nn.Module, "register_forward_pre_hook", unheard)
    with pytest.raises(ModelUnavailableError, match="ran 0 times"):
        verify.say(str(decision.path), str(folder))


def test_a_hook_that_changes_nothing_is_noticed(
    gpt2: tuple[Path, Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, decision = gpt2
    hook = torch.nn.Module.register_forward_pre_hook

    def deaf(self: Any, function: Any, **options: Any) -> Any:
        def called(*given: Any) -> None:
            function(*given)

        return hook(self, called, **options)

    monkeypatch.setattr(torch.nn.Module, "register_forward_pre_hook", deaf)
    with pytest.raises(ModelUnavailableError, match="depend on more than what enters"):
        verify.say(str(decision.path), str(folder))


@pytest.mark.parametrize("module", ["transformer.h.1.ln_2", "transformer.h.0.ln_1"])
def test_a_vector_in_another_norm_is_noticed(gpt2: tuple[Path, Decision], module: str) -> None:
    runner = TransformersModel(gpt2[1].model)
    with pytest.raises(ModelUnavailableError, match=f"depend on more than what enters {module}"):
        runner.put([1.0] * 16, module)


def test_the_witness_of_another_token_says_that_token(
    gpt2: tuple[Path, Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, decision = gpt2
    others = [verify.token(t, str(folder), out=folder.parent / "o")[0] for t in range(20, 28)]
    other = unlike(decision.token, others)
    monkeypatch.setattr("verify.spoken.vectors", lambda system, _: vectors(system, other.claim))  # type: ignore[arg-type]
    done = verify.say(str(decision.path), str(folder))
    assert not done.said
    assert {r.argmax for r in done.replays} == {other.token}
    assert all("in exact arithmetic, too" in r.why for r in done.replays)


def test_weights_that_are_not_the_certificate_s(gpt2: tuple[Path, Decision]) -> None:
    _, decision = gpt2
    runner = TransformersModel(decision.model)
    readout, model = decision.model.readout, runner._model
    assert find_modules(model, readout).norm == "transformer.ln_f"
    with torch.no_grad():
        model.transformer.ln_f.bias[3] += 1
    with pytest.raises(ModelUnavailableError, match="another shift"):
        find_modules(model, readout)
    with torch.no_grad():
        model.transformer.ln_f.weight[3] += 1
    with pytest.raises(ModelUnavailableError, match="no parameter like the gain"):
        find_modules(model, readout)
    model.twin = torch.nn.Linear(16, 61, bias=False)
    model.twin.weight = model.lm_head.weight
    with pytest.raises(ModelUnavailableError, match="several modules"):
        find_modules(model, readout)
    del model.twin
    model.lm_head.bias = torch.nn.Parameter(torch.ones(61))
    with pytest.raises(ModelUnavailableError, match="adds a bias"):
        find_modules(model, readout)
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1
    with pytest.raises(ModelUnavailableError, match="no module of it does"):
        find_modules(model, readout)
    assert not same_values(torch.ones(3), readout.unembedding)


# Disagreement


def test_a_margin_below_resolution_is_lost_and_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rows that float16 does not tell apart: exactly one leads, and in float16 they are equal."""
    model = build(BY_NAME["llama-untied"])
    with torch.no_grad():
        model.lm_head.weight[7] = model.lm_head.weight[3]
        model.lm_head.weight[7, 0] += 1e-6
    model.save_pretrained(tmp_path / "model")
    (decision,) = verify.token(7, str(tmp_path / "model"), out=tmp_path / "o")
    assert decision.verdict == "SPEAKABLE"
    done = verify.say(str(decision.path), str(tmp_path / "model"), dtype="float16")
    assert not done.said
    assert all(r.why for r in done.replays)
    assert any("the logits of 7 and 3 are equal" in r.why and r.argmax == 3 for r in done.replays)
    assert asked(decision.path, "--model", tmp_path / "model", "--dtype", "float16") == 1
    assert "a tie\n" in capsys.readouterr().out
    assert verify.say(str(decision.path), str(tmp_path / "model"), dtype="float64").said


@pytest.mark.parametrize(("largest", "words"), [(1e6, "not representable in"), (6e4, "numbers overflow in")])
def test_an_overflow_is_named(
    gpt2: tuple[Path, Decision], monkeypatch: pytest.MonkeyPatch, largest: float, words: str
) -> None:
    folder, _ = gpt2
    decision = decided(folder, "free")

    def long(*given: Any) -> Any:
        (v,) = vectors(*given)
        return [replace(v, values=[largest / max(map(abs, v.values)) * x for x in v.values])]

    monkeypatch.setattr("verify.spoken.vectors", long)
    (replay,) = verify.say(str(decision.path), str(folder), dtype="float16").replays
    assert not replay.said
    assert f"{words} float16" in replay.why


def test_a_step_after_the_unembedding_is_not_called_rounding(
    gpt2: tuple[Path, Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, decision = gpt2
    real = TransformersModel._logits

    def suppressed(self: TransformersModel, ids: Any) -> Any:
        logits = real(self, ids)
        logits[..., decision.token] = -1e4
        return logits

    monkeypatch.setattr(TransformersModel, "_logits", suppressed)
    done = verify.say(str(decision.path), str(folder))
    assert not done.said
    assert all(r.why.startswith("not rounding of the product") for r in done.replays)


@pytest.mark.parametrize("said", ["rmsnorm", "layernorm"])
def test_another_norm_than_the_model_s_is_noticed(tmp_path: Path, said: str) -> None:
    """Described by hand, for a type that config.json does not tell."""
    save(BY_NAME["gpt2-tied"], tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "unheard-of"}))
    by_hand = ReadoutOverrides(
        "transformer.wte.weight", said, "transformer.ln_f.weight", "transformer.ln_f.bias", epsilon="3e-3"
    )
    model = load_model(str(tmp_path / "model"), overrides=by_hand)
    one = unlike(-1, [verify.token(t, model, out=tmp_path / "o")[0] for t in range(8)])
    done = verify.say(str(one.path), str(tmp_path / "model"))
    assert any("norm is not the readout's" in note for note in done.notes) == (said == "rmsnorm")
    assert any("is not known here" in note for note in done.notes)
    for replay in done.replays:
        assert replay.expected is None
        assert (replay.misread is not None) == (said == "rmsnorm")
        assert replay.said == (replay.margin > 0 and said == "layernorm")
        assert replay.said or "has another norm" in replay.why or said == "layernorm"


# What is refused


def test_certificates_that_are_not_replayed(model: Path, tmp_path: Path) -> None:
    (bad,) = verify.token("centre", str(model), out=tmp_path / "o")
    with pytest.raises(UsageError, match=r"accepted, and says UNSPEAKABLE.*no state speaks"):
        verify.say(str(bad.path), str(model))
    assert run("bundle", bad.path, "--model", model, "-o", tmp_path / "b.json").returncode == 0
    with pytest.raises(UsageError, match="bundle"):
        verify.say(tmp_path / "b.json", str(model))
    (good,) = verify.token(" corner", str(model), out=tmp_path / "o")
    assert good.path is not None
    text = good.path.read_text()
    (tmp_path / "other.json").write_text(text.replace('"token": 1', '"token": 2'))
    with pytest.raises(RefutedError):
        verify.say(tmp_path / "other.json", str(model))
    (tmp_path / "cut.json").write_text(text[:-9])
    assert run("say", tmp_path / "cut.json", "--model", model).returncode == 4
    assert run("say", bad.path, "--model", model).returncode == 2
    assert run("say", good.path, "--model", model, "--dtype", "int8").returncode == 2
    with pytest.raises(ModelUnavailableError, match="single file that holds no model to run"):
        write_atomically(tmp_path / "square.safetensors", pack_bytes(load_model(str(model))))
        verify.say(good.path, str(tmp_path / "square.safetensors"))


def rescaled(decision: Decision, shift: int, path: Path) -> Path:
    """The certificate of a cone with a witness 2**shift times as long, which may be as long as it likes."""
    assert decision.proved is not None
    certificate = decision.proved.certificate
    claim = certificate.claim
    assert isinstance(claim, Speakable)
    assert claim.state is not None
    p, k = claim.state.p, claim.state.k
    state = State(tuple(x << max(shift, 0) for x in p), k + max(-shift, 0))
    scaled = Speakable(claim.margin * Fraction(2) ** shift, state)
    path.write_bytes(to_bytes(replace(certificate, claim=scaled)))
    return path


@pytest.mark.parametrize("shift", [2000, -3000])
@pytest.mark.parametrize("domain", ["free", "direction"])
def test_numbers_beyond_floats(tmp_path: Path, domain: str, shift: int) -> None:
    save(BY_NAME["gpt2-tied"], tmp_path / "model")
    path = rescaled(decided(tmp_path / "model", domain), shift, tmp_path / "far.json")
    assert verify.audit(path, str(tmp_path / "model")).error is None
    with pytest.raises(UsageError, match="beyond the range"):
        verify.say(path, str(tmp_path / "model"))


@pytest.mark.parametrize(("dtype", "shift"), [("float16", -40), ("float32", -200), ("bfloat16", 200)])
def test_numbers_beyond_a_dtype(tmp_path: Path, dtype: str, shift: int) -> None:
    save(BY_NAME["gpt2-tied"], tmp_path / "model")
    path = rescaled(decided(tmp_path / "model", "free"), shift, tmp_path / "far.json")
    (replay,) = verify.say(path, str(tmp_path / "model"), dtype=dtype).replays
    assert not replay.said
    assert f"the vector is not representable in {dtype}: its largest entry is" in replay.why
    assert verify.say(path, str(tmp_path / "model"), dtype="float64").said


def test_no_model_holds_the_matrices_of_transformer_lens(tmp_path: Path) -> None:
    save(BY_NAME["gpt2-tied"], tmp_path / "model")
    pack = tmp_path / "tl.safetensors"
    verify.pack(str(tmp_path / "model"), pack, readout="transformer-lens")
    one = unlike(-1, [verify.token(t, str(pack), out=tmp_path / "o")[0] for t in range(8)])
    with pytest.raises(UsageError, match="TransformerLens"):
        verify.say(str(one.path), str(pack))


def test_a_checkpoint_of_the_readout_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The square of command.py has no layers: refused, or run with random ones that have no say."""
    config = {"intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    (good,) = verify.token(" corner", str(model), out=tmp_path / "o")
    with pytest.raises(ModelUnavailableError, match=r"lacks 9 of the model's tensors.*--partial") as error:
        verify.say(str(good.path), str(model))
    assert str(error.value).count("...") == 1
    assert asked(good.path, "--model", model, "--partial", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["said"]
    assert {r["argmax_text"] for r in found["replays"]} == {" corner"}
    assert any("filled with random numbers" in note for note in found["notes"])
    assert asked(good.path, "--model", model, "--partial") == 0
    assert "1 ' corner': the token\n" in capsys.readouterr().out


def test_competitors_of_the_tokenizer(gpt2: tuple[Path, Decision], tmp_path: Path) -> None:
    folder, _ = gpt2
    (folder / "vocab.json").write_text(json.dumps({f"t{n}": n for n in range(20)}))
    found = [verify.token(t, str(folder), competitors="tokenizer", out=tmp_path / "o")[0] for t in range(6)]
    one = unlike(-1, found)
    done = verify.say(str(one.path), str(folder))
    assert done.said == any(r.argmax == one.token and r.margin > 0 for r in done.replays)
    for replay in done.replays:
        assert replay.said or replay.rival < 20 or "compares ids below 20 only" in replay.why
    assert any("compares ids below 20 only" in note for note in done.notes)


def test_models_without_a_folder_or_class(gpt2: tuple[Path, Decision], tmp_path: Path) -> None:
    folder, decision = gpt2
    with pytest.raises(ModelUnavailableError, match="made in memory"):
        TransformersModel(replace(decision.model, source=None))
    config = json.loads((folder / "config.json").read_text())
    for changed, words in (
        ({"architectures": ["pipeline", "GPT2Model", "No"], "model_type": "x"}, "no class with a head"),
        ({"n_head": 5}, "transformers cannot load model as GPT2LMHeadModel"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(ModelUnavailableError, match=words):
            TransformersModel(decision.model)
    (folder / "config.json").unlink()
    with pytest.raises(ModelUnavailableError, match=r"no config\.json"):
        TransformersModel(decision.model)


def test_without_the_packages(gpt2: tuple[Path, Decision], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, decision = gpt2
    for name in ("torch", "transformers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ModelUnavailableError, match=r'needs .*: pip install "torch>=2.6" "tr'):
                verify.say(str(decision.path), str(folder))


# Real models, and the hub


def test_albert(real_model: Callable[[str], Model], models_folder: Path, tmp_path: Path) -> None:
    """The one whole checkpoint of the test models, in a .bin file."""
    model = real_model("rxnmapper-albert")
    for token in (0, 100, 590):
        (decision,) = verify.token(token, model, out=tmp_path)
        done = verify.say(str(decision.path), str(models_folder / "rxnmapper-albert"))
        assert done.said
        assert done.replays[0].module == "predictions.LayerNorm"


def test_the_bundled_model_is_its_readout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parent.parent / "certificates" / "whisper-tiny.en" / "readout" / "30208.json"
    with pytest.raises(ModelUnavailableError, match="so this is not the whole model"):
        verify.say(path)
    code = asked(path, "--partial", "--dtype", "float32", "--json")
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["said"] else 1)
    assert (found["token"], found["class"]) == (30208, "WhisperForConditionalGeneration")
    assert {r["module"] for r in found["replays"]} == {"model.decoder.layer_norm"}
    for r in found["replays"]:
        assert r["said"] == (r["why"] is None)


@pytest.fixture(params=["safetensors", "sharded", "bin"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubServer]:
    """Serves a small whole GPT-2, its weights in one of three forms."""
    served = tmp_path / "served"
    theirs = save(BY_NAME["gpt2-tied"], served)
    if request.param != "safetensors":
        (served / "model.safetensors").unlink()
    if request.param == "sharded":
        theirs.save_pretrained(served, max_shard_size="4KB")
        assert len(list(served.glob("*.safetensors"))) > 1
    if request.param == "bin":
        torch.save(theirs.state_dict(), served / "pytorch_model.bin")
    with HubServer(served, repository="org/tiny") as server:
        yield server


@pytest.mark.usefixtures("here")
def test_a_hub_model_is_fetched_whole(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model("org/tiny")
    found = [verify.token(t, model, out=tmp_path / "o")[0] for t in range(8)]
    path = unlike(-1, found).path
    assert asked(path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["revision"] == COMMIT
    assert asked(path, "--model", "org/tiny", "--revision", COMMIT) == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert asked(path) == 0


def test_vectors_of_a_model_without_epsilon(tmp_path: Path) -> None:
    """At epsilon 0 the witness is a residual vector, which any positive factor leaves in place."""
    config = BY_NAME["llama-untied"].config | {"rms_norm_eps": 0.0}
    save(Case("llama", "no-epsilon", "LlamaForCausalLM", config), tmp_path / "model")
    decision = decided(tmp_path / "model")
    (replay,) = verify.say(str(decision.path), str(tmp_path / "model")).replays
    assert replay.said
    assert "residual vector" in replay.vector.source
    assert np.isfinite(replay.error)

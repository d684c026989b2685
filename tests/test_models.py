"""Which tensors, which norm, which epsilon: real models, then one small wrong folder per mistake."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verify.errors import ModelUnavailableError, UsageError
from verify.models import Model, ReadoutOverrides, load_model
from verify.models.architectures import ARCHITECTURES
from verify.models.config import exact_decimal

Arrays = dict[str, np.ndarray]
V, D = 7, 4
GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": D,
    "vocab_size": V,
    "layer_norm_epsilon": 1e-5,
}
LLAMA = {"model_type": "llama", "hidden_size": D, "vocab_size": V, "rms_norm_eps": 1e-5}


def real_model(name: str) -> Path:
    root = os.environ.get("VERIFY_TEST_MODELS")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"set VERIFY_TEST_MODELS to a folder that holds {name}")
    return Path(root) / name


def pack(tensors: Arrays) -> bytes:
    names = {"float16": "F16", "float32": "F32", "float64": "F64", "int8": "I8", "uint16": "BF16"}
    header: dict[str, Any] = {}
    data = b""
    for name, array in tensors.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def folder(path: Path, config: object, tensors: Arrays) -> Path:
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (path / "model.safetensors").write_bytes(pack(tensors))
    return path


def matrix(seed: int = 0, rows: int = V, columns: int = D) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def gpt2(more: Arrays | None = None, prefix: str = "transformer.") -> Arrays:
    one = np.ones(D, np.float32)
    names = {"wte.weight": matrix(), "ln_f.weight": one, "ln_f.bias": one * 0}
    return {prefix + key: value for key, value in names.items()} | (more or {})


def llama(**more: np.ndarray) -> Arrays:
    names = {"model.embed_tokens.weight": matrix(), "model.norm.weight": np.ones(D, np.float32)}
    return {**names, "lm_head.weight": matrix(1), **more}


def names_of(model: Model) -> dict[str, str]:
    return {role: tensor.name for role, tensor in model.readout.tensors.items()}


# Real models


def test_bundled_whisper() -> None:
    begin = time.perf_counter()
    model = load_model("whisper-tiny.en")
    assert time.perf_counter() - begin < 0.5
    readout = model.readout
    assert (model.name, model.revision) == ("whisper-tiny.en", None)
    assert (readout.norm, readout.vocabulary, readout.d) == ("layernorm", 51864, 384)
    assert (readout.epsilon, readout.epsilon_source) == (
        Fraction(1, 100_000),
        "default of model_type whisper: 1e-5",
    )
    assert names_of(model) == {
        "unembedding": "model.decoder.embed_tokens.weight",
        "gain": "model.decoder.layer_norm.weight",
        "shift": "model.decoder.layer_norm.bias",
    }
    assert set(model.files) == {"config.json", "tokenizer.json"}
    assert [path.name for path in model.weights] == ["model.safetensors"]
    for tensor in readout.tensors.values():
        tensor.require_finite()


def test_importing_and_loading_pull_in_nothing_heavy() -> None:
    code = (
        "import sys; from verify.models import load_model; load_model('whisper-tiny.en').tokens.text(5); "
        "print([m for m in ('torch', 'tokenizers', 'huggingface_hub') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["tinygpt-slm-05", "tinygpt-slm-12"])
def test_real_untied_gpt2(name: str) -> None:
    model = load_model(str(real_model(name)))
    assert model.name == name
    assert names_of(model) == {
        "unembedding": "lm_head.weight",
        "gain": "transformer.ln_f.weight",
        "shift": "transformer.ln_f.bias",
    }
    assert model.readout.epsilon == Fraction(1, 100_000)
    assert model.readout.epsilon_source == "config.json: layer_norm_epsilon"


def test_real_tied_llama() -> None:
    model = load_model(str(real_model("stories260K")))
    assert names_of(model) == {"unembedding": "model.embed_tokens.weight", "gain": "model.norm.weight"}
    assert (model.readout.norm, model.readout.epsilon) == ("rmsnorm", Fraction(1, 100_000))


def test_real_albert_in_torch_format() -> None:
    torch = pytest.importorskip("torch")
    path = real_model("rxnmapper-albert")
    model = load_model(str(path))
    readout = model.readout
    assert (readout.norm, readout.vocabulary, readout.d) == ("layernorm", 591, 128)
    assert readout.epsilon == Fraction(1, 10**12)
    assert names_of(model)["bias"] == "predictions.bias"
    assert "outer set" in " ".join(readout.notes)
    state = torch.load(path / "pytorch_model.bin", weights_only=True, map_location="cpu")
    for tensor in readout.tensors.values():
        assert np.array_equal(tensor.raw.view(np.float32), state[tensor.name].numpy())


# Names and folders


def test_what_is_no_model(tmp_path: Path) -> None:
    for name in ("", "no such model", "./absent", "/absent/folder", "a/b/c", "../x", "x\0y", "a--b"):
        with pytest.raises(ModelUnavailableError):
            load_model(name)
    (tmp_path / "model.safetensors").write_bytes(pack(gpt2()))
    with pytest.raises(ModelUnavailableError, match="pass the folder"):
        load_model(str(tmp_path / "model.safetensors"))
    with pytest.raises(ModelUnavailableError, match=r"no config\.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelUnavailableError, match="not a file"):
        load_model(str(tmp_path))


def test_empty_folder_and_weights_that_are_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no weights"):
        load_model(str(tmp_path))
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ModelUnavailableError, match="regular file"):
        load_model(str(tmp_path))


def test_errors_name_the_model_as_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's files are called like those of any other, so its path stands before them, once."""
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "deep" / "down"
    whole.mkdir(parents=True)
    folder(whole, LLAMA, llama())
    data = (whole / "model.safetensors").read_bytes()
    places = (str(whole), "deep/down", "./deep/down/")
    for name, content, said in (
        ("model.safetensors", data[:-1], "model.safetensors"),
        ("model.safetensors", b"", "model.safetensors"),
        ("config.json", b"{", "config.json"),
        ("config.json", b'{"model_type": "unheard-of"}', "config.json has model_type 'unheard-of'"),
        ("adapter_config.json", b"{}", "the folder holds an adapter"),
    ):
        path = whole / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        for place in places:
            with pytest.raises(ModelUnavailableError) as caught:
                load_model(place)
            assert str(caught.value).startswith(f"{place}: ")
            assert said in str(caught.value)
        path.unlink() if before is None else path.write_bytes(before)
    (whole / "config.json").unlink()
    with pytest.raises(ModelUnavailableError, match=f"^{re.escape(str(whole))}: no config.json"):
        load_model(str(whole))
    file = "deep/down/model.safetensors"
    with pytest.raises(ModelUnavailableError, match=f"^'{file}' is a file; pass the folder"):
        load_model(file)


def test_an_unmerged_adapter_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, GPT2, gpt2())
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelUnavailableError, match="adapter"):
        load_model(str(tmp_path))


# The table


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_tied_gpt2_with_and_without_prefix(tmp_path: Path, prefix: str) -> None:
    model = load_model(str(folder(tmp_path, GPT2, gpt2(prefix=prefix))))
    assert names_of(model)["unembedding"] == f"{prefix}wte.weight"
    assert model.tokens.size is None


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_untied_rmsnorm_models_and_their_default_epsilon(tmp_path: Path, kind: str) -> None:
    config = {"model_type": kind, "hidden_size": D, "vocab_size": V}
    model = load_model(str(folder(tmp_path, config, llama())))
    assert names_of(model) == {"unembedding": "lm_head.weight", "gain": "model.norm.weight"}
    assert model.readout.epsilon == Fraction(1, 10**6)
    assert model.readout.epsilon_source == f"default of model_type {kind}: 1e-6"


def bert(bias: np.ndarray, **more: np.ndarray) -> Arrays:
    one = np.ones(D, np.float32)
    return {
        "bert.embeddings.word_embeddings.weight": matrix(),
        "cls.predictions.transform.dense.weight": matrix(2, D, D),
        "cls.predictions.transform.LayerNorm.gamma": one,
        "cls.predictions.transform.LayerNorm.beta": one,
        "cls.predictions.bias": bias,
        **more,
    }


BERT = {"model_type": "bert", "hidden_size": D, "vocab_size": V, "layer_norm_eps": 1e-12}


def test_bert_head_with_old_names_and_equal_copies(tmp_path: Path) -> None:
    bias = np.arange(V, dtype=np.float32)
    copies = {"cls.predictions.decoder.weight": matrix(), "cls.predictions.decoder.bias": bias}
    model = load_model(str(folder(tmp_path, BERT, bert(bias, **copies))))
    assert names_of(model)["gain"].endswith("gamma")
    assert names_of(model)["shift"].endswith("beta")
    with pytest.raises(ModelUnavailableError, match="logit bias differ"):
        load_model(str(folder(tmp_path, BERT, bert(bias, **{"cls.predictions.decoder.bias": bias + 1}))))


@pytest.mark.parametrize("value", ["model.safetensors", None])
def test_weights_named_as_they_are(tmp_path: Path, value: str | None) -> None:
    model = load_model(str(folder(tmp_path, changed(LLAMA, transformers_weights=value), llama())))
    assert names_of(model)["unembedding"] == "lm_head.weight"


def test_untied_bert_head(tmp_path: Path) -> None:
    bias = np.arange(V, dtype=np.float32)
    untied = changed(BERT, tie_word_embeddings=False)
    own = {"cls.predictions.decoder.weight": matrix(3), "cls.predictions.decoder.bias": bias}
    assert "bias" in names_of(load_model(str(folder(tmp_path, untied, bert(bias, **own)))))
    tensors = {name: x for name, x in bert(bias, **own).items() if name != "cls.predictions.bias"}
    model = load_model(str(folder(tmp_path, untied, tensors)))
    assert names_of(model)["bias"] == "cls.predictions.decoder.bias"


def test_every_entry_is_complete() -> None:
    for entries in ARCHITECTURES.values():
        for entry in entries:
            assert entry.embedding
            assert entry.head
            assert entry.width
            assert entry.rows
            assert (entry.norm == "none") == (not entry.epsilon_default)
            if entry.norm != "none":
                assert exact_decimal(entry.epsilon_default) > 0
            if entry.norm != "layernorm":
                assert not entry.shift
            named = (*entry.gain, *entry.shift)
            assert bool(entry.layers) == any("{last}" in name for name in named)
            assert not entry.gain_offset or entry.gain
            assert not entry.untied_bias or entry.untied_bias in entry.bias


def changed(config: Mapping[str, object], **changes: object) -> dict[str, object]:
    return {key: value for key, value in {**config, **changes}.items() if value != "ABSENT"}


ONE = np.ones(D, np.float32)
ONE_A_ROW = np.ones(V, np.float32)
OPT = {"model_type": "opt", "hidden_size": D, "vocab_size": V}
BART = {"model_type": "bart", "d_model": D, "vocab_size": V, "decoder_layers": 1}
MPT = {"model_type": "mpt", "d_model": D, "vocab_size": V}
GEMMA3_TEXT = {"model_type": "gemma3_text", "hidden_size": D, "vocab_size": V, "rms_norm_eps": 1e-5}
GEMMA3 = {"model_type": "gemma3", "text_config": GEMMA3_TEXT}


def opt(**more: np.ndarray) -> Arrays:
    norm = "model.decoder.final_layer_norm"
    return {
        "model.decoder.embed_tokens.weight": matrix(),
        f"{norm}.weight": ONE,
        f"{norm}.bias": ONE,
        **more,
    }


def bart(layers: int, **more: np.ndarray) -> Arrays:
    norms = [f"model.decoder.layers.{n}.final_layer_norm" for n in range(layers)]
    return {
        "model.shared.weight": matrix(),
        **{f"{norm}.{part}": ONE for norm in norms for part in ("weight", "bias")},
        **more,
    }


def mpt(**more: np.ndarray) -> Arrays:
    return {"transformer.wte.weight": matrix(), "transformer.norm_f.weight": ONE, **more}


def gemma3(**more: np.ndarray) -> Arrays:
    prefix = "language_model.model."
    return {f"{prefix}embed_tokens.weight": matrix(), f"{prefix}norm.weight": ONE, **more}


MARIAN = {"model_type": "marian", "d_model": D, "vocab_size": V, "decoder_layers": 1}


def test_texts_of_a_decoder_with_a_vocabulary_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"dog": 0}')
    tensors = bart(1, **{"model.decoder.embed_tokens.weight": matrix()})
    shared = load_model(str(folder(tmp_path, MARIAN, tensors)))
    assert shared.tokens.text(0) == "dog"
    separate = changed(MARIAN, share_encoder_decoder_embeddings=False)
    tensors["model.shared.weight"] = tensors.pop("model.decoder.embed_tokens.weight")
    model = load_model(str(folder(tmp_path, separate, tensors)))
    assert (model.tokens.size, set(model.files)) == (None, {"config.json"})
    (tmp_path / "target_vocab.json").write_text('{"chien": 0}')
    model = load_model(str(tmp_path))
    assert (model.tokens.text(0), set(model.files)) == ("chien", {"config.json", "target_vocab.json"})


REFUSED: dict[str, tuple[object, Arrays, str]] = {
    "unknown_architecture": (changed(GPT2, model_type="nouveau"), gpt2(), "unknown architecture.*nouveau"),
    "no_model_type": (changed(GPT2, model_type="ABSENT"), gpt2(), "no model_type"),
    "model_type_is_a_number": (changed(GPT2, model_type=3), gpt2(), "expected a string"),
    "classification_head": (changed(GPT2, architectures=["GPT2ForSequenceClassification"]), gpt2(), "head"),
    "own_code": (changed(GPT2, auto_map={"AutoModelForCausalLM": "x.Y"}), gpt2(), "own code"),
    "missing_lm_head": (
        LLAMA,
        {key: value for key, value in llama().items() if key != "lm_head.weight"},
        "lm_head.weight is missing",
    ),
    "missing_norm": (LLAMA, {"lm_head.weight": matrix()}, "lacks the gain"),
    "missing_shift": (
        GPT2,
        {key: value for key, value in gpt2().items() if not key.endswith("ln_f.bias")},
        "lacks the shift",
    ),
    "no_tensors_at_all": (GPT2, {"other": matrix()}, "lacks the unembedding"),
    "tied_but_different": (changed(LLAMA, tie_word_embeddings=True), llama(), "differ"),
    "tied_by_default_but_different": (
        GPT2,
        gpt2({"lm_head.weight": matrix(5)}),
        "default for gpt2.*differ",
    ),
    "scalar_norms": (
        LLAMA,
        llama(**{"model.norm.weight": np.ones((), np.float32), "norm.weight": np.ones((), np.float32)}),
        "expected",
    ),
    "two_prefixes_disagree": (GPT2, gpt2() | {"wte.weight": matrix(9)}, "embedding differ"),
    "wrong_vocab_size": (changed(GPT2, vocab_size=V + 1), gpt2(), "not of one model"),
    "wrong_width": (changed(GPT2, n_embd=D + 1), gpt2(), "not of one model"),
    "no_vocab_size": (changed(GPT2, vocab_size="ABSENT"), gpt2(), "no vocab_size"),
    "vocab_size_is_true": (changed(GPT2, vocab_size=True), gpt2(), "expected an integer"),
    "gain_too_long": (LLAMA, llama(**{"model.norm.weight": np.ones(D + 1, np.float32)}), "expected"),
    "one_dimensional_unembedding": (LLAMA, llama(**{"lm_head.weight": ONE}), "announces|matrix"),
    "integer_unembedding": (LLAMA, llama(**{"lm_head.weight": np.ones((V, D), np.int8)}), "I8"),
    "lm_head_bias": (LLAMA, llama(**{"lm_head.bias": np.ones(V, np.float32)}), "lm_head.bias"),
    "bias_without_head": (GPT2, gpt2({"lm_head.bias": np.ones(V, np.float32)}), "lm_head.bias"),
    "final_logits_bias": (GPT2, gpt2({"final_logits_bias": np.ones(V, np.float32)}), "final_logits_bias"),
    "norm_bias_of_rmsnorm": (LLAMA, llama(**{"model.norm.bias": ONE}), "model.norm.bias"),
    "adapter_on_the_head": (LLAMA, llama(**{"lm_head.lora_A.weight": matrix()}), "lora_A"),
    "projection": (changed(LLAMA, word_embed_proj_dim=D + 1), llama(), "word_embed_proj_dim"),
    "no_final_norm": (changed(LLAMA, _remove_final_layer_norm=True), llama(), "_remove_final"),
    "logit_scale_zero": (changed(LLAMA, logit_scale=0.0), llama(), "not positive"),
    "logit_scale_negative": (changed(LLAMA, logit_scale=-1), llama(), "not positive"),
    "logit_scale_text": (changed(LLAMA, logit_scale="inv_sqrt"), llama(), "expected a number"),
    "untied_bias_of_the_tied_head": (
        changed(BERT, tie_word_embeddings=False),
        bert(ONE_A_ROW, **{"cls.predictions.decoder.weight": matrix(3)}),
        "has cls.predictions.bias but not cls.predictions.decoder.bias",
    ),
    "untied_biases_differ": (
        changed(BERT, tie_word_embeddings=False),
        bert(
            ONE_A_ROW,
            **{"cls.predictions.decoder.weight": matrix(3), "cls.predictions.decoder.bias": ONE_A_ROW * 2},
        ),
        "logit bias differ",
    ),
    "other_weights_named": (
        changed(LLAMA, transformers_weights="other.safetensors"),
        llama(),
        "names 'other.safetensors', which loaders read instead of model.safetensors",
    ),
    "weights_named_by_a_number": (changed(LLAMA, transformers_weights=1), llama(), "loaders read instead"),
    "scale_with_bias": (changed(BERT, logit_scale=2), bert(np.ones(V, np.float32)), "logit bias"),
    "epsilon_negative": (changed(LLAMA, rms_norm_eps=-1e-5), llama(), "negative"),
    "epsilon_large": (changed(LLAMA, rms_norm_eps=1e300), llama(), "out of range: it is 0, or from 1e-200"),
    "epsilon_small": (changed(LLAMA, rms_norm_eps=1e-201), llama(), "out of range: it is 0, or from 1e-200"),
    "epsilon_text": (changed(LLAMA, rms_norm_eps="1e-5"), llama(), "expected a number"),
    "epsilon_true": (changed(LLAMA, rms_norm_eps=True), llama(), "expected a number"),
    "epsilon_nan": (json.dumps(LLAMA).replace("1e-05", "NaN"), llama(), "NaN is not a number"),
    "epsilon_infinite": (json.dumps(LLAMA).replace("1e-05", "-Infinity"), llama(), "Infinity"),
    "epsilon_absurd": (json.dumps(LLAMA).replace("1e-05", "1e-99999999999"), llama(), "not a decimal"),
    "opt_projects_after_the_norm": (changed(OPT, word_embed_proj_dim=D + 1), opt(), "word_embed_proj_dim"),
    "opt_with_a_projection_it_does_not_name": (
        OPT,
        opt(**{"model.decoder.project_out.weight": matrix(3, D, D)}),
        "project_out",
    ),
    "opt_norm_removed_but_stored": (
        changed(OPT, _remove_final_layer_norm=True),
        opt(),
        "final_layer_norm",
    ),
    "opt_norm_without_gain": (changed(OPT, layer_norm_elementwise_affine=False), opt(), "elementwise_affine"),
    "opt_post_norm_without_layers": (changed(OPT, do_layer_norm_before=False), opt(), "num_hidden_layers"),
    "bart_of_more_layers": (BART, bart(2), "layers.1.*not of one model"),
    "bart_of_fewer_layers": (changed(BART, decoder_layers=2), bart(1), "lacks the gain"),
    "bart_pre_norm": (changed(BART, normalize_before=True), bart(1), "normalize_before"),
    "bart_with_a_last_norm": (BART, bart(1, **{"model.decoder.layer_norm.weight": ONE}), "layer_norm"),
    "bart_bias_of_two_rows": (BART, bart(1, final_logits_bias=matrix(0, 2, V)), "final_logits_bias.*shape"),
    "olmo_with_a_gain": (changed(LLAMA, model_type="olmo"), llama(), "model.norm.weight"),
    "mpt_with_rmsnorm": (changed(MPT, norm_type="rmsnorm"), mpt(), "norm_type"),
    "mpt_with_a_shift": (MPT, mpt(**{"transformer.norm_f.bias": ONE}), "norm_f.bias"),
    "mpt_with_other_code": (changed(MPT, auto_map={"AutoModelForCausalLM": "x.Y"}), mpt(), "own code"),
    "gemma3_without_text": (changed(GEMMA3, text_config="ABSENT"), gemma3(), "no table text_config"),
    "gemma3_around_another": (
        changed(GEMMA3, text_config={**GEMMA3_TEXT, "model_type": "gemma4_text"}),
        gemma3(),
        "gemma4_text",
    ),
    "gemma3_tied_and_not": (
        changed(GEMMA3, tie_word_embeddings=True, text_config={**GEMMA3_TEXT, "tie_word_embeddings": False}),
        gemma3(),
        "contradict",
    ),
    "quantised": (changed(LLAMA, quantization_config={"bits": 4}), llama(), "quantised.*by hand"),
    "quantised_inside": (changed(LLAMA, text_config={"quantization_config": {}}), llama(), "quantised"),
    "compressed": (changed(LLAMA, compression_config={}), llama(), "quantised"),
    "two_dtypes": (
        LLAMA,
        llama(**{"model.norm.weight": ONE.astype(np.float16)}),
        "several dtypes.*unembedding F32, gain F16",
    ),
    "duplicate_key": ('{"model_type": "gpt2", "model_type": "llama"}', llama(), "stands there twice"),
    "config_is_a_list": ("[]", llama(), "not a JSON object"),
    "config_is_not_json": ("{", llama(), "not valid JSON"),
    "config_is_deep": ('{"a":' + "[" * 100_000, llama(), "not valid JSON"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, mistake: str) -> None:
    config, tensors, message = REFUSED[mistake]
    with pytest.raises(ModelUnavailableError, match=f"(?s){message}"):
        load_model(str(folder(tmp_path, config, tensors)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", Fraction(1, 10**5)),
        ("0.00001", Fraction(1, 10**5)),
        ("1.25E-6", Fraction(125, 10**8)),
        ("0", Fraction(0)),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_epsilon_is_read_exactly(tmp_path: Path, text: str, value: Fraction) -> None:
    path = folder(tmp_path, json.dumps(LLAMA).replace("1e-05", text), llama())
    readout = load_model(str(path)).readout
    assert (readout.epsilon, readout.epsilon_source) == (value, "config.json: rms_norm_eps")


@pytest.mark.parametrize(
    "text", ["1_0", " 1", "1 ", "", "0x1", "nan", "inf", "1e", "\u0661", ".5", "1/3", "1e9999"]
)
def test_what_is_no_exact_decimal(text: str) -> None:
    with pytest.raises(ValueError, match="decimal"):
        exact_decimal(text)


def test_positive_scale_soft_cap_and_dtype_are_named(tmp_path: Path) -> None:
    config = changed(LLAMA, model_type="cohere", logit_scale=0.5, torch_dtype="bfloat16")
    tied = {name: x for name, x in llama().items() if name != "lm_head.weight"}
    notes = " ".join(load_model(str(folder(tmp_path, config, tied))).readout.notes)
    for word in ("logit_scale", "bfloat16"):
        assert word in notes
    config = changed(LLAMA, model_type="gemma2", final_logit_softcapping=30)
    assert "final_logit_softcapping" in load_model(str(folder(tmp_path, config, tied))).readout.notes[0]
    # An architecture without them does not look at the keys.
    config = changed(LLAMA, logit_scale=0.5, final_logit_softcapping=30)
    assert load_model(str(folder(tmp_path, config, llama()))).readout.notes == ()


def test_one_note_for_one_soft_cap(tmp_path: Path) -> None:
    text = {**GEMMA3_TEXT, "final_logit_softcapping": 30}
    twice = {"model_type": "gemma3", "final_logit_softcapping": 30, "text_config": text}
    assert len(load_model(str(folder(tmp_path, twice, gemma3()))).readout.notes) <= 1


def test_tied_model_that_stores_only_the_head_or_equal_copies(tmp_path: Path) -> None:
    config = changed(LLAMA, tie_word_embeddings=True)
    only = {key: value for key, value in llama().items() if "embed" not in key}
    model = load_model(str(folder(tmp_path, config, only)))
    assert "only lm_head.weight is stored" in model.readout.notes[0]
    equal = llama(**{"lm_head.weight": matrix()})
    assert load_model(str(folder(tmp_path, config, equal))).readout.notes == ()


def test_nan_loads_and_is_found_when_asked(tmp_path: Path) -> None:
    bad = matrix()
    bad[3, 1] = np.nan
    readout = load_model(str(folder(tmp_path, LLAMA, llama(**{"lm_head.weight": bad})))).readout
    with pytest.raises(ModelUnavailableError, match=r"lm_head.weight.*\[3, 1\]"):
        readout.unembedding.require_finite()


def test_own_code_that_the_table_knows_is_named(tmp_path: Path) -> None:
    code = {
        "AutoConfig": "configuration_mpt.MPTConfig",
        "AutoModelForCausalLM": "a/b--modeling_mpt.MPTForCausalLM",
    }
    readout = load_model(str(folder(tmp_path, changed(MPT, auto_map=code), mpt()))).readout
    assert "own code (modeling_mpt)" in " ".join(readout.notes)
    assert (readout.norm, readout.shift) == ("layernorm", None)


def test_bart_without_bias_with_zeros_and_with_a_row(tmp_path: Path) -> None:
    assert "zeros" in " ".join(load_model(str(folder(tmp_path, BART, bart(1)))).readout.notes)
    zeros = np.zeros((1, V), np.float32)
    readout = load_model(str(folder(tmp_path, BART, bart(1, final_logits_bias=zeros)))).readout
    assert readout.bias is None
    zeros[0, V - 1] = 1e-40
    readout = load_model(str(folder(tmp_path, BART, bart(1, final_logits_bias=zeros)))).readout
    assert readout.bias is not None
    assert readout.bias.shape == (V,)


def test_keys_of_a_nested_table(tmp_path: Path) -> None:
    readout = load_model(str(folder(tmp_path, GEMMA3, gemma3()))).readout
    assert (readout.epsilon, readout.gain_offset) == (Fraction(1, 10**5), 1)
    assert readout.epsilon_source == "config.json: text_config: rms_norm_eps"
    with pytest.raises(ModelUnavailableError, match="announces vocab_size 262208"):
        short = {key: value for key, value in GEMMA3_TEXT.items() if key != "vocab_size"}
        load_model(str(folder(tmp_path, changed(GEMMA3, text_config=short), gemma3())))


# By hand


def test_unknown_architecture_lists_candidates_and_takes_a_description(tmp_path: Path) -> None:
    tensors = {
        "out.w": matrix(),
        "layers.0.norm.g": ONE,
        "final.g": ONE,
        "final.b": ONE,
        "c": np.ones(V, np.float32),
    }
    path = str(folder(tmp_path, {"model_type": "nouveau", "vocab_size": V}, tensors))
    with pytest.raises(ModelUnavailableError) as caught:
        load_model(path)
    message = str(caught.value)
    for part in ("out.w  F32  7 x 4", "final.g  F32  4", "c  F32  7", "--unembedding NAME", "--epsilon 1e-5"):
        assert part in message
    assert "layers.0" not in message
    by_hand = ReadoutOverrides("out.w", "layernorm", "final.g", "final.b", "c", "2e-5", gain_offset=1)
    model = load_model(path, overrides=by_hand)
    assert names_of(model) == {"unembedding": "out.w", "gain": "final.g", "shift": "final.b", "bias": "c"}
    assert (model.readout.epsilon, model.readout.gain_offset) == (Fraction(2, 10**5), 1)
    assert model.readout.epsilon_source == "by hand: 2e-5"
    assert model.files == {}
    assert load_model(path, overrides=ReadoutOverrides("out.w", "none")).readout.epsilon_source == ""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (ReadoutOverrides(unembedding="lm_head.weight"), "at least"),
        (ReadoutOverrides("lm_head.weight", "batchnorm"), "--norm"),
        (ReadoutOverrides("lm_head.weight", "rmsnorm"), "--epsilon"),
        (ReadoutOverrides("lm_head.weight", "none", epsilon="1e-5"), "--epsilon"),
        (ReadoutOverrides("lm_head.weight", "rmsnorm", epsilon="-1"), "negative"),
        (ReadoutOverrides("lm_head.weight", "rmsnorm", epsilon="1_0"), "--epsilon"),
        (ReadoutOverrides("lm_head.weight", "rmsnorm", epsilon="1e200"), "out of range"),
        (ReadoutOverrides("lm_head.weight", "rmsnorm", epsilon="1.1e-200"), "out of range"),
        (ReadoutOverrides("lm_head.wait", "none"), "near it: 'lm_head.weight'"),
        (ReadoutOverrides("lm_head.weight", "none", norm_gain="x"), "--norm-gain"),
        (ReadoutOverrides("lm_head.weight", "none", gain_offset=1), "gain offset"),
    ],
)
def test_incomplete_descriptions(tmp_path: Path, overrides: ReadoutOverrides, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(str(folder(tmp_path, LLAMA, llama())), overrides=overrides)


def test_what_a_config_says_of_a_model_described_by_hand(tmp_path: Path) -> None:
    """Which weights, and whose texts: the same as of a model that is loaded by its type."""
    hand, texts = ReadoutOverrides("lm_head.weight", "none"), tmp_path / "vocab.json"
    texts.write_text('{"dog": 0}')

    def loaded(config: object) -> Model:
        return load_model(str(folder(tmp_path, config, llama())), overrides=hand)

    plain = loaded(LLAMA)
    assert (plain.tokens.text(0), len(plain.readout.notes)) == ("dog", 1)
    for sizes in ({"share_encoder_decoder_embeddings": False}, {"target_vocab_size": V + 1}):
        assert loaded(LLAMA | sizes).tokens.size is None
    assert loaded(LLAMA | {"decoder_vocab_size": V}).tokens.text(0) == "dog"
    with pytest.raises(ModelUnavailableError, match="transformers_weights names 'other"):
        loaded(LLAMA | {"transformers_weights": "other.safetensors"})
    loaded(LLAMA | {"transformers_weights": "model.safetensors"})
    # One that cannot be read is no reason to refuse what needs none.
    noted = loaded(LLAMA | {"time_step_limit": [0.0, math.inf]})
    assert noted.readout.notes[1].endswith(
        "whether it names other weights or another vocabulary is not known"
    )


def test_an_empty_description_is_none(tmp_path: Path) -> None:
    model = load_model(str(folder(tmp_path, LLAMA, llama())), overrides=ReadoutOverrides())
    assert model.readout.norm == "rmsnorm"


TOML = """
# the last step of a nouveau
unembedding = "out.w"
norm = "rmsnorm"
norm_gain = "final.g"
gain_offset = 1
epsilon = 1.25e-5
"""


def test_a_description_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "readout.toml"
    path.write_text(TOML)
    found = ReadoutOverrides.from_toml(path)
    assert found == ReadoutOverrides("out.w", "rmsnorm", "final.g", epsilon="1.25e-5", gain_offset=1)
    path.write_text(TOML.replace("1.25e-5", '"0.0000125"'))
    assert ReadoutOverrides.from_toml(str(path)).epsilon == "0.0000125"
    path.write_text(TOML.replace("1.25e-5", "0"))
    folder(tmp_path, {}, {"out.w": matrix(), "final.g": ONE})
    readout = load_model(str(tmp_path), overrides=ReadoutOverrides.from_toml(path)).readout
    assert (readout.gain_offset, readout.epsilon_source) == (1, "by hand: 0")
    assert readout.epsilon == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "describes nothing"),
        ("gain_offset = 0", "describes nothing"),
        ("unembeding = 'x'", "unknown key 'unembeding'.*did you mean unembedding"),
        ("[readout]\nunembedding = 'x'", "unknown key 'readout'"),
        ("unembedding = 1", "unembedding must be a name"),
        ("unembedding = 1.5", "unembedding must be a name"),
        ("unembedding = ''", "unembedding must be a name"),
        ("norm_gain = ['x']", "norm_gain must be a name"),
        ("gain_offset = true", "gain_offset must be 0 or 1"),
        ("gain_offset = 1.0", "gain_offset must be 0 or 1"),
        ("epsilon = true", "epsilon must be a number"),
        ("norm = 'none'\nnorm = 'none'", "not valid TOML"),
        ("norm = none", "not valid TOML"),
        ("a=" + "[" * 5000, "not valid TOML"),
        ("#" * 70_000, "longer than"),
    ],
)
def test_what_no_description_in_toml_is(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "readout.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"(?s){message}"):
        ReadoutOverrides.from_toml(path)
    with pytest.raises(UsageError, match="not a file"):
        ReadoutOverrides.from_toml(tmp_path / "absent.toml")


@pytest.mark.parametrize("epsilon", ["nan", "inf", "-1e-5", "1_0.0", "1e9999", "1e300"])
def test_toml_numbers_that_no_epsilon_is(tmp_path: Path, epsilon: str) -> None:
    (tmp_path / "r.toml").write_text(f"unembedding = 'lm_head.weight'\nnorm = 'rmsnorm'\nepsilon = {epsilon}")
    overrides = ReadoutOverrides.from_toml(tmp_path / "r.toml")
    with pytest.raises(UsageError, match="epsilon"):
        load_model(str(folder(tmp_path, LLAMA, llama())), overrides=overrides)

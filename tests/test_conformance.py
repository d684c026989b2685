"""The architecture table against `transformers`: the readout found in a saved checkpoint gives its logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import models_page  # noqa: E402
from conformance import (  # noqa: E402
    CASES,
    TOLERANCE,
    Case,
    build,
    compare,
    logits_of,
    run,
    wrong_readouts,
)

from verify.errors import ModelUnavailableError  # noqa: E402
from verify.models import load_model  # noqa: E402
from verify.models.architectures import ARCHITECTURES, Architecture  # noqa: E402
from verify.models.config import read_config  # noqa: E402
from verify.models.in_place import logits_at  # noqa: E402
from verify.models.locate import entry_of  # noqa: E402

BY_NAME = {case.name: case for case in CASES}
# What differs from the class's default on purpose: mistral3's class says tied at the top and untied inside,
# and its checkpoints bring a head of their own.
OTHER_TIE = {"mistral3"}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize("name", BY_NAME)
def test_the_readout_gives_the_model_s_logits(tmp_path: Path, name: str) -> None:
    case = BY_NAME[name]
    done = run(case, tmp_path)
    readout = done.model.readout
    assert " ".join(readout.tensors) == case.roles
    for word in case.noted:
        assert word in " ".join(readout.notes)
    assert done.difference() < TOLERANCE
    for mistake, wrong in wrong_readouts(readout).items():
        assert done.difference(wrong) > 10 * TOLERANCE, mistake


@pytest.mark.parametrize("name", ["gpt2-tied", "gemma-tied", "phi-untied", "olmo-tied", "opt-norm-removed"])
def test_the_logits_in_float64_are_those_at_200_bits(tmp_path: Path, name: str) -> None:
    done = run(BY_NAME[name], tmp_path)
    ours = logits_at(done.model.readout, done.residuals)
    exact = np.array([[float(x) for x in logits_of(done.model.readout, r)] for r in done.residuals])
    assert np.abs(ours - exact).max() < 1e-13 * np.abs(exact).max()


def test_every_entry_has_a_case(tmp_path: Path) -> None:
    assert {case.model_type for case in CASES} == set(ARCHITECTURES)
    assert len(BY_NAME) == len(CASES)
    for model_type, entries in ARCHITECTURES.items():
        if len(entries) > 1:
            used = set()
            for case in CASES:
                if case.model_type == model_type:
                    build(case).config.save_pretrained(tmp_path)
                    config = read_config(tmp_path)
                    assert config is not None
                    used.add(id(entry_of(config)))
            assert used == set(map(id, entries))


def defaults() -> list[tuple[str, Architecture]]:
    return [(model_type, entry) for model_type, entries in ARCHITECTURES.items() for entry in entries]


@pytest.mark.parametrize(("model_type", "entry"), defaults())
def test_defaults_are_those_of_the_class(model_type: str, entry: Architecture) -> None:
    """What config.json leaves out has the value that the model's class gives it."""
    config = transformers.AutoConfig.for_model(model_type)
    inner = getattr(config, entry.text) if entry.text else config
    if entry.text:
        inner = type(transformers.AutoConfig.for_model(entry.must_be["model_type"][0]))()
    for key in entry.epsilon_keys:
        assert getattr(inner, key) == float(entry.epsilon_default)
    if model_type not in OTHER_TIE:
        assert config.tie_word_embeddings == entry.tied_default
    if entry.rows_default is not None:
        assert inner.vocab_size == entry.rows_default
    assert any(hasattr(inner, key) for key in entry.width)
    assert any(hasattr(inner, key) for key in entry.rows)
    assert any(hasattr(transformers, name) for name in entry.classes)


# Old checkpoints, other files, other dtypes


def strip_prefix(folder: Path, prefix: str) -> None:
    """The checkpoint as the base model's: names without the first part, and no head of its own."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {name.removeprefix(prefix): value for name, value in load_file(path).items()}
    assert all(name not in tensors for name in load_file(path) if name.startswith(prefix))
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("gpt2-tied", "transformer."),
        ("bloom-tied", "transformer."),
        ("falcon-tied", "transformer."),
        ("gpt_neo-tied", "transformer."),
        ("mpt-tied", "transformer."),
        ("opt-tied", "model."),
        ("opt-post-norm", "model."),
        ("mamba-tied", "backbone."),
        ("llama-tied", "model."),
        ("bart-biased", "model."),
        ("whisper-tied", "model."),
        ("gpt_neox-tied", "gpt_neox."),
        ("bert-tied", "bert."),
        ("distilbert-tied", "distilbert."),
    ],
)
def test_names_without_prefix(tmp_path: Path, name: str, prefix: str) -> None:
    case = BY_NAME[name]
    build(case).save_pretrained(tmp_path)
    strip_prefix(tmp_path, prefix)
    theirs = getattr(transformers, case.of).from_pretrained(tmp_path).eval()
    ours = load_model(str(tmp_path))
    assert not ours.readout.unembedding.name.startswith(prefix)
    assert with_prefix(case, theirs, ours, prefix) < TOLERANCE


def with_prefix(case: Case, theirs: Any, ours: Any, prefix: str) -> float:
    """`compare`, for names that lack the prefix of the module."""
    assert ours.readout.gain is not None
    gain = ours.readout.gain.name.rpartition(".")[0]
    inside = {name for name, _ in theirs.named_modules()}
    at = gain if gain in inside else prefix + gain
    return compare(Case(**{**vars(case), "at": at}), theirs, ours).difference()


@pytest.mark.parametrize("files", ["safetensors", "sharded", "bin"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["llama-untied", "gpt2-tied", "phi-untied"])
def test_files_and_dtypes(tmp_path: Path, name: str, dtype: str, files: str) -> None:
    """Stored in 16 bits, run on the same values in float32; rows padded beyond the vocabulary."""
    case = BY_NAME[name]
    theirs = build(case)
    theirs.resize_token_embeddings(pad_to_multiple_of=64, mean_resizing=False)
    theirs = theirs.to(getattr(torch, dtype))
    if files == "bin":
        theirs.config.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": [case.of]}
        (tmp_path / "config.json").write_text(json.dumps(config))
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        theirs.save_pretrained(tmp_path, max_shard_size="3KB" if files == "sharded" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (files == "sharded")
    ours = load_model(str(tmp_path))
    assert ours.readout.vocabulary == 64
    assert ours.readout.unembedding.dtype == {"float16": "F16", "bfloat16": "BF16"}[dtype]
    assert compare(case, theirs.float(), ours).difference() < TOLERANCE


@pytest.mark.parametrize(
    "name", [f"{kind}-untied" for kind, (entry, *_) in ARCHITECTURES.items() if entry.untied_bias]
)
def test_of_an_untied_head_with_one_bias_only_the_decoder_s_acts(tmp_path: Path, name: str) -> None:
    from safetensors.numpy import load_file, save_file

    case = BY_NAME[name]
    build(case).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    both = load_file(path)
    (entry, *_) = ARCHITECTURES[case.model_type]
    (other,) = set(entry.bias) - {entry.untied_bias}
    save_file({key: x for key, x in both.items() if key != other}, path, metadata={"format": "pt"})
    theirs = getattr(transformers, case.of).from_pretrained(tmp_path).eval()
    assert compare(case, theirs, load_model(str(tmp_path))).difference() < TOLERANCE
    save_file(
        {key: x for key, x in both.items() if key != entry.untied_bias}, path, metadata={"format": "pt"}
    )
    with pytest.raises(ModelUnavailableError, match="unties the unembedding"):
        load_model(str(tmp_path))


# The page


def test_the_page_is_what_the_table_and_the_record_make() -> None:
    record = models_page.read_record()
    assert list(record.bounds) == list(BY_NAME)
    assert models_page.PAGE.read_text() == models_page.page(record)


def test_bounds_are_powers_of_ten() -> None:
    assert [models_page.bound(x) for x in (0.0, 1.7e-7, 1.1e-6, 9e-6)] == [1e-6, 1e-6, 1e-5, 1e-5]
    assert all(x <= TOLERANCE for x in models_page.read_record().bounds.values())
    assert np.isfinite(list(models_page.read_record().bounds.values())).all()

"""Packs: the same model, the same certificates, the same bytes every time; and every change refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import built_models
import numpy as np
import pytest
from command import ROWS, WORDS, run
from hub_server import COMMIT
from safetensors import safe_open
from test_hub import cached
from test_models import LLAMA, folder, gpt2, llama, matrix, pack

import verify
from verify.errors import ModelUnavailableError, OutputError, UsageError
from verify.files import write_atomically
from verify.inventory import inventory
from verify.models import Model, ReadoutOverrides, Tokens, load_model
from verify.models.packed import _digest, _header, is_pack, pack_bytes, pack_model
from verify.models.single_file import file_sha256
from verify.models.vocabularies import VocabularyFiles

JSON = dict[str, Any]


def packed(path: Path, model: Model) -> Path:
    write_atomically(path, pack_bytes(model))
    return path


@pytest.fixture
def square(model: Path, tmp_path: Path) -> Path:
    """A pack of the small checkpoint in command.py."""
    return packed(tmp_path / "square.pack.safetensors", load_model(str(model)))


def require_same(a: Model, b: Model) -> None:
    assert (a.name, a.revision, a.files) == (b.name, b.revision, b.files)
    x, y = a.readout, b.readout
    assert (x.norm, x.gain_offset, x.epsilon, x.epsilon_source) == (
        y.norm,
        y.gain_offset,
        y.epsilon,
        y.epsilon_source,
    )
    assert x.fingerprint == y.fingerprint
    assert {role: t.name for role, t in x.tensors.items()} == {role: t.name for role, t in y.tensors.items()}
    assert y.notes == (*x.notes, y.notes[-1])
    assert a.tokens.size == b.tokens.size
    for token in range(0, x.vocabulary, max(1, x.vocabulary // 500)):
        assert a.tokens.text(token) == b.tokens.text(token)


# The same model


def test_whisper(whisper: Model, tmp_path: Path) -> None:
    path = packed(tmp_path / "w.pack.safetensors", whisper)
    again = load_model(str(path))
    require_same(whisper, again)
    assert again.tokens.find(" externalTo") == 30208
    assert again.weights == (path,)
    for role, tensor in whisper.readout.tensors.items():
        assert np.array_equal(tensor.raw, again.readout.tensors[role].raw)
    assert path.read_bytes() == b"".join(pack_bytes(whisper))
    assert path.stat().st_size < 43_000_000


def test_certificates_are_interchangeable(model: Path, square: Path, tmp_path: Path) -> None:
    for name, source in (("folder", model), ("pack", square)):
        told = run("token", "1", "2", "twin", "--model", source, "--out", tmp_path / name, "--domain", "all")
        assert told.returncode == 0, told.stderr
    ours = sorted((tmp_path / "pack").rglob("*.json"))
    assert len(ours) == 12
    for path in ours:
        other = tmp_path / "folder" / path.relative_to(tmp_path / "pack")
        assert path.read_bytes() == other.read_bytes()
    assert run("audit", tmp_path / "folder", "--model", square).returncode == 0
    assert run("audit", tmp_path / "pack", "--model", model).returncode == 0


def test_a_scan_of_a_pack_is_audited_with_the_folder(model: Path, square: Path, tmp_path: Path) -> None:
    told = run("scan", "--model", square, "--out", tmp_path / "l", "--workers", "2")
    assert told.returncode == 0, told.stderr
    assert run("audit", tmp_path / "l", "--model", model).returncode == 0
    assert run("summary", tmp_path / "l", "--model", square).returncode == 0


def test_the_safetensors_library_reads_it(square: Path) -> None:
    with safe_open(str(square), "np") as file:
        assert np.array_equal(file.get_tensor("model.embed_tokens.weight"), np.array(ROWS, np.float32))
        content = json.loads(file.metadata()["verify.pack"])
    assert content["origin"].keys() == {"model.safetensors"}
    assert content["tokenizer"]["files"] == {"tokens.json": json.dumps(WORDS)}


def gguf_model(tmp_path: Path) -> Model:
    pytest.importorskip("gguf", reason="the gguf library is not installed: pip install gguf")
    from test_gguf import llama as tensors
    from test_gguf import write

    return load_model(str(write(tmp_path / "x.gguf", tensors())))


def two_files(tmp_path: Path) -> Model:
    """gpt2's old tokenizer: two files; and a LayerNorm with a shift."""
    (tmp_path / "vocab.json").write_text('{"a":0,"\u0120b":1}', encoding="utf-8")
    (tmp_path / "added_tokens.json").write_text('{"<x>":2}')
    config = {"model_type": "gpt2", "n_embd": 4, "vocab_size": 7}
    return load_model(str(folder(tmp_path, config, gpt2())))


def by_hand(tmp_path: Path) -> Model:
    path = str(folder(tmp_path, LLAMA, llama()))
    told = ReadoutOverrides("lm_head.weight", "rmsnorm", "model.norm.weight", None, None, "2e-5", 1)
    return load_model(path, overrides=told)


def no_norm_no_tokenizer(tmp_path: Path) -> Model:
    tensors: dict[str, np.ndarray] = {"w": matrix().astype(np.float64), "b": np.ones(7, np.float16)}
    path = str(folder(tmp_path, LLAMA, tensors))
    return load_model(path, overrides=ReadoutOverrides("w", "none", logit_bias="b"))


def of_a_hub(tmp_path: Path) -> Model:
    return replace(load_model(str(folder(tmp_path, LLAMA, llama()))), name="org/tiny", revision=COMMIT)


MODELS: tuple[Callable[[Path], Model], ...] = (gguf_model, two_files, by_hand, no_norm_no_tokenizer, of_a_hub)


@pytest.mark.parametrize("make", MODELS)
def test_every_sort_of_model(tmp_path: Path, make: Callable[[Path], Model]) -> None:
    model = make(tmp_path)
    path = packed(tmp_path / "p.safetensors", model)
    require_same(model, load_model(str(path)))
    assert path.read_bytes() == b"".join(pack_bytes(model))


def test_what_cannot_be_packed(square: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a pack already"):
        pack_bytes(load_model(str(square)))
    bad = matrix()
    bad[2, 1] = np.nan
    with pytest.raises(ModelUnavailableError, match="NaN"):
        pack_bytes(built_models.model(bad))
    (tmp_path / "tokens.json").write_text("{}")
    with pytest.raises(ModelUnavailableError, match=r"tokens\.json"):
        pack_bytes(load_model(str(folder(tmp_path, LLAMA, llama()))))


def test_names_and_tokenizers_that_cannot_be_written(
    square: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(model))
    with pytest.raises(ModelUnavailableError, match="cannot be written as UTF-8"):
        pack_bytes(replace(loaded, name="\udcff"))
    with pytest.raises(ModelUnavailableError, match="cannot be packed: model has unprintable"):
        pack_bytes(replace(loaded, name="a\nb"))
    binary = VocabularyFiles("tokens.json", {}, {"tokens.json": b"[]", "more.bin": b"\xff"})
    with pytest.raises(ModelUnavailableError, match="not UTF-8"):
        pack_bytes(replace(loaded, tokens=Tokens(binary, 6)))
    monkeypatch.setattr("verify.models.packed.MAX_HEADER_BYTES", 100)
    with pytest.raises(ModelUnavailableError, match="safetensors allows 100"):
        pack_bytes(loaded)
    with pytest.raises(ModelUnavailableError, match="cannot read"):
        file_sha256(square.parent / "absent")


# Every change refused


def parts(path: Path) -> tuple[JSON, JSON, bytes]:
    """(header, content, tensors' bytes)."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return header, json.loads(header["__metadata__"]["verify.pack"]), data[8 + size :]


def rewritten(path: Path, content: JSON) -> Path:
    """The same tensors with other content, spelled and hashed as a pack's is."""
    if type(content.get("content")) is str:
        content["content"] = _digest(content)
    return spelled(path, content)


def spelled(path: Path, content: JSON) -> Path:
    """The same tensors with other content, spelled as a pack is."""
    header, _, data = parts(path)
    del header["__metadata__"]
    sizes = {
        name: (e["dtype"], tuple(e["shape"]), e["data_offsets"][1] - e["data_offsets"][0])
        for name, e in header.items()
    }
    text = _header(content, sizes)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_rewriting_is_faithful(square: Path) -> None:
    data = square.read_bytes()
    assert rewritten(square, parts(square)[1]).read_bytes() == data


def test_any_changed_byte_is_refused(square: Path) -> None:
    data = square.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        square.write_bytes(changed)
        with pytest.raises((ModelUnavailableError, UsageError)):
            load_model(str(square))


OTHER_WORDS: dict[str, object] = {
    "model": "other",
    "revision": COMMIT,
    "norm": "layernorm",
    "epsilon": "0.00002",
    "epsilon_source": "elsewhere",
    "notes": [],
    "origin": {},
}


@pytest.mark.parametrize("key", OTHER_WORDS)
def test_changed_words_are_refused(square: Path, key: str) -> None:
    content = parts(square)[1]
    content[key] = OTHER_WORDS[key] if key != "notes" else ["another"]
    with pytest.raises(ModelUnavailableError, match="what it says has changed since it was packed"):
        load_model(str(spelled(square, content)))
    other = load_model(str(rewritten(square, content))).readout
    assert content["epsilon_source"] == other.epsilon_source


def test_truncated_anywhere(square: Path) -> None:
    data = square.read_bytes()
    for size in range(0, len(data), 7):
        square.write_bytes(data[:size])
        with pytest.raises(ModelUnavailableError) as caught:
            load_model(str(square))
        assert "pass the folder" not in str(caught.value)


def other_tokenizer(content: JSON) -> None:
    content["tokenizer"]["files"]["tokens.json"] = json.dumps([*WORDS[:-1], "win"])


def binary_tokenizer(content: JSON) -> None:
    content["tokenizer"]["name"] = "spiece.model"


def hidden_tokenizer(content: JSON) -> None:
    content["files"].pop("tokens.json")


def offset_alone(content: JSON) -> None:
    content["gain_offset"] = 1
    content["roles"]["shift"] = content["roles"].pop("gain")


Change = Callable[[JSON], object]
MISTAKES: dict[str, tuple[Change, str]] = {
    "newer": (lambda c: c.update(version=2), "version '2'.*update"),
    "version_true": (lambda c: c.update(version=True), "version|spelled|wrong type"),
    "no_model": (lambda c: c.pop("model"), "model missing"),
    "empty_name": (lambda c: c.update(model=""), "model missing"),
    "unprintable_name": (lambda c: c.update(model="a\x1b[2J"), "model has unprintable"),
    "unprintable_revision": (lambda c: c.update(revision="x\nverdict"), "revision has unprintable"),
    "unprintable_source": (lambda c: c.update(epsilon_source="\x1b[31m"), "epsilon_source has unprintable"),
    "unprintable_note": (lambda c: c.update(notes=["a", "b\nverdict"]), "notes has unprintable"),
    "no_content": (lambda c: c.pop("content"), "content missing"),
    "content_number": (lambda c: c.update(content=1), "content missing"),
    "a_fraction": (lambda c: c["files"].update(x=1.5), "no integer"),
    "revision_number": (lambda c: c.update(revision=1), "revision missing"),
    "unknown_field": (lambda c: c.update(more=1), "more missing, unknown"),
    "no_tokenizer_field": (lambda c: c.pop("tokenizer"), "tokenizer missing"),
    "norm": (lambda c: c.update(norm="batchnorm"), "batchnorm"),
    "norm_none": (lambda c: c.update(norm="none"), "no norm"),
    "gain_offset": (lambda c: c.update(gain_offset=2), "gain_offset"),
    "gain_offset_alone": (offset_alone, "gain_offset and no gain"),
    "gain_offset_true": (lambda c: c.update(gain_offset=True), "gain_offset missing"),
    "epsilon_number": (lambda c: c.update(epsilon=1), "epsilon missing"),
    "epsilon_form": (lambda c: c.update(epsilon="1e-6"), "plain form"),
    "epsilon_negative": (lambda c: c.update(epsilon="-0.5"), "epsilon|decimal"),
    "epsilon_words": (lambda c: c.update(epsilon="small"), "not a decimal"),
    "notes": (lambda c: c.update(notes=[1]), "notes"),
    "unknown_role": (lambda c: c["roles"].update(scale="model.norm.weight"), "roles"),
    "no_unembedding": (lambda c: c["roles"].pop("unembedding"), "roles"),
    "absent_tensor": (lambda c: c["roles"].update(shift="other"), "not those that it lists"),
    "unused_tensor": (lambda c: c["roles"].pop("gain"), "not those that it lists"),
    "roles_swapped": (
        lambda c: c.update(roles={"gain": c["roles"]["unembedding"], "unembedding": c["roles"]["gain"]}),
        "matrix",
    ),
    "hash": (lambda c: c["sha256"].update({"model.norm.weight": "0" * 64}), "changed since it was packed"),
    "hash_form": (lambda c: c["sha256"].update({"model.norm.weight": "0"}), "SHA-256"),
    "file_hash_form": (lambda c: c["files"].update({"config.json": "A" * 64}), "SHA-256"),
    "origin": (lambda c: c.update(origin={"x": 1}), "origin"),
    "tokenizer": (other_tokenizer, "tokenizer has changed"),
    "tokenizer_kind": (binary_tokenizer, "none that this version reads"),
    "tokenizer_hidden": (hidden_tokenizer, "tokenizer has changed"),
    "tokenizer_more": (lambda c: c["tokenizer"].update(more=1), "none that this version reads"),
    "tokenizer_text": (lambda c: c["tokenizer"].update(files={"tokens.json": 1}), "table of strings"),
    "tokenizer_without": (lambda c: c["tokenizer"].update(files={}), "lacks tokens.json"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_refused(square: Path, mistake: str) -> None:
    change, message = MISTAKES[mistake]
    content = parts(square)[1]
    change(content)
    with pytest.raises(ModelUnavailableError, match=message):
        load_model(str(rewritten(square, content)))


def test_another_spelling_of_the_header_is_refused(square: Path) -> None:
    header, content, data = parts(square)
    for spelling in (json.dumps(content), json.dumps(content, sort_keys=True, separators=(",", ":")) + " "):
        header["__metadata__"]["verify.pack"] = spelling
        text = json.dumps(header).encode()
        square.write_bytes(len(text).to_bytes(8, "little") + text + data)
        with pytest.raises(ModelUnavailableError, match="not spelled as"):
            load_model(str(square))
    header["__metadata__"]["format"] = "pt"
    text = json.dumps(header).encode()
    square.write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(ModelUnavailableError, match="more metadata"):
        load_model(str(square))


def test_a_changed_tensor_is_refused(square: Path) -> None:
    data = bytearray(square.read_bytes())
    data[-1] ^= 1
    square.write_bytes(data)
    with pytest.raises(ModelUnavailableError, match="SHA-256 differs"):
        load_model(str(square))


def test_a_checkpoint_is_no_pack(tmp_path: Path, square: Path) -> None:
    path = tmp_path / "plain.safetensors"
    path.write_bytes(pack(llama()))
    assert not is_pack(path)
    with pytest.raises(ModelUnavailableError, match="pass the folder"):
        load_model(str(path))
    with pytest.raises(ModelUnavailableError, match="there is no file"):
        load_model(str(tmp_path / "absent.safetensors"))
    with pytest.raises(UsageError, match="says itself"):
        load_model(str(square), overrides=ReadoutOverrides("w", "none"))


# The commands


def test_the_command(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    told = run("pack", model, "-o", out)
    assert told.returncode == 0, told.stderr
    assert f"--model {out}" in told.stdout
    assert "6 rows of 2" in told.stdout
    first = out.read_bytes()
    told = run("pack", model, "-o", out)
    assert (told.returncode, "--force" in told.stderr) == (2, True)
    assert run("pack", model, "-o", out, "--force").returncode == 0
    assert out.read_bytes() == first
    told = run("pack", model, "-o", tmp_path / "s.bin")
    assert (told.returncode, ".safetensors" in told.stderr) == (2, True)
    told = run("pack", out, "-o", tmp_path / "t.safetensors")
    assert (told.returncode, "a pack already" in told.stderr) == (2, True)
    assert not (tmp_path / "t.safetensors").exists()


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> Any:
        yield b"x"
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space"):
        write_atomically(tmp_path / "a" / "p.safetensors", pieces())
    assert list((tmp_path / "a").iterdir()) == []


def test_models_lists_what_is_at_hand(square: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "a.safetensors").write_bytes(square.read_bytes())
    (here / "plain.safetensors").write_bytes(pack(llama()))
    (here / "bad.gguf").write_bytes(b"GGUF")
    (here / "notes.txt").write_text("no model")
    found = {entry.model: entry for entry in inventory([here]) if entry.kind != "cached"}
    assert list(found) == ["whisper-tiny.en", str(here / "a.safetensors"), str(here / "bad.gguf")]
    assert found["whisper-tiny.en"].about == "layernorm, 51864 x 384 F16"
    pack_entry, bad = found[str(here / "a.safetensors")], found[str(here / "bad.gguf")]
    assert (pack_entry.kind, pack_entry.about, pack_entry.problem) == (
        "packed",
        "the readout of square",
        None,
    )
    assert bad.kind == "gguf"
    assert "truncated" in str(bad.problem)
    with pytest.raises(UsageError, match="not a folder"):
        list(inventory([here / "absent"]))


def test_models_looks_into_the_cache_of_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    cached(tmp_path)
    unknown = tmp_path / "hub" / "models--org--odd" / "snapshots" / ("f" * 40)
    unknown.mkdir(parents=True)
    (unknown.parents[1] / "refs").mkdir()
    folder(unknown, {"model_type": "nouveau"}, {"w": matrix()})
    (unknown / "small.gguf").write_bytes(b"GGUF")
    empty = tmp_path / "hub" / "models--org--empty" / "snapshots" / ("e" * 40)
    empty.mkdir(parents=True)
    (empty / "config.json").write_text("{}")
    command = [sys.executable, "-m", "verify", "models", str(tmp_path), "--json"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    told = subprocess.run(
        command, env=kept | {"HF_HOME": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=60
    )
    lines = {x["model"]: x for x in map(json.loads, told.stdout.splitlines())}
    small = str(unknown / "small.gguf")
    assert set(lines) == {"whisper-tiny.en", "org/tiny", f"org/odd@{'f' * 40}", small}
    assert (lines[small]["kind"], lines[small]["loadable"]) == ("gguf", False)
    tiny = lines["org/tiny"]
    assert (tiny["kind"], tiny["loadable"], tiny["problem"]) == ("cached", True, None)
    odd = lines[f"org/odd@{'f' * 40}"]
    assert not odd["loadable"]
    assert "nouveau" in odd["problem"]


def test_models_prints_a_table(square: Path, tmp_path: Path) -> None:
    told = run("models", tmp_path)
    assert told.returncode == 0, told.stderr
    assert "bundled" in told.stdout
    assert str(square.name) in told.stdout
    assert run("models", tmp_path / "absent").returncode == 2


def test_a_lone_surrogate_in_the_header(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"verify.pack":"\\ud800"}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    for read in (pack_model, lambda path: load_model(str(path))):
        with pytest.raises(ModelUnavailableError, match="not a readable pack"):
            read(path)
    assert [entry.problem is None for entry in inventory([tmp_path]) if entry.kind == "packed"] == [False]


def test_of_a_hub_model_the_commit_is_the_origin(tmp_path: Path) -> None:
    model = of_a_hub(tmp_path)
    path = packed(tmp_path / "p.safetensors", model)
    assert parts(path)[1]["origin"] == {}
    part = tmp_path / "lm_head.weight-0123.safetensors"
    part.write_bytes(pack(llama()))
    elsewhere = replace(model, weights=(part, part))
    assert b"".join(pack_bytes(elsewhere)) == path.read_bytes()


def test_the_hashes_are_of_the_files(model: Path, square: Path) -> None:
    content = parts(square)[1]
    assert content["origin"]
    for name, digest in (content["files"] | content["origin"]).items():
        assert hashlib.sha256((model / name).read_bytes()).hexdigest() == digest
    (decision,) = verify.token(1, str(square))
    assert decision.verdict == "SPEAKABLE"

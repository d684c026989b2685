"""Sharded and torch checkpoints: the same bits come out, and broken ones are refused."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from test_models import LLAMA, folder, llama, matrix, pack

from verify.errors import ModelUnavailableError
from verify.models import load_model
from verify.models.checkpoints import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def shards(path: Path, weight_map: object, **extra: dict[str, np.ndarray]) -> Path:
    (path / "config.json").write_text(json.dumps(LLAMA))
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    parts = {
        "a.safetensors": {"model.embed_tokens.weight": matrix(), "model.norm.weight": np.ones(4, np.float32)},
        "b.safetensors": {"lm_head.weight": matrix(1)},
    }
    for name, tensors in (parts | extra).items():
        (path / name).write_bytes(pack(tensors))
    return path


GOOD = {
    "model.embed_tokens.weight": "a.safetensors",
    "model.norm.weight": "a.safetensors",
    "lm_head.weight": "b.safetensors",
}


def test_shards(tmp_path: Path) -> None:
    model = load_model(str(shards(tmp_path, GOOD)))
    assert np.array_equal(model.readout.unembedding.raw.view(np.float32), matrix(1))
    assert [path.name for path in model.weights] == ["a.safetensors", "b.safetensors"]
    named = LLAMA | {"transformers_weights": "model.safetensors.index.json"}
    (tmp_path / "config.json").write_text(json.dumps(named))
    load_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(named | {"transformers_weights": "model.safetensors"}))
    with pytest.raises(ModelUnavailableError, match=r"instead of model\.safetensors\.index\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "shard",
    ["../b.safetensors", "/etc/passwd", "..", ".", "", ".hidden", "x/y", "x\\y", "c:x", "a\nb", 7, None, []],
)
def test_shard_names_stay_inside_the_folder(tmp_path: Path, shard: object) -> None:
    with pytest.raises(ModelUnavailableError, match="plain file name"):
        load_model(str(shards(tmp_path, GOOD | {"lm_head.weight": shard})))


def test_missing_shard_and_wrong_index(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"1 of 2 shards are missing.*gone"):
        load_model(
            str(shards(tmp_path, GOOD | {"lm_head.weight": "gone.safetensors"} | {"x": "a.safetensors"}))
        )
    with pytest.raises(ModelUnavailableError, match="does not hold it"):
        load_model(str(shards(tmp_path, GOOD | {"model.norm.weight": "b.safetensors"})))
    indexes: list[object] = [5, {}, None]
    for index in indexes:
        with pytest.raises(ModelUnavailableError, match="weight_map"):
            load_model(str(shards(tmp_path, index)))


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    both = {"lm_head.weight": matrix(1), "model.norm.weight": np.zeros(4, np.float32)}
    with pytest.raises(ModelUnavailableError, match="two shards"):
        load_model(str(shards(tmp_path, GOOD, **{"b.safetensors": both})))


def save(path: Path, state: object, **options: bool) -> Path:
    torch = pytest.importorskip("torch")
    torch.save(state, path / "pytorch_model.bin", **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_bits_are_the_stored_ones(tmp_path: Path, dtype: str, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    integer = {
        "float16": torch.int16,
        "bfloat16": torch.int16,
        "float32": torch.int32,
        "float64": torch.int64,
    }[dtype]
    bits = torch.from_numpy(np.random.default_rng(0).integers(-(2**15), 2**15, size=(5, 6))).to(integer)
    state = {
        "w": bits.view(getattr(torch, dtype)),
        "t": bits.view(getattr(torch, dtype)).T,
        "n": torch.ones(2).int(),
    }
    save(tmp_path, state, _use_new_zipfile_serialization=zipped)
    checkpoint = open_checkpoint(tmp_path)
    stored = bits.numpy().view(f"<u{bits.element_size()}")
    assert np.array_equal(checkpoint.tensor("w").raw, stored)
    assert np.array_equal(checkpoint.tensor("t").raw, stored.T)
    assert checkpoint.listing["n"] == ("int32", (2,))
    with pytest.raises(ModelUnavailableError, match="int32"):
        checkpoint.tensor("n")


def test_torch_model_equals_the_safetensors_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    reference = load_model(str(folder(tmp_path, LLAMA, llama()))).readout
    (tmp_path / "model.safetensors").unlink()
    save(tmp_path, {name: torch.from_numpy(array) for name, array in llama().items()})
    assert load_model(str(tmp_path)).readout.fingerprint == reference.fingerprint


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_files(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    save(tmp_path, {"w": torch.ones(50, 50)}, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "pytorch_model.bin"
    good = path.read_bytes()
    for length in (0, 1, 5, 100, len(good) // 2, len(good) - 1000):
        path.write_bytes(good[:length])
        with pytest.raises(ModelUnavailableError, match="cannot be read"):
            open_checkpoint(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_pickles_that_hold_more_than_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    for state in ({"w": torch.ones(2), "x": Bomb()}, [Bomb()]):
        with pytest.raises(ModelUnavailableError, match="cannot be read"):
            open_checkpoint(save(tmp_path, state))
    for state in ([torch.ones(2)], {"model": {"w": torch.ones(2)}}, {}):
        with pytest.raises(ModelUnavailableError, match=r"not a table|no tensors"):
            open_checkpoint(save(tmp_path, state))
    assert "executed" not in capsys.readouterr().out


def test_a_stride_of_zero_cannot_take_all_memory(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save(tmp_path, {"w": torch.ones(1).expand(1 << 20, 1 << 20)})
    with pytest.raises(ModelUnavailableError, match="more bytes than the file"):
        open_checkpoint(tmp_path)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = save(tmp_path, {"w": torch.arange(4000).float()}) / "pytorch_model.bin"
    with zipfile.ZipFile(path) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            kind = zipfile.ZIP_DEFLATED if "/data/" in name else zipfile.ZIP_STORED
            out.writestr(name, data, compress_type=kind)
        out.writestr("padding", bytes(32000))
    with pytest.raises(ModelUnavailableError, match=r"/data/0' in it is compressed"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cpu"])
def test_an_old_torch_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    torch = pytest.importorskip("torch")
    save(tmp_path, {"w": torch.ones(2)})
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ModelUnavailableError, match=r'hostile file.*pip install "torch>=2.6"'):
        open_checkpoint(tmp_path)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    os.mkfifo(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelUnavailableError, match="regular file"):
        open_checkpoint(tmp_path)


def test_names_found_are_shown_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("")
    with pytest.raises(ModelUnavailableError, match=r"found 'a\\nb'"):
        open_checkpoint(tmp_path)


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelUnavailableError, match=r'pip install "torch>=2.6" "transformers>=5" \(or'):
        open_checkpoint(tmp_path)

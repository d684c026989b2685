"""`verify claims --model-dir NAME=PATH`: a folder, a pack or a GGUF file, and what each says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import square_checkpoint
from test_claims import claims, run
from test_pack import packed

import verify
from verify.claims.weights import Weights
from verify.errors import UsageError
from verify.models import Model, ReadoutOverrides, load_model

HUB = "org/square"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture
def square(tmp_path: Path) -> Model:
    return load_model(str(square_checkpoint(tmp_path / "square")))


def about(folder: Path, one: str = 'verdict = "unspeakable"', model: str = HUB) -> Path:
    path = claims(folder, one)
    path.write_text(path.read_text().replace('model = "square"', f'model = "{model}"'))
    return path


def judged(path: Path, place: Path | str, *more: Any, name: str = HUB) -> dict[str, dict[str, Any]]:
    """The claims of a report, by their ids."""
    done = run("claims", path, "--model-dir", f"{name}={place}", "--format", "json", *more)
    return {c["id"]: c for c in json.loads(done.stdout)["claims"]}


def test_a_pack_is_a_place_like_its_folder(square: Model, tmp_path: Path) -> None:
    file, path = packed(tmp_path / "square.safetensors", square), about(tmp_path)
    found = judged(path, file)
    assert [c["outcome"] for c in found.values()] == ["CONFIRMED", "CONFIRMED"]
    (hypothesis,) = found["one"]["hypotheses"]
    assert hypothesis.startswith(f"this pack (it calls itself square) is {HUB}; read from a pack: ")
    assert found["one"]["weights"] == {"fingerprint": square.readout.fingerprint, "revision": None}
    # Evidence made from the one passes with the other.
    options = ["--model-dir", f"{HUB}={file}"]
    assert run("claims", path, *options, "--recompute", "--out", tmp_path / "o").returncode == 0
    copy = tmp_path / "o" / "claims" / "c.toml"
    assert "this pack (it calls itself square)" in copy.read_text()
    for place in (file, tmp_path / "square"):
        assert run("claims", copy, "--model-dir", f"{HUB}={place}", "--audit").returncode == 0


def test_a_gguf_file_is_a_place_and_its_notes_are_told(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from test_gguf import llama, write

    file = write(tmp_path / "small.gguf", llama())
    found = judged(about(tmp_path, 'verdict = "speakable"'), file)["one"]
    assert found["outcome"] == "CONFIRMED"
    (hypothesis,) = found["hypotheses"]
    assert hypothesis.startswith(f"this GGUF file (it calls itself small.gguf) is {HUB}; ")
    assert "token_embd.weight is stored as Q8_0" in hypothesis


def test_a_pack_s_own_name_and_revision_speak_against_a_claim_only(square: Model, tmp_path: Path) -> None:
    of_hub = packed(tmp_path / "hub.safetensors", replace(square, name=HUB, revision=COMMIT))
    right = f'revision = "{COMMIT}"\nverdict = "unspeakable"'
    found = judged(about(tmp_path, right), of_hub)["one"]
    assert found["outcome"] == "CONFIRMED"
    assert found["weights"]["revision"] is None  # its maker's word
    assert found["hypotheses"][0].startswith(f"this pack is {HUB}@{COMMIT}; ")
    wrong = f'revision = "{OTHER}"\nverdict = "unspeakable"'
    found = judged(about(tmp_path, wrong), of_hub)["one"]
    assert found["outcome"] == "ERROR"
    assert f"are of revision '{COMMIT}', the claim is about '{OTHER}'" in found["reason"]
    # A claim that names no revision is about this one on the pack's word, and says so.
    found = judged(about(tmp_path), of_hub)["one"]
    assert found["hypotheses"][0].startswith(f"this pack (it calls itself {HUB}@{COMMIT}) is {HUB}; ")


def test_a_pack_of_another_hub_model_is_refused(square: Model, tmp_path: Path) -> None:
    of_hub = packed(tmp_path / "hub.safetensors", replace(square, name="org/other", revision=COMMIT))
    for found in judged(about(tmp_path), of_hub).values():
        assert found["outcome"] == "ERROR"
        assert f"hub.safetensors says that it is 'org/other@{COMMIT}', another model" in found["reason"]
    assert run("claims", about(tmp_path), "--model-dir", f"{HUB}={of_hub}").returncode == 2


def test_a_pack_of_a_snapshot_s_folder_has_its_commit(square: Model, tmp_path: Path) -> None:
    of_folder = packed(tmp_path / "x.safetensors", load_model(str(square_checkpoint(tmp_path / COMMIT))))
    path = about(tmp_path, f'revision = "{OTHER}"\nverdict = "unspeakable"')
    assert judged(path, of_folder)["one"]["outcome"] == "ERROR"
    (tmp_path / OTHER).mkdir()
    inside = packed(tmp_path / OTHER / "x.safetensors", square)
    assert judged(path, inside)["one"]["outcome"] == "CONFIRMED"
    path = about(tmp_path, f'revision = "{COMMIT}"\nverdict = "unspeakable"')
    assert judged(path, inside)["one"]["outcome"] == "ERROR"


def test_processed_matrices_go_by_their_own_name(tmp_path: Path) -> None:
    folder, pack = square_checkpoint(tmp_path / "square"), tmp_path / "tl.safetensors"
    verify.pack(load_model(str(folder), readout="transformer-lens"), pack)
    for name in (HUB, "square"):
        found = judged(about(tmp_path, model=name), pack, name=name)["one"]
        assert found["outcome"] == "ERROR"
        assert "says that it is 'square (transformer-lens)', another model" in found["reason"]
    own = "square (transformer-lens)"
    assert judged(about(tmp_path, model=own), pack, name=own)["one"]["outcome"] == "CONFIRMED"


def test_a_place_is_read_once_though_it_is_refused(
    square: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_hub = packed(tmp_path / "hub.safetensors", replace(square, name="org/other", revision=COMMIT))
    loads: list[str] = []

    def counted(path: str) -> Model:
        loads.append(path)
        return load_model(path)

    monkeypatch.setattr("verify.claims.weights.load_model", counted)
    weights = Weights({HUB: of_hub})
    for _ in range(3):
        with pytest.raises(UsageError, match="another model"):
            weights.named(HUB)
    assert len(loads) == 1


def test_a_place_called_like_the_bundled_model_is_that_place(
    square: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "square").rename("whisper-tiny.en")
    found = judged(about(tmp_path), "whisper-tiny.en")["one"]
    assert found["weights"]["fingerprint"] == square.readout.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.safetensors", "there is no folder or file '"),
        ("x" * 300, "there is no folder or file '"),
        ("notes.txt", "is neither a folder with config.json and the weights, nor a pack"),
    ],
)
def test_what_is_no_place(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    done = run("claims", about(tmp_path), "--model-dir", f"{HUB}={tmp_path / name}")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_checkpoint_s_file_is_no_pack(square: Model, tmp_path: Path) -> None:
    found = judged(about(tmp_path), tmp_path / "square" / "model.safetensors")["one"]
    assert found["outcome"] == "ERROR"
    assert "pass the folder that holds config.json" in found["reason"]


def test_a_pack_described_by_hand_is_told_to_be(square: Model, tmp_path: Path) -> None:
    hand = ReadoutOverrides("model.embed_tokens.weight", "rmsnorm", "model.norm.weight", epsilon="1e-6")
    pack = tmp_path / "hand.safetensors"
    verify.pack(str(tmp_path / "square"), pack, overrides=hand)
    found = judged(about(tmp_path, model="square"), pack, name="square")["one"]
    assert found["outcome"] == "CONFIRMED"
    assert found["hypotheses"][0].startswith("this pack is square; the readout was described by hand; ")

"""Hub names: a cached snapshot offline, a small server with the hub's protocol, and no server at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hub_server import COMMIT, SIGNATURE, HubServer, gpt2_folder, gpt2_tensors
from safetensors.numpy import save_file
from test_models import LLAMA, folder, llama, pack

from verify.errors import ModelUnavailableError, NotAtHandError, UsageError
from verify.inventory import inventory
from verify.models import Model, load_model
from verify.models.hub import at_revision, find_snapshot, open_snapshot, split_hub_name
from verify.models.hub import bar as hub_bar
from verify.models.hub.errors import explain
from verify.models.hub.snapshot import download

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("huggingface_hub")
ROOT = Path(__file__).parents[1]
# GPT-2's embedding at width 8, gain and shift, and what is read to find the header.
NEEDED, HEADER = 50257 * 8 * 4 + 2 * 8 * 4, 100_000
PROGRAM = """
import sys
from verify.models import load_model
from verify.errors import VerifyError
try:
    model = load_model(sys.argv[1])
except VerifyError as error:
    print(type(error).__name__, error)
else:
    print(model.name, model.revision, model.weights[0].name)
"""


def _environment(home: Path, more: dict[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return kept | {"HF_HOME": str(home), "PYTHONPATH": str(ROOT)} | more


class Answer(NamedTuple):
    text: str
    seconds: float


def ask(name: str, home: Path, **environment: str) -> Answer:
    """load_model in a process of its own, as the hub client reads its environment once."""
    begin = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, name],
        env=_environment(home, environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return Answer(result.stdout.strip(), time.perf_counter() - begin)


def cached(home: Path) -> Path:
    """A cache as the hub client leaves it; the snapshot's folder."""
    snapshot = home / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    return folder(snapshot, LLAMA, llama())


def test_hub_names() -> None:
    assert split_hub_name("gpt2") == ("gpt2", None)
    assert split_hub_name("org/name@v1.0") == ("org/name", "v1.0")
    assert split_hub_name("org/name@refs/pr/1") == ("org/name", "refs/pr/1")
    for text in ("", "a b", "a/b/c", "../x", "/x", "a//b", "a@", "@b", "a..b", "a@../x", "x\n"):
        assert split_hub_name(text) is None


@pytest.mark.parametrize("name", ["org/tiny", "org/tiny@main", f"org/tiny@{COMMIT}"])
def test_cached_snapshot_offline(tmp_path: Path, name: str) -> None:
    cached(tmp_path)
    assert ask(name, tmp_path, HF_HUB_OFFLINE="1").text == f"org/tiny {COMMIT} model.safetensors"


def test_torch_weights_only_without_safetensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    snapshot = cached(tmp_path)
    (snapshot / "model.safetensors").unlink()
    torch.save(
        {key: torch.from_numpy(value) for key, value in llama().items()}, snapshot / "pytorch_model.bin"
    )
    assert ask("org/tiny", tmp_path, HF_HUB_OFFLINE="1").text == f"org/tiny {COMMIT} pytorch_model.bin"


def test_offline_and_not_cached_is_one_clear_line(tmp_path: Path) -> None:
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        answer = ask("org/absent", tmp_path, **environment)
        assert answer.text.startswith("NotAtHandError 'org/absent'")
        assert "pass a folder" in answer.text
        offline = "HF_HUB_OFFLINE" in environment
        assert ("offline mode is on: unset HF_HUB_OFFLINE, run `hf download" in answer.text) == offline
        assert ("the hub cannot be reached; connect, run" in answer.text) != offline
        assert "\n" not in answer.text
        assert answer.seconds < 10


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("whisper-tiny", True),
        ("whisper_tiny.en", True),
        ("Whisper-Tiny.en", True),
        ("openai/whisper-tiny.en@main", True),
        ("whisper tiny.en", True),  # no hub name
        ("whisper-small.en", False),
        ("gpt2", False),
    ],
)
def test_a_bundled_name_that_is_nearly_right_is_guessed(tmp_path: Path, name: str, near: bool) -> None:
    answer = ask(name, tmp_path, HF_HUB_OFFLINE="1")
    assert ("(did you mean whisper-tiny.en?)" in answer.text) == near


def verify(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with a cache in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "verify", *arguments],
        env=_environment(folder / "home", environment),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """Serves the generated gpt2."""
    with HubServer(gpt2_folder(tmp_path / "served")) as server:
        yield server


@pytest.fixture
def here(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """This process asks `hub`, with a cache of its own; no wait is waited, but noted down."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "home" / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def parts(tmp_path: Path, pattern: str = "*") -> list[Path]:
    return sorted((tmp_path / "home" / "assets" / "verify").glob(f"*/{COMMIT}/*/{pattern}"))


def expect_gpt2(model: Model) -> None:
    """Bit for bit the tensors that are served."""
    served = gpt2_tensors()
    assert (model.name, model.revision) == ("gpt2", COMMIT)
    for tensor in model.readout.tensors.values():
        assert tensor.raw.tobytes() == served[tensor.name].tobytes()
    assert model.tokens.text(30208) == " externalTo"


# The whole way


def test_token_then_again_without_the_server(tmp_path: Path) -> None:
    ask_token = ("token", "30208", "--model", "gpt2")
    with HubServer(gpt2_folder(tmp_path / "served")) as hub:
        first = verify(tmp_path, *ask_token, HF_ENDPOINT=hub.url)
        assert (first.returncode, first.stderr) == (0, "")
        assert "UNSPEAKABLE" in first.stdout
        assert hub.sent["model.safetensors"] == NEEDED + HEADER
        assert hub.sent["README.md"] == 0
        again = verify(tmp_path, *ask_token, "--json", HF_ENDPOINT=hub.url)
        assert (again.returncode, again.stderr) == (0, "")
        assert hub.sent["model.safetensors"] == NEEDED + HEADER
    certificate = tmp_path / "verify-certificates" / "gpt2" / "readout" / "30208.json"
    assert json.loads(certificate.read_text())["statement"]["revision"] == COMMIT
    for environment in ({"HF_ENDPOINT": hub.url}, {"HF_HUB_OFFLINE": "1"}):
        cached = verify(tmp_path, *ask_token, **environment)
        assert (cached.returncode, cached.stderr) == (0, "")
        audit = verify(tmp_path, "audit", "verify-certificates", **environment)
        assert audit.returncode == 0
        assert "ACCEPTED" in audit.stdout
        assert "HYPOTHESIS" not in audit.stdout
    # What is cached are safetensors files; the one-file auditor reads them as they are.
    weights = [f"--weights={path}" for path in parts(tmp_path, "*.safetensors")]
    command = [sys.executable, str(ROOT / "certificates" / "audit.py"), str(certificate), *weights]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_two_at_once_fetch_once(tmp_path: Path, hub: HubServer) -> None:
    environment = _environment(tmp_path / "home", {"HF_ENDPOINT": hub.url})
    command = [sys.executable, "-c", PROGRAM, "gpt2"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=60)[0].startswith(f"gpt2 {COMMIT}")
    assert hub.sent["model.safetensors"] <= NEEDED + 2 * HEADER


def test_token_of_an_environment_variable_goes_to_the_hub_only(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.token = secret = "hf_s3cret"
    command = ("token", "30208", "--model", "gpt2", "--revision", "v1")
    refused = verify(tmp_path, *command, HF_ENDPOINT=hub.url)
    assert refused.returncode == 5
    assert "--token-env" in refused.stderr
    environment = {"HF_ENDPOINT": hub.url, "MINE": secret, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    given = verify(tmp_path, *command, "--token-env", "MINE", **environment)
    assert given.returncode == 0
    sent = {(host, headers.get("authorization")) for host, _, headers in hub.requests}
    assert sent == {("hub", None), ("hub", f"Bearer {secret}"), ("store", None)}
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret.encode() in data or SIGNATURE.encode() in data for data in written)
    assert secret not in given.stdout + given.stderr
    for name in ("NO_SUCH", "MINE"):
        wrong = verify(tmp_path, *command, "--token-env", name, **environment | {"MINE": "a b"})
        assert wrong.returncode == 2
        assert "a b" not in wrong.stderr


@pytest.mark.parametrize(
    ("model", "revision", "error"),
    [
        ("gpt2@v1", "v1", None),
        ("gpt2", "refs/pr/1", None),
        ("gpt2@v1", "v2", "one of them"),
        ("whisper-tiny.en", "v1", "on this machine"),
        ("square", "v1", "on this machine"),
        ("square.gguf", "v1", "on this machine"),
        (".", "v1", "hub name"),
        ("x" * 10_000, "v1", "hub name"),
        ("a/b/c", "v1", "hub name"),
        ("gpt2", "../x", "no branch"),
        ("gpt2", "", "no branch"),
    ],
)
def test_revision_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, revision: str, error: str | None
) -> None:
    (tmp_path / "square").mkdir()
    (tmp_path / "square.gguf").touch()
    monkeypatch.chdir(tmp_path)
    if error is None:
        assert at_revision(model, revision) == f"gpt2@{revision}"
        return
    with pytest.raises(UsageError, match=error):
        at_revision(model, revision)


# What goes wrong on the way


def test_the_commit_is_what_another_process_loads(hub: HubServer, here: list[float]) -> None:
    model = load_model("gpt2@v1")
    expect_gpt2(model)
    assert model.source is not None
    assert model.source.name_or_path == f"gpt2@{COMMIT}"


def test_too_many_requests_and_dropped_connections(hub: HubServer, here: list[float]) -> None:
    hub.faults.too_many = 2
    hub.faults.drop, hub.faults.drop_after = 3, 300_000
    expect_gpt2(load_model("gpt2"))
    assert hub.sent["model.safetensors"] == NEEDED + HEADER
    assert 1.0 in here


def test_server_errors_pass(hub: HubServer, here: list[float]) -> None:
    hub.faults.unavailable = 2
    expect_gpt2(load_model("gpt2"))


def broken_off(hub: HubServer) -> None:
    hub.faults.outage_after = 1_000_000
    with pytest.raises(ModelUnavailableError, match="goes on where it broke"):
        load_model("gpt2")
    hub.faults.outage_after = None


def test_resumed_by_a_later_run(tmp_path: Path, hub: HubServer, here: list[float]) -> None:
    broken_off(hub)
    assert len(here) == 4
    expect_gpt2(load_model("gpt2"))
    assert hub.sent["model.safetensors"] < NEEDED + HEADER + 10_000
    assert not parts(tmp_path, "*.partial*")


@pytest.mark.parametrize("file", ["*.partial", "*.partial.json"])
def test_damaged_rest_is_not_continued(tmp_path: Path, hub: HubServer, here: list[float], file: str) -> None:
    broken_off(hub)
    (partial,) = parts(tmp_path, file)
    data = bytearray(partial.read_bytes())
    data[len(data) // 2] ^= 1
    partial.write_bytes(data)
    expect_gpt2(load_model("gpt2"))
    assert hub.sent["model.safetensors"] >= NEEDED + HEADER + 800_000


def test_resumed_after_a_process_was_killed(
    tmp_path: Path, hub: HubServer, here: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process notes nothing at its end, but did so now and then."""
    monkeypatch.setattr("verify.models.hub.parts._NOTED_EVERY", 1 << 19)
    broken_off(hub)
    (note,) = parts(tmp_path, "*.partial.json")
    (partial,) = parts(tmp_path, "*.partial")
    record, data = json.loads(note.read_text()), partial.read_bytes()
    record["done"] = 1 << 18  # an earlier note of the same bytes, more of which were written since
    record["sha256"] = hashlib.sha256(data[len(data) - record_length(data) :][: 1 << 18]).hexdigest()
    note.write_text(json.dumps(record))
    partial.write_bytes(data + b"torn")
    expect_gpt2(load_model("gpt2"))
    assert (1 << 19) < hub.sent["model.safetensors"] - NEEDED - HEADER < (1 << 20)


def record_length(part: bytes) -> int:
    """Bytes of the tensor in a part: all after its own header."""
    return len(part) - 8 - int.from_bytes(part[:8], "little")


def test_other_content_on_resume(tmp_path: Path, hub: HubServer, here: list[float]) -> None:
    broken_off(hub)
    hub.faults.etag = "0" * 64
    with pytest.raises(ModelUnavailableError, match=r"ETag.*nothing of it is used"):
        load_model("gpt2")
    hub.faults.etag = None
    expect_gpt2(load_model("gpt2"))
    assert hub.sent["model.safetensors"] >= NEEDED + 2 * HEADER + 800_000


@pytest.mark.parametrize("fault", [{"short": 1}, {"short": -1}, {"encoded": True}, {"etag": "x"}])
def test_answers_that_are_not_what_was_asked_for(
    tmp_path: Path, hub: HubServer, here: list[float], fault: dict[str, object]
) -> None:
    folder(hub.root, LLAMA, llama())
    save_file(gpt2_tensors(), str(hub.root / "model.safetensors"))
    for name, value in fault.items():
        setattr(hub.faults, name, value)
    with pytest.raises(ModelUnavailableError):
        load_model("gpt2")
    assert not parts(tmp_path)


def test_server_without_ranges(tmp_path: Path, hub: HubServer, here: list[float]) -> None:
    hub.faults.ignore_range = True
    model = load_model("gpt2")
    expect_gpt2(model)
    assert [path.name for path in model.weights] == ["model.safetensors"]
    sent = hub.sent["model.safetensors"]
    expect_gpt2(load_model("gpt2"))
    assert hub.sent["model.safetensors"] == sent


@pytest.mark.parametrize("pattern", ["wte*.safetensors", "wte*.json", "header.bin", "header.json"])
def test_damaged_cache(
    tmp_path: Path, hub: HubServer, here: list[float], monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    load_model("gpt2")
    (file,) = parts(tmp_path, pattern)
    good = file.read_bytes()
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:-20], b""):
        file.write_bytes(bad)
        with monkeypatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            with pytest.raises(ModelUnavailableError, match="offline mode is on: unset HF_HUB_OFFLINE"):
                load_model("gpt2")
        file.write_bytes(bad)
        expect_gpt2(load_model("gpt2"))
        assert file.read_bytes() == good


def headers() -> dict[str, bytes]:
    good = pack(gpt2_tensors())
    length = int.from_bytes(good[:8], "little")
    table = json.loads(good[8 : 8 + length])
    table["ln_f.weight"]["data_offsets"] = table["ln_f.bias"]["data_offsets"]
    overlap = json.dumps(table).encode()
    return {
        "overlap": len(overlap).to_bytes(8, "little") + overlap + good[8 + length :],
        "truncated": good[:-4],
        "longer": good + b"1234",
        "long_header": (1 << 40).to_bytes(8, "little") + good[8:],
        "no_json": good[:8] + b"[" + good[9:],
        "no_prefix": b"1234",
    }


@pytest.mark.parametrize("name", ["overlap", "truncated", "longer", "long_header", "no_json", "no_prefix"])
def test_headers_are_held_to_the_rules_of_the_format(
    tmp_path: Path, hub: HubServer, here: list[float], name: str
) -> None:
    (hub.root / "model.safetensors").write_bytes(headers()[name])
    with pytest.raises(ModelUnavailableError, match="not a readable safetensors file"):
        load_model("gpt2")
    assert not parts(tmp_path)


def test_refusals_in_one_line(hub: HubServer, here: list[float]) -> None:
    hub.faults.gated = True
    for name, reason in {
        "gpt2": "gpt2.* is gated",
        "gpt2@v3": "gpt2 has no revision 'v3'",
        "org/none": "no model 'org/none'",
    }.items():
        with pytest.raises(ModelUnavailableError, match=reason) as caught:
            load_model(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [403, 404, 416])
def test_refusals_of_the_other_host(tmp_path: Path, hub: HubServer, here: list[float], status: int) -> None:
    folder(hub.root, json.loads((hub.root / "config.json").read_text()), gpt2_tensors())
    hub.faults.store_status = status
    (hub.root / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailableError) as caught:
        load_model("gpt2")
    assert "\n" not in str(caught.value)
    assert SIGNATURE not in str(caught.value)
    assert not parts(tmp_path)


def test_a_model_that_moved(hub: HubServer, here: list[float]) -> None:
    """As gpt2 did, to openai-community/gpt2."""
    hub.repository, hub.moved = "community/gpt2", "gpt2"
    expect_gpt2(load_model("gpt2"))
    assert hub.sent["model.safetensors"] == NEEDED + HEADER


# Other layouts


def shards(root: Path) -> dict[str, str]:
    """The same tensors in three shards; what a readout needs is in two."""
    (root / "model.safetensors").unlink()
    places = {"h.0.mlp.c_fc.weight": 1, "h.0.mlp.c_proj.weight": 1, "wte.weight": 2, "wpe.weight": 2}
    shard_of = {name: f"model-{places.get(name, 3):05}-of-00003.safetensors" for name in gpt2_tensors()}
    for shard in set(shard_of.values()):
        held = {name: value for name, value in gpt2_tensors().items() if shard_of[name] == shard}
        save_file(held, str(root / shard))
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    return shard_of


def test_shards(tmp_path: Path, hub: HubServer, here: list[float]) -> None:
    shard_of = shards(hub.root)
    expect_gpt2(load_model("gpt2"))
    untouched = shard_of["h.0.mlp.c_fc.weight"]
    assert not [path for path in hub.asked("hub") + hub.asked("hub", "HEAD") if untouched in path]
    assert sum(hub.sent[shard] for shard in set(shard_of.values())) < NEEDED + 2 * HEADER


@pytest.mark.parametrize(
    "change", [{"ln_f.weight": 2}, {"ln_f.scale": 3}, {"wpe.weight": 3}, {"wte.weight": 4}]
)
def test_index_and_shards_must_agree(
    tmp_path: Path, hub: HubServer, here: list[float], change: dict[str, int]
) -> None:
    shard_of = shards(hub.root)
    shard_of |= {name: f"model-{n:05}-of-00003.safetensors" for name, n in change.items()}
    (hub.root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    with pytest.raises(ModelUnavailableError, match=r"disagree|has no file"):
        load_model("gpt2")


def test_whole_shards_in_the_usual_cache_are_used(hub: HubServer, here: list[float]) -> None:
    from huggingface_hub import snapshot_download

    shards(hub.root)
    snapshot_download("gpt2")
    model = load_model("gpt2")
    expect_gpt2(model)
    assert [path.name[:11] for path in model.weights] == ["model-00002", "model-00003"]


@pytest.mark.parametrize("sharded", [False, True])
def test_unknown_architectures_are_described_without_their_weights(
    hub: HubServer, here: list[float], sharded: bool
) -> None:
    (hub.root / "config.json").write_text('{"model_type": "nouveau"}')
    if sharded:
        shards(hub.root)
    with pytest.raises(ModelUnavailableError, match=r"wte.weight  F32  50257 x 8"):
        load_model("gpt2")
    fetched = sum(count for name, count in hub.sent.items() if name.endswith(".safetensors"))
    assert fetched <= (3 if sharded else 1) * HEADER


def test_whole_files_in_the_usual_cache_are_used(tmp_path: Path, hub: HubServer, here: list[float]) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("gpt2")
    sent = hub.sent["model.safetensors"]
    model = load_model("gpt2")
    expect_gpt2(model)
    assert [path.name for path in model.weights] == ["model.safetensors"]
    assert hub.sent["model.safetensors"] == sent
    assert not parts(tmp_path)


def test_torch_weights_whole_where_there_are_no_others(hub: HubServer, here: list[float]) -> None:
    torch = pytest.importorskip("torch")
    (hub.root / "model.safetensors").unlink()
    tensors = {name: torch.from_numpy(value) for name, value in gpt2_tensors().items()}
    torch.save(tensors, hub.root / "pytorch_model.bin")
    model = load_model("gpt2")
    expect_gpt2(model)
    assert [path.name for path in model.weights] == ["pytorch_model.bin"]


def test_torch_shards_go_by_the_names_of_the_index(hub: HubServer, here: list[float]) -> None:
    torch = pytest.importorskip("torch")
    (hub.root / "model.safetensors").unlink()
    weight_map = {name: f"part{place % 2}.bin" for place, name in enumerate(gpt2_tensors())}
    for shard in set(weight_map.values()):
        held = {name: torch.from_numpy(x) for name, x in gpt2_tensors().items() if weight_map[name] == shard}
        torch.save(held, hub.root / shard)
    (hub.root / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    expect_gpt2(load_model("gpt2"))


def test_torch_shards_that_are_not_cached_are_not_at_hand(
    hub: HubServer, here: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub.root / "model.safetensors").unlink()
    index = json.dumps({"weight_map": dict.fromkeys(gpt2_tensors(), "part.bin")})
    (hub.root / "pytorch_model.bin.index.json").write_text(index)
    (hub.root / "part.bin").write_bytes(b"")
    snapshot = find_snapshot("gpt2", None)
    download(snapshot, ["pytorch_model.bin.index.json"])
    gone = replace(snapshot, unreachable=ConnectionError("offline"))
    monkeypatch.setattr("verify.models.hub.weights.download", lambda *_: snapshot.folder)
    with pytest.raises(NotAtHandError, match="not in the local cache"):
        open_snapshot(gone)


def test_models_lists_what_was_fetched_in_parts(tmp_path: Path, hub: HubServer, here: list[float]) -> None:
    model = load_model("gpt2@v1")
    asked = len(hub.requests)
    (entry,) = [x for x in inventory([]) if x.kind == "cached"]
    assert (entry.model, entry.about, entry.problem) == (f"gpt2@{COMMIT}", "layernorm, 50257 x 8 F32", None)
    assert entry.size == sum(path.stat().st_size for path in model.weights)
    assert len(hub.requests) == asked
    model.weights[0].unlink()
    (entry,) = [x for x in inventory([]) if x.kind == "cached"]
    assert "only partly in the local cache" in str(entry.problem)
    load_model("gpt2")
    (entry,) = [x for x in inventory([]) if x.kind == "cached"]
    assert (entry.model, entry.problem) == ("gpt2", None)


def test_no_weights_at_all(hub: HubServer, here: list[float]) -> None:
    (hub.root / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="no weights"):
        load_model("gpt2")


def test_nothing_to_be_read(hub: HubServer, here: list[float]) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (hub.root / name).unlink()
    with pytest.raises(ModelUnavailableError, match="neither weights nor a config"):
        load_model("gpt2")


def test_dtypes_that_cannot_be_read_are_not_fetched(hub: HubServer, here: list[float]) -> None:
    whole = gpt2_tensors() | {"wte.weight": np.zeros((50257, 8), np.int8)}
    (hub.root / "model.safetensors").write_bytes(pack(whole))
    with pytest.raises(ModelUnavailableError, match="dtype I8"):
        load_model("gpt2")
    assert hub.sent["model.safetensors"] == HEADER


# What people see


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "token"), (429, "too many requests"), (500, "try again")]
)
def test_statuses_in_words(status: int, reason: str) -> None:
    error = OSError("no")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    assert reason in explain("gpt2", None, error)


def test_no_secret_in_an_error() -> None:
    signed = OSError("Client error '403' for url 'https://store/x?X-Signature=abc&y=1'")
    assert "X-Signature" not in explain("gpt2", None, signed)
    header = ValueError("Illegal header value b'Bearer hf_a b'")
    assert "hf_a" not in explain("gpt2", None, header)


def test_bar_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert not hub_bar.watched()
    monkeypatch.setattr(hub_bar, "watched", lambda: True)
    with hub_bar.bar("wte.weight", 1 << 24) as advance:
        advance(1 << 24)
    assert "wte.weight" in capsys.readouterr().err
    hub_bar.tell("whole")
    assert "whole" in capsys.readouterr().err


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelUnavailableError, match="pip install huggingface_hub"):
        load_model("org/tiny")

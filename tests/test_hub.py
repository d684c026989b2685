"""Hub names: a cached snapshot offline, a small server with the hub's protocol, and no server at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest
from test_models import LLAMA, folder, llama

from verify.errors import ModelUnavailableError
from verify.models.hub import split_hub_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
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


class Answer(NamedTuple):
    text: str
    seconds: float


def ask(name: str, home: Path, **environment: str) -> Answer:
    """load_model in a process of its own, as the hub client reads its environment once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    begin = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, name],
        env=kept | {"HF_HOME": str(home)} | environment,
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
        assert answer.text.startswith("ModelUnavailableError 'org/absent'")
        assert "pass a folder" in answer.text
        assert "\n" not in answer.text
        assert answer.seconds < 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves org/tiny, one commit, from a folder."""
    root = tmp_path / "served"
    root.mkdir()
    folder(root, LLAMA, llama())
    (root / "README.md").write_text("not asked for")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            if path in ("/api/models/org/tiny", "/api/models/org/tiny/revision/main"):
                siblings = [{"rfilename": file.name} for file in root.iterdir()]
                self.reply(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode())
            elif path == f"/api/models/org/tiny/tree/{COMMIT}":
                files = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                    for file in root.iterdir()
                ]
                self.reply(json.dumps(files).encode())
            elif path.startswith("/org/tiny/resolve/") and (root / name).is_file():
                body = (root / name).read_bytes()
                etag = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
                self.reply(body, ETag=etag, X_Repo_Commit=COMMIT)
            else:
                self.reply(b"{}", 404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_download_then_offline(tmp_path: Path, server: str) -> None:
    expected = f"org/tiny {COMMIT} model.safetensors"
    assert ask("org/tiny", tmp_path, HF_ENDPOINT=server).text == expected
    assert ask("org/tiny", tmp_path, HF_HUB_OFFLINE="1").text == expected
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    assert sorted(path.name for path in snapshot.iterdir()) == ["config.json", "model.safetensors"]
    missing = ask("org/none", tmp_path, HF_ENDPOINT=server).text
    assert missing.startswith("ModelUnavailableError no model 'org/none'")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    from verify.models import load_model

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelUnavailableError, match="pip install huggingface_hub"):
        load_model("org/tiny")

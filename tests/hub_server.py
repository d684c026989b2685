"""A small server that speaks the hub's protocol: API, redirects to a second host, ranges, faults on demand.

Large files are redirected to a second port, which stands for the content network, with a signed address; it
must never see the hub's authorisation.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from safetensors.numpy import save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Files above this are stored and served elsewhere, as the hub does with large ones.
LARGE = 1 << 16
SIGNATURE = "X-Signature=5ec4e7"


@dataclass
class Faults:
    """What goes wrong. Counts go down as they are used."""

    too_many: int = 0  # answers 429 with Retry-After
    unavailable: int = 0  # answers 503
    drop: int = 0  # times that a large body is cut
    drop_after: int = 1 << 15  # bytes into the body
    outage_after: int | None = None  # large bytes in all, after which nothing is answered
    store_status: int = 0  # answers of the second host
    ignore_range: bool = False
    short: int = 0  # bytes that Content-Range is off by
    gated: bool = False
    token: str | None = None  # all else is answered 401
    etag: str | None = None  # instead of the right one, on GET
    encoded: bool = False  # claims gzip


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients may go away."""


@dataclass
class HubServer:
    """One repository at one commit, served from a folder."""

    root: Path
    repository: str = "gpt2"
    moved: str | None = None  # its old name, answered with a redirect
    faults: Faults = field(default_factory=Faults)
    sent: Counter[str] = field(default_factory=Counter)  # body bytes of resolved files, by file
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # host, "GET /x", headers

    def __enter__(self) -> HubServer:
        self._servers = [_Server(("127.0.0.1", 0), _handler(self, place)) for place in ("hub", "store")]
        self.url, self.store = (f"http://127.0.0.1:{each.server_port}" for each in self._servers)
        for each in self._servers:
            each.daemon_threads = True
            threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._servers:
            each.shutdown()
            each.server_close()

    def asked(self, host: str, method: str = "GET") -> list[str]:
        """Paths that were asked of a host."""
        return [
            line.split(" ", 1)[1] for at, line, _ in self.requests if at == host and line.startswith(method)
        ]


def gpt2_tensors() -> dict[str, np.ndarray]:
    """GPT-2's vocabulary at width 8: token 30208 lies amid the others. Most bytes are of layers."""
    W = np.random.default_rng(30208).normal(size=(50257, 8)).astype(np.float32)
    W[30208] = 0
    one, layer = np.ones(8, np.float32), np.full((1024, 1024), 0.5, np.float32)
    return {
        "h.0.mlp.c_fc.weight": layer,
        "h.0.mlp.c_proj.weight": layer,
        "ln_f.bias": one * 0,
        "ln_f.weight": one,
        "wpe.weight": one.reshape(1, 8),
        "wte.weight": W,
    }


def gpt2_folder(root: Path) -> Path:
    """A GPT-2 checkpoint as the hub holds it, with a tokenizer."""
    root.mkdir()
    save_file(gpt2_tensors(), str(root / "model.safetensors"), metadata={"format": "pt"})
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": 8,
        "vocab_size": 50257,
        "layer_norm_epsilon": 1e-5,
    }
    (root / "config.json").write_text(json.dumps(config))
    vocab = {f"t{n}": n for n in range(50257) if n != 30208} | {"\u0120externalTo": 30208}
    tokenizer = {"model": {"type": "BPE", "vocab": vocab, "merges": []}, "decoder": {"type": "ByteLevel"}}
    (root / "tokenizer.json").write_text(json.dumps(tokenizer))
    (root / "README.md").write_text("not asked for")
    return root


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _handler(hub: HubServer, place: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            hub.requests.append(
                (
                    place,
                    f"{self.command} {self.path}",
                    {key.lower(): value for key, value in self.headers.items()},
                )
            )
            path = unquote(self.path.partition("?")[0])
            if place == "store":
                return self.large(path.strip("/"))
            if self.refused():
                return None
            for start in ("/", "/api/models/"):
                old, new = f"{start}{hub.moved}", f"{start}{hub.repository}"
                if path == old or path.startswith(f"{old}/"):
                    return self.reply(b"", 307, Location=self.path.replace(old, new, 1))
            api = f"/api/models/{hub.repository}"
            if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}", f"{api}/revision/v1"):
                files = [{"rfilename": file.name} for file in sorted(hub.root.iterdir())]
                return self.json({"id": hub.repository, "sha": COMMIT, "siblings": files})
            if path == f"{api}/tree/{COMMIT}":
                return self.json([self.entry(file) for file in sorted(hub.root.iterdir())])
            if path.startswith(f"{api}/"):
                return self.error("RevisionNotFound", 404)
            repository, _, rest = path.strip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            if repository != hub.repository:
                return self.error("RepoNotFound", 404)
            if revision not in (COMMIT, "main", "v1"):
                return self.error("RevisionNotFound", 404)
            return self.resolve(name)

        do_HEAD = do_GET

        def refused(self) -> bool:
            faults = hub.faults
            if faults.too_many:
                faults.too_many -= 1
                self.error("TooManyRequests", 429, Retry_After="0")
            elif faults.unavailable:
                faults.unavailable -= 1
                self.error("Unavailable", 503)
            elif faults.token and self.headers.get("Authorization") != f"Bearer {faults.token}":
                self.error("RepoNotFound", 401)
            elif faults.gated and "/resolve/" in self.path:
                self.error("GatedRepo", 403)
            else:
                return False
            return True

        def resolve(self, name: str) -> None:
            file = hub.root / name
            if not file.is_file():
                return self.error("EntryNotFound", 404, X_Repo_Commit=COMMIT)
            data = file.read_bytes()
            if len(data) <= LARGE:
                etag = f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"'
                hub.sent[name] += len(data) if self.command == "GET" else 0
                return self.reply(data, ETag=etag, X_Repo_Commit=COMMIT)
            etag = hub.faults.etag if hub.faults.etag and self.command == "GET" else _sha256(data)
            return self.reply(
                b"",
                302,
                Location=f"{hub.store}/{name}?{SIGNATURE}",
                X_Repo_Commit=COMMIT,
                X_Linked_Size=str(len(data)),
                X_Linked_Etag=f'"{etag}"',
            )

        def large(self, name: str) -> None:
            data, faults = (hub.root / name).read_bytes(), hub.faults
            if self.out(name):
                self.close_connection = True
                return None
            if faults.store_status:
                return self.reply(b"<Error/>", faults.store_status)
            wanted, headers, status = data, {"ETag": '"of the store"'}, 200
            asked = self.headers.get("Range")
            if asked and not faults.ignore_range:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                begin, end = int(first), min(int(last or len(data)), len(data) - 1)
                wanted, status = data[begin : end + 1], 206
                headers["Content-Range"] = f"bytes {begin}-{end}/{len(data) + faults.short}"
            if faults.encoded:
                headers["Content-Encoding"] = "gzip"
            self.start(status, len(wanted), headers)
            if self.command != "GET":
                return None
            if faults.drop and len(wanted) > faults.drop_after:
                faults.drop -= 1
                wanted, self.close_connection = wanted[: faults.drop_after], True
            try:
                for position in range(0, len(wanted), 1 << 14):
                    piece = wanted[position : position + (1 << 14)]
                    if self.out(name):
                        self.close_connection = True
                        return None
                    self.wfile.write(piece)
                    hub.sent[name] += len(piece)
            except OSError:
                self.close_connection = True

        def out(self, name: str) -> bool:
            return hub.faults.outage_after is not None and hub.sent[name] >= hub.faults.outage_after

        def entry(self, file: Path) -> dict[str, Any]:
            data = file.read_bytes()
            found: dict[str, Any] = {"type": "file", "path": file.name, "size": len(data), "oid": "0" * 40}
            if len(data) > LARGE:
                found["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 135}
            return found

        def start(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()

        def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.start(status, len(body), {key.replace("_", "-"): value for key, value in headers.items()})
            if self.command == "GET":
                self.wfile.write(body)

        def json(self, value: object) -> None:
            self.reply(json.dumps(value).encode(), Content_Type="application/json")

        def error(self, code: str, status: int, **headers: str) -> None:
            self.reply(b"{}", status, X_Error_Code=code, X_Error_Message=code, **headers)

    return Handler

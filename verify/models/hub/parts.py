"""STATEMENT. Single tensors of a safetensors file on the hub, each fetched once and kept with its SHA-256.

Wrong here = other bytes under a tensor's name. A part is a safetensors file of its own that holds one
tensor, beside a record of where its bytes lie in the hub's file and of their SHA-256 as they came in. A part
whose bytes have another hash, or whose record speaks of other bytes, is fetched again. The hub announces a
hash of whole files only: that the bytes came unaltered rests on the connection (TLS).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError
from verify.files import write_atomically
from verify.kernel.safetensors import read_tensors
from verify.models.config import parse_json, read_bytes
from verify.models.hub.bar import bar
from verify.models.hub.ranges import ChangedError, RemoteFile, stream

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel.safetensors import Entry
    from verify.kernel.tensor import Tensor

_RECORD_LIMIT = 1 << 16
# A partial download is noted down after so many bytes, and on any error.
_NOTED_EVERY = 1 << 24


class Part:
    """One tensor of a remote file, in the cache. start: where in that file the tensors' bytes begin."""

    def __init__(self, folder: Path, file: RemoteFile, name: str, entry: Entry, start: int) -> None:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80]
        self.file, self.name, self.entry = file, name, entry
        self.begin, self.length = start + entry.begin, entry.end - entry.begin
        # The hash tells apart names that look alike once made harmless.
        self.path = folder / f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.safetensors"
        self.record = self.path.with_suffix(".json")
        self.partial = self.path.with_suffix(".partial")
        self.partial_record = self.path.with_suffix(".partial.json")
        self.about = {
            "tensor": name,
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "begin": self.begin,
            "end": self.begin + self.length,
            **asdict(file),
        }

    def read(self) -> Tensor | None:
        """The tensor as recorded; None if it is not there, damaged, or recorded of other bytes."""
        record = read_record(self.record)
        digest = record.pop("sha256", None) if record else None
        if record != self.about or not self.path.is_file():
            return None
        try:
            tensor = read_tensors(self.path, {self.name})[self.name]
        except ModelUnavailableError:
            return None
        same = (tensor.dtype, tensor.shape) == (self.entry.dtype, self.entry.shape)
        return tensor if same and tensor.sha256 == digest else None

    def fetch(self) -> None:
        """Download what is missing. Raises what `stream` raises; what came in is kept for the next time."""
        own_header = self._own_header()
        done, digest = self._resumed(len(own_header))
        with self.partial.open("r+b" if done else "wb") as out, bar(self.name, self.length) as advance:
            if not done:
                out.write(own_header)
            out.seek(len(own_header) + done)
            out.truncate()
            advance(done)
            noted = done
            try:
                for piece in stream(self.file, self.begin + done, self.begin + self.length):
                    out.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    advance(len(piece))
                    if done - noted >= _NOTED_EVERY:
                        out.flush()
                        self._note(self.partial_record, digest, done=done)
                        noted = done
            except ChangedError:
                done = 0
                raise
            finally:
                out.flush()
                self._note(self.partial_record, digest, done=done)
        self._note(self.record, digest)
        os.replace(self.partial, self.path)
        self.partial_record.unlink(missing_ok=True)

    def _resumed(self, skip: int) -> tuple[int, Any]:
        """How many bytes of the tensor an earlier run left, and the state of their hash."""
        digest = hashlib.sha256()
        record = read_record(self.partial_record) or {}
        done, noted = record.pop("done", None), record.pop("sha256", None)
        if record != self.about or type(done) is not int or not 0 < done <= self.length:
            return 0, digest
        try:
            with self.partial.open("rb") as file:
                file.seek(skip)
                left = done
                while left and (block := file.read(min(left, 1 << 22))):
                    digest.update(block)
                    left -= len(block)
        except OSError:
            return 0, hashlib.sha256()
        return (done, digest) if not left and digest.hexdigest() == noted else (0, hashlib.sha256())

    def _note(self, path: Path, digest: Any, **more: int) -> None:
        write_atomically(path, json.dumps(self.about | {"sha256": digest.hexdigest()} | more).encode())

    def _own_header(self) -> bytes:
        """The header of a safetensors file that holds this tensor alone, of a multiple of 8 bytes."""
        entry = {
            "dtype": self.entry.dtype,
            "shape": list(self.entry.shape),
            "data_offsets": [0, self.length],
        }
        text = json.dumps({self.name: entry}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def read_record(path: Path) -> dict[str, Any] | None:
    """A record as it was written; None if there is none, or it is damaged."""
    try:
        record = parse_json(read_bytes(path, _RECORD_LIMIT), path.name)
    except ModelUnavailableError:
        return None
    return record if type(record) is dict else None

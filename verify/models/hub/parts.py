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
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from verify.errors import ModelUnavailableError, VerifyError
from verify.files import write_atomically
from verify.kernel import safetensors
from verify.kernel.safetensors import MAX_HEADER_BYTES, read_tensors
from verify.kernel.tensor import DTYPES, Tensor
from verify.models.config import parse_json, read_bytes
from verify.models.hub.bar import bar, tell
from verify.models.hub.errors import explain, is_a, is_transport, status_of
from verify.models.hub.ranges import BrokenOffError, ChangedError, NoRangesError, RemoteFile, announce, stream
from verify.models.hub.snapshot import Snapshot, download

if TYPE_CHECKING:
    from collections.abc import Callable

# Most headers are shorter, and come with the first request.
_HEADER_GUESS = 100_000
_RECORD_LIMIT = 1 << 16
# A partial download is noted down after so many bytes, and on any error.
_NOTED_EVERY = 1 << 24


@dataclass(frozen=True)
class Entry:
    """A tensor of the header; its bytes lie at [begin, end) of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _AbsentError(ModelUnavailableError):
    """The commit has no such file."""


class RemoteWeights:
    """A safetensors file of a snapshot on the hub."""

    def __init__(self, snapshot: Snapshot, name: str) -> None:
        from huggingface_hub import constants

        # Where the client wants other packages' files (its cached_assets_path); made when first written to.
        owner = snapshot.repository.replace("/", "--")
        self.folder = Path(constants.HF_ASSETS_CACHE) / "verify" / owner / snapshot.commit / name
        self.snapshot, self.name = snapshot, name
        self.whole: Path | None = None

    def exists(self) -> bool:
        """Whether the commit has this file; out of reach, whether the cache has its header."""
        if self.snapshot.unreachable is not None and self._kept_head() is None:
            return False
        try:
            return bool(self._head)
        except _AbsentError:
            return False

    @property
    def entries(self) -> dict[str, Entry]:
        """Every tensor of the header. Raises ModelUnavailableError."""
        return self._head[1]

    def tensor(self, name: str) -> tuple[Path, Tensor]:
        """A tensor and the file it is mapped from; its bytes are fetched unless they are in the cache.

        Raises ModelUnavailableError.
        """
        file, entries = self._head
        entry = entries[name]
        if entry.dtype not in DTYPES or entry.begin == entry.end:
            raise ModelUnavailableError(
                f"{self.name}: tensor {name!r} has dtype {entry.dtype} and shape {list(entry.shape)}; "
                f"supported are non-empty {', '.join(DTYPES)}"
            )
        if self.whole is None:
            part = _Part(self.folder, file, name, entry)
            tensor = part.read() or self._fetched(part)
            if tensor is not None:
                return part.path, tensor
        return self._from_whole(name, entry)

    @cached_property
    def _head(self) -> tuple[RemoteFile, dict[str, Entry]]:
        """The file as announced, and its header: from the cache, else from the hub."""
        kept = self._kept_head()
        if kept is None:
            if self.snapshot.unreachable is not None:
                self._out_of_reach()
            file = self._asking(self._announced)
            data = self._asking(lambda: _fetch_header(file))
            entries = _parse_header(data, file)
            record = {"etag": file.etag, "size": file.size, "sha256": hashlib.sha256(data).hexdigest()}
            write_atomically(self.folder / "header.bin", data)
            write_atomically(self.folder / "header.json", json.dumps(record).encode())
            return file, entries
        file, data = kept
        return file, _parse_header(data, file)

    def _announced(self) -> RemoteFile:
        try:
            return announce(self.snapshot.repository, self.snapshot.commit, self.name)
        except Exception as error:
            if is_a(error, "EntryNotFoundError"):
                raise _AbsentError(f"{self.snapshot.repository} has no file {self.name}") from error
            raise

    def _kept_head(self) -> tuple[RemoteFile, bytes] | None:
        record = _read_record(self.folder / "header.json")
        try:
            data = read_bytes(self.folder / "header.bin", MAX_HEADER_BYTES + 8)
        except ModelUnavailableError:
            return None
        if record is None or record.get("sha256") != hashlib.sha256(data).hexdigest():
            return None
        size, etag = record.get("size"), record.get("etag")
        if type(size) is not int or type(etag) is not str:
            return None
        return RemoteFile(self.snapshot.repository, self.snapshot.commit, self.name, size, etag), data

    def _fetched(self, part: _Part) -> Tensor | None:
        """The part, downloaded; None if the server sends whole files only."""
        from huggingface_hub.utils import WeakFileLock

        if self.snapshot.unreachable is not None:
            self._out_of_reach()
        self.folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(self.folder / "fetch.lock"):
            tensor = part.read()  # another process may have been first
            if tensor is None:
                try:
                    self._asking(part.fetch)
                except NoRangesError:
                    return None
                tensor = part.read()
        if tensor is None:
            raise ModelUnavailableError(f"{part.path}: it does not read back as it was written")
        return tensor

    def _from_whole(self, name: str, entry: Entry) -> tuple[Path, Tensor]:
        """The tensor from the whole file, by the client and in its cache, where ranges are not to be had."""
        if self.whole is None:
            file = self._head[0]
            tell(f"the server sends no parts of files: getting {self.name} whole ({file.size:,} bytes)")
            whole = download(self.snapshot, [self.name]) / self.name
            if not whole.is_file() or whole.stat().st_size != file.size:
                raise ModelUnavailableError(f"{self.name} came with another size than announced; try again")
            self.whole = whole
        tensor = read_tensors(self.whole, {name})[name]
        if (tensor.dtype, tensor.shape) != (entry.dtype, entry.shape):
            raise ModelUnavailableError(f"{self.name} has another header than before; try again")
        return self.whole, tensor

    def _asking(self, call: Callable[[], Any]) -> Any:
        """What `call` gets from the hub; its errors in one line, but for NoRangesError."""
        try:
            return call()
        except (NoRangesError, VerifyError):
            raise
        except ChangedError as error:
            # At one commit a file does not change: nothing of it that was kept can be trusted.
            for name in ("header.json", "header.bin"):
                (self.folder / name).unlink(missing_ok=True)
            raise ModelUnavailableError(
                f"{self.snapshot.repository}: {error}; nothing of it is used, try again or pass a folder"
            ) from error
        except Exception as error:
            if is_transport(error) or isinstance(error, BrokenOffError):
                raise ModelUnavailableError(
                    f"{self.snapshot.repository}: the connection to the hub broke while {self.name} was read "
                    f"({type(error).__name__}); the same command goes on where it broke"
                ) from error
            reason = explain(self.snapshot.repository, self.snapshot.commit, error)
            raise ModelUnavailableError(reason) from error

    def _out_of_reach(self) -> NoReturn:
        cause = self.snapshot.unreachable
        if cause is not None and status_of(cause) is not None:
            raise ModelUnavailableError(explain(self.snapshot.repository, None, cause))
        raise ModelUnavailableError(
            f"{self.snapshot.repository}@{self.snapshot.commit} is only partly in the local cache "
            f"(of {self.name} not all that is needed), the rest out of reach; connect, or pass a folder"
        )


class _Part:
    """One tensor in the cache."""

    def __init__(self, folder: Path, file: RemoteFile, name: str, entry: Entry) -> None:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80]
        self.file, self.name, self.entry = file, name, entry
        # The hash tells apart names that look alike once made harmless.
        self.path = folder / f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.safetensors"
        self.record = self.path.with_suffix(".json")
        self.partial = self.path.with_suffix(".partial")
        self.partial_record = self.path.with_suffix(".partial.json")
        self.about = {
            "tensor": name,
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "begin": entry.begin,
            "end": entry.end,
            **asdict(file),
        }

    def read(self) -> Tensor | None:
        """The tensor as recorded; None if it is not there, damaged, or recorded of other bytes."""
        record = _read_record(self.record)
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
        own_header, length = self._own_header(), self.entry.end - self.entry.begin
        done, digest = self._resumed(len(own_header))
        with self.partial.open("r+b" if done else "wb") as out, bar(self.name, length) as advance:
            if not done:
                out.write(own_header)
            out.seek(len(own_header) + done)
            out.truncate()
            advance(done)
            noted = done
            try:
                for piece in stream(self.file, self.entry.begin + done, self.entry.end):
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
        record = _read_record(self.partial_record) or {}
        done, noted = record.pop("done", None), record.pop("sha256", None)
        if record != self.about or type(done) is not int or not 0 < done <= self.entry.end - self.entry.begin:
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
        offsets = [0, self.entry.end - self.entry.begin]
        entry = {"dtype": self.entry.dtype, "shape": list(self.entry.shape), "data_offsets": offsets}
        text = json.dumps({self.name: entry}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def _fetch_header(file: RemoteFile) -> bytes:
    """The file's first 8 + N bytes."""
    data = b"".join(stream(file, 0, min(file.size, _HEADER_GUESS)))
    length = 8 + int.from_bytes(data[:8], "little")
    if length > min(file.size, 8 + MAX_HEADER_BYTES):
        raise ModelUnavailableError(
            f"{file.name} is not a readable safetensors file: a header of {length - 8} bytes "
            f"in a file of {file.size} bytes"
        )
    return data[:length] if length <= len(data) else b"".join(stream(file, 0, length))


def _parse_header(data: bytes, file: RemoteFile) -> dict[str, Entry]:
    """The header, by the kernel's own rules on what lies where in a file of the announced size."""
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        if len(data) < 8 or len(data) != start:
            raise safetensors._RuleBrokenError("it is truncated within the header")
        found = {
            name: safetensors._entry(name, value)
            for name, value in safetensors._parse_json(data[8:]).items()
            if name != "__metadata__"
        }
        safetensors._check_layout(found, file.size - start)
    except safetensors._RuleBrokenError as error:
        raise ModelUnavailableError(f"{file.name} is not a readable safetensors file: {error}") from error
    return {
        name: Entry(entry.dtype, entry.shape, start + entry.begin, start + entry.end)
        for name, entry in found.items()
    }


def _read_record(path: Path) -> dict[str, Any] | None:
    """A record as it was written; None if there is none, or it is damaged."""
    try:
        record = parse_json(read_bytes(path, _RECORD_LIMIT), path.name)
    except ModelUnavailableError:
        return None
    return record if type(record) is dict else None

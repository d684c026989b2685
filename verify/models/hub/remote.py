"""STATEMENT. A safetensors file on the hub: its header at once, its tensors when they are asked for.

Wrong here = other bytes under a tensor's name. The header is held to the kernel's rules of the format, in a
file of the announced size, before any of its offsets is used.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from verify.errors import ModelUnavailableError, NotAtHandError, VerifyError
from verify.files import write_atomically
from verify.kernel.safetensors import MAX_HEADER_BYTES, parse_header, read_tensors
from verify.kernel.tensor import DTYPES
from verify.models.config import read_bytes
from verify.models.hub.bar import tell
from verify.models.hub.errors import explain, is_a, is_transport, reconnect, status_of
from verify.models.hub.parts import Part, read_record
from verify.models.hub.ranges import (
    BrokenOffError,
    ChangedError,
    NoRangesError,
    RemoteFile,
    announce,
    stream,
)
from verify.models.hub.snapshot import Snapshot, download

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.kernel.safetensors import Entry
    from verify.kernel.tensor import Tensor

# Most headers are shorter, and come with the first request.
_HEADER_GUESS = 100_000


class _AbsentError(ModelUnavailableError):
    """The commit has no such file."""


def parts_folder(repository: str, commit: str) -> Path:
    """Where headers and single tensors of a commit are kept, a folder a file; made when first written to."""
    from huggingface_hub import constants

    # Where the client wants other packages' files: its cached_assets_path.
    return Path(constants.HF_ASSETS_CACHE) / "verify" / repository.replace("/", "--") / commit


class RemoteWeights:
    """A safetensors file of a snapshot on the hub."""

    def __init__(self, snapshot: Snapshot, name: str) -> None:
        self.folder = parts_folder(snapshot.repository, snapshot.commit) / name
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
        file, entries, start = self._head
        entry = entries[name]
        if entry.dtype not in DTYPES or entry.begin == entry.end:
            raise ModelUnavailableError(
                f"{self.name}: tensor {name!r} has dtype {entry.dtype} and shape {list(entry.shape)}; "
                f"supported are non-empty {', '.join(DTYPES)}"
            )
        if self.whole is None:
            part = Part(self.folder, file, name, entry, start)
            tensor = part.read() or self._fetched(part)
            if tensor is not None:
                return part.path, tensor
        return self._from_whole(name, entry)

    @cached_property
    def _head(self) -> tuple[RemoteFile, dict[str, Entry], int]:
        """The file as announced, its header, and where that ends: from the cache, else from the hub."""
        kept = self._kept_head()
        if kept is None:
            if self.snapshot.unreachable is not None:
                self._out_of_reach()
            file = self._asking(self._announced)
            data = self._asking(lambda: _fetch_header(file))
            entries = parse_header(data, file.size, file.name)
            record = {"etag": file.etag, "size": file.size, "sha256": hashlib.sha256(data).hexdigest()}
            write_atomically(self.folder / "header.bin", data)
            write_atomically(self.folder / "header.json", json.dumps(record).encode())
            return file, entries, len(data)
        file, data = kept
        return file, parse_header(data, file.size, file.name), len(data)

    def _announced(self) -> RemoteFile:
        try:
            return announce(self.snapshot.repository, self.snapshot.commit, self.name)
        except Exception as error:
            if is_a(error, "EntryNotFoundError"):
                raise _AbsentError(f"{self.snapshot.repository} has no file {self.name}") from error
            raise

    def _kept_head(self) -> tuple[RemoteFile, bytes] | None:
        record = read_record(self.folder / "header.json")
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

    def _fetched(self, part: Part) -> Tensor | None:
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
                raise NotAtHandError(
                    f"{self.snapshot.repository}: the connection to the hub broke while {self.name} was read "
                    f"({type(error).__name__}); the same command goes on where it broke"
                ) from error
            reason = explain(self.snapshot.repository, self.snapshot.commit, error)
            raise NotAtHandError(reason) from error

    def _out_of_reach(self) -> NoReturn:
        cause = self.snapshot.unreachable
        if cause is not None and status_of(cause) is not None:
            raise NotAtHandError(explain(self.snapshot.repository, None, cause))
        raise NotAtHandError(
            f"{self.snapshot.repository}@{self.snapshot.commit} is only partly in the local cache "
            f"(of {self.name} not all that is needed), the rest out of reach; {reconnect()}, or pass a folder"
        )


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

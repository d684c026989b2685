"""GLUE. Certificate files on disk: where they lie, and atomic writing. Decides nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from verify.errors import MalformedError, ModelUnavailableError, OutputError, OversizedError
from verify.kernel import from_bytes
from verify.kernel.strict_json import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verify.kernel import Statement


# What a report of `verify claims` says of itself, first of all.
CLAIMS_REPORT = "verify-claims-report"
_REPORT_HEAD = re.compile(rb'\s*\{\s*"format"\s*:\s*"' + CLAIMS_REPORT.encode() + rb'"')
# Headers of a finished ledger and of a scan in progress.
LEDGER_FILES = ("ledger.json", "journal.json")


def certificate_path(folder: Path, statement: Statement) -> Path:
    """`folder`/model/domain/token.json, with only harmless characters in the names.

    A hash of the statement is added where another statement's certificate lies there already.
    """
    path = domain_path(folder, statement.model, statement.domain.name) / f"{statement.token}.json"
    try:
        taken = path.exists() and from_bytes(read_regular(path)).statement != statement
    except (OSError, MalformedError, ModelUnavailableError):
        taken = True
    digest = hashlib.sha256(repr(statement).encode()).hexdigest()[:8]
    return path.with_name(f"{statement.token}-{digest}.json") if taken else path


def model_path(folder: Path, model: str) -> Path:
    """`folder`/model, with only harmless characters in the name: all certificates of models called so."""
    return folder / _harmless(model)


def domain_path(folder: Path, model: str, domain: str) -> Path:
    """`folder`/model/domain, with only harmless characters in the names."""
    return model_path(folder, model) / _harmless(domain)


def _harmless(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-").lstrip(".") or "model"


def require_writable(folder: Path) -> None:
    """Create `folder`, or raise OutputError before any work is done."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, and a folder is wanted: choose another with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another with --out"
        ) from None


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data`, in one piece or many, under `path` whole or not at all. Raises OutputError."""
    temporary = None
    try:
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            temporary = file.name
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        raise


def read_regular(path: Path) -> bytes:
    """The bytes of a file. ModelUnavailableError if unreadable, OversizedError if too big.

    Only regular files are opened, so that a pipe or a device cannot keep a checker waiting.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelUnavailableError(f"{path.name!a} is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path.name!a}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise OversizedError(f"over the limit of {MAX_BYTES} bytes")
    return data


def is_claims_report(data: bytes) -> bool:
    """Whether a file says that it is a report of `verify claims`. No certificate or bundle begins so."""
    return _REPORT_HEAD.match(data) is not None


def certificate_files(paths: list[Path]) -> Iterator[Path]:
    """The files named; of a folder, every .json below it in sorted order, those of ledgers left out."""
    for path in paths:
        try:
            found = sorted(filter(_is_certificate, path.rglob("*.json"))) if path.is_dir() else [path]
        except OSError:
            found = [path]  # reading it will say what is wrong
        yield from found


def _is_certificate(path: Path) -> bool:
    return path.is_file() and path.name not in LEDGER_FILES

"""GLUE. Which models are at hand: bundled, in the hub's cache, and in files. Downloads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from verify.errors import ModelUnavailableError, UsageError, VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from verify.kernel.readout import Readout
    from verify.models.hub import Snapshot

T = TypeVar("T")
_WEIGHTS = (".safetensors", ".bin")
_GGUF = ".gguf"
_OFFLINE = ConnectionError("nothing is downloaded to list models")


@dataclass(frozen=True)
class Entry:
    """One model. model: what --model takes. kind: bundled, cached, packed or gguf.

    size: bytes of weights on this disk. problem: why it cannot be loaded, or None.
    """

    model: str
    kind: str
    size: int
    about: str
    problem: str | None


def inventory(folders: list[Path]) -> Iterator[Entry]:
    """Bundled models, those in the hub's cache that hold weights, then the files in `folders`.

    Raises UsageError if one of them is no folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
    yield from _bundled()
    yield from _cached()
    for folder in folders:
        yield from _files(folder)


def _bundled() -> Iterator[Entry]:
    from verify.models.bundled import BUNDLED, bundled_folder

    for name in BUNDLED:
        about, problem = _tried(_describe, name)
        folder = bundled_folder(name) if problem is None else None
        size = 0 if folder is None else sum(x.stat().st_size for x in folder.iterdir() if _weights(x))
        yield Entry(name, "bundled", size, about, problem)


def _cached() -> Iterator[Entry]:
    """Snapshots in the cache of huggingface_hub; none where the library or its cache is absent.

    Their weights are whole there, or single tensors in this package's own cache.
    """
    from verify.models.hub import Snapshot

    try:
        from huggingface_hub import scan_cache_dir

        repositories = scan_cache_dir().repos
    except Exception:  # noqa: BLE001 - no library, no cache, or one that cannot be read: nothing to list
        return
    for repository in sorted(repositories, key=lambda r: r.repo_id):
        if repository.repo_type != "model":
            continue
        for revision in sorted(repository.revisions, key=lambda r: r.commit_hash):
            for file in sorted(revision.files, key=lambda f: f.file_name):
                if file.file_name.lower().endswith(_GGUF):
                    about, problem = _tried(_gguf, file.file_path)
                    yield Entry(str(file.file_path), "gguf", file.size_on_disk, about, problem)
            name = repository.repo_id
            if "main" not in revision.refs:
                name += f"@{revision.commit_hash}"
            weights = [x for x in revision.files if _weights(x.file_path)]
            if weights:
                about, problem = _tried(_describe, revision.snapshot_path)
                yield Entry(name, "cached", sum(x.size_on_disk for x in weights), about, problem)
            elif parts := _parts(repository.repo_id, revision.commit_hash):
                snapshot = Snapshot(
                    repository.repo_id, revision.commit_hash, revision.snapshot_path, _OFFLINE
                )
                about, problem = _tried(_describe_parts, snapshot)
                yield Entry(name, "cached", sum(x.stat().st_size for x in parts), about, problem)


def _parts(repository: str, commit: str) -> list[Path]:
    """The files of single tensors of a commit that this package keeps."""
    from verify.models.hub import parts_folder

    return sorted(parts_folder(repository, commit).glob("*/*.safetensors"))


def _files(folder: Path) -> Iterator[Entry]:
    """GGUF files and packs right in a folder; other safetensors files are no models by themselves."""
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        if path.name.lower().endswith(_GGUF):
            kind, describe = "gguf", _gguf
        elif _is_pack(path):
            kind, describe = "packed", _pack
        else:
            continue
        about, problem = _tried(describe, path)
        yield Entry(str(path), kind, path.stat().st_size, about, problem)


def _is_pack(path: Path) -> bool:
    """Whether it says so; what cannot be read says nothing."""
    from verify.models import packed

    try:
        return packed.is_pack(path)
    except VerifyError:
        return False


def _weights(path: Path) -> bool:
    return path.name.endswith(_WEIGHTS)


def _tried(describe: Callable[[T], str], what: T) -> tuple[str, str | None]:
    """(description, None), or ("", the first line of why there is none)."""
    try:
        return describe(what), None
    except VerifyError as error:
        return "", str(error).split("\n")[0]


def _describe(name: str | Path) -> str:
    from verify.models import load_model

    return _words(load_model(str(name)).readout)


def _describe_parts(snapshot: Snapshot) -> str:
    from verify.models.config import read_config
    from verify.models.hub import open_snapshot
    from verify.models.locate import locate_readout

    config = read_config(snapshot.folder)
    if config is None:
        raise ModelUnavailableError("no config.json, so the architecture is unknown")
    return _words(locate_readout(open_snapshot(snapshot), config))


def _words(readout: Readout) -> str:
    return f"{readout.norm}, {readout.vocabulary} x {readout.d} {readout.unembedding.dtype}"


def _gguf(path: Path) -> str:
    """From the header alone: dequantising takes long."""
    from verify.models.gguf import check_readable

    return f"architecture {check_readable(path)}"


def _pack(path: Path) -> str:
    from verify.models.packed import pack_model

    return f"the readout of {pack_model(path)}"

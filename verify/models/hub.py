"""STATEMENT. Models by hub name, through huggingface_hub and its cache.

Wrong here = a claim about another model.
Nothing is downloaded by this package itself; a cached snapshot serves offline.
"""

from __future__ import annotations

import re
from pathlib import Path

from verify.errors import ModelUnavailableError

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(
    rf"(?P<repository>{_PART}(?:/{_PART})?)(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{{0,99}}))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 5.0

_BESIDE_WEIGHTS = [
    "config.json",
    "tokenizer.json",
    "vocab.json",
    "added_tokens.json",
    "vocab.txt",
    "tokens.json",
]
_SAFETENSORS = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_TORCH = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]


def split_hub_name(text: str) -> tuple[str, str | None] | None:
    """("org/name", revision or None) of "org/name[@revision]"; None if it cannot be a hub name."""
    match = _NAME.fullmatch(text)
    if match is None or ".." in text or "--" in text:
        return None
    return match["repository"], match["revision"]


def hub_folder(repository: str, revision: str | None) -> tuple[Path, str]:
    """The local snapshot of a hub model, and its commit hash.

    revision: a branch, tag or commit; None means the default branch. Where the hub cannot be reached within
    seconds, the cached snapshot of that revision serves.
    Raises ModelUnavailableError, in one line, if it is neither cached nor reachable.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ModelUnavailableError(
            f"{repository!r} is neither bundled nor a folder; for hub names: pip install huggingface_hub"
        ) from error
    unreachable = None
    try:
        # Downloads ask the same without a timeout, and would wait for ever on a silent network.
        HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - the client's, its transport's and OS errors
        unreachable = error
    folder = _snapshot(repository, revision, _BESIDE_WEIGHTS + _SAFETENSORS, unreachable)
    commit = folder.name
    if _COMMIT.fullmatch(commit) is None:
        raise ModelUnavailableError(f"{repository}: snapshot {commit!a} is not named by a commit hash")
    if not any((folder / name).exists() for name in (_SAFETENSORS[0], _SAFETENSORS[2])):
        # The commit, not the branch: both calls must speak of one revision.
        folder = _snapshot(repository, commit, _BESIDE_WEIGHTS + _TORCH, unreachable)
    return folder, commit


def _snapshot(
    repository: str, revision: str | None, patterns: list[str], unreachable: Exception | None
) -> Path:
    """Download what is missing; with a reason why the hub is `unreachable`, look into the cache only."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
                etag_timeout=_TIMEOUT_S,
                local_files_only=unreachable is not None,
            )
        )
    except Exception as error:  # as above
        cause = error if unreachable is None or _is(error, "IncompleteSnapshotError") else unreachable
        raise ModelUnavailableError(_explain(repository, revision, cause)) from error


def _is(error: Exception, *names: str) -> bool:
    """By name, since the client's versions keep their errors, and its transport, in different places."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _explain(repository: str, revision: str | None, error: Exception) -> str:
    """One line: what went wrong, and what to do."""
    name = f"{repository}@{revision}" if revision else repository
    if _is(error, "GatedRepoError"):
        return f"{name} is gated: accept its terms and log in (`hf auth login`), or pass a folder"
    if _is(error, "RevisionNotFoundError"):
        return f"{repository} has no revision {revision!r}"
    if _is(error, "RepositoryNotFoundError"):
        return f"no model {name!r}: not bundled, no such folder, not on the hub (or private: `hf auth login`)"
    if _is(error, "IncompleteSnapshotError"):
        return f"{name} is only partly in the local cache, the rest out of reach; connect, or pass a folder"
    if _is(error, "LocalEntryNotFoundError", "OfflineModeIsEnabled", "TransportError", "ConnectionError"):
        return (
            f"{name!r} is not bundled, not a folder, not in the local cache, and the hub cannot be reached; "
            f"connect, run `hf download {repository}` where there is a network, or pass a folder"
        )
    first = (str(error).strip().splitlines() or [""])[0][:160]
    return f"cannot get {name} from the hub ({type(error).__name__}: {first}); try again, or pass a folder"

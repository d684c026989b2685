"""STATEMENT. From a hub name to a commit and the small files of that commit, by huggingface_hub.

Wrong here = a claim about another model. A cached snapshot serves where the hub is out of reach.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from verify.errors import ModelUnavailableError, NotAtHandError
from verify.models.hub.bar import client_bar
from verify.models.hub.errors import explain, is_a
from verify.models.hub.ranges import patiently

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 5.0

_BESIDE_WEIGHTS = [
    "config.json",
    "adapter_config.json",
    "tokenizer.json",
    "vocab.json",
    "added_tokens.json",
    "vocab.txt",
    "target_vocab.json",
    "model.safetensors.index.json",
]


@dataclass(frozen=True)
class Snapshot:
    """A model at one commit: `folder` holds its small files, and its weights where they are cached whole.

    unreachable: why only the cache can be used; None where the hub answers.
    """

    repository: str
    commit: str
    folder: Path
    unreachable: Exception | None


def find_snapshot(repository: str, revision: str | None) -> Snapshot:
    """Resolve `revision` (a branch, tag or commit; None: the default branch) and get the small files.

    Where the hub cannot be reached within seconds, the cached snapshot of that revision serves.
    Raises NotAtHandError, in one line, if it is neither cached nor reachable.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise NotAtHandError(
            f"{repository!r} is neither bundled nor a folder; for hub names: pip install huggingface_hub"
        ) from error
    unreachable = None
    try:
        # Downloads ask the same without a timeout, and would wait for ever on a silent network.
        patiently(lambda: HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_S), attempts=3)
    except Exception as error:  # noqa: BLE001 - the client's, its transport's and OS errors
        unreachable = error
    folder = _download(repository, revision, _BESIDE_WEIGHTS, unreachable)
    if _COMMIT.fullmatch(folder.name) is None:
        raise ModelUnavailableError(f"{repository}: snapshot {folder.name!a} is not named by a commit hash")
    return Snapshot(repository, folder.name, folder, unreachable)


def download(snapshot: Snapshot, patterns: list[str]) -> Path:
    """The snapshot's folder, with the files that match `patterns` whole. NotAtHandError as above."""
    # The commit, not the branch: all calls must speak of one revision.
    return _download(snapshot.repository, snapshot.commit, patterns, snapshot.unreachable)


def _download(
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
                tqdm_class=client_bar(),
            )
        )
    except Exception as error:  # as above
        cause = error if unreachable is None or is_a(error, "IncompleteSnapshotError") else unreachable
        raise NotAtHandError(explain(repository, revision, cause)) from error

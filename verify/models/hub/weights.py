"""STATEMENT. The checkpoint of a snapshot: whole files that are cached, else single tensors, else .bin whole.

Wrong here = a true claim about other tensors. An index of shards is taken at its word for shards that hold
nothing that is needed; a shard that is opened must agree with it in both directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError, NotAtHandError
from verify.models.checkpoints import SAFETENSORS, TORCH, Checkpoint, open_checkpoint, read_index
from verify.models.hub.errors import reconnect
from verify.models.hub.remote import RemoteWeights
from verify.models.hub.snapshot import Snapshot, download

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel.safetensors import Entry
    from verify.kernel.tensor import Tensor

_TORCH_INDEX = f"{TORCH}.index.json"


def open_snapshot(snapshot: Snapshot) -> Checkpoint:
    """The snapshot's tensors, their names known, their bytes fetched when they are asked for.

    Raises ModelUnavailableError if there are none, or neither cache nor hub has them.
    """
    folder = snapshot.folder
    if (folder / SAFETENSORS).exists():
        return open_checkpoint(folder)
    single = RemoteWeights(snapshot, SAFETENSORS)
    if single.exists():
        return _remote({SAFETENSORS: single}, dict.fromkeys(single.entries, SAFETENSORS), SAFETENSORS)
    index = folder / f"{SAFETENSORS}.index.json"
    if index.exists():
        shard_of = read_index(index)
        shards = sorted(set(shard_of.values()))
        if all((folder / shard).is_file() for shard in shards):
            return open_checkpoint(folder)
        return _remote({shard: RemoteWeights(snapshot, shard) for shard in shards}, shard_of, index.name)
    _fetch_torch(snapshot)
    if snapshot.unreachable is not None and not all((folder / f).exists() for f in _torch_files(folder)):
        raise NotAtHandError(
            f"{snapshot.repository}@{snapshot.commit}: its weights are not in the local cache, and the hub "
            f"is out of reach; {reconnect()}, or pass a folder"
        )
    if not folder.is_dir():
        raise ModelUnavailableError(
            f"{snapshot.repository} holds neither weights nor a config.json at {snapshot.commit}"
        )
    return open_checkpoint(folder)


def fetch_whole(snapshot: Snapshot) -> Path:
    """The snapshot's folder, with its weight files whole; safetensors where there are any, else .bin.

    Raises ModelUnavailableError if neither cache nor hub has them.
    """
    index = snapshot.folder / f"{SAFETENSORS}.index.json"
    files = sorted(set(read_index(index).values())) if index.exists() else [SAFETENSORS]
    folder = download(snapshot, files)
    if all((folder / file).is_file() for file in files):
        return folder
    _fetch_torch(snapshot)
    if any((folder / file).is_file() for file in (TORCH, _TORCH_INDEX)):
        return folder
    raise NotAtHandError(
        f"{snapshot.repository}@{snapshot.commit}: its whole weights are not in the local cache, and the hub "
        f"does not give them; {reconnect()}, or pass a folder"
    )


def _fetch_torch(snapshot: Snapshot) -> None:
    """The .bin files whole, where the hub has them."""
    download(snapshot, [TORCH, _TORCH_INDEX])
    shards = _torch_files(snapshot.folder)
    if shards != [TORCH]:
        download(snapshot, shards)


def _torch_files(folder: Path) -> list[str]:
    """The .bin file, or the shards where there is an index alone."""
    index = folder / _TORCH_INDEX
    if (folder / TORCH).exists() or not index.exists():
        return [TORCH]
    return sorted(set(read_index(index).values()))


def _remote(weights: dict[str, RemoteWeights], shard_of: dict[str, str], opened: str) -> Checkpoint:
    """A checkpoint over remote files; a tensor's home is known once its bytes are here."""
    listing = _Listing(weights, shard_of)
    home: dict[str, Path] = {}

    def fetch(name: str) -> Tensor:
        listing.entry(name)
        home[name], tensor = weights[shard_of[name]].tensor(name)
        return tensor

    return Checkpoint((), listing, home, opened, fetch=fetch)


class _Listing(Mapping[str, tuple[str, tuple[int, ...]]]):
    """Name -> (dtype, shape). Names are the index's; the header of a shard is read when first asked."""

    def __init__(self, weights: dict[str, RemoteWeights], shard_of: dict[str, str]) -> None:
        self._weights, self._shard_of = weights, shard_of
        self._agreed: set[str] = set()

    def __getitem__(self, name: str) -> tuple[str, tuple[int, ...]]:
        entry = self.entry(name)
        return entry.dtype, entry.shape

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)

    def __contains__(self, name: object) -> bool:
        return name in self._shard_of

    def entry(self, name: str) -> Entry:
        """The tensor's entry in its shard's header, once index and header are known to agree."""
        shard = self._shard_of[name]
        entries = self._weights[shard].entries
        if shard not in self._agreed:
            named = {each for each, place in self._shard_of.items() if place == shard}
            if named != entries.keys():
                odd = min(named ^ entries.keys())
                raise ModelUnavailableError(f"the index and {shard} disagree about tensor {odd!r}")
            self._agreed.add(shard)
        return entries[name]

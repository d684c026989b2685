"""STATEMENT. The tensors of a model's folder, whatever file format holds them, bit for bit as stored.

Wrong here = a true claim about other tensors. Formats: model.safetensors, sharded safetensors,
pytorch_model.bin and its sharded form (these two through torch, which is imported only here).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError
from verify.extras import install
from verify.kernel.safetensors import list_tensors, read_tensors
from verify.kernel.tensor import Tensor, itemsize
from verify.models.config import parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
_INDEX_LIMIT = 1 << 26
# Before it the restricted loader could be made to run code (CVE-2025-32434).
_OLDEST_TORCH = (2, 6)
_TORCH_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model's tensors: `listing` maps each name to (dtype, shape); `tensor` hands out the bits of one.

    paths: the weight files, one or a shard each. `home` maps a tensor's name to its file.
    opened: the name of the file, or of the index of shards, that was opened.
    fetch: where tensors come one by one from elsewhere, it gets one and enters its file in `home`.
    """

    paths: tuple[Path, ...]
    listing: Mapping[str, tuple[str, tuple[int, ...]]]
    home: dict[str, Path]
    opened: str
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)
    fetch: Callable[[str], Tensor] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.listing

    def tensor(self, name: str) -> Tensor:
        """The stored tensor. ModelUnavailableError if there is none, or its dtype is not supported."""
        if name not in self.listing:
            raise ModelUnavailableError(f"the checkpoint holds no tensor named {name!r}")
        if self.fetch is not None:
            return self.fetch(name)
        if name in self._loaded:
            return from_torch(name, self._loaded[name])
        return read_tensors(self.home[name], {name})[name]

    def describe(self, name: str) -> str:
        """One line for people: name, dtype and shape."""
        dtype, shape = self.listing[name]
        shown = name if name.isprintable() else ascii(name)
        return f"{shown}  {dtype}  {' x '.join(map(str, shape)) or 'scalar'}"


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint of a folder; safetensors first, as every loader does.

    Raises ModelUnavailableError if there is none, a shard is missing or named outside the folder,
    a tensor stands in two shards, or a file is truncated or malformed.
    """
    for name in (SAFETENSORS, TORCH):
        if (folder / name).exists():
            return _open_files((folder / name,), name, torch=name == TORCH)
        index = folder / f"{name}.index.json"
        if index.exists():
            return _open_sharded(folder, index, torch=name == TORCH)
    found = [ascii(name) for name in sorted(path.name for path in folder.iterdir())[:12]]
    raise ModelUnavailableError(
        f"no weights in folder {folder.name!r}: expected {SAFETENSORS} or {TORCH} (or their .index.json with "
        f"shards); found {', '.join(found) or 'nothing'}"
    )


def read_index(index: Path) -> dict[str, str]:
    """Tensor -> shard, of an index file. ModelUnavailableError unless every shard is a plain file name."""
    table = parse_json(read_bytes(index, _INDEX_LIMIT), index.name)
    weight_map = table.get("weight_map") if type(table) is dict else None
    if type(weight_map) is not dict or not weight_map:
        raise ModelUnavailableError(f"{index.name} has no weight_map")
    for shard in weight_map.values():
        if type(shard) is not str or not _plain_file_name(shard):
            raise ModelUnavailableError(
                f"{index.name}: the shard {str(shard)[:100]!a} is not a plain file name"
            )
    return dict(weight_map)


def _open_sharded(folder: Path, index: Path, *, torch: bool) -> Checkpoint:
    """Follow an index: every tensor it names must be in the shard it names."""
    weight_map = read_index(index)
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ModelUnavailableError(
            f"{len(missing)} of {len(shards)} shards are missing from folder {folder.name!r}: "
            f"{', '.join(missing[:4])}; download them again"
        )
    checkpoint = _open_files(tuple(folder / shard for shard in shards), index.name, torch=torch)
    for name, shard in weight_map.items():
        if name not in checkpoint.home or checkpoint.home[name].name != shard:
            raise ModelUnavailableError(
                f"{index.name} puts tensor {name!r} in {shard}, which does not hold it"
            )
    return checkpoint


def _plain_file_name(name: str) -> bool:
    """Not a path, not hidden, nothing that could leave the folder."""
    return bool(name) and not name.startswith(".") and name.isprintable() and not set(name) & set("/\\:")


def _open_files(paths: tuple[Path, ...], opened: str, *, torch: bool) -> Checkpoint:
    listing: dict[str, tuple[str, tuple[int, ...]]] = {}
    home: dict[str, Path] = {}
    loaded: dict[str, Any] = {}
    for path in paths:
        if torch:
            tensors = _load_torch(path)
            loaded.update(tensors)
            here = {name: describe_torch(value) for name, value in tensors.items()}
        else:
            here = list_tensors(path)
        twice = here.keys() & home.keys()
        if twice:
            raise ModelUnavailableError(
                f"tensor {min(twice)!r} stands in two shards, one of them {path.name}"
            )
        listing.update(here)
        home.update(dict.fromkeys(here, path))
    return Checkpoint(paths, listing, home, opened, loaded)


def _torch(path: Path) -> Any:
    """PyTorch, of a version whose restricted loader may be given any file."""
    try:
        import torch
    except ImportError as error:
        raise ModelUnavailableError(
            f"{path.name} needs PyTorch to be read: {install('torch')} "
            "(or convert the checkpoint to safetensors)"
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST_TORCH:
        raise ModelUnavailableError(
            f"{path.name} is not read by PyTorch {torch.__version__}: a hostile file can make it run code; "
            f"{install('torch')} (or convert the checkpoint to safetensors)"
        )
    return torch


def _load_torch(path: Path) -> dict[str, Any]:
    """A .bin file's tensors by name. Pickle is read by torch's restricted loader only."""
    torch = _torch(path)
    if not path.is_file():
        raise ModelUnavailableError(f"{path.name} is not a regular file")
    compressed: list[str] = []
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        if zipped:
            with zipfile.ZipFile(path) as members:
                compressed = [x.filename for x in members.infolist() if x.compress_type != zipfile.ZIP_STORED]
        # Only the zip layout (torch 1.6 and later) can be mapped; the older one is read whole.
        state = {} if compressed else torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch raises nearly anything on bad bytes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelUnavailableError(
            f"{path.name} cannot be read (truncated, corrupt, or holding more than tensors): {reason}"
        ) from error
    if compressed:
        # Mapped, their bytes would be taken for the numbers that they compress.
        raise ModelUnavailableError(
            f"{path.name}: {compressed[0][:80]!a} in it is compressed; save it again by torch.save"
        )
    if not isinstance(state, dict):
        raise ModelUnavailableError(f"{path.name} holds a {type(state).__name__}, not a table of tensors")
    tensors = {
        name: value
        for name, value in state.items()
        if isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
    }
    # A stride of 0 can claim any shape; unrolling it would take all memory.
    size = path.stat().st_size
    for name, value in tensors.items():
        if value.numel() * value.element_size() > size:
            raise ModelUnavailableError(f"{path.name}: tensor {name!r} claims more bytes than the file has")
    if not tensors:
        raise ModelUnavailableError(
            f"{path.name} holds no tensors at its top level (keys: {', '.join(map(repr, list(state)[:6]))})"
        )
    return tensors


def describe_torch(value: Any) -> tuple[str, tuple[int, ...]]:
    """dtype ("F16", ...; torch's own name for one that is not supported) and shape of a torch tensor."""
    dtype = str(value.dtype).removeprefix("torch.")
    return _TORCH_DTYPES.get(dtype, dtype), tuple(int(n) for n in value.shape)


def from_torch(name: str, value: Any) -> Tensor:
    """The bit patterns of a torch tensor in the machine's memory, reinterpreted, never converted.

    They are shared with `value` where it is contiguous. ModelUnavailableError if its dtype is not supported.
    """
    import torch

    dtype, _ = describe_torch(value)
    if dtype not in _TORCH_DTYPES.values() or value.numel() == 0:
        raise ModelUnavailableError(
            f"tensor {name!r} has dtype {dtype} and shape {list(value.shape)}; "
            f"supported are non-empty {', '.join(_TORCH_DTYPES.values())}"
        )
    size = itemsize(dtype)
    signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    plain = value.detach().resolve_neg().contiguous()
    bits: NDArray[np.unsignedinteger] = (
        plain.view(signed).numpy().view(f"u{size}").astype(f"<u{size}", copy=False)
    )
    bits.flags.writeable = False
    return Tensor(name, dtype, bits)

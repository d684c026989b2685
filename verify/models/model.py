"""STATEMENT. A model by name or folder: its readout, its tokens, and the files they were read from.

Wrong here = a true claim about another model than the one that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError, UsageError
from verify.models import gguf, packed
from verify.models.bundled import BUNDLED, bundled_folder
from verify.models.by_hand import ReadoutOverrides, candidates, readout_by_hand
from verify.models.checkpoints import open_checkpoint
from verify.models.config import read_config
from verify.models.hub import Snapshot, find_snapshot, open_snapshot, split_hub_name
from verify.models.locate import locate_readout
from verify.models.tokens import Tokens
from verify.models.vocabularies import find_vocabulary

if TYPE_CHECKING:
    from verify.kernel.readout import Readout
    from verify.models.single_file import SingleFile


@dataclass(frozen=True)
class Source:
    """What `load_model` was asked for; small, so that any process can load the same again."""

    name_or_path: str
    overrides: ReadoutOverrides | None
    local: bool = True


@dataclass(frozen=True, eq=False)
class Model:
    """What a statement is about.

    name: as asked for, never an absolute path. revision: commit hash of a hub model, else None.
    readout: tensors, norm and epsilon. tokens: ids and texts.
    files: name -> SHA-256 (hex) of the files that norm, epsilon and tokens were read from.
    weights: the files that hold the tensors. source: how it was loaded; None for one made in memory.
    """

    name: str
    revision: str | None
    readout: Readout
    tokens: Tokens
    files: dict[str, str]
    weights: tuple[Path, ...]
    source: Source | None = None


def load_model(name_or_path: str, *, overrides: ReadoutOverrides | None = None, local: bool = True) -> Model:
    """Load a bundled model, else a folder, a GGUF file or a pack, else a hub name ("org/name[@revision]").

    local: whether it may be a path; False for names that others wrote.
    Weights are mapped, not read: NaN and hashes are the caller's to ask for.
    Raises ModelUnavailableError if there is no such model or it is not understood, UsageError if `overrides`
    is incomplete or names absent tensors.
    """
    try:
        return _load(Source(name_or_path, overrides, local))
    except OSError as error:
        raise ModelUnavailableError(f"{name_or_path[:100]!a} cannot be read: {error}") from error


def load_again(source: Source) -> Model:
    """The model that another process loaded."""
    return load_model(source.name_or_path, overrides=source.overrides, local=source.local)


def _load(source: Source) -> Model:
    name_or_path, overrides = source.name_or_path, source.overrides
    file = _model_file(name_or_path) if source.local else None
    if file is not None:
        return _load_file(file, source)
    folder, name, snapshot = _resolve(name_or_path, local=source.local)
    revision = None if snapshot is None else snapshot.commit
    if (folder / "adapter_config.json").exists():
        raise ModelUnavailableError(f"{name}: the folder holds an adapter; merge it into the weights first")
    checkpoint = open_checkpoint(folder) if snapshot is None else open_snapshot(snapshot)
    files: dict[str, str] = {}
    separate = False
    if overrides is not None and not overrides.empty:
        readout = readout_by_hand(checkpoint, overrides)
    else:
        config = read_config(folder)
        if config is None:
            raise ModelUnavailableError(
                f"{name}: no config.json, so the architecture is unknown.\n" + candidates(checkpoint, None)
            )
        files[config.name] = config.sha256
        readout = locate_readout(checkpoint, config)
        separate = not config.flag("share_encoder_decoder_embeddings", default=True)
    vocabulary = find_vocabulary(folder, separate=separate)
    if vocabulary is not None:
        files.update(vocabulary.files)
    weights = tuple(sorted({checkpoint.home[tensor.name] for tensor in readout.tensors.values()}))
    tokens = Tokens(vocabulary, readout.vocabulary)
    # A branch may move on before another process loads the same.
    asked = source if revision is None else Source(f"{name}@{revision}", overrides, local=False)
    return Model(name, revision, readout, tokens, files, weights, asked)


def _model_file(text: str) -> Path | None:
    """The file of a model that is a single one, by its name's ending; None for anything else."""
    if text in BUNDLED or not text.lower().endswith((gguf.SUFFIX, packed.SUFFIX)):
        return None
    try:
        path = Path(text).expanduser()
        if not path.exists():
            raise ModelUnavailableError(f"there is no file {text[:100]!a}")
        return path if path.is_file() and (packed.is_pack(path) or not packed.named_so(path)) else None
    except (OSError, ValueError, RuntimeError):
        return None  # `_resolve` says what is wrong


def _load_file(path: Path, source: Source) -> Model:
    """A GGUF file or a pack: each says itself what its readout is."""
    if source.overrides is not None and not source.overrides.empty:
        raise UsageError(f"{path.name} says itself what its readout is: leave --unembedding and the like out")
    found: SingleFile = packed.load_pack(path) if packed.named_so(path) else gguf.load_gguf(path)
    tokens = Tokens(found.vocabulary, found.readout.vocabulary)
    return Model(found.name, found.revision, found.readout, tokens, found.files, (path,), source)


def _resolve(text: str, *, local: bool) -> tuple[Path, str, Snapshot | None]:
    """Folder and name of what the user asked for; of a hub name also its snapshot."""
    bundled = bundled_folder(text)
    if bundled is not None:
        return bundled, text, None
    try:
        path = Path(text).expanduser() if text and local else None
        if path is not None and path.is_dir():
            return path, path.resolve().name, None
        if path is not None and path.exists():
            raise ModelUnavailableError(
                f"{path.name} is a file; pass the folder that holds config.json and the weights, "
                "a .gguf file, or a .safetensors file made by `verify pack`"
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(f"{text[:100]!a} is not a model name or folder: {error}") from error
    hub_name = split_hub_name(text)
    if hub_name is None:
        raise ModelUnavailableError(
            f"no model {text[:100]!a}: there is no such folder, and it is not a hub name (org/name or "
            f"org/name@revision); bundled: {', '.join(BUNDLED)}"
        )
    snapshot = find_snapshot(*hub_name)
    return snapshot.folder, hub_name[0], snapshot

"""STATEMENT. A model by name or folder: its readout, its tokens, and the files they were read from.

Wrong here = a true claim about another model than the one that was asked for.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError, UsageError
from verify.models import gguf, packed
from verify.models.bundled import BUNDLED, bundled_folder, did_you_mean
from verify.models.by_hand import ReadoutOverrides, candidates, readout_by_hand
from verify.models.checkpoints import open_checkpoint
from verify.models.config import read_config
from verify.models.hub import Snapshot, fetch_whole, find_snapshot, open_snapshot, split_hub_name
from verify.models.locate import locate_readout, refuse_other_weights
from verify.models.tokens import Tokens
from verify.models.transformer_lens import processed, processed_name
from verify.models.vocabularies import find_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verify.kernel.readout import Readout
    from verify.models.checkpoints import Checkpoint
    from verify.models.config import Config
    from verify.models.single_file import SingleFile

_DECODER_SIZES = ("decoder_vocab_size", "target_vocab_size", "tgt_vocab_size")
READOUTS = ("checkpoint", "transformer-lens")
_MOST_SHOWN = 500


@dataclass(frozen=True)
class Source:
    """What was asked for; small, so that any process can load the same again. named: by `load_named`."""

    name_or_path: str
    overrides: ReadoutOverrides | None
    readout: str = "checkpoint"
    named: bool = False


@dataclass(frozen=True, eq=False)
class Model:
    """What a statement is about.

    name: as asked for, never an absolute path. revision: commit hash of a hub model, else None.
    readout: tensors, norm and epsilon. tokens: ids and texts.
    files: name -> SHA-256 (hex) of the files that norm, epsilon and tokens were read from.
    weights: the files that hold the tensors. source: how it was loaded; None for one made in memory.
    checkpoint: of a readout that was processed, the model with the checkpoint's own.
    """

    name: str
    revision: str | None
    readout: Readout
    tokens: Tokens
    files: dict[str, str]
    weights: tuple[Path, ...]
    source: Source | None = None
    checkpoint: Model | None = None


def load_model(
    name_or_path: str, *, overrides: ReadoutOverrides | None = None, readout: str = "checkpoint"
) -> Model:
    """Load a bundled model, else a folder, a GGUF file or a pack, else a hub name ("org/name[@revision]").

    readout: "checkpoint", its own tensors, or "transformer-lens", what TransformerLens makes of them.
    Weights are mapped, not read: NaN and hashes are the caller's to ask for.
    Raises ModelUnavailableError if there is no such model or it is not understood, UsageError if `overrides`
    is incomplete or names absent tensors, or does not go with `readout`.
    """
    if readout not in READOUTS:
        raise UsageError(f"unknown readout {readout!r}: use {' or '.join(READOUTS)}")
    with _named(name_or_path):
        source = Source(name_or_path, overrides, readout)
        file = _model_file(name_or_path)
        if file is not None:
            return _load_file(file, source)
        return _load(*_resolve(name_or_path), source)


def load_named(name: str, *, overrides: ReadoutOverrides | None = None, readout: str = "checkpoint") -> Model:
    """Load a bundled model, else a hub name ("org/name[@revision]"): never a file or folder called so.

    For names that come from files, which must not mean whatever lies in the working directory.
    Raises as `load_model`.
    """
    with _named(name):
        return _load(*_resolve_name(name), Source(name, overrides, readout, named=True))


def load_again(source: Source) -> Model:
    """The model that another process loaded."""
    if source.named:
        return load_named(source.name_or_path, overrides=source.overrides, readout=source.readout)
    return load_model(source.name_or_path, overrides=source.overrides, readout=source.readout)


def whole_folder(model: Model) -> Path:
    """The folder with config.json and all weights that `model` was loaded from; of a hub model its snapshot,
    with the weight files fetched whole.

    Raises ModelUnavailableError where there is none: a pack and a GGUF file hold no model that can be run.
    """
    if model.source is None:
        raise ModelUnavailableError(f"{model.name} was made in memory: there is no folder to load it from")
    name, named = model.source.name_or_path, model.source.named
    if not named and _model_file(name) is not None:
        raise ModelUnavailableError(
            f"{model.name} is a single file that holds no model to run; pass the folder or hub name of the "
            "whole checkpoint that it was made from as --model"
        )
    folder, _, snapshot = _resolve_name(name) if named else _resolve(name)
    return folder if snapshot is None else fetch_whole(snapshot)


def competitor_count(model: Model, rule: str) -> int:
    """Number of competitor rows under a rule. Raises UsageError when the rule cannot be applied."""
    if rule == "all":
        return model.readout.vocabulary
    if rule != "tokenizer":
        raise UsageError(f"unknown competitors {rule!r}: use all or tokenizer")
    if model.tokens.size is None:
        raise UsageError(f"{model.name} has no tokenizer file: use --competitors all")
    return min(model.tokens.size, model.readout.vocabulary)


@contextmanager
def _named(asked: str) -> Iterator[None]:
    """Why a model cannot be loaded, with the name or path that was asked for: a file is called like many."""
    try:
        yield
    except OSError as error:
        raise ModelUnavailableError(f"{asked[:100]!a} cannot be read: {error}") from error
    except ModelUnavailableError as error:
        shown = asked if len(asked) <= _MOST_SHOWN else f"{asked[:_MOST_SHOWN]}..."
        if str(error).startswith(f"{shown}: ") or ascii(asked[:100]) in str(error):
            raise
        raise type(error)(f"{shown}: {error}") from error


def _load(folder: Path, name: str, snapshot: Snapshot | None, source: Source) -> Model:
    overrides = source.overrides
    revision = None if snapshot is None else snapshot.commit
    if (folder / "adapter_config.json").exists():
        raise ModelUnavailableError("the folder holds an adapter; merge it into the weights first")
    checkpoint = open_checkpoint(folder) if snapshot is None else open_snapshot(snapshot)
    files: dict[str, str] = {}
    config: Config | None = None
    if overrides is not None and not overrides.empty:
        if source.readout != "checkpoint":
            raise UsageError(
                f"--readout {source.readout} needs a config.json, not a readout described by hand"
            )
        readout, separate = _by_hand(folder, checkpoint, overrides)
    else:
        config = read_config(folder)
        if config is None:
            raise ModelUnavailableError(
                "no config.json, so the architecture is unknown.\n" + candidates(checkpoint, None)
            )
        files[config.name] = config.sha256
        readout = locate_readout(checkpoint, config)
        separate = _separate(config)
    vocabulary = find_vocabulary(folder, separate=separate)
    if vocabulary is not None:
        files.update(vocabulary.files)
    weights = tuple(sorted({checkpoint.home[tensor.name] for tensor in readout.tensors.values()}))
    tokens = Tokens(vocabulary, readout.vocabulary)
    # A branch may move on before another process loads the same.
    again = source if revision is None else replace(source, name_or_path=f"{name}@{revision}", named=True)
    if config is None or source.readout == "checkpoint":
        return Model(name, revision, readout, tokens, files, weights, again)
    model = Model(name, revision, readout, tokens, files, weights, replace(again, readout="checkpoint"))
    return replace(
        model,
        name=processed_name(name),
        readout=processed(readout, config),
        source=again,
        checkpoint=model,
    )


def _by_hand(folder: Path, checkpoint: Checkpoint, overrides: ReadoutOverrides) -> tuple[Readout, bool]:
    """The readout that is described, and whether the decoder has a vocabulary of its own.

    A config.json says nothing about such a readout, but which weights and which texts are the model's.
    """
    readout = readout_by_hand(checkpoint, overrides)
    try:
        config = read_config(folder)
        separate = config is not None and _separate(config)
    except ModelUnavailableError as error:
        note = f"{error}; whether it names other weights or another vocabulary is not known"
        return replace(readout, notes=(*readout.notes, note)), False
    if config is not None:
        refuse_other_weights(checkpoint, config)
    return readout, separate


def _separate(config: Config) -> bool:
    """Whether the decoder has a vocabulary of its own, for which the encoder's texts do not stand."""
    sizes = [config.integer(key) for key in _DECODER_SIZES if config.has(key)]
    return any(size != config.integer("vocab_size") for size in sizes) or not config.flag(
        "share_encoder_decoder_embeddings", default=True
    )


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
        raise UsageError(
            f"{path.name} says itself what its readout is: leave --unembedding, --readout-file and the like "
            "out, or pass the folder of the checkpoint that it was made from"
        )
    if source.readout != "checkpoint":
        raise UsageError(
            f"--readout {source.readout} goes with the checkpoint's own folder or hub name; a pack that was "
            f"made with it needs no option, and {path.name} holds too little to make one"
        )
    found: SingleFile = packed.load_pack(path) if packed.named_so(path) else gguf.load_gguf(path)
    tokens = Tokens(found.vocabulary, found.readout.vocabulary)
    return Model(found.name, found.revision, found.readout, tokens, found.files, (path,), source)


def _resolve(text: str) -> tuple[Path, str, Snapshot | None]:
    """Folder and name of what the user asked for; of a hub name also its snapshot."""
    if text in BUNDLED:
        return _resolve_name(text)
    try:
        path = Path(text).expanduser() if text else None
        if path is not None and path.is_dir():
            return path, path.resolve().name, None
        if path is not None and path.exists():
            raise ModelUnavailableError(
                f"{text[:100]!a} is a file; pass the folder that holds config.json and the weights, "
                "a .gguf file, or a .safetensors file made by `verify pack`"
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelUnavailableError(f"{text[:100]!a} is not a model name or folder: {error}") from error
    return _resolve_name(text, "there is no such folder, and ")


def _resolve_name(text: str, besides: str = "") -> tuple[Path, str, Snapshot | None]:
    """The same of a bundled or hub name, whatever folders there are. besides: what else it is not."""
    bundled = bundled_folder(text)
    if bundled is not None:
        return bundled, text, None
    hub_name = split_hub_name(text)
    if hub_name is None:
        raise ModelUnavailableError(
            f"no model {text[:100]!a}{did_you_mean(text)}: {besides}it is not a hub name "
            f"(org/name or org/name@revision); bundled: {', '.join(BUNDLED)}"
        )
    snapshot = find_snapshot(*hub_name)
    return snapshot.folder, hub_name[0], snapshot

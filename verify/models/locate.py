"""STATEMENT. From config.json and a checkpoint to the readout, by the architecture table.

Wrong here = a true claim about the wrong tensors, so whatever does not fit the table is an error that says
what was found and what to do.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import ModelUnavailableError
from verify.kernel.readout import Readout
from verify.kernel.tensor import Tensor
from verify.models.architectures import (
    ARCHITECTURES,
    LOGIT_TENSORS,
    MUST_BE,
    POSITIVE_SCALES,
    POSITIVE_SOFTCAPS,
    QUANTISED,
    WEIGHTS,
    Architecture,
)
from verify.models.by_hand import candidates
from verify.models.config import EPSILON_RANGE, in_epsilon_range

if TYPE_CHECKING:
    from verify.models.checkpoints import Checkpoint
    from verify.models.config import Config

_BY_HAND = (
    "describe the readout by hand (--unembedding and the other flags, or --readout-file, of `verify token`, "
    "`verify scan` and `verify pack`, whose pack other commands take)"
)
_CONFIG_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


def locate_readout(checkpoint: Checkpoint, config: Config) -> Readout:
    """The readout of a model whose `model_type` is in the table.

    Raises ModelUnavailableError if the architecture is unknown, if config.json carries something the table
    does not model, or if tensors are missing, contradict each other, or disagree with config.json.
    """
    refuse_other_weights(checkpoint, config)
    architecture = _architecture(checkpoint, config)
    inner = _inner(architecture, config)
    architecture = _numbered(architecture, checkpoint, inner)
    tied, said = _tied(architecture, config, inner)
    unembedding, tied_note = _unembedding(architecture, checkpoint, config, tied=tied, said=said)
    gain = _one(checkpoint, config, architecture.gain, "gain") if architecture.gain else None
    shift = _one(checkpoint, config, architecture.shift, "shift") if architecture.shift else None
    bias, bias_note = _bias(architecture, checkpoint, config, tied=tied)
    _refuse_strangers(architecture, checkpoint)
    _check_shape(architecture, inner, unembedding)
    epsilon, source = _epsilon(architecture, config, inner)
    notes = [*architecture.notes, *tied_note, *bias_note]
    for table in (config,) if inner is config else (config, inner):
        notes += _scale_notes(architecture, table, has_bias=bias is not None)
    readout = Readout(
        norm=architecture.norm,
        unembedding=unembedding,
        gain=gain,
        shift=shift,
        bias=bias,
        gain_offset=architecture.gain_offset,
        epsilon=epsilon,
        epsilon_source=source,
        notes=(*dict.fromkeys(notes), *_own_code_note(config), *_dtype_notes(config, unembedding)),
    )
    _refuse_mixed(readout)
    return readout


def _architecture(checkpoint: Checkpoint, config: Config) -> Architecture:
    """The entry of the model's type, which must be known."""
    model_type = config.text("model_type")
    if model_type not in ARCHITECTURES:
        found = f"model_type {model_type!a}" if model_type else "no model_type"
        raise ModelUnavailableError(
            f"unknown architecture: {config.name} has {found}; "
            f"known are {', '.join(sorted(ARCHITECTURES))}.\n" + candidates(checkpoint, config)
        )
    return entry_of(config)


def entry_of(config: Config) -> Architecture:
    """The first entry of a known `model_type` that holds under config.json, else ModelUnavailableError."""
    _refuse_quantised(config)
    misfits = []
    for architecture in ARCHITECTURES[config.values["model_type"]]:
        misfit = _misfit(architecture, config)
        if misfit is None:
            return architecture
        misfits.append(misfit)
    raise ModelUnavailableError("; and ".join(dict.fromkeys(misfits)))


def refuse_other_weights(checkpoint: Checkpoint, config: Config) -> None:
    """ModelUnavailableError where loaders would read other weights than these."""
    named = config.get(WEIGHTS)
    if named not in (None, checkpoint.opened):
        raise ModelUnavailableError(
            f"{config.name}: {WEIGHTS} names {str(named)[:100]!a}, which loaders read instead of "
            f"{checkpoint.opened}. Keep in the folder the weights that are meant, under the usual name, and "
            "remove the key"
        )


def _inner(architecture: Architecture, config: Config) -> Config:
    """The part of config.json that describes the language model."""
    return config.inside(architecture.text) if architecture.text else config


def _refuse_quantised(config: Config) -> None:
    for key in QUANTISED:
        tables = [config.get(name) for name in ("text_config", "decoder")]
        if config.has(key) or any(type(table) is dict and table.get(key) is not None for table in tables):
            raise ModelUnavailableError(
                f"{config.name} has {key}: the checkpoint is quantised, and what the model computes with are "
                "other numbers than the stored ones. Pass the checkpoint that it was made from; if the "
                f"readout's own tensors are stored unquantised, {_BY_HAND}"
            )


def _misfit(architecture: Architecture, config: Config) -> str | None:
    """Why the entry would not describe the model: another head, own code, an option; None if it does."""
    classes = config.get("architectures")
    if classes is not None and not (
        isinstance(classes, list) and set(map(str, classes)) & set(architecture.classes)
    ):
        return (
            f"{config.name}: architectures is {str(classes)[:120]}, expected one of "
            f"{', '.join(architecture.classes)}; another head has another readout. "
            f"If the tensors are known, {_BY_HAND}"
        )
    if _own_code(config) - {architecture.own_code}:
        return (
            f"{config.name}: auto_map brings the model's own code, whose last step may be anything; "
            + _BY_HAND
        )
    inner = _inner(architecture, config)
    allowed_values = {**MUST_BE, **architecture.must_be}
    width = _first(inner, architecture.width)
    for key, allowed in {**allowed_values, "word_embed_proj_dim": (width, None)}.items():
        tables = (inner,) if key in architecture.must_be else (config, inner)
        for table in tables:
            if table.get(key) not in allowed:
                return (
                    f"{table.name}: {key} is {table.get(key)!a}, which changes the readout and is "
                    f"unmodelled; if you know how, {_BY_HAND}"
                )
    return None


def _own_code(config: Config) -> set[str]:
    """The modules of model code that config.json names."""
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict):
        return set()
    named = [str(auto_map[key]) for key in auto_map if key.startswith("AutoModel")]
    return {name.rpartition("--")[2].partition(".")[0] for name in named}


def _own_code_note(config: Config) -> list[str]:
    return [
        f"{config.name} names the model's own code ({name}); the claim is about the class of transformers "
        "for this model_type"
        for name in sorted(_own_code(config))
    ]


def _first(config: Config, keys: tuple[str, ...]) -> int | None:
    """The integer under the first of `keys` that is there."""
    for key in keys:
        value = config.integer(key)
        if value is not None:
            return value
    return None


def _numbered(architecture: Architecture, checkpoint: Checkpoint, inner: Config) -> Architecture:
    """The entry with the number of the last layer in its names; the checkpoint must have no more layers."""
    if not architecture.layers:
        return architecture
    layers = inner.integer(architecture.layers)
    if layers is None or layers < 1:
        raise ModelUnavailableError(
            f"{inner.name}: {architecture.layers} is {layers}; the last layer's norm is the final norm, "
            "so the number of layers is needed"
        )

    def names(templates: tuple[str, ...], number: int) -> tuple[str, ...]:
        return tuple(name.format(last=number) for name in templates)

    beyond = tuple(name.partition("{last}")[0] + f"{layers}." for name in architecture.gain)
    more = next((name for name in checkpoint.listing if name.startswith(beyond)), None)
    if more is not None:
        raise ModelUnavailableError(
            f"{inner.name}: {architecture.layers} is {layers}, but the checkpoint holds {more!a}: "
            "weights and config are not of one model"
        )
    return replace(
        architecture,
        gain=names(architecture.gain, layers - 1),
        shift=names(architecture.shift, layers - 1),
    )


def _bias(
    architecture: Architecture, checkpoint: Checkpoint, config: Config, *, tied: bool
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The logit bias; one of zeros is left out, one stored as a single row becomes a vector."""
    if not architecture.bias:
        return None, ()
    if architecture.bias_may_lack and not any(name in checkpoint for name in architecture.bias):
        return None, (f"the checkpoint has no {architecture.bias[0]}: zeros, as the model's code has it",)
    bias = _one(checkpoint, config, architecture.bias, "logit bias")
    acting = architecture.untied_bias
    if acting and not tied and acting not in checkpoint:
        raise ModelUnavailableError(
            f"{config.name} unties the unembedding, and the checkpoint has {bias.name} but not {acting}: "
            "loaders differ in whether the first then acts. Save the model again with the loader it was "
            f"trained with, or {_BY_HAND}"
        )
    if len(bias.shape) == 2 and bias.shape[0] == 1:
        bias = Tensor(bias.name, bias.dtype, bias.raw.reshape(-1))
    if architecture.bias_may_lack and not any(map(any, bias.short_integers(range(bias.shape[0]))[0])):
        return None, (f"{bias.name} is all zeros and left out",)
    return bias, ()


def _refuse_mixed(readout: Readout) -> None:
    """Loaders bring all tensors to one dtype, so the stored values of a mixture are not the model's."""
    dtypes = {role: tensor.dtype for role, tensor in readout.tensors.items()}
    if len(set(dtypes.values())) > 1:
        shown = ", ".join(f"{role} {dtype}" for role, dtype in dtypes.items())
        raise ModelUnavailableError(
            f"the readout's tensors are stored in several dtypes ({shown}); loaders convert them to one, and "
            f"which values count is then unclear. Save the checkpoint in one dtype, or {_BY_HAND}"
        )


def _present(checkpoint: Checkpoint, names: tuple[str, ...], role: str) -> Tensor | None:
    """The first of `names` that is there; any other of them must hold the same values."""
    found = [name for name in names if name in checkpoint]
    if not found:
        return None
    first = checkpoint.tensor(found[0])
    for name in found[1:]:
        if not same_bits(first, checkpoint.tensor(name)):
            raise ModelUnavailableError(
                f"two tensors for the {role} differ: {found[0]} and {name}; "
                f"which one the model uses is unclear: {_BY_HAND}"
            )
    return first


def _one(checkpoint: Checkpoint, config: Config, names: tuple[str, ...], role: str) -> Tensor:
    tensor = _present(checkpoint, names, role)
    if tensor is None:
        raise ModelUnavailableError(
            f"the checkpoint lacks the {role}: expected {' or '.join(names)}.\n"
            + candidates(checkpoint, config)
        )
    return tensor


def _tied(architecture: Architecture, config: Config, inner: Config) -> tuple[bool, str]:
    """Whether the unembedding is the embedding, and how config.json puts it; nested tables must agree."""
    key = "tie_word_embeddings"
    words = {table.flag(key, default=True) for table in (config, inner) if table.has(key)}
    if len(words) > 1:
        raise ModelUnavailableError(
            f"{config.name} and {inner.name} contradict each other in {key}; loaders differ in which one "
            f"they follow. Set both to what the model was trained with, or {_BY_HAND}"
        )
    if words:
        return words.pop(), "says"
    return architecture.tied_default, f"(default for {config.text('model_type')}) means"


def _unembedding(
    architecture: Architecture, checkpoint: Checkpoint, config: Config, *, tied: bool, said: str
) -> tuple[Tensor, tuple[str, ...]]:
    """The unembedding and a note on tying; the config's word and the stored tensors must agree."""
    head = _present(checkpoint, architecture.head, "unembedding")
    if not tied:
        if head is None:
            raise ModelUnavailableError(
                f"{config.name} {said} tie_word_embeddings false, "
                f"but {' or '.join(architecture.head)} is missing. "
                "If the model is tied, config.json must say so; else the file is incomplete.\n"
                + candidates(checkpoint, config)
            )
        return head, ()
    embedding = _present(checkpoint, architecture.embedding, "embedding")
    if embedding is None and head is not None:
        return head, (f"tied, but of the two only {head.name} is stored; it is taken",)
    if embedding is None:
        return _one(checkpoint, config, architecture.embedding + architecture.head, "unembedding"), ()
    if head is not None and not same_bits(embedding, head):
        raise ModelUnavailableError(
            f"{config.name} {said} tie_word_embeddings true, but {head.name} and {embedding.name} differ; "
            "loaders disagree on which one counts. Set tie_word_embeddings to what the model was trained "
            f"with, or {_BY_HAND}"
        )
    return embedding, ()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two stored tensors agree in dtype, shape and every bit; compared a few megabytes at a time."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat, other, step = a.raw.reshape(-1), b.raw.reshape(-1), 1 << 22
    return all(
        np.array_equal(flat[start : start + step], other[start : start + step])
        for start in range(0, flat.size, step)
    )


def _refuse_strangers(architecture: Architecture, checkpoint: Checkpoint) -> None:
    """A tensor beside the ones we use (a bias, a quantisation scale, an adapter) would change the logits."""
    used = (*architecture.embedding, *architecture.head, *architecture.gain)
    known = {*used, *architecture.shift, *architecture.bias}
    modules = (*(name.rpartition(".")[0] + "." for name in used), *architecture.absent)
    strangers = [
        name
        for name in checkpoint.listing
        if name not in known and (name.startswith(modules) or name in LOGIT_TENSORS)
    ]
    if strangers:
        raise ModelUnavailableError(
            f"the checkpoint holds {', '.join(map(ascii, sorted(strangers)[:6]))}, which this architecture's "
            "readout does not have (a bias, a quantisation scale or an adapter?). "
            f"Merge or dequantise it, or {_BY_HAND}"
        )


def _check_shape(architecture: Architecture, inner: Config, unembedding: Tensor) -> None:
    """Rows and width as config.json announces them."""
    rows = _first(inner, architecture.rows)
    announced = (architecture.rows_default if rows is None else rows, _first(inner, architecture.width))
    for keys, value in zip((architecture.rows, architecture.width), announced, strict=True):
        if value is None:
            raise ModelUnavailableError(
                f"{inner.name} has no {' or '.join(keys)}; the tensors cannot be checked against it"
            )
    if unembedding.shape != announced:
        raise ModelUnavailableError(
            f"{unembedding.name} has shape {list(unembedding.shape)}, but {inner.name} announces "
            f"{architecture.rows[0]} {announced[0]} and {architecture.width[0]} {announced[1]}: "
            "weights and config are not of one model"
        )


def _epsilon(architecture: Architecture, config: Config, inner: Config) -> tuple[Fraction, str]:
    """Epsilon, exact, and where it was read."""
    if architecture.norm == "none":
        return Fraction(0), ""
    for key in architecture.epsilon_keys:
        value = inner.number(key)
        if value is not None:
            if value < 0:
                raise ModelUnavailableError(f"{inner.name}: {key} is negative")
            if not in_epsilon_range(value):
                raise ModelUnavailableError(f"{inner.name}: {key} is out of range: it is {EPSILON_RANGE}")
            return value, f"{inner.name}: {key}"
    default = architecture.epsilon_default
    return Fraction(default), f"default of model_type {config.text('model_type')}: {default}"


def _scale_notes(architecture: Architecture, config: Config, *, has_bias: bool) -> list[str]:
    """Notes on positive scales and soft-caps of the logits, where the architecture has them.

    Any that is not positive is refused, whether or not it is said to act.
    """
    notes = []
    for key in (*POSITIVE_SCALES, *POSITIVE_SOFTCAPS):
        value = config.number(key)
        if value is None:
            continue
        if value <= 0:
            raise ModelUnavailableError(
                f"{config.name}: {key} is not positive, so it would change every argmax"
            )
        if value != 1 and has_bias and key in POSITIVE_SCALES:
            raise ModelUnavailableError(
                f"{config.name}: {key} together with a logit bias: whether it scales the bias is not modelled"
            )
        if key in architecture.after.split():
            notes.append(f"{key} is positive, so it changes no argmax and is left out: margins are before it")
    return notes


def _dtype_notes(config: Config, unembedding: Tensor) -> list[str]:
    """Where the model usually runs on other numbers than the stored ones, say that the stored ones count."""
    notes = []
    dtype = config.get("torch_dtype") or config.get("dtype")
    wanted = _CONFIG_DTYPES.get(str(dtype).removeprefix("torch."))
    if wanted is not None and wanted != unembedding.dtype:
        notes.append(
            f"{config.name} says dtype {dtype}, the tensors are stored in {unembedding.dtype}: "
            "the stored values count"
        )
    return notes

"""STATEMENT. From config.json and a checkpoint to the readout, by the architecture table.

Wrong here = a true claim about the wrong tensors, so whatever does not fit the table is an error that says
what was found and what to do.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import ModelUnavailableError
from verify.kernel.readout import Readout
from verify.models.architectures import (
    ARCHITECTURES,
    LOGIT_TENSORS,
    MUST_BE,
    POSITIVE_SCALES,
    POSITIVE_SOFTCAPS,
    Architecture,
)
from verify.models.by_hand import candidates

if TYPE_CHECKING:
    from verify.kernel.tensor import Tensor
    from verify.models.checkpoints import Checkpoint
    from verify.models.config import Config

_BY_HAND = "describe the readout by hand (--unembedding and the other flags)"
_CONFIG_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


def locate_readout(checkpoint: Checkpoint, config: Config) -> Readout:
    """The readout of a model whose `model_type` is in the table.

    Raises ModelUnavailableError if the architecture is unknown, if config.json carries something the table
    does not model, or if tensors are missing, contradict each other, or disagree with config.json.
    """
    architecture = _architecture(checkpoint, config)
    _check_config(architecture, config)
    unembedding, tied_note = _unembedding(architecture, checkpoint, config)
    gain = _one(checkpoint, config, architecture.gain, "gain")
    shift = _one(checkpoint, config, architecture.shift, "shift") if architecture.shift else None
    bias = _one(checkpoint, config, architecture.bias, "logit bias") if architecture.bias else None
    _refuse_strangers(architecture, checkpoint)
    _check_shape(architecture, config, unembedding)
    epsilon, source = _epsilon(architecture, config)
    notes = [*architecture.notes, *tied_note, *_scale_notes(config, has_bias=bias is not None)]
    return Readout(
        norm=architecture.norm,
        unembedding=unembedding,
        gain=gain,
        shift=shift,
        bias=bias,
        gain_offset=architecture.gain_offset,
        epsilon=epsilon,
        epsilon_source=source,
        notes=(*notes, *_dtype_notes(config, unembedding)),
    )


def _architecture(checkpoint: Checkpoint, config: Config) -> Architecture:
    model_type = config.text("model_type")
    architecture = ARCHITECTURES.get(model_type or "")
    if architecture is None:
        found = f"model_type {model_type!a}" if model_type else "no model_type"
        raise ModelUnavailableError(
            f"unknown architecture: {config.name} has {found}; "
            f"known are {', '.join(sorted(ARCHITECTURES))}.\n" + candidates(checkpoint, config)
        )
    return architecture


def _check_config(architecture: Architecture, config: Config) -> None:
    """Refuse heads and options under which the table's entry would not describe the model."""
    classes = config.get("architectures")
    if classes is not None and not (
        isinstance(classes, list) and set(map(str, classes)) & set(architecture.classes)
    ):
        raise ModelUnavailableError(
            f"{config.name}: architectures is {str(classes)[:120]}, expected one of "
            f"{', '.join(architecture.classes)}; another head has another readout. "
            f"If the tensors are known, {_BY_HAND}"
        )
    auto_map = config.get("auto_map")
    if isinstance(auto_map, dict) and any(key.startswith("AutoModel") for key in auto_map):
        raise ModelUnavailableError(
            f"{config.name}: auto_map brings the model's own code, whose last step may be anything; "
            + _BY_HAND
        )
    width = config.get(architecture.width)
    allowed_values = {**MUST_BE, **architecture.must_be, "word_embed_proj_dim": (width,)}
    for key, allowed in allowed_values.items():
        if config.has(key) and config.get(key) not in allowed:
            raise ModelUnavailableError(
                f"{config.name}: {key} is {config.get(key)!a}, which changes the readout and is unmodelled; "
                f"if you know how, {_BY_HAND}"
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


def _unembedding(
    architecture: Architecture, checkpoint: Checkpoint, config: Config
) -> tuple[Tensor, tuple[str, ...]]:
    """The unembedding and a note on tying; the config's word and the stored tensors must agree."""
    tied = config.flag("tie_word_embeddings", architecture.tied_default)
    said = "says" if config.has("tie_word_embeddings") else f"(default for {config.text('model_type')}) means"
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
    modules = tuple(name.rpartition(".")[0] + "." for name in used)
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


def _check_shape(architecture: Architecture, config: Config, unembedding: Tensor) -> None:
    """Rows and width as config.json announces them."""
    announced = (config.integer("vocab_size"), config.integer(architecture.width))
    for key, value in zip(("vocab_size", architecture.width), announced, strict=True):
        if value is None:
            raise ModelUnavailableError(
                f"{config.name} has no {key}; the tensors cannot be checked against it"
            )
    if unembedding.shape != announced:
        raise ModelUnavailableError(
            f"{unembedding.name} has shape {list(unembedding.shape)}, but {config.name} announces vocab_size "
            f"{announced[0]} and {architecture.width} {announced[1]}: weights and config are not of one model"
        )


def _epsilon(architecture: Architecture, config: Config) -> tuple[Fraction, str]:
    """Epsilon, exact, and where it was read."""
    if architecture.norm == "none":
        return Fraction(0), ""
    for key in architecture.epsilon_keys:
        value = config.number(key)
        if value is not None:
            if value < 0:
                raise ModelUnavailableError(f"{config.name}: {key} is negative")
            return value, f"{config.name}: {key}"
    default = architecture.epsilon_default
    return Fraction(default), f"default of model_type {config.text('model_type')}: {default}"


def _scale_notes(config: Config, *, has_bias: bool) -> list[str]:
    """Notes on positive scales and soft-caps of the logits; anything else about them is refused."""
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
        notes.append(f"{key} is positive, so it changes no argmax and is left out: margins are before it")
    return notes


def _dtype_notes(config: Config, unembedding: Tensor) -> list[str]:
    """Where the model usually runs on other numbers than the stored ones, say that the stored ones count."""
    notes = []
    if config.has("quantization_config"):
        notes.append("config.json names a quantization; the claim is about the stored tensors as they are")
    dtype = config.get("torch_dtype") or config.get("dtype")
    wanted = _CONFIG_DTYPES.get(str(dtype).removeprefix("torch."))
    if wanted is not None and wanted != unembedding.dtype:
        notes.append(
            f"config.json says dtype {dtype}, the tensors are stored in {unembedding.dtype}: "
            "the stored values count"
        )
    return notes

"""STATEMENT. A model of TransformerLens in memory: a snapshot of its readout, checked in place.

Wrong here = a true claim about other matrices, or another norm, than the model holds. TransformerLens is not
imported: the model brings it.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError
from verify.kernel.readout import Readout
from verify.kernel.tensor import Tensor
from verify.models.config import exact_decimal
from verify.models.in_place import SENTENCE, look, require_agreement
from verify.models.live import (
    named,
    require_epsilon,
    require_plain,
    snapshot,
    spread,
    token_tensor,
    unwrapped,
    vocabulary_of,
)

if TYPE_CHECKING:
    from verify.models.checkpoints import Checkpoint
    from verify.models.model import Model

_HELD = "of the matrices that a {kind} holds, whatever folding and centring made them"
_CAPPED = "output_logits_soft_cap is positive, so it changes no argmax and is left out: margins are before it"
_ZEROS = "b_U is all zeros and left out"
_SLOW = "its tokenizer is a slow one, which is not read: tokens go by their ids"
# Classes of the last norm of a HookedTransformer: norm, and the names of its gain and shift.
_NORMS = {
    "LayerNorm": ("layernorm", "ln_final.w", "ln_final.b"),
    "LayerNormPre": ("layernorm", None, None),
    "RMSNorm": ("rmsnorm", "ln_final.w", None),
    "RMSNormPre": ("rmsnorm", None, None),
}
# The class that cfg means, by normalization_type and final_rms.
_CLASSES = {
    ("LN", False): "LayerNorm",
    ("LN", True): "RMSNorm",
    ("LNPre", False): "LayerNormPre",
    ("LNPre", True): "RMSNormPre",
    ("RMS", False): "RMSNorm",
    ("RMS", True): "RMSNorm",
    ("RMSPre", False): "RMSNormPre",
    ("RMSPre", True): "RMSNormPre",
}


def from_hooked(model: Any, *, name: str | None = None) -> Model:
    """A snapshot of a HookedTransformer or TransformerBridge of TransformerLens, as a `Model`.

    The matrices are taken as the model holds them, whatever folding and centring made them; the `W_U` of a
    HookedTransformer is transposed, to one row a token. Its tokenizer is used if it is a fast one.
    name: what certificates call the model. Errors as `from_transformers`.
    """
    model = unwrapped(model)
    kinds = {each.__name__ for each in type(model).__mro__}
    if not kinds & {"HookedTransformer", "TransformerBridge"}:
        raise ModelUnavailableError(
            f"a {type(model).__name__} is no HookedTransformer or TransformerBridge; a model of transformers "
            "goes to verify.from_transformers"
        )
    require_plain(model)
    cfg, checkpoint = model.cfg, snapshot(model.state_dict())
    find = _hooked_readout if "HookedTransformer" in kinds else _bridge_readout
    readout = find(model, checkpoint)
    cap = cfg.output_logits_soft_cap
    capped = cap is not None and cap > 0  # any other value turns it off
    if capped:
        readout = replace(readout, notes=(*readout.notes, _CAPPED))
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        readout, tokenizer = replace(readout, notes=(*readout.notes, _SLOW)), None
    ids = spread(min(cfg.d_vocab, readout.vocabulary), min(SENTENCE, cfg.n_ctx), set())
    tokens = token_tensor(ids, next(model.parameters()).device)
    module = model.unembed if readout.norm == "none" else model.ln_final
    seen = look(model, module, readout, lambda: model(tokens, return_type="logits"))
    require_agreement(readout, seen, 1.0, float(cap) if capped else None)
    return named(model, name, readout, vocabulary_of(tokenizer), {})


def _hooked_readout(model: Any, checkpoint: Checkpoint) -> Readout:
    """The readout of a HookedTransformer by the class of its last norm, which its cfg must name too."""
    cfg = model.cfg
    bias, notes = _bias(checkpoint, "unembed.b_U", "HookedTransformer")
    readout = Readout(
        norm="none", unembedding=_transposed(checkpoint.tensor("unembed.W_U")), bias=bias, notes=notes
    )
    if cfg.normalization_type is None:
        return readout
    found = type(model.ln_final).__name__
    expected = _CLASSES.get((cfg.normalization_type, bool(cfg.final_rms)))
    if found != expected:
        raise ModelUnavailableError(
            f"ln_final is a {found}, but cfg (normalization_type {cfg.normalization_type!a}, final_rms "
            f"{cfg.final_rms!a}) means {expected}; what the model computes is unclear"
        )
    norm, gain, shift = _NORMS[found]
    readout = replace(
        readout,
        norm=norm,
        gain=None if gain is None else checkpoint.tensor(gain),
        shift=None if shift is None else checkpoint.tensor(shift),
        epsilon=_epsilon(cfg),
        epsilon_source="HookedTransformer.cfg.eps",
    )
    require_epsilon(model.ln_final, readout)
    return readout


def _bridge_readout(model: Any, checkpoint: Checkpoint) -> Readout:
    """The readout of a TransformerBridge, whose parts keep the layout of the model that it wraps."""
    if "ln_final.weight" not in checkpoint or "unembed.weight" not in checkpoint:
        raise ModelUnavailableError(
            "the TransformerBridge has no ln_final with a gain, or no unembed; pass the model of "
            "transformers that it wraps to verify.from_transformers, before it is processed"
        )
    bias, notes = _bias(checkpoint, "unembed.bias", "TransformerBridge")
    readout = Readout(
        norm="rmsnorm" if model.ln_final.uses_rms_norm else "layernorm",
        unembedding=checkpoint.tensor("unembed.weight"),
        gain=checkpoint.tensor("ln_final.weight"),
        shift=checkpoint.tensor("ln_final.bias") if "ln_final.bias" in checkpoint else None,
        bias=bias,
        gain_offset=int(bool(getattr(model.cfg, "rmsnorm_uses_offset", False))),
        epsilon=_epsilon(model.cfg),
        epsilon_source="TransformerBridge.cfg.eps",
        notes=notes,
    )
    require_epsilon(model.ln_final.original_component, readout)
    return readout


def _bias(checkpoint: Checkpoint, name: str, kind: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """The logit bias, None where it is absent or zero, and what a reader must know."""
    held = _HELD.format(kind=kind)
    if name not in checkpoint:
        return None, (held,)
    bias = checkpoint.tensor(name)
    zeros = not any(map(any, bias.short_integers(range(bias.shape[0]))[0]))
    return (None, (held, _ZEROS)) if zeros else (bias, (held,))


def _epsilon(cfg: Any) -> Fraction:
    """cfg.eps, as the decimal that a configuration would hold."""
    return exact_decimal(repr(float(cfg.eps)))


def _transposed(matrix: Tensor) -> Tensor:
    """The matrix with rows and columns exchanged; its name says so."""
    return Tensor(f"{matrix.name}.T", matrix.dtype, matrix.raw.T.copy())

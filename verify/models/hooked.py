"""STATEMENT. A HookedTransformer of TransformerLens in memory: a snapshot of its readout, checked in place.

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
from verify.models.in_place import VARIANCES, look, require_agreement
from verify.models.live import (
    named,
    require_epsilon,
    require_plain,
    snapshot,
    spread,
    token_tensor,
    uncompiled,
    vocabulary_of,
)

if TYPE_CHECKING:
    from verify.models.checkpoints import Checkpoint
    from verify.models.model import Model

_HELD = "of the matrices that a HookedTransformer holds, whatever folding and centring made them"
_CAPPED = "output_logits_soft_cap is positive, so it changes no argmax and is left out: margins are before it"
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
    """A snapshot of a HookedTransformer of TransformerLens as a `Model`: the matrices as it holds them.

    `W_U` is stored transposed, one row a token. Whatever folding and centring made the matrices is part of
    them: the claim is about what the model holds. Its tokenizer is used if it is a fast one.
    name: what certificates call the model. Errors as `from_transformers`.
    """
    model = uncompiled(model)
    if not any(each.__name__ == "HookedTransformer" for each in type(model).__mro__):
        raise ModelUnavailableError(
            f"a {type(model).__name__} is no HookedTransformer. Of a TransformerBridge, pass the model of "
            "transformers that it was made from to verify.from_transformers, before it is processed"
        )
    require_plain(model)
    cfg, checkpoint = model.cfg, snapshot(model.state_dict())
    readout = _hooked_readout(model, checkpoint)
    cap = cfg.output_logits_soft_cap
    capped = cap is not None and cap > 0  # any other value turns it off
    if capped:
        readout = replace(readout, notes=(*readout.notes, _CAPPED))
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        readout, tokenizer = replace(readout, notes=(*readout.notes, _SLOW)), None
    ids = spread(min(cfg.d_vocab, readout.vocabulary), min(len(VARIANCES), cfg.n_ctx), set())
    module = model.unembed if readout.norm == "none" else model.ln_final
    tokens = token_tensor(ids, model.unembed.W_U.device)
    seen = look(model, module, readout, lambda: model(tokens, return_type="logits"))
    require_agreement(readout, seen, 1.0, float(cap) if capped else None)
    return named(model, name, readout, vocabulary_of(tokenizer), {})


def _hooked_readout(model: Any, checkpoint: Checkpoint) -> Readout:
    """The readout of a HookedTransformer by the class of its last norm, which its cfg must name too."""
    cfg = model.cfg
    if cfg.normalization_type is None:
        norm, gain, shift, epsilon, source = "none", None, None, Fraction(0), ""
    else:
        found = type(model.ln_final).__name__
        expected = _CLASSES.get((cfg.normalization_type, bool(cfg.final_rms)))
        if found != expected:
            raise ModelUnavailableError(
                f"ln_final is a {found}, but cfg (normalization_type {cfg.normalization_type!a}, final_rms "
                f"{cfg.final_rms!a}) means {expected}; what the model computes is unclear"
            )
        norm, gain, shift = _NORMS[found]
        source = "HookedTransformer.cfg.eps"
        epsilon = exact_decimal(repr(float(cfg.eps)))
    matrix, bias = checkpoint.tensor("unembed.W_U"), checkpoint.tensor("unembed.b_U")
    notes = [_HELD]
    if not any(map(any, bias.short_integers(range(bias.shape[0]))[0])):
        notes.append("b_U is all zeros and left out")
    readout = Readout(
        norm=norm,
        unembedding=transposed(matrix),
        gain=None if gain is None else checkpoint.tensor(gain),
        shift=None if shift is None else checkpoint.tensor(shift),
        bias=bias if len(notes) == 1 else None,
        epsilon=epsilon,
        epsilon_source=source,
        notes=tuple(notes),
    )
    if norm != "none":
        require_epsilon(model.ln_final, readout)
    return readout


def transposed(matrix: Tensor) -> Tensor:
    """The matrix with rows and columns exchanged; its name says so."""
    return Tensor(f"{matrix.name}.T", matrix.dtype, matrix.raw.T.copy())

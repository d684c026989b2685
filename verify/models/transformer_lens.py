"""STATEMENT. The matrices that TransformerLens makes of a checkpoint: W_U and b_U, folded and centred.

Wrong here = a true claim about other matrices than the library's users look at. Operation by operation it
is docs/transformer-lens.md; tests/test_transformer_lens.py compares it with the library. Sums are taken in a
fixed order, so that every machine makes the same tensors.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import ModelUnavailableError
from verify.kernel.filter import as_float64
from verify.kernel.readout import Readout
from verify.kernel.tensor import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verify.kernel.statement import Statement
    from verify.models.config import Config

    Floats = NDArray[np.float32]

# The model types that HookedTransformer.from_pretrained of version 3.9 folds, as far as they are known here.
FOLDED = (
    *("bloom", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "gptj", "llama", "mistral"),
    *("mixtral", "opt", "phi", "phi3", "qwen2", "qwen3"),
)
# Of these the logits are capped whatever config.json says, and capped logits are not centred.
_ALWAYS_CAPPED = ("gemma2",)
# Of these it takes this epsilon whatever config.json says.
_FIXED_EPSILON = {"gptj": Fraction(1, 100000)}
_CAP = "final_logit_softcapping"
# Names of tensors that start so are of processed matrices, so nobody may name one by hand.
PREFIX = "transformer-lens:"
_SUFFIX = " (transformer-lens)"
_NOTE = (
    "the verdict is about the float32 matrices that TransformerLens hands out, W_U and b_U after fold_ln and "
    "{centring}, made here from the checkpoint (docs/transformer-lens.md), not about the checkpoint's own"
)
_NEEDS_PACK = (
    "the certificate is about the float32 matrices that TransformerLens makes of a checkpoint, not about the "
    "checkpoint itself; audit it with the pack of them: verify pack MODEL --readout transformer-lens "
    "-o tl.safetensors, then verify audit CERT --model tl.safetensors"
)
_BLOCK = 1 << 12


def processed(readout: Readout, config: Config) -> Readout:
    """The readout that TransformerLens makes of a checkpoint's: all float32, the norm without gain and shift.

    Raises ModelUnavailableError for a model that it does not fold, or that is not modelled here.
    """
    gain = _gain(readout, config)
    capped = config.text("model_type") in _ALWAYS_CAPPED
    if not capped and config.has(_CAP) and config.get(_CAP) is not None:
        raise ModelUnavailableError(
            f"{config.name} has {_CAP}: of this model_type TransformerLens's HookedTransformer does not read "
            "it and centres the rows, its TransformerBridge does and leaves them. Pass the model itself to "
            "verify.from_hooked"
        )
    with np.errstate(all="ignore"):  # what overflows is found below
        W, b = _folded(readout, gain)
        if readout.norm == "layernorm":
            _subtract_row_means(W)
        if not capped:
            W -= _mean(W)
            b -= _mean(b)
    centring = "no center_unembed, since the logits are capped" if capped else "center_unembed"
    notes = [*readout.notes, _NOTE.format(centring=centring)]
    if not b.any():
        notes.append("b_U is all zeros and left out")
    return Readout(
        norm=readout.norm,
        unembedding=_tensor("unembed.W_U.T", W),
        bias=_tensor("unembed.b_U", b) if b.any() else None,
        epsilon=readout.epsilon,
        epsilon_source=readout.epsilon_source,
        notes=tuple(notes),
    )


def processed_name(name: str) -> str:
    """What certificates about the processed matrices of a model call it."""
    return name + _SUFFIX


def is_processed(readout: Readout | Statement) -> bool:
    """Whether a readout, or the one that a statement names, is of processed matrices."""
    return readout.tensors["unembedding"].name.startswith(PREFIX)


def require_pack(statement: Statement, readout: Readout | None) -> None:
    """ModelUnavailableError where a statement is about processed matrices and `readout`, if any, is not."""
    if is_processed(statement) and (readout is None or not is_processed(readout)):
        raise ModelUnavailableError(_NEEDS_PACK)


def _gain(readout: Readout, config: Config) -> Floats:
    """The gain to fold; ModelUnavailableError where TransformerLens folds none, or another."""
    model_type = config.text("model_type")
    if model_type is None or model_type not in FOLDED:
        raise ModelUnavailableError(
            f"TransformerLens does not fold the final norm of model_type {model_type!a}, or how is not known "
            f"here; known are {', '.join(FOLDED)}. Of a model in its memory, use verify.from_hooked"
        )
    if readout.gain is None or (readout.norm == "layernorm") != (readout.shift is not None):
        raise ModelUnavailableError(
            f"the final norm ({readout.norm}) has no gain, or no shift where a LayerNorm has one: "
            "TransformerLens folds neither"
        )
    if readout.vocabulary == readout.d:
        raise ModelUnavailableError(
            f"the unembedding is square, {readout.d} x {readout.d}: TransformerLens then takes its rows for "
            "its columns. Decide the checkpoint itself"
        )
    if readout.unembedding.dtype == "F64":
        raise ModelUnavailableError(
            "the checkpoint is stored in float64, which TransformerLens rounds when it loads it; "
            "save it in float32 first"
        )
    epsilon = _FIXED_EPSILON.get(model_type, readout.epsilon)
    if readout.epsilon != epsilon:
        raise ModelUnavailableError(
            f"TransformerLens takes epsilon {float(epsilon)} for model_type {model_type}, but "
            f"{readout.epsilon_source} is {float(readout.epsilon)}"
        )
    gain = _float32(readout.gain, 0, readout.d)
    return gain + np.float32(1) if readout.gain_offset else gain


def _folded(readout: Readout, gain: Floats) -> tuple[Floats, Floats]:
    """W_U.T with the gain multiplied in, (V, d), and b_U with the shift's part added, (V,)."""
    V, d = readout.vocabulary, readout.d
    shift = None if readout.shift is None else _float32(readout.shift, 0, d)
    W = np.empty((V, d), np.float32)
    b = np.zeros(V, np.float32) if readout.bias is None else _float32(readout.bias, 0, V)
    for start in range(0, V, _BLOCK):
        stop = min(start + _BLOCK, V)
        rows = _float32(readout.unembedding, start, stop)
        if shift is not None:
            b[start:stop] += _total((rows * shift).T).astype(np.float32)
        W[start:stop] = rows * gain
    return W, b


def _subtract_row_means(W: Floats) -> None:
    """Centre every token's row, in place."""
    for start in range(0, len(W), _BLOCK):
        rows = W[start : start + _BLOCK]
        rows -= _mean(rows.T)[:, None]


def _mean(terms: Floats) -> Floats:
    """The mean along the first axis, rounded to float32 once."""
    return np.asarray(_total(terms) / len(terms), np.float32)


def _total(terms: Floats) -> NDArray[np.float64]:
    """The sum along the first axis, term by term in float64: the same on every machine."""
    total = np.zeros(terms.shape[1:], np.float64)
    for term in terms:
        total += term
    return total


def _float32(tensor: Tensor, start: int, stop: int) -> Floats:
    """Rows start..stop-1 in float32, exact for all dtypes but F64."""
    return as_float64(tensor, start, stop).astype(np.float32)


def _tensor(name: str, values: Floats) -> Tensor:
    tensor = Tensor(PREFIX + name, "F32", np.ascontiguousarray(values, "<f4").view("<u4"))
    tensor.require_finite()
    return tensor

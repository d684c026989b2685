"""STATEMENT. A readout against the model it was found in: the model is run, and the logits compared.

Wrong here = a readout is taken for a model's whose code or hooks do something else. Needs a model of PyTorch
in memory; torch is imported only when there is one.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from verify.errors import ModelUnavailableError
from verify.kernel.filter import as_float64
from verify.models.checkpoints import describe_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from verify.kernel.readout import Readout

    Floats = NDArray[np.float64]

# By position: the variance of what enters the norm, over epsilon, so that epsilon counts; None: as it is.
VARIANCES = (None, None, 50.0, 5.0, 0.5)
# The largest difference of a logit that rounding explains, as a share of the largest logit of its position:
# 1e-5 for float32 (norms of float64 models may run in it), eight unit roundoffs for the short dtypes.
TOLERANCES = {"F64": 1e-5, "F32": 1e-5, "F16": 2.0**-8, "BF16": 2.0**-5}
_BLOCK = 1 << 12


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model showed: `residuals` (n, d) that entered its norm, and the `logits` (n, V) that it gave.

    tolerance: the share of the largest logit that rounding may be, in the dtypes that the model used.
    """

    residuals: Floats
    logits: Floats
    tolerance: float

    def differences(self, readout: Readout, scale: float = 1.0, cap: float | None = None) -> Floats:
        """(n, V): |logit of the model - logit of `readout`|, over the largest |logit| of the position.

        scale, cap: what the model does to its logits after the readout (`cap` a soft-cap by tanh). Infinite
        where either side is not a number.
        """
        ours = logits_at(readout, self.residuals) * scale
        if cap is not None:
            ours = cap * np.tanh(ours / cap)
        apart = np.abs(ours - self.logits)
        with np.errstate(all="ignore"):
            shares = apart / np.abs(self.logits).max(axis=1, keepdims=True)
        return np.where(apart == 0, 0.0, np.where(np.isfinite(shares), shares, np.inf))


def logits_at(readout: Readout, residuals: Floats) -> Floats:
    """`w_j . (gain * N(r) + shift) + bias_j` in float64, (n, V), at the residuals r of shape (n, d).

    The weights are exact; rounding is below 1e-12 of the largest logit for any usual width.
    """
    d, rows = readout.d, readout.vocabulary
    h = residuals - residuals.mean(axis=1, keepdims=True) if readout.norm == "layernorm" else residuals
    if readout.norm != "none":
        h = h / np.sqrt((h * h).mean(axis=1, keepdims=True) + float(readout.epsilon))
    if readout.gain is not None:
        h = h * (as_float64(readout.gain, 0, d) + readout.gain_offset)
    if readout.shift is not None:
        h = h + as_float64(readout.shift, 0, d)
    logits = np.concatenate(
        [h @ as_float64(readout.unembedding, i, min(i + _BLOCK, rows)).T for i in range(0, rows, _BLOCK)],
        axis=1,
    )
    return logits if readout.bias is None else logits + as_float64(readout.bias, 0, rows)


def logits_of(model: Any, tokens: Any) -> Any:
    """The logits (B, n, V) of a model of `transformers` for token ids (B, n); None where it gives none.

    A decoder beside an encoder is fed zeros in place of what the encoder puts out.
    """
    import torch

    inputs: dict[str, Any] = {"input_ids": tokens}
    if getattr(model.config, "is_encoder_decoder", False):
        from transformers.modeling_outputs import BaseModelOutput

        # Whatever an encoder reads (text, sound), its output is d_model numbers a position.
        size = (len(tokens), 1, model.config.d_model)
        zeros = torch.zeros(size, dtype=model.dtype, device=tokens.device)
        inputs = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=zeros),
            "decoder_input_ids": tokens,
        }
    output = model(**inputs, return_dict=True)
    return output.prediction_logits if "prediction_logits" in output else getattr(output, "logits", None)


def look(model: Any, module: Any, readout: Readout, run: Callable[[], Any]) -> Seen:
    """Run the model once, in evaluation mode and without gradients, and catch what enters `module`.

    run: calls the model on one sentence of `len(VARIANCES)` tokens at most and hands out its logits,
    (1, n, V). The mode of every module is what it was before. Raises ModelUnavailableError if the model
    cannot be run so, or `module` is not called once.
    """
    import torch

    hooks = torch.nn.modules.module
    if hooks._global_forward_pre_hooks or hooks._global_forward_hooks:
        raise ModelUnavailableError(
            "hooks are registered for every module (register_module_forward_hook and the like), which come "
            "before the one that looks: remove them first"
        )
    modes = {each: each.training for each in model.modules()}
    try:
        with torch.no_grad(), captured(module, float(readout.epsilon)) as seen:
            model.eval()
            logits = run()
            if not torch.is_tensor(logits):
                raise TypeError(f"its logits are a {type(logits).__name__}")
    except Exception as error:  # a model's code may raise anything
        raise ModelUnavailableError(
            "the model could not be run on a few tokens, so its readout cannot be checked: "
            f"{type(error).__name__}: {str(error)[:300]}"
        ) from error
    finally:
        for each, training in modes.items():
            each.training = training
    if len(seen) != 1:
        raise ModelUnavailableError(
            f"the module before the unembedding, {type(module).__name__}, was called {len(seen)} times in "
            "one run: the model's forward does not end as this architecture's does"
        )
    dtypes = {describe_torch(seen[0])[0], describe_torch(logits)[0]}
    dtypes |= {tensor.dtype for tensor in readout.tensors.values()}
    if not dtypes <= TOLERANCES.keys():
        raise ModelUnavailableError(f"the model computes in {', '.join(dtypes)}; what rounds is not known")
    return Seen(_float64(seen[0]), _float64(logits)[0], max(TOLERANCES[dtype] for dtype in dtypes))


@contextmanager
def captured(module: Any, epsilon: float) -> Iterator[list[Any]]:
    """What enters a module, (n, d) a call, in its own dtype; where there is an epsilon, first scaled until it
    counts. It is caught before any hook of the user's.
    """
    import torch

    seen: list[Any] = []

    def hook(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        r = args[0].detach().clone()
        if epsilon:
            for position, ratio in enumerate(VARIANCES[: r.shape[1]]):
                if ratio is not None:
                    x = r[:, position].double()
                    r[:, position] = x * (sqrt(ratio * epsilon) / torch.sqrt((x**2).mean()))
        seen.append(r[0].clone())
        return (r, *args[1:])

    handle = module.register_forward_pre_hook(hook, prepend=True)
    try:
        yield seen
    finally:
        handle.remove()


def require_agreement(readout: Readout, seen: Seen, scale: float = 1.0, cap: float | None = None) -> None:
    """Raise ModelUnavailableError, saying what differs, unless the logits of model and readout agree."""
    expected = (len(seen.residuals), readout.vocabulary)
    if seen.logits.shape != expected or seen.residuals.shape[1] != readout.d:
        raise ModelUnavailableError(
            f"the model gives logits of shape {list(seen.logits.shape)} for residuals of shape "
            f"{list(seen.residuals.shape)}; its readout would give {list(expected)}"
        )
    shares = seen.differences(readout, scale, cap)
    if shares.max() <= seen.tolerance:
        return
    position, token = (int(i) for i in np.unravel_index(int(shares.argmax()), shares.shape))
    theirs, after = float(seen.logits[position, token]), "" if scale == 1 and cap is None else ", scaled"
    ours = float(logits_at(readout, seen.residuals[[position]])[0, token])
    wrong = int((shares > seen.tolerance).any(axis=0).sum())
    raise ModelUnavailableError(
        f"the model's own logits are not those of its readout: {wrong} of {readout.vocabulary} tokens "
        f"differ, token {token} most ({theirs:.6g} from the model, {ours:.6g} from the readout{after}), by "
        f"{shares.max():.2g} of the largest logit where rounding explains {seen.tolerance:.2g}. Something "
        "acts on the final norm or the logits that tensors and configuration do not tell: a hook, a replaced "
        "forward, a changed epsilon, an adapter, or matrix products in lower precision. Undo it"
    )


def _float64(x: Any) -> Floats:
    array: Floats = x.detach().to("cpu").double().numpy()
    return array

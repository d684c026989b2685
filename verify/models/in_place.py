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
    from verify.models.architectures import Architecture

    Floats = NDArray[np.float64]

# How many vectors of the model's own are compared, beside those that are put in.
_OWN = 2
# Variances, over epsilon, of vectors that are put in so that epsilon counts.
_NEAR_EPSILON = (50.0, 5.0, 0.5)
# Of those that are put in for their large logits: the variance over epsilon, or 1 where that is more (float16
# holds no larger ones); and the mean over the root of the variance, which a LayerNorm takes off.
_VARIANCE, _SHORT_VARIANCE, _MEAN = 1 << 20, 1 << 10, 2.0
# How many vectors are needed at least, and of how many tokens a sentence is.
LOOKED, SENTENCE = _OWN + len(_NEAR_EPSILON) + 2, 5
# The largest difference of a logit that rounding explains, as a share of the largest logit of its position:
# 1e-5 for float32 (norms of float64 models may run in it), eight unit roundoffs for the short dtypes.
TOLERANCES = {"F64": 1e-5, "F32": 1e-5, "F16": 2.0**-8, "BF16": 2.0**-5}
# Half of the largest float16.
_LARGEST = {"F16": 2.0**15}
_BLOCK = 1 << 12


@dataclass(frozen=True)
class After:
    """What a model does to its logits after the readout: times `scale`, and a soft-cap by tanh at `cap`.

    words: the same, with the key of the configuration; empty where nothing is done. before_head: whether it
    is done to what the unembedding reads.
    """

    scale: float = 1.0
    cap: float | None = None
    words: str = ""
    before_head: bool = False


def after_readout(entry: Architecture, config: Any) -> After:
    """What follows the readout: the entry says which step, the model's own configuration how much."""
    match entry.after.split():
        case []:
            return After()
        case ["times", "d_model", *_]:
            if not getattr(config, "scale_decoder_outputs", False):  # mT5 never is
                return After()
            return After(config.d_model**-0.5, None, "times d_model ** -0.5", before_head=True)
        case ["times", key]:
            return After(float(getattr(config, key)), None, entry.after)
        case ["divided", "by", key]:
            return After(1.0 / float(getattr(config, key)), None, entry.after)
        case ["soft-cap", key]:
            cap = getattr(config, key)
            return After() if cap is None else After(1.0, float(cap), entry.after)
    raise ModelUnavailableError(f"what follows the readout is not known here: {entry.after}")


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

    def allowed(self, readout: Readout) -> Floats:
        """(n, 1): the difference that rounding explains; more where a large mean cancels in a LayerNorm."""
        if readout.norm != "layernorm":
            return np.full((len(self.residuals), 1), self.tolerance)
        deviation = np.sqrt(self.residuals.var(axis=1, keepdims=True) + float(readout.epsilon))
        mean = np.abs(self.residuals.mean(axis=1, keepdims=True))
        # Norms compute in float32 at least, whatever the dtype of the model.
        cancelled: Floats = TOLERANCES["F32"] * mean / deviation
        return np.maximum(self.tolerance, cancelled)


def logits_at(readout: Readout, residuals: Floats) -> Floats:
    """`w_j . (gain * N(r) + shift) + bias_j` in float64, (n, V), at the residuals r of shape (n, d).

    The weights are exact; rounding is below 1e-12 of the largest logit for any usual width.
    """
    rows = readout.vocabulary
    h = head_input_at(readout, residuals)
    logits = np.concatenate(
        [h @ as_float64(readout.unembedding, i, min(i + _BLOCK, rows)).T for i in range(0, rows, _BLOCK)],
        axis=1,
    )
    return logits if readout.bias is None else logits + as_float64(readout.bias, 0, rows)


def head_input_at(readout: Readout, residuals: Floats) -> Floats:
    """`gain * N(r) + shift` in float64, (n, d), at the residuals r of shape (n, d)."""
    h = _centred(readout, residuals)
    if readout.norm != "none":
        h = h / np.sqrt((h * h).mean(axis=1, keepdims=True) + float(readout.epsilon))
    gain, shift = _gain_and_shift(readout)
    return h * gain + shift


def probes(readout: Readout) -> Floats:
    """Vectors, (n, d), to put in where the readout begins: five, or two where there is no epsilon.

    Some logit is as large, or as small, at the first two as any output of the norm makes it, to a share of
    1e-6 (in float16: 1e-3, and within its range); after a LayerNorm they have a mean that is not 0. At the
    others epsilon counts.
    """
    epsilon, found = float(readout.epsilon), []
    for z, reach in _farthest(readout):
        dtype = readout.unembedding.dtype
        short = reach / _LARGEST.get(dtype, np.inf)
        variance = max(1.0, (_SHORT_VARIANCE if dtype in _LARGEST else _VARIANCE) * epsilon)
        if short > 1 and readout.norm == "none":
            variance = short**-2
        elif short > 1 and epsilon:  # N(r) is then as much shorter
            variance = min(variance, epsilon / (short**2 - 1))
        found.append(sqrt(variance) * (z + (_MEAN if readout.norm == "layernorm" else 0.0)))
    if epsilon:
        random = _centred(readout, np.random.default_rng(0).normal(size=(len(_NEAR_EPSILON), readout.d)))
        found += [
            x * sqrt(ratio * epsilon / float((x * x).mean()))
            for x, ratio in zip(random, _NEAR_EPSILON, strict=True)
        ]
    return np.array(found).reshape(-1, readout.d)


def _farthest(readout: Readout) -> list[tuple[Floats, float]]:
    """States z, (d,), with |z|^2 = d, at which some logit is the largest, and the smallest, of all such z.

    With each, how large the numbers are on the way from z to that logit, biases left out.
    """
    d, rows = readout.d, readout.vocabulary
    gain, shift = _gain_and_shift(readout)
    best: dict[int, tuple[float, Floats, float]] = {}
    for i in range(0, rows, _BLOCK):
        W = as_float64(readout.unembedding, i, min(i + _BLOCK, rows))
        b = W @ shift + (0.0 if readout.bias is None else as_float64(readout.bias, i, i + len(W)))
        a = _centred(readout, W * gain)
        # Divided first, so that squares of the largest numbers are numbers.
        sizes = np.maximum(np.abs(a).max(axis=1), np.finfo(np.float64).tiny)
        most = sqrt(d) * sizes * np.linalg.norm(a / sizes[:, None], axis=1)
        for sign in (1, -1):
            j = int((most + sign * b).argmax())
            value = float(most[j] + sign * b[j])
            if most[j] > 0 and (sign not in best or value > best[sign][0]):
                best[sign] = value, a[j] * (sign * d / most[j]), float(most[j])
    return [(z, max(reach, float(np.abs(gain * z).max()))) for _, z, reach in best.values()]


def _centred(readout: Readout, x: Floats) -> Floats:
    """Rows without their mean, where the norm takes it off."""
    return x - x.mean(axis=1, keepdims=True) if readout.norm == "layernorm" else x


def _gain_and_shift(readout: Readout) -> tuple[Floats, Floats]:
    d = readout.d
    gain = np.ones(d) if readout.gain is None else as_float64(readout.gain, 0, d) + readout.gain_offset
    return gain, np.zeros(d) if readout.shift is None else as_float64(readout.shift, 0, d)


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

    run: calls the model on at least LOOKED tokens, in sentences of one length, and hands out its logits,
    (B, n, V). The mode of every module is what it was before. Raises ModelUnavailableError if the model
    cannot be run so, `module` is not called once, or what it is fed is not finite or has no norm.
    """
    import torch

    hooks = torch.nn.modules.module
    if hooks._global_forward_pre_hooks or hooks._global_forward_hooks:
        raise ModelUnavailableError(
            "hooks are registered for every module (register_module_forward_hook and the like), which come "
            "before the one that looks: remove them first"
        )
    for tensor in readout.tensors.values():
        tensor.require_finite()
    modes = {each: each.training for each in model.modules()}
    try:
        with torch.no_grad(), captured(module, probes(readout)) as seen:
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
    residuals = _float64(seen[0])
    if not np.isfinite(residuals).all():
        raise ModelUnavailableError(
            "numbers that are not finite enter the final norm, so that the readout cannot be checked: do the "
            "weights hold any, or does the model overflow in its dtype?"
        )
    undefined = readout.norm != "none" and not readout.epsilon
    if undefined and not _centred(readout, residuals).any(axis=1).all():
        raise ModelUnavailableError(
            "zeros enter the final norm (or equal numbers, before a LayerNorm), which with epsilon 0 has no "
            "value there, so that the readout cannot be checked: are the weights those of a model?"
        )
    return Seen(residuals, _float64(logits), max(TOLERANCES[dtype] for dtype in dtypes))


@contextmanager
def captured(module: Any, put: Floats) -> Iterator[list[Any]]:
    """What enters a module, (n, d) a call, in its own dtype, the first of them replaced by the vectors `put`.

    It is caught before any hook of the user's.
    """
    import torch

    seen: list[Any] = []

    def hook(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0].detach().clone(memory_format=torch.contiguous_format)
        rows = x.view(-1, x.shape[-1])
        if rows.shape[1] == put.shape[1]:  # another width is told later
            rows[: len(put)] = torch.from_numpy(put[: len(rows)]).to(rows)
        seen.append(rows.clone())
        return (x, *args[1:])

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
    shares, allowed = seen.differences(readout, scale, cap), seen.allowed(readout)
    if (shares <= allowed).all():
        return
    position, token = (int(i) for i in np.unravel_index(int((shares / allowed).argmax()), shares.shape))
    theirs, after = float(seen.logits[position, token]), "" if scale == 1 and cap is None else ", scaled"
    ours = float(logits_at(readout, seen.residuals[[position]])[0, token])
    wrong = int((shares > allowed).any(axis=0).sum())
    raise ModelUnavailableError(
        f"the model's own logits are not those of its readout: {wrong} of {readout.vocabulary} tokens "
        f"differ, token {token} most ({theirs:.6g} from the model, {ours:.6g} from the readout{after}), by "
        f"{shares[position, token]:.2g} of the largest logit where rounding explains "
        f"{allowed[position, 0]:.2g}. Something acts on the final norm or the logits that tensors and "
        "configuration do not tell: a hook, a replaced forward, a changed epsilon, an adapter, or matrix "
        "products in lower precision. Undo it"
    )


def _float64(x: Any) -> Floats:
    """The numbers of a tensor as rows."""
    array: Floats = x.detach().reshape(-1, x.shape[-1]).to("cpu").double().numpy()
    return array

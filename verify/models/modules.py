"""STATEMENT. Where a readout sits in a model of `transformers`: the modules that are its norm and its head.

Wrong here = a vector put where another norm reads, and an answer of the model to another question. Modules
are found by the names of the readout's tensors, not by a table, and must hold the very values of these
tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError

if TYPE_CHECKING:
    from verify.kernel import Readout, Tensor

_OTHER_WEIGHTS = "the weights that were loaded are not those that the certificate is about"
# Names that loaders give to parameters of old checkpoints.
_RENAMED = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True)
class Modules:
    """norm, head: names of submodules; norm is None where none of its tensors says which one it is."""

    norm: str | None
    head: str


def find_modules(model: Any, readout: Readout) -> Modules:
    """The final norm and the unembedding of a torch module, by the names of the readout's tensors.

    The norm is the module whose parameter the gain is, the head the one that multiplies with the unembedding.
    Raises ModelUnavailableError if there is none or more than one, or if it holds other values than the
    readout's tensors (rounded to the parameter's dtype, where the model runs in another one).
    """
    head = _head(model, readout.unembedding)
    if readout.bias is not None:
        _owner(model, readout.bias, "logit bias")
    held = getattr(model.get_submodule(head), "bias", None)
    if held is not None and bool(held.any()) and not (readout.bias and same_values(held, readout.bias)):
        raise ModelUnavailableError(f"the module {head} adds a bias that is not the readout's")
    if readout.gain is None:
        return Modules(None, head)
    norm = _owner(model, readout.gain, "gain")
    _require_shift(norm, model.get_submodule(norm), readout.shift)
    return Modules(norm, head)


def same_values(parameter: Any, tensor: Tensor) -> bool:
    """Whether a torch parameter holds the tensor's values, rounded to the parameter's dtype."""
    import torch

    if tuple(parameter.shape) != tensor.shape and tuple(parameter.shape) != (1, *tensor.shape):
        return False
    kinds = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
    signed = {2: "<i2", 4: "<i4", 8: "<i8"}[tensor.raw.dtype.itemsize]
    stored = torch.from_numpy(tensor.raw.view(signed).copy()).view(kinds[tensor.dtype])
    held = parameter.detach().cpu()
    return bool(torch.equal(held.reshape(stored.shape), stored.to(held.dtype)))


def _head(model: Any, unembedding: Tensor) -> str:
    """The one module that multiplies with the unembedding; an embedding with the same values looks up."""
    import torch

    found: list[str] = [
        name
        for name, module in model.named_modules()
        if not isinstance(module, torch.nn.Embedding)
        and any(same_values(p, unembedding) for p in module.parameters(recurse=False))
    ]
    if len(found) != 1:
        some = f"several modules hold it: {', '.join(found)}" if found else "no module of it does"
        raise ModelUnavailableError(
            f"{type(model).__name__}: which module multiplies with {unembedding.name}? {some}; "
            f"{_OTHER_WEIGHTS}, or its class has another head"
        )
    return found[0]


def _owner(model: Any, tensor: Tensor, role: str) -> str:
    """The module that owns the parameter or buffer with the tensor's name and values."""
    stored = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    shared = {name: _shared_ending(name, tensor.name) for name in stored}
    most = max(shared.values(), default=0)
    named = [name for name in stored if shared[name] == most]
    found: list[str] = sorted(
        {name.rpartition(".")[0] for name in named if same_values(stored[name], tensor)}
    )
    if most < min(2, tensor.name.count(".") + 1) or not found:
        raise ModelUnavailableError(
            f"{type(model).__name__} has no parameter like the {role} {tensor.name} with its values; "
            + _OTHER_WEIGHTS
        )
    if len(found) > 1:
        raise ModelUnavailableError(
            f"{type(model).__name__}: the {role} {tensor.name} may belong to any of {', '.join(found)}"
        )
    return found[0]


def _shared_ending(a: str, b: str) -> int:
    """How many of the last parts of two dotted names agree."""
    count = 0
    for x, y in zip(reversed(a.split(".")), reversed(b.split(".")), strict=False):
        if _RENAMED.get(x, x) != _RENAMED.get(y, y):
            break
        count += 1
    return count


def _require_shift(name: str, norm: Any, shift: Tensor | None) -> None:
    held = getattr(norm, "bias", None)
    if shift is None and held is None:
        return
    if shift is None or held is None or not same_values(held, shift):
        raise ModelUnavailableError(
            f"the module {name} has another shift than the readout "
            f"({'none' if shift is None else shift.name}); {_OTHER_WEIGHTS}"
        )

"""STATEMENT. A model in memory: a snapshot of its readout, checked against what the model computes.

Wrong here = a true claim about other tensors, or another norm, than the model uses. The tensors of its state
dict stand in for a checkpoint and its configuration for config.json, so that the architecture table describes
it as it does a folder; what neither tells (hooks, a replaced forward) is found by running it: in_place.py.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError, UsageError
from verify.kernel.tensor import DTYPES
from verify.models.architectures import ARCHITECTURES, WEIGHTS, Architecture
from verify.models.checkpoints import Checkpoint, describe_torch, from_torch
from verify.models.config import Config, parse_json
from verify.models.in_place import LOOKED, SENTENCE, after_readout, logits_of, look, require_agreement
from verify.models.locate import entry_of, locate_readout
from verify.models.model import Model
from verify.models.tokens import Tokens
from verify.models.vocabularies import VocabularyFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verify.kernel.readout import Readout
    from verify.kernel.tensor import Tensor

_SNAPSHOT = (
    "a snapshot of a model in memory; on a few tokens the model's own logits were those of this readout, "
    "within rounding"
)
_UNTIED = "the model holds an unembedding of its own, whatever tie_word_embeddings says: that one counts"
# What is hashed as the configuration: the text that save_pretrained would write as config.json.
_CONFIG = "model.config"
_EPSILON_ATTRIBUTES = ("eps", "epsilon", "variance_epsilon")


def from_transformers(model: Any, tokenizer: Any = None, *, name: str | None = None) -> Model:
    """A snapshot of a model of `transformers` in memory (trained, merged or edited) as a `Model`.

    The readout's tensors are copied, so that later edits do not reach the result. tokenizer: a fast one, or
    None, and then tokens go by ids. name: what certificates call the model; its class if None.
    Raises ModelUnavailableError if the model is not understood, or its logits on a few tokens are not those
    of the readout, and UsageError for a tokenizer or a name that cannot be used.
    """
    model = unwrapped(model)
    require_plain(model)
    if not (hasattr(model, "config") and hasattr(model.config, "to_json_string")):
        raise ModelUnavailableError(
            f"a {type(model).__name__} is no model of transformers: it has no config. "
            "Of TransformerLens, use verify.from_hooked"
        )
    vocabulary, config, state = vocabulary_of(tokenizer), _config(model), model.state_dict()
    untied = _as_held(config, state)
    readout = locate_readout(snapshot(state), untied)
    if untied is not config:
        readout = replace(readout, notes=(*readout.notes, _UNTIED))
    entry = entry_of(untied)
    norm = _norm_module(model, readout, entry)
    require_epsilon(norm, readout)
    ids = _ids(model, min(readout.vocabulary, _input_rows(model, readout)))
    tokens = token_tensor(ids, model.device)
    seen = look(model, norm, readout, lambda: logits_of(model, tokens))
    after = after_readout(entry, model.config)
    require_agreement(readout, seen, after.scale, after.cap)
    return named(model, name, readout, vocabulary, {config.name: config.sha256})


def named(
    model: Any, name: str | None, readout: Readout, vocabulary: VocabularyFiles | None, files: dict[str, str]
) -> Model:
    """The model under `name`, or the name of its class. Raises UsageError for a name of several lines."""
    if name is None:
        name = f"{type(model).__name__} in memory"
    if type(name) is not str or not name or not name.isprintable():
        raise UsageError("the name of a model is one line of printable characters")
    if vocabulary is not None:
        files = files | vocabulary.files
    readout = replace(readout, notes=(*readout.notes, _SNAPSHOT))
    return Model(name, None, readout, Tokens(vocabulary, readout.vocabulary), files, ())


def unwrapped(model: Any) -> Any:
    """The model inside the wrapper of torch.compile, or the model itself; other wrappers are refused."""
    import torch

    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        raise ModelUnavailableError(f"a {type(model).__name__} wraps a model; pass the model: its .module")
    return model


# What is refused


def require_plain(model: Any) -> None:
    """Refuse what is no module, and modules whose parameters are not the numbers that they compute with."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ModelUnavailableError(
            f"a {type(model).__name__} is no model in memory; verify.load_model takes names and folders"
        )
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise ModelUnavailableError("the model was compiled in place; pass it as it was before .compile()")
    if any(type(each).__module__.partition(".")[0] == "peft" for each in model.modules()):
        raise ModelUnavailableError(
            "the model holds adapters of PEFT; merge them into the weights first: model.merge_and_unload()"
        )
    for name, _ in model.named_modules():
        if name.endswith("_orig_mod"):  # it is a part of the names of all tensors inside
            raise ModelUnavailableError(
                f"a part of the model was compiled; put its {name} back in its place, as it was before"
            )
    for name, value in model.named_parameters():
        if value.device.type == "meta":
            raise ModelUnavailableError(
                f"{name} is on the meta device, which holds no numbers; load the model into memory"
            )
        plain = type(value) in (torch.nn.Parameter, torch.Tensor) and value.layout is torch.strided
        if not plain or describe_torch(value)[0] not in DTYPES:
            raise ModelUnavailableError(
                f"{name} is a {type(value).__name__} of {value.dtype}: a quantised or distributed model "
                "computes with other numbers than it holds. Pass it dequantised and whole, in float16, "
                "bfloat16, float32 or float64"
            )


def require_epsilon(norm: Any, readout: Readout) -> None:
    """The epsilon that the norm's module holds is the configuration's, as a float."""
    for key in _EPSILON_ATTRIBUTES:
        value = getattr(norm, key, None)
        if value is None:
            continue
        try:  # numpy's and torch's scalars count like any number
            held = float(value)
        except (TypeError, ValueError):
            held = float("nan")
        if held != float(readout.epsilon):
            raise ModelUnavailableError(
                f"the final norm has {key} = {value!r}, but epsilon is {float(readout.epsilon)!r} "
                f"({readout.epsilon_source}); set both to the one that counts"
            )


# Tensors, configuration, tokenizer


def snapshot(state: Mapping[str, Any]) -> Checkpoint:
    """A state dict as a checkpoint; each tensor is copied when it is asked for."""
    listing = {name: describe_torch(value) for name, value in state.items() if hasattr(value, "dtype")}
    copies: dict[str, Tensor] = {}

    def fetch(name: str) -> Tensor:
        if name not in copies:
            copies[name] = from_torch(name, state[name].detach().to("cpu", copy=True))
        return copies[name]

    return Checkpoint((), listing, {}, "the state dict", fetch=fetch)


def _config(model: Any) -> Config:
    """The configuration as `save_pretrained` would write it, with the model's class."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    data = config.to_json_string().encode("utf-8")
    values = parse_json(data, _CONFIG)
    values.pop(WEIGHTS, None)  # which file the tensors came from matters no more
    return Config(values, hashlib.sha256(data).hexdigest(), _CONFIG)


def _as_held(config: Config, state: Mapping[str, Any]) -> Config:
    """The configuration; where it says that the matrices are tied and the model holds two, as if untied."""
    if config.get("tie_word_embeddings") is False:
        return config
    entries = ARCHITECTURES.get(config.get("model_type"), ())
    heads = {state[x].data_ptr() for entry in entries for x in entry.head if x in state}
    embeddings = {state[x].data_ptr() for entry in entries for x in entry.embedding if x in state}
    if not heads or not embeddings or heads & embeddings:
        return config
    values = config.values | {"tie_word_embeddings": False}
    for key in {entry.text for entry in entries} & values.keys():
        values[key] = values[key] | {"tie_word_embeddings": False}
    return replace(config, values=values)


def vocabulary_of(tokenizer: Any) -> VocabularyFiles | None:
    """A fast tokenizer as the tokenizer.json that it would write; None for None."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        raise UsageError(
            f"a {type(tokenizer).__name__} is no fast tokenizer; load it with "
            "AutoTokenizer.from_pretrained(..., use_fast=True), or pass None and name tokens by their ids"
        )
    data = backend.to_str().encode("utf-8")
    name = "tokenizer.json"
    found = VocabularyFiles(name, {name: hashlib.sha256(data).hexdigest()}, {name: data})
    found.parse()
    return found


# Running it


def _norm_module(model: Any, readout: Readout, entry: Architecture) -> Any:
    """The module that the readout begins with: the norm, or the head where there is none."""
    if readout.norm == "none":
        return model.get_output_embeddings()
    names = [x.rstrip(".") for x in entry.absent]
    if readout.gain is not None:
        names = [readout.gain.name.rpartition(".")[0]]
    modules = dict(model.named_modules())
    for name in names:
        if name in modules:
            return modules[name]
    raise ModelUnavailableError(f"the model has no module {' or '.join(names)}, its final norm")


def _input_rows(model: Any, readout: Readout) -> int:
    """How many token ids the model takes."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    return readout.vocabulary if weight is None else int(weight.shape[0])


def _ids(model: Any, rows: int) -> list[int]:
    """A few token ids, none of them one that the configuration gives a special role."""
    table = model.config.to_dict()
    tables = [table, *(x for x in table.values() if isinstance(x, dict))]
    special = {x[key] for x in tables for key in x if str(key).endswith(("_token_id", "_token_index"))}
    return spread(rows, SENTENCE, {x for x in special if isinstance(x, int)})


def spread(rows: int, count: int, without: set[int]) -> list[int]:
    """`count` ids of 0..rows-1, far from each other; where there are too few they come again."""
    step = max(1, rows // (2 * count))
    ids = [x for x in range(step // 2, rows, step) if x not in without] or [0]
    ids = ids[:: max(1, len(ids) // count)]
    return [ids[i % len(ids)] for i in range(count)]


def token_tensor(ids: list[int], device: Any) -> Any:
    """The ids as sentences, (B, n), as often as makes LOOKED tokens, for a model of PyTorch."""
    import torch

    return torch.tensor([ids] * -(-LOOKED // len(ids)), dtype=torch.long, device=device)

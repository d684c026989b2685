"""STATEMENT. A model's own code: loaded by `transformers` from its folder, with a vector put in near its end.

Wrong here = logits that are not what the model makes of that vector. So each vector is put in twice, with two
different inputs, and all logits must agree: then nothing but the vector decided them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from verify.errors import ModelUnavailableError
from verify.extras import install
from verify.models.architectures import ARCHITECTURES
from verify.models.config import read_config
from verify.models.in_place import After, after_readout, logits_of
from verify.models.locate import entry_of
from verify.models.model import whole_folder
from verify.models.modules import Modules, find_modules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from verify.models.model import Model

DTYPES = ("auto", "float32", "float16", "bfloat16", "float64")
_SHOWN = 3
# Two inputs of two tokens each.
_INPUTS = ((0, 1), (1, 0))


@dataclass(frozen=True)
class Passage:
    """What became of a vector: all values exact, as floats.

    put_in: the vector (d,) in put_dtype, the dtype of what stood there, whose smallest normal and largest
    number are `reach`. head_input: what the unembedding was multiplied with, (d,). logits: (V,).
    """

    put_in: list[float]
    put_dtype: str
    reach: tuple[float, float]
    head_input: list[float]
    logits: list[float]


class TransformersModel:
    """A model with its own norm and head, run by `transformers`.

    name: of its class. modules: where the readout sits in it. dtype: of the unembedding as it runs;
    epsilon: the distance from 1 to the next number of it.
    after: what it does to its logits after the readout, None where the table of architectures does not tell.
    random: names of parameters that the checkpoint lacks and that hold random numbers.
    """

    def __init__(self, model: Model, dtype: str = "auto", *, partial: bool = False) -> None:
        """Load `model` by `transformers` from the folder or snapshot that it came from.

        dtype: one of DTYPES, auto for the checkpoint's. partial: a checkpoint may lack tensors (those of the
        readout must be there). Raises ModelUnavailableError where the model has no code or its weights are
        not all there, where torch or transformers is missing, and where the readout is not found in it.
        """
        _require_packages()
        import torch

        folder = whole_folder(model)
        with _quiet():
            self._model, self.random = _load(folder, dtype)
        if self.random and not partial:
            shown = ", ".join([*self.random[:_SHOWN], *(["..."] if self.random[_SHOWN:] else [])])
            raise ModelUnavailableError(
                f"{model.name}: the checkpoint lacks {len(self.random)} of the model's tensors ({shown}), "
                "so this is not the whole model. Pass a folder or hub name with all of them as "
                "--model; or run its norm and head alone with --partial: what comes before them does not "
                "count, since the witness takes the place of what it computes"
            )
        self.name = type(self._model).__name__
        found = find_modules(self._model, model.readout)
        if model.readout.norm != "none" and found.norm is None:
            found = Modules(self._last_norm(found.head), found.head)
        self.modules = found
        matrix = next(self._model.get_submodule(found.head).parameters(recurse=False))
        self.dtype = _name(matrix.dtype)
        self.epsilon = float(torch.finfo(matrix.dtype).eps)
        self.after = _after(folder, self._model.config)

    def put(self, vector: Sequence[float], module: str) -> Passage:
        """Run the model with `vector`, (d,), in place of what enters a module, at every position.

        Raises ModelUnavailableError if the module does not run exactly once, or anything but the vector has a
        say in the logits.
        """
        first, second = (self._run(ids, vector, module) for ids in _INPUTS)
        if not (_same(first.head_input, second.head_input) and _same(first.logits, second.logits)):
            raise ModelUnavailableError(
                f"{self.name}: the logits depend on more than what enters {module}, so this is not where the "
                "readout begins; the readout that the certificate is about is not the model's last step"
            )
        return first

    def _run(self, ids: Sequence[int], vector: Sequence[float], module: str) -> Passage:
        import torch

        wanted = torch.tensor(vector, dtype=torch.float64)
        put_in: list[Any] = []
        at_head: list[Any] = []

        def replace(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not args or not torch.is_tensor(args[0]) or args[0].shape[-1:] != wanted.shape:
                raise ModelUnavailableError(f"{self.name}: {module} is not fed one vector a position")
            x = args[0]
            put_in.append(wanted.to(x.dtype))
            return (put_in[-1].to(x.device).expand(x.shape).clone(), *args[1:]), kwargs

        def keep(_: Any, args: tuple[Any, ...]) -> None:
            at_head.append(args[0].detach())

        hooks = [
            self._model.get_submodule(module).register_forward_pre_hook(replace, with_kwargs=True),
            self._model.get_submodule(self.modules.head).register_forward_pre_hook(keep),
        ]
        try:
            logits = self._logits(ids)
        finally:
            for hook in hooks:
                hook.remove()
        if len(put_in) != 1 or len(at_head) != 1:
            raise ModelUnavailableError(
                f"{self.name}: {module} ran {len(put_in)} times and {self.modules.head} {len(at_head)} times "
                "on one input; each should run once"
            )
        put, read, out = (
            x.reshape(-1, x.shape[-1])[-1].double().tolist() for x in (*put_in, *at_head, logits)
        )
        numbers = torch.finfo(put_in[0].dtype)
        return Passage(
            put, _name(put_in[0].dtype), (float(numbers.smallest_normal), float(numbers.max)), read, out
        )

    def _logits(self, ids: Sequence[int]) -> Any:
        """Logits of the model's forward pass, (1, 2, V) in its own dtype."""
        import torch

        try:
            with torch.no_grad():
                logits = logits_of(self._model, torch.tensor([ids]))
        except ModelUnavailableError:
            raise
        except Exception as error:  # model code may raise anything
            raise ModelUnavailableError(
                f"{self.name} cannot be run on two tokens of text: {_first_line(error)}"
            ) from error
        if logits is None:
            raise ModelUnavailableError(f"{self.name} returns no logits")
        return logits

    def _last_norm(self, head: str) -> str:
        """Of a norm without parameters: the last module called a norm that runs before the head."""
        ran: list[str] = []
        hooks = [
            module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
            for name, module in self._model.named_modules()
            if name == head or "norm" in type(module).__name__.lower()
        ]
        try:
            self._logits(_INPUTS[0])
        finally:
            for hook in hooks:
                hook.remove()
        before = ran[: ran.index(head)] if head in ran else []
        if not before:
            raise ModelUnavailableError(f"{self.name}: no norm runs before {head}")
        return before[-1]


def _require_packages() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelUnavailableError(f"the model's own code needs {error.name}: {install('torch')}") from error


def _load(folder: Path, dtype: str) -> tuple[Any, list[str]]:
    """The model in evaluation mode, and the names of its parameters that the checkpoint lacks."""
    import torch

    of = _class_of(folder)
    try:
        model, told = of.from_pretrained(
            folder,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises nearly anything
        raise ModelUnavailableError(
            f"transformers cannot load {folder.name} as {of.__name__}: {_first_line(error)}"
        ) from error
    return model.eval(), sorted(told["missing_keys"])


def _class_of(folder: Path) -> Any:
    """The class of `transformers`: one that config.json names, else one that its model_type is known by."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    config = read_config(folder)
    if config is None:
        raise ModelUnavailableError(f"{folder} has no config.json: transformers cannot tell its class")
    headless = {str(name) for name in MODEL_MAPPING_NAMES.values() if "For" not in str(name)}
    entries = ARCHITECTURES.get(str(config.get("model_type")), ())
    named = config.get("architectures")
    names = [str(name) for name in named] if isinstance(named, list) else []
    names += [name for entry in entries for name in entry.classes]
    for name in names:
        found = getattr(transformers, name, None) if name not in headless else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    raise ModelUnavailableError(
        f"transformers {transformers.__version__} has no class with a head for {folder.name} "
        f"(architectures {names}); own code is never run"
    )


def _after(folder: Path, own: Any) -> After | None:
    """What the model does after the readout, where the architecture is one of the table."""
    config = read_config(folder)
    if config is None or config.get("model_type") not in ARCHITECTURES:
        return None
    try:
        return after_readout(entry_of(config), own)
    except ModelUnavailableError:  # a readout described by hand
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports and bars of `transformers` while a model is loaded: errors say what matters."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _same(a: list[float], b: list[float]) -> bool:
    """Whether all numbers agree; a NaN, which an overflow leaves, agrees with a NaN."""
    return np.array_equal(a, b, equal_nan=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

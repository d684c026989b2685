"""STATEMENT. Models in one GGUF file: which tensors, which norm, which epsilon, which tokens.

Wrong here = a true claim about the wrong tensors. The file is read through the `gguf` library, after a walk
over its header that lets nothing reach beyond the file's end. What is not known to leave the argmax alone is
refused. Quantised tensors become the exact numbers they stand for: quantised.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from verify.errors import ModelUnavailableError
from verify.extras import install
from verify.kernel.readout import Readout
from verify.kernel.tensor import Tensor
from verify.models.gguf_header import FLOAT32, STRING, Header, read_header
from verify.models.quantised import dequantised
from verify.models.single_file import SingleFile, file_sha256
from verify.models.vocabularies import GGUF_TOKENIZER, VocabularyFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIX = ".gguf"
_EMBEDDING, _HEAD, _HEAD_BIAS = "token_embd.weight", "output.weight", "output.bias"
_GAIN, _SHIFT = "output_norm.weight", "output_norm.bias"
# How the names of all other tensors begin that converters write for these architectures.
_ELSEWHERE = ("blk.", "token_embd_norm.", "position_embd.", "rope_freqs.", "rope_factors_")
_UNSIGNED = (0, 2, 4, 10)
_SIGNED = 5  # INT32, of token types
# Numbers of the types that are read, in the file.
TYPES = {0: "F32", 1: "F16", 28: "F64", 30: "BF16"} | {
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    20: "IQ4_NL",
    23: "IQ4_XS",
}
_TOKENIZERS = ("gpt2", "llama")
_TIED = "the file has no output.weight, so the embedding is the unembedding, as its runtimes take it"
_RUNTIME = (
    "{name} is stored as {kind}; the claim is about the exact numbers that its blocks stand for. A runtime "
    "may round its other operand too"
)


@dataclass(frozen=True)
class _Architecture:
    """The last step of one `general.architecture`, as llama.cpp builds it.

    head: "either" (output.weight, or the embedding where it is absent), "tied" (always the embedding) or
    "untied". bias: whether output.bias is added. LayerNorm has gain and shift, RMSNorm the gain alone; the
    converter has already added 1 to the gains of Gemma.
    """

    norm: str
    head: str = "either"
    bias: bool = False


_RMS, _LAYER = _Architecture("rmsnorm"), _Architecture("layernorm")
ARCHITECTURES: dict[str, _Architecture] = {
    "bloom": _LAYER,
    "falcon": _LAYER,
    "gemma": _Architecture("rmsnorm", "tied"),
    "gemma2": _Architecture("rmsnorm", "tied"),
    "gemma3": _RMS,
    "gpt2": _LAYER,
    "gptneox": _Architecture("layernorm", "untied"),
    "granite": _RMS,
    "llama": _RMS,
    "olmo2": _RMS,
    "phi2": _Architecture("layernorm", "untied", bias=True),
    "phi3": _RMS,
    "qwen2": _RMS,
    "qwen2moe": _RMS,
    "qwen3": _RMS,
    "qwen3moe": _RMS,
    "smollm3": _RMS,
    "stablelm": _Architecture("layernorm", "untied"),
    "starcoder": _LAYER,
    "starcoder2": _LAYER,
}
_EPSILON = {"rmsnorm": "attention.layer_norm_rms_epsilon", "layernorm": "attention.layer_norm_epsilon"}
# Positive, these change no argmax; others with "logit" in their name act inside the model, or are refused.
_POSITIVE = ("logit_scale", "final_logit_softcapping")
_INSIDE = ("attn_logit_softcapping", "router_logit_softcapping")


def load_gguf(path: Path) -> SingleFile:
    """The model in a GGUF file.

    Raises ModelUnavailableError if the file is truncated or malformed, the architecture is not in the table,
    metadata or tensors say what the table does not model, or a tensor is stored in a way not dequantised.
    """
    header = check_gguf(path)
    file, names = _File(path), header.tensors
    name = header.strings["general.architecture"]
    architecture = ARCHITECTURES[name]
    has_head = _HEAD in names
    unembedding, kind = file.tensor(_HEAD if has_head else _EMBEDDING)
    notes = [] if kind is None else [_RUNTIME.format(name=unembedding.name, kind=kind)]
    if not has_head and architecture.head == "either":
        notes.append(_TIED)
    norm = architecture.norm
    key = f"{name}.{_EPSILON[norm]}"
    readout = Readout(
        norm=norm,
        unembedding=unembedding,
        gain=file.tensor(_GAIN)[0],
        shift=file.tensor(_SHIFT)[0] if norm == "layernorm" else None,
        bias=file.tensor(_HEAD_BIAS)[0] if architecture.bias else None,
        epsilon=file.epsilon(key),
        epsilon_source=f"GGUF metadata: {key}, a float32",
        notes=(*notes, *file.scale_notes(name, has_bias=architecture.bias), *file.tokenizer_notes()),
    )
    file.require_size(f"{name}.embedding_length", readout.d)
    file.require_size(f"{name}.vocab_size", readout.vocabulary)
    vocabulary = file.vocabulary(readout.vocabulary)
    # Not resolved: in a cache the name is a link to a file named by its hash.
    return SingleFile(path.name, None, readout, vocabulary, {path.name: file_sha256(path)})


def check_gguf(path: Path) -> Header:
    """Read the header alone.

    Raises ModelUnavailableError if it is malformed, or the architecture's last step is not known.
    """
    header = read_header(path)
    strings, numbers = header.strings, header.numbers
    if strings.get("general.type", "model") != "model":
        raise ModelUnavailableError(f"{path.name} is no model but of type {strings['general.type']!a}")
    odd = {"general.type", "general.architecture"} & (numbers.keys() | header.others)
    odd |= {"split.count"} & (strings.keys() | header.others)
    if odd:
        raise ModelUnavailableError(
            f"{path.name} stores {', '.join(sorted(odd))} as another type than it should be; convert it again"
        )
    if numbers.get("split.count", 1) > 1:
        raise ModelUnavailableError(
            f"{path.name} is one of {numbers['split.count']} parts; merge them (llama-gguf-split --merge)"
        )
    name = strings.get("general.architecture")
    if name not in ARCHITECTURES:
        found = f"the architecture {name!a}" if name else "no general.architecture"
        raise ModelUnavailableError(
            f"{path.name} has {found}, whose last step is not known here; known are "
            f"{', '.join(ARCHITECTURES)}. Pass the original checkpoint instead"
        )
    _check_tensors(path.name, ARCHITECTURES[name], header.tensors)
    return header


def check_readable(path: Path) -> str:
    """The architecture of a file that `load_gguf` would read as far as its header says; errors as there."""
    header = check_gguf(path)
    if find_spec("gguf") is None:
        raise ModelUnavailableError(f"{path.name} needs the gguf library: {install('gguf')}")
    used = {_HEAD if _HEAD in header.tensors else _EMBEDDING, _GAIN, _SHIFT, _HEAD_BIAS}
    for name in sorted(used & header.tensors.keys()):
        if header.tensors[name] not in TYPES:
            raise ModelUnavailableError(
                f"tensor {name!r} is stored as type {header.tensors[name]}, which is not dequantised here"
            )
    return header.strings["general.architecture"]


def _check_tensors(file: str, architecture: _Architecture, names: Mapping[str, object]) -> None:
    """All that the last step needs is there, and nothing else that could belong to it.

    A damaged name is no name of any tensor: an absent output.weight must not be one.
    """
    needed = {_GAIN, *([_SHIFT] if architecture.norm == "layernorm" else [])}
    needed |= {_HEAD_BIAS} if architecture.bias else set()
    needed |= {_HEAD} if architecture.head == "untied" else set()
    if architecture.head == "tied" or _HEAD not in names:
        needed.add(_EMBEDDING)
    allowed = needed | {_EMBEDDING} | ({_HEAD} if architecture.head != "tied" else set())
    missing = sorted(needed - names.keys())
    if missing:
        raise ModelUnavailableError(f"{file} lacks {', '.join(missing)}: it is incomplete, or another head")
    strangers = sorted(x for x in names if not x.startswith(_ELSEWHERE) and x not in allowed)
    if strangers:
        raise ModelUnavailableError(
            f"{file} holds {', '.join(map(ascii, strangers[:6]))}, which models of this architecture do not "
            "have (a bias, a scale, an adapter, a damaged name?); pass the original checkpoint instead"
        )


class _File:
    """A GGUF file through the library, whose header has passed `read_header`."""

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise ModelUnavailableError(f"{path.name} needs the gguf library: {install('gguf')}") from error

        class Reader(GGUFReader):
            """On a plain array: a hundred thousand slices of a memory map cost thrice as much."""

            def __setattr__(self, name: str, value: Any) -> None:
                super().__setattr__(name, np.asarray(value) if name == "data" else value)

        self.name = path.name
        try:
            reader = Reader(path)
            self._fields: dict[str, Any] = dict(reader.fields)
            self._tensors: dict[str, Any] = {tensor.name: tensor for tensor in reader.tensors}
            self._check_places(int(reader.data_offset), int(reader.alignment), path.stat().st_size)
        except ModelUnavailableError:
            raise
        except Exception as error:  # the library raises nearly anything on bad bytes
            raise ModelUnavailableError(
                f"{path.name} is not a readable GGUF file: {type(error).__name__}: {str(error)[:160]}"
            ) from error

    def _check_places(self, begin: int, alignment: int, size: int) -> None:
        """Tensors lie one after the other, as the header lists them, and fill the file.

        So a changed type or size, which would give other numbers, is found by the places of what follows.
        """
        end = padded = begin
        for tensor in self._tensors.values():
            if int(tensor.data_offset) != padded:
                raise self._error(f"tensor {tensor.name!a} does not lie right after the one before it")
            end = padded + int(tensor.n_bytes)
            padded = end + -end % alignment
            if end > size:
                raise self._error(f"it is truncated within tensor {tensor.name!a}; download it again")
        if size not in (end, padded):
            raise self._error(f"its tensors end at byte {end}, the file at {size}; download it again")

    def _error(self, what: str) -> ModelUnavailableError:
        return ModelUnavailableError(f"{self.name} is not a readable GGUF file: {what}")

    def tensor(self, name: str) -> tuple[Tensor, str | None]:
        """The tensor, bits untouched where it is stored as floats, and how it was quantised (None: not)."""
        stored = self._tensors[name]
        shape = tuple(int(n) for n in reversed(stored.shape))
        kind, data = str(stored.tensor_type.name), np.asarray(stored.data)
        if not shape or math.prod(shape) == 0:
            raise self._error(f"tensor {name!a} of shape {list(shape)} holds no values")
        if kind in ("F16", "BF16", "F32", "F64"):
            width = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[kind]
            if data.nbytes != math.prod(shape) * width:
                raise self._error(f"tensor {name!a} does not fill its shape {list(shape)}")
            bits: NDArray[np.unsignedinteger] = data.reshape(-1).view(f"<u{width}").reshape(shape)
            return Tensor(name, kind, bits), None
        rows = data.view(np.uint8).reshape(math.prod(shape[:-1]), -1)
        matrix = dequantised(name, kind, rows, shape[-1])
        return Tensor(name, matrix.dtype, matrix.raw.reshape(shape)), kind

    def _value(self, key: str, *kinds: int) -> Any:
        """A scalar or string of one of these types of the format; None if there is none."""
        if key not in self._fields:
            return None
        types = [int(kind) for kind in self._fields[key].types]
        if len(types) != 1 or types[0] not in kinds:
            raise self._error(f"{key} is stored as another type than it should be")
        return self._fields[key].contents()

    def _list(self, key: str, kind: int) -> list[Any] | None:
        """An array whose items are of this type; None if there is none."""
        if key not in self._fields:
            return None
        if [int(x) for x in self._fields[key].types] != [9, kind]:
            raise self._error(f"{key} is empty, or not an array of what it should hold")
        try:
            return list(self._fields[key].contents())
        except UnicodeDecodeError as error:
            raise self._error(f"{key} holds text that is not UTF-8") from error

    def epsilon(self, key: str) -> Fraction:
        """The float32 that is stored, exactly."""
        value = self._value(key, FLOAT32)
        if value is None or not math.isfinite(value) or value < 0:
            found = "absent" if value is None else value
            raise self._error(f"{key} is {found}; a number that is not negative is needed")
        return Fraction(value)

    def require_size(self, key: str, found: int) -> None:
        """What the metadata announces, if anything, is what the tensors have."""
        value = self._value(key, *_UNSIGNED)
        if value is not None and value != found:
            raise self._error(f"{key} is {value}, but {found} is the size in its tensors")

    def scale_notes(self, name: str, *, has_bias: bool) -> list[str]:
        """Notes on positive scales and soft-caps of the logits; anything else about logits is refused."""
        notes = []
        for key in (key for key in self._fields if "logit" in key.removeprefix(name)):
            what = key.removeprefix(f"{name}.")
            if what in _INSIDE:
                continue
            if what not in _POSITIVE:
                raise self._error(f"{key!a} acts on the logits in a way that is not modelled")
            value = self._value(key, FLOAT32)
            if not (math.isfinite(value) and value > 0):
                raise self._error(f"{key} is {value}, not positive, so it would change every argmax")
            if has_bias and value != 1:
                raise self._error(f"{key} together with a logit bias is not modelled")
            notes.append(
                f"{what} is positive, so it changes no argmax and is left out: margins are before it"
            )
        return notes

    def tokenizer_notes(self) -> list[str]:
        """Why tokens have no texts, if so."""
        model = self._value("tokenizer.ggml.model", STRING)
        if model in _TOKENIZERS:
            return []
        return [f"the tokenizer {model!a} of the file is not understood: tokens go by their ids"]

    def vocabulary(self, rows: int) -> VocabularyFiles | None:
        """The tokenizer in the file; its list has one entry a row of the unembedding."""
        pieces = self._list("tokenizer.ggml.tokens", STRING)
        if pieces is not None and len(pieces) != rows:
            raise self._error(f"its tokenizer has {len(pieces)} tokens, its unembedding {rows} rows")
        model = self._value("tokenizer.ggml.model", STRING)
        if pieces is None or model not in _TOKENIZERS:
            return None
        types = self._list("tokenizer.ggml.token_type", _SIGNED)
        if types is not None and len(types) != rows:
            raise self._error(f"its tokenizer has {rows} tokens and {len(types)} token types")
        table = {"model": model, "tokens": pieces, "types": types}
        text = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
        return VocabularyFiles(GGUF_TOKENIZER, {}, {GGUF_TOKENIZER: text.encode("utf-8")})

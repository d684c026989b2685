"""The tiny models of the corpus, byte by byte: floats by integer arithmetic, safetensors, hostile files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction

# dtype -> (exponent bits, mantissa bits)
FORMATS = {"F16": (5, 10), "BF16": (8, 7), "F32": (8, 23), "F64": (11, 52)}
_SPECIAL = {"nan": (0, 1), "inf": (0, 0), "-inf": (1, 0)}


def encode(text: str, dtype: str) -> bytes:
    """The little-endian bytes of an exact value such as "-3/4"; ValueError if the dtype has no such value."""
    exponent_bits, mantissa_bits = FORMATS[dtype]
    top = (1 << exponent_bits) - 1
    if text in _SPECIAL:
        negative, bits = bool(_SPECIAL[text][0]), (top << mantissa_bits) + _SPECIAL[text][1]
    else:
        value, negative = Fraction(text), text.startswith("-")
        units = abs(value) * (1 << ((1 << (exponent_bits - 1)) + mantissa_bits - 2))
        shift = max(units.numerator.bit_length() - mantissa_bits - 1, 0)
        bits = (shift << mantissa_bits) + (units.numerator >> shift)
        if units.denominator != 1 or units.numerator % (1 << shift) or bits >> mantissa_bits >= top:
            raise ValueError(f"{text} is no {dtype}")
    size = 1 + exponent_bits + mantissa_bits
    return ((negative << (size - 1)) + bits).to_bytes(size // 8, "little")


def decode(data: bytes, dtype: str) -> Fraction | None:
    """The exact value of one entry, None for NaN and infinities."""
    exponent_bits, mantissa_bits = FORMATS[dtype]
    word = int.from_bytes(data, "little")
    exponent = (word >> mantissa_bits) & ((1 << exponent_bits) - 1)
    significand = word & ((1 << mantissa_bits) - 1)
    if exponent == (1 << exponent_bits) - 1:
        return None
    power = max(exponent, 1) + 2 - (1 << (exponent_bits - 1)) - mantissa_bits - 1
    size = Fraction(significand + ((1 << mantissa_bits) if exponent else 0)) * Fraction(2) ** power
    return -size if word >> (exponent_bits + mantissa_bits) else size


@dataclass(frozen=True)
class Stored:
    """One tensor as it lies in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def row_bytes(self) -> int:
        return len(self.data) // self.shape[0]

    def row(self, j: int) -> bytes:
        return self.data[j * self.row_bytes : (j + 1) * self.row_bytes]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def text(self) -> bytes:
        """What the Merkle root says about dtype and shape."""
        return " ".join([self.dtype, *map(str, self.shape)]).encode() + b"\n"

    def tree(self, lo: int, hi: int) -> bytes:
        if hi - lo == 1:
            return hashlib.sha256(b"\0" + self.row(lo)).digest()
        s = 1
        while 2 * s < hi - lo:
            s *= 2
        return hashlib.sha256(b"\1" + self.tree(lo, lo + s) + self.tree(lo + s, hi)).digest()

    @property
    def merkle(self) -> str:
        return hashlib.sha256(b"\2" + self.text + self.tree(0, self.shape[0])).hexdigest()


def tensor(name: str, dtype: str, rows: str) -> Stored:
    """Rows are separated by `;`, entries by spaces; without `;` it is a vector."""
    table = [row.split() for row in rows.split(";")]
    shape = (len(table), len(table[0])) if len(table) > 1 else (len(table[0]),)
    if any(len(row) != len(table[0]) for row in table):
        raise ValueError(f"{name} is ragged")
    return Stored(name, dtype, shape, b"".join(encode(x, dtype) for row in table for x in row))


@dataclass(frozen=True)
class Model:
    """A folder: tensors by role, what config.json makes of them, and the tokenizer's pieces if any."""

    name: str
    tensors: dict[str, Stored]
    norm: str = ""
    epsilon: str = ""  # as a certificate spells it
    source: str = ""
    config: bytes | None = None
    pieces: tuple[str, ...] | None = None
    weights: bytes = b""


# model_type -> class, norm, width key, epsilon key, names of the roles
_LLAMA = {"unembedding": "lm_head.weight", "gain": "model.norm.weight"}
_GPT2 = {
    "unembedding": "transformer.wte.weight",
    "gain": "transformer.ln_f.weight",
    "shift": "transformer.ln_f.bias",
}
_BERT = {
    "unembedding": "bert.embeddings.word_embeddings.weight",
    "gain": "cls.predictions.transform.LayerNorm.weight",
    "shift": "cls.predictions.transform.LayerNorm.bias",
    "bias": "cls.predictions.bias",
}
_ALBERT = {
    "unembedding": "albert.embeddings.word_embeddings.weight",
    "gain": "predictions.LayerNorm.weight",
    "shift": "predictions.LayerNorm.bias",
    "bias": "predictions.bias",
}
_WHISPER = {
    "unembedding": "model.decoder.embed_tokens.weight",
    "gain": "model.decoder.layer_norm.weight",
    "shift": "model.decoder.layer_norm.bias",
}
_KINDS = {
    "llama": ("LlamaForCausalLM", "rmsnorm", "hidden_size", "rms_norm_eps", _LLAMA),
    "mistral": ("MistralForCausalLM", "rmsnorm", "hidden_size", "rms_norm_eps", _LLAMA),
    "qwen2": ("Qwen2ForCausalLM", "rmsnorm", "hidden_size", "rms_norm_eps", _LLAMA),
    "gpt2": ("GPT2LMHeadModel", "layernorm", "n_embd", "layer_norm_epsilon", _GPT2),
    "bert": ("BertForMaskedLM", "layernorm", "hidden_size", "layer_norm_eps", _BERT),
    "albert": ("AlbertForMaskedLM", "layernorm", "embedding_size", "layer_norm_eps", _ALBERT),
    "whisper": ("WhisperForConditionalGeneration", "layernorm", "d_model", "", _WHISPER),
}
_TIED = ("gpt2", "bert", "albert", "whisper")
# What config.json writes -> what a certificate writes.
_EPSILON = {"1e-05": "0.00001", "1e-06": "0.000001", "1e-12": "0.000000000001", "0.0": "0", "0": "0"}


def model(
    name: str, kind: str, dtype: str, epsilon: str, pieces: tuple[str, ...] | None = None, **roles: str
) -> Model:
    """A model that the architecture table knows; `roles` are the rows of each tensor."""
    label, norm, width, key, names = _KINDS[kind]
    tensors = {role: tensor(names[role], dtype, rows) for role, rows in roles.items()}
    V, d = tensors["unembedding"].shape
    values = {"architectures": json.dumps([label]), "model_type": json.dumps(kind), "vocab_size": str(V)}
    values |= {width: str(d), "tie_word_embeddings": "true" if kind in _TIED else "false"}
    if key:
        values[key] = epsilon
    lines = ",\n".join(f' "{k}": {v}' for k, v in sorted(values.items()))
    source = f"config.json: {key} {epsilon}" if key else "the architecture's default"
    return Model(
        name,
        tensors,
        norm,
        _EPSILON[epsilon],
        source,
        f"{{\n{lines}\n}}\n".encode(),
        pieces,
        safetensors(tensors),
    )


def safetensors(tensors: dict[str, Stored]) -> bytes:
    """The file of these tensors, one after the other."""
    entries, data = {}, b""
    for stored in tensors.values():
        offsets = [len(data), len(data) + len(stored.data)]
        entries[stored.name] = {"dtype": stored.dtype, "shape": list(stored.shape), "data_offsets": offsets}
        data += stored.data
    return file_of(json.dumps(entries, separators=(",", ":")), data)


def file_of(header: str, data: bytes) -> bytes:
    padded = header.encode() + b" " * (-len(header.encode()) % 8)
    return len(padded).to_bytes(8, "little") + padded + data


def _hand() -> Model:
    tensors = {
        "unembedding": tensor("unembedding", "F16", "1 7; 2 2; 2 -2; -2 2; -2 -2; 0 0"),
        "gain": tensor("gain", "BF16", "1 -1/2"),
        "shift": tensor("shift", "F32", "1/4 -1/4"),
        "bias": tensor("bias", "F64", "10 1/2 -2 1 3/2 0"),
        "flat": tensor("flat", "F32", "1 1 0; -1 0 1; 0 -1 -1; 5 4 4; 0 0 0; 1 1 1"),
        "thin": tensor("thin", "F16", "1; 2"),
    }
    return Model("hand", tensors, weights=safetensors(tensors))


_SQUARE = "2 2; 2 -2; -2 2; -2 -2; 0 0; 2 0; 1/2 1/2"
_PIECES = ("the", "\u00e9t\u00e9", "line\nbreak", "\U0001f600", '"\\/', "\x7f")

_TILTED = "1 1/2 -1 -1/2; 2 0 -2 0; -2 1 0 1; 0 -1 2 -1; 0 2 0 -2; 0 -2 0 2; 1/2 0 1/2 0; 0 0 0 0"
_BIASED = "1 0; 0 1; 0 0; 1/2 1/2; -1 -2; -1 1"
_BIAS = "-1 7/4 -1 3/8 -513/1024 1"
_HEARD = "1 0; 0 1; 1/2 1/2; 3 3"
_PADDED = "1 0; -1 1; -1 -1; 0 0; 0 3; -1/2 0; 2 0; 0 0"
_ROUND = "1 7; 7 -1; -7 1; -1 -7; 0 0; 4 3"
_DOZEN = (
    "1 0 0; 0 2 0; 0 0 2; 3 1 -1; -2 4 1; 0 0 0; 1/2 3 -1/2; -4 -1 0; 1 -6 2; 2 2 -7; 5 0 -3; 1/4 1/2 1/2"
)
_BIASES = "0 0 0 1/2 -1/2 -3 1 2 0 1 -1 -5"
# Every determinant of two rows is 2^63 - 25 or its negative.
_PRIME = "-4294967296 -5; -5 -2147483648; 4294967301 2147483653; 0 0"
_NAN, _INFINITE = _SQUARE.replace(" 2 0;", " 2 nan;"), _SQUARE.replace(" 2 0;", " -inf 0;")

# name, model_type, dtype, epsilon, then the rows of each role
_ALL = (
    model("square", "llama", "F32", "1e-05", unembedding=_SQUARE, gain="1 2"),
    model("tilted", "gpt2", "BF16", "1e-05", unembedding=_TILTED, gain="1 2 1 2", shift="2 0 -2 0"),
    model("biased", "albert", "F16", "1e-12", unembedding=_BIASED, gain="2 1", shift="1 -1", bias=_BIAS),
    model("twins", "mistral", "F64", "1e-06", unembedding="1 0; 1 -0; -1 1; -1 -1; 0 0", gain="1 1/2"),
    model("padded", "qwen2", "BF16", "1e-06", _PIECES, unembedding=_PADDED, gain="1 1"),
    model("round", "llama", "F16", "0.0", unembedding=_ROUND, gain="1 1"),
    model("ring", "gpt2", "F32", "0", unembedding="4 0; -4 0; 0 1; 0 0; 0 -8", gain="1 1", shift="0 1"),
    model("heard", "whisper", "F16", "1e-05", unembedding=_HEARD, gain="1 1", shift="0 0"),
    model("dozen", "bert", "F16", "1e-12", unembedding=_DOZEN, gain="2 1 1", shift="0 1 -1", bias=_BIASES),
    model("prime", "llama", "F64", "1e-05", unembedding=_PRIME, gain="1 1"),
    model("nan", "llama", "F32", "1e-05", unembedding=_NAN, gain="1 2"),
    model("infinite", "llama", "F16", "1e-05", unembedding=_INFINITE, gain="1 2"),
    _hand(),
)
MODELS = {m.name: m for m in _ALL}


def _hostile() -> dict[str, bytes]:
    """Weight files that must not be read, each one rule of the format away from `square`'s."""
    good = MODELS["square"]
    w, g = (good.tensors[role] for role in ("unembedding", "gain"))
    size, end = len(w.data), len(w.data) + len(g.data)
    data = w.data + g.data

    def entry(name: str, shape: str, begin: object, stop: object, dtype: str = "F32") -> str:
        return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{stop}]}}'

    def both(first: str, second: str, rest: bytes = data) -> bytes:
        return file_of("{" + first + "," + second + "}", rest)

    head, norm = entry(w.name, "[7,2]", 0, size), entry(g.name, "[2]", size, end)
    if both(head, norm) != good.weights:
        raise AssertionError("the hostile files start from square's")
    return {
        "overlap": both(head, entry(g.name, "[2]", size - 8, size), w.data),
        "hole": both(head, entry(g.name, "[2]", size + 8, end + 8), w.data + bytes(8) + g.data),
        "beyond": both(head, entry(g.name, "[2]", size, end), data[:-4]),
        "far_beyond": both(head, entry(g.name, "[2]", 1 << 40, (1 << 40) + 8)),
        "trailing": both(head, norm, data + b"\0"),
        "ten_gigabytes": (10**10).to_bytes(8, "little") + b"{}" + data,
        "cut_header": good.weights[:60],
        "cut_length": good.weights[:5],
        "same_key_twice": file_of("{" + head + "," + head + "," + norm + "}", data),
        "float_offset": both(head, entry(g.name, "[2]", f"{size}.0", end)),
        "negative_offset": both(entry(w.name, "[7,2]", -size, 0), entry(g.name, "[2]", 0, 8), g.data),
        "true_offset": both(entry(w.name, "[7,2]", "false", size), norm),
        "overflowing_shape": both(entry(w.name, f"[{(1 << 63) + 7},{2}]", 0, size), norm),
        "shape_overflowing_to_zero": both(
            entry(w.name, f"[{1 << 40},{1 << 22}]", 0, 0), entry(g.name, "[2]", 0, 8), g.data
        ),
        "unknown_dtype": both(head, entry(g.name, "[2]", size, end, "F31")),
        "backwards": both(head, entry(g.name, "[2]", end, size)),
        "path_traversal": both(entry("../../etc/passwd", "[7,2]", 0, size), norm),
        "not_json": file_of("{" + head + "," + norm, data),
        "nested_header": file_of('{"a":' * 2000, data),
    }  # fmt: skip


HOSTILE = _hostile()


def files_of(m: Model) -> dict[str, bytes]:
    """File name -> bytes of a model's folder."""
    found = {"model.safetensors": m.weights}
    if m.config is not None:
        found["config.json"] = m.config
    if m.pieces is not None:
        found["vocab.json"] = (json.dumps({piece: j for j, piece in enumerate(m.pieces)}) + "\n").encode()
    return found

"""STATEMENT. A pack: the readout of a model alone, in one safetensors file that is accepted as that model.

Wrong here = a true claim about other weights, another norm or other texts than the model's. The tensors
keep their names, dtypes and bits, so certificates made from the pack are those made from the model. All
else stands as one JSON text in the header; docs/packing.md is the format. What does not fit it is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from verify.errors import MalformedError, ModelUnavailableError, UsageError
from verify.kernel.readout import ROLES, Readout
from verify.kernel.safetensors import MAX_HEADER_BYTES, list_tensors, read_tensors
from verify.kernel.statement import decimal_text
from verify.models.config import exact_decimal, parse_json
from verify.models.single_file import SingleFile, file_sha256
from verify.models.vocabularies import GGUF_TOKENIZER, READABLE, VocabularyFiles

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel.tensor import Tensor
    from verify.models.model import Model

SUFFIX = ".safetensors"
VERSION = 1
_METADATA = "verify.pack"
_FIELDS = {
    "version": int,
    "model": str,
    "norm": str,
    "gain_offset": int,
    "epsilon": str,
    "epsilon_source": str,
    "notes": list,
    "roles": dict,
    "sha256": dict,
    "files": dict,
    "origin": dict,
    "content": str,
}
_NULLABLE = ("revision", "tokenizer")
# The SHA-256 of the content without this key, as text.
_DIGEST = "content"
_HASH = re.compile(r"[0-9a-f]{64}")
_NOTE = "read from a pack: norm, epsilon, texts and the tensors' roles are as its maker wrote them"


def named_so(path: Path) -> bool:
    """Whether a file's name ends as a pack's does."""
    return path.name.lower().endswith(SUFFIX)


def is_pack(path: Path) -> bool:
    """Whether a file is a safetensors file that says it is a pack.

    Raises ModelUnavailableError if its name ends as a pack's, and it is no readable safetensors file.
    """
    return named_so(path) and _METADATA in _metadata(path)[0]


# Writing


def pack_bytes(model: Model) -> Iterator[bytes]:
    """The bytes of a pack of this model, a few megabytes at a time; the same for the same model.

    Raises UsageError for a model that is a pack, and ModelUnavailableError if tensors hold NaN or infinity,
    or the tokenizer is malformed; all of it before the first byte.
    """
    if len(model.weights) == 1 and is_pack(model.weights[0]):
        raise UsageError(f"{model.weights[0].name} is a pack already: copy the file")
    tensors = {tensor.name: tensor for tensor in model.readout.tensors.values()}
    for tensor in tensors.values():
        tensor.require_finite()
    header = _header(_content(model), {name: (t.dtype, t.shape, t.raw.nbytes) for name, t in tensors.items()})
    return _stream(header, [tensors[name] for name in _order(tensors)])


def _stream(header: bytes, tensors: list[Tensor]) -> Iterator[bytes]:
    yield len(header).to_bytes(8, "little") + header
    for tensor in tensors:
        flat, step = tensor.raw.reshape(-1), 1 << 20
        for start in range(0, flat.size, step):
            yield flat[start : start + step].tobytes()


def _content(model: Model) -> dict[str, Any]:
    """What stands in the header about this model."""
    readout, vocabulary = model.readout, model.tokens.vocabulary
    tokenizer = None
    if vocabulary is not None:
        vocabulary.parse()
        try:
            texts = {name: data.decode("utf-8") for name, data in vocabulary.data.items()}
        except UnicodeDecodeError as error:
            raise ModelUnavailableError(
                f"the tokenizer cannot be packed: not UTF-8: {error.reason}"
            ) from error
        tokenizer = {"name": vocabulary.name, "files": texts}
    # Of a hub model the commit is the origin: its files may be here whole, or in parts.
    weights = model.weights if model.revision is None else ()
    content = {
        "version": VERSION,
        "model": model.name,
        "revision": model.revision,
        "norm": readout.norm,
        "gain_offset": readout.gain_offset,
        "epsilon": decimal_text(readout.epsilon),
        "epsilon_source": readout.epsilon_source,
        "notes": list(readout.notes),
        "roles": {role: tensor.name for role, tensor in readout.tensors.items()},
        "sha256": {tensor.name: tensor.sha256 for tensor in readout.tensors.values()},
        "files": dict(model.files),
        "origin": {path.name: file_sha256(path) for path in weights},
        "tokenizer": tokenizer,
    }
    content[_DIGEST] = _digest(content)
    if unprintable := _unprintable(content):
        raise ModelUnavailableError(f"the model cannot be packed: {unprintable} has unprintable characters")
    return content


def _digest(content: dict[str, Any]) -> str:
    try:
        text = _json({key: value for key, value in content.items() if key != _DIGEST}).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ModelUnavailableError("a name in this model cannot be written as UTF-8") from error
    except TypeError as error:
        raise ValueError("it holds a number that is no integer") from error
    return hashlib.sha256(text).hexdigest()


def _unprintable(content: dict[str, Any]) -> str | None:
    """What of the strings that people are shown holds more than one printable line, if anything."""
    texts = {key: [content[key] or ""] for key in ("model", "revision", "epsilon_source")}
    texts["notes"] = content["notes"]
    return next((key for key, found in texts.items() if not all(map(str.isprintable, found))), None)


def _order(names: dict[str, Any]) -> list[str]:
    return sorted(names)


def _header(content: dict[str, Any], tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """The one header for this content: keys sorted, no spaces but those that fill up to 8 bytes."""
    table: dict[str, Any] = {"__metadata__": {_METADATA: _json(content)}}
    position = 0
    for name in _order(tensors):
        dtype, shape, size = tensors[name]
        offsets = [position, position + size]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += size
    try:
        text = _json(table).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ModelUnavailableError("a name in this model cannot be written as UTF-8") from error
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise ModelUnavailableError(
            f"the tokenizer makes a header of {len(text)} bytes; safetensors allows {MAX_HEADER_BYTES}"
        )
    return text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


# Reading


def load_pack(path: Path) -> SingleFile:
    """The model in a pack, every tensor checked against its hash.

    Raises ModelUnavailableError if the file is truncated, malformed, of a newer version, or changed.
    """
    with _declared(path):
        return _load(path)


def pack_model(path: Path) -> str:
    """The name of the model in a pack, from the header alone. Errors as `load_pack`."""
    with _declared(path):
        return str(_read(path)[0]["model"])


@contextmanager
def _declared(path: Path) -> Iterator[None]:
    """Whatever the content of a header raises, as a ModelUnavailableError."""
    try:
        yield
    except (ValueError, MalformedError, RecursionError) as error:
        raise ModelUnavailableError(f"{path.name} is not a readable pack: {error}") from error


def _load(path: Path) -> SingleFile:
    content, header = _read(path)
    listing = list_tensors(path)
    roles, hashes = _strings(content, "roles"), _hashes(content, "sha256")
    if not set(roles) <= set(ROLES) or "unembedding" not in roles:
        raise ValueError(f"its roles are {sorted(roles)}")
    if not set(roles.values()) == set(listing) == set(hashes):
        raise ValueError("the tensors in it are not those that it lists")
    tensors = read_tensors(path, set(listing))
    if _header(content, {name: (t.dtype, t.shape, t.raw.nbytes) for name, t in tensors.items()}) != header:
        raise ValueError("its header is not spelled as `verify pack` would; make it anew")
    for name, tensor in tensors.items():
        if tensor.sha256 != hashes[name]:
            raise ValueError(
                f"tensor {name!a} has changed since it was packed (SHA-256 differs); make it anew"
            )
    files, _ = _hashes(content, "files"), _hashes(content, "origin")
    epsilon = exact_decimal(content["epsilon"])
    if decimal_text(epsilon) != content["epsilon"]:
        raise ValueError(f"epsilon {content['epsilon'][:40]!a} is not in its plain form")
    if content["norm"] == "none" and epsilon:
        raise ValueError("it has an epsilon and no norm")
    if content["gain_offset"] and "gain" not in roles:
        raise ValueError("it has a gain_offset and no gain that it is added to")
    readout = Readout(
        norm=content["norm"],
        unembedding=tensors[roles["unembedding"]],
        gain=_optional(tensors, roles.get("gain")),
        shift=_optional(tensors, roles.get("shift")),
        bias=_optional(tensors, roles.get("bias")),
        gain_offset=content["gain_offset"],
        epsilon=epsilon,
        epsilon_source=content["epsilon_source"],
        notes=(*content["notes"], _NOTE),
    )
    vocabulary = None if content["tokenizer"] is None else _vocabulary(content["tokenizer"], files)
    return SingleFile(content["model"], content["revision"], readout, vocabulary, files)


def _optional(tensors: dict[str, Tensor], name: str | None) -> Tensor | None:
    return None if name is None else tensors[name]


def _vocabulary(table: Any, files: dict[str, str]) -> VocabularyFiles:
    """The tokenizer's files; each must be the one that `files` names."""
    if type(table) is not dict or set(table) != {"name", "files"} or table["name"] not in READABLE:
        raise ValueError("its tokenizer is none that this version reads")
    texts = _strings(table, "files")
    if table["name"] not in texts:
        raise ValueError(f"its tokenizer lacks {table['name']}")
    data = {name: text.encode("utf-8") for name, text in texts.items()}
    found = VocabularyFiles(table["name"], {}, data)
    if table["name"] != GGUF_TOKENIZER:
        hashes = {name: hashlib.sha256(each).hexdigest() for name, each in data.items()}
        if any(files.get(name) != digest for name, digest in hashes.items()):
            raise ValueError("its tokenizer has changed since it was packed (SHA-256 differs); make it anew")
        found = replace(found, files=hashes)
    return found


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """What stands in the header about the model, its fields and their types checked; and the whole header."""
    metadata, header = _metadata(path)
    if set(metadata) != {_METADATA}:
        raise ModelUnavailableError(f"{path.name} is not a pack, or has more metadata than a pack has")
    content = parse_json(metadata[_METADATA].encode("utf-8"), path.name)
    version = content.get("version") if type(content) is dict else None
    if type(content) is not dict or version != VERSION:
        raise ModelUnavailableError(
            f"{path.name} is a pack of version {str(version)[:20]!a}; this program reads {VERSION}: update it"
        )
    wrong = [key for key, kind in _FIELDS.items() if type(content.get(key)) is not kind]
    wrong += [key for key in _NULLABLE if key not in content]
    wrong += sorted(content.keys() - _FIELDS.keys() - set(_NULLABLE))
    revision, name = content.get("revision"), str(content.get("model"))
    wrong += ["revision"] if not (revision is None or (type(revision) is str and revision)) else []
    wrong += [] if name else ["model"]
    if not wrong and any(type(note) is not str for note in content["notes"]):
        wrong = ["notes"]
    if wrong:
        raise ModelUnavailableError(
            f"{path.name} is not a readable pack: {', '.join(str(x)[:40] for x in wrong[:4])} missing, "
            "unknown or of the wrong type"
        )
    if unprintable := _unprintable(content):
        raise ValueError(f"{unprintable} has unprintable characters")
    if content[_DIGEST] != _digest(content):
        raise ValueError("what it says has changed since it was packed (SHA-256 differs); make it anew")
    return content, header


def _metadata(path: Path) -> tuple[dict[str, str], bytes]:
    """The header's table of strings, and the header; the file's layout has been checked."""
    list_tensors(path)
    try:
        with path.open("rb") as file:
            header = file.read(int.from_bytes(file.read(8), "little"))
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path.name}: {error.strerror or error}") from error
    metadata: dict[str, str] = parse_json(header, path.name).get("__metadata__", {})
    return metadata, header


def _strings(table: dict[str, Any], key: str) -> dict[str, str]:
    found = table[key]
    if type(found) is not dict or any(type(value) is not str for value in found.values()):
        raise ValueError(f"{key} is not a table of strings")
    return found


def _hashes(table: dict[str, Any], key: str) -> dict[str, str]:
    found = _strings(table, key)
    if any(_HASH.fullmatch(value) is None for value in found.values()):
        raise ValueError(f"{key} is not a table of SHA-256")
    return found

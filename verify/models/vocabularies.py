"""STATEMENT. Tokenizer files: which id is which piece, and what text a piece stands for.

Wrong here = a true claim shown under another token's text. Read straight from the JSON: a token's text
needs no tokenizer, and building one would cost more than the rest of the start.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError
from verify.models.config import parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Step = Callable[[str], str | bytes]

_LIMIT = 1 << 28
# The texts alone, one a row: a format of this package, and so the last that is looked for.
TOKENS = "tokens.json"
# Where encoder and decoder have vocabularies of their own (Marian), the decoder's.
_TARGET = "target_vocab.json"
_NAMES = ("tokenizer.json", "vocab.json", "vocab.txt", TOKENS)
_ADDED = "added_tokens.json"
# Not a file of any folder: the tokenizer of a GGUF file, as JSON (verify/models/gguf.py).
GGUF_TOKENIZER = "tokenizer.ggml"
READABLE = (_TARGET, *_NAMES, GGUF_TOKENIZER)
_NORMAL, _UNUSED, _BYTE = 1, 5, 6
_PADDING = re.compile(r"\[PAD[0-9]+\]")
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the rest for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()
# Each character of the alphabet to the one whose Latin-1 code is its byte; the rest of Latin-1 to none.
_TO_LATIN_1 = dict.fromkeys(range(256), "\uffff") | {ord(key): chr(byte) for key, byte in BYTE_OF.items()}


def _hex_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"<0x{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("verify-hex", _hex_bytes)


def readable(data: bytes) -> str:
    """Bytes as UTF-8; those that are not, as `<0xHH>`."""
    return data.decode("utf-8", errors="verify-hex")


@dataclass(frozen=True, eq=False)
class Pieces:
    """Parsed vocabulary. spelling: id -> piece as in the file.

    literal: ids whose piece stands for itself; the others go through `steps`.
    """

    spelling: dict[int, str]
    literal: frozenset[int] = frozenset()
    steps: tuple[Step, ...] = ()

    def text(self, token: int) -> str | None:
        """The text one id stands for, None if there is no such id."""
        piece = self.spelling.get(token)
        if piece is None or token in self.literal:
            return piece
        for step in self.steps:
            result = step(piece)
            if isinstance(result, bytes):
                return readable(result)
            piece = result
        return piece


@dataclass(frozen=True, eq=False)
class VocabularyFiles:
    """Tokenizer files as read: `files` maps name to SHA-256; `data` to bytes. Parsed only when asked."""

    name: str
    files: dict[str, str]
    data: dict[str, bytes]

    def parse(self) -> Pieces:
        """Ids, pieces and texts. ModelUnavailableError if a file is malformed or gives one id two pieces."""
        if self.name == "tokenizer.json":
            return _tokenizer_json(parse_json(self.data[self.name], self.name))
        if self.name == GGUF_TOKENIZER:
            return _tokenizer_ggml(parse_json(self.data[self.name], self.name))
        if self.name == TOKENS:
            pieces = parse_json(self.data[self.name], self.name)
            if type(pieces) is not list or any(type(piece) is not str for piece in pieces):
                raise ModelUnavailableError(f"{TOKENS} is not a list of strings")
            return Pieces(dict(enumerate(pieces)))
        added = {}
        if _ADDED in self.data:
            added = _by_id(parse_json(self.data[_ADDED], _ADDED), _ADDED)
        if self.name == "vocab.txt":
            return Pieces(_vocab_txt(self.data[self.name]) | added)
        spelling = _by_id(parse_json(self.data[self.name], self.name), self.name)
        # A file alone does not say how it spells bytes; having a piece for each of the 256 does.
        byte_level = set(spelling.values()) >= BYTE_OF.keys()
        return Pieces(spelling | added, frozenset(added), (_byte_level,) if byte_level else ())


def find_vocabulary(folder: Path, *, separate: bool = False) -> VocabularyFiles | None:
    """The tokenizer files of a model's folder, hashed but not parsed; None when there are none.

    separate: whether the decoder has a vocabulary of its own, for which no other file stands.
    Raises ModelUnavailableError if one cannot be read.
    """
    target = separate or (folder / _TARGET).exists()
    for name in (_TARGET,) if target else _NAMES:
        if (folder / name).exists():
            names = [name]
            if name in ("vocab.json", "vocab.txt") and (folder / _ADDED).exists():
                names.append(_ADDED)
            data = {each: read_bytes(folder / each, _LIMIT) for each in names}
            return VocabularyFiles(
                name, {each: hashlib.sha256(text).hexdigest() for each, text in data.items()}, data
            )
    return None


def _vocab_txt(data: bytes) -> dict[int, str]:
    """BERT's format: one piece a line, the line number its id."""
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelUnavailableError(
            f"vocab.txt is not UTF-8: {error.reason} at byte {error.start}"
        ) from error
    if lines[-1] == "":
        lines.pop()
    return dict(enumerate(lines))


def _by_id(table: object, name: str) -> dict[int, str]:
    """Piece -> id turned round; two pieces of one id are an error."""
    if type(table) is not dict:
        raise ModelUnavailableError(f"{name}: the vocabulary is not a table of pieces and ids")
    return _collect(((index, piece) for piece, index in table.items()), name)


def _collect(pairs: Iterable[tuple[object, object]], name: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for index, piece in pairs:
        if type(index) is not int or index < 0 or type(piece) is not str:
            raise ModelUnavailableError(f"{name}: {piece!a} has id {index!a}; ids are integers from 0")
        if found.setdefault(index, piece) != piece:
            raise ModelUnavailableError(f"{name}: id {index} is both {found[index]!a} and {piece!a}")
    return found


def _tokenizer_json(table: object) -> Pieces:
    """The `tokenizers` library's format; its BPE, WordPiece, WordLevel and Unigram models."""
    name = "tokenizer.json"
    model = table.get("model") if type(table) is dict else None
    if type(table) is not dict or type(model) is not dict or "vocab" not in model:
        raise ModelUnavailableError(f"{name} has no model with a vocabulary")
    vocab = model["vocab"]
    if type(vocab) is list:
        if any(type(item) is not list or not item for item in vocab):
            raise ModelUnavailableError(f"{name}: a unigram vocabulary is a list of pieces and scores")
        spelling = _collect(((index, item[0]) for index, item in enumerate(vocab)), name)
    else:
        spelling = _by_id(vocab, name)
    added = table.get("added_tokens") or []
    if type(added) is not list or any(type(item) is not dict for item in added):
        raise ModelUnavailableError(f"{name}: added_tokens is not a list of tokens")
    # An added token stands for itself and goes before a piece of the same id.
    literal = _collect(((item.get("id"), item.get("content")) for item in added), name)
    return Pieces(spelling | literal, frozenset(literal), tuple(_decoder_steps(table.get("decoder"))))


def _tokenizer_ggml(table: object) -> Pieces:
    """Pieces and their types as GGUF files list them: GPT-2's byte-level spelling, or SentencePiece's.

    Rows that a converter filled up with "[PAD7]" are no tokens: such ids have no text.
    """
    if type(table) is not dict or set(table) != {"model", "tokens", "types"}:
        raise ModelUnavailableError(f"{GGUF_TOKENIZER} is not a table of model, tokens and types")
    pieces, types = table["tokens"], table["types"]
    if type(pieces) is not list or any(type(piece) is not str for piece in pieces):
        raise ModelUnavailableError(f"{GGUF_TOKENIZER}: tokens is not a list of strings")
    types = [_NORMAL] * len(pieces) if types is None else types
    if type(types) is not list or len(types) != len(pieces) or any(type(x) is not int for x in types):
        raise ModelUnavailableError(f"{GGUF_TOKENIZER}: types is not a list of as many integers")
    spelling = {
        index: piece
        for index, (piece, kind) in enumerate(zip(pieces, types, strict=True))
        if kind != _UNUSED or _PADDING.fullmatch(piece) is None
    }
    spelled = {"gpt2": (_NORMAL,), "llama": (_NORMAL, _BYTE)}.get(table["model"])
    if spelled is None:
        raise ModelUnavailableError(f"{GGUF_TOKENIZER}: unknown model {table['model']!a}")
    literal = frozenset(index for index in spelling if types[index] not in spelled)
    if table["model"] == "gpt2":
        return Pieces(spelling, literal, (_byte_level,))
    return Pieces(spelling, literal, (_replacing("\u2581", " "), _byte_fallback))


def _decoder_steps(decoder: Any) -> Iterable[Step]:
    """What the decoder does to ONE piece, its leading space kept. Kinds not listed change nothing."""
    kind = decoder.get("type") if type(decoder) is dict else None
    if kind == "Sequence":
        steps = decoder.get("decoders")
        if type(steps) is not list:
            raise ModelUnavailableError("tokenizer.json: the decoders of a Sequence are not a list")
        for step in steps:
            yield from _decoder_steps(step)
    elif kind == "ByteLevel":
        yield _byte_level
    elif kind == "ByteFallback":
        yield _byte_fallback
    elif kind == "Metaspace":
        yield _replacing(decoder.get("replacement", "\u2581"), " ")
    elif kind == "BPEDecoder":
        yield _replacing(decoder.get("suffix", "</w>"), " ")
    elif kind == "Replace":
        pattern = decoder.get("pattern")
        yield _replacing(pattern.get("String") if type(pattern) is dict else None, decoder.get("content"))


def _replacing(old: object, new: object) -> Callable[[str], str]:
    if type(old) is not str or type(new) is not str or not old:
        return _same
    return lambda piece: piece.replace(old, new)


def _same(piece: str) -> str:
    return piece


def _byte_level(piece: str) -> str | bytes:
    """One byte a character; a piece with other characters stands for itself."""
    try:
        return piece.translate(_TO_LATIN_1).encode("latin-1")
    except UnicodeEncodeError:
        return piece


def _byte_fallback(piece: str) -> str | bytes:
    match = _BYTE_PIECE.fullmatch(piece)
    return piece if match is None else bytes([int(match[1], 16)])

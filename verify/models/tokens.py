"""STATEMENT. Token ids and their texts. Wrong here = a true claim about another token than the one named."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError, UsageError
from verify.models.vocabularies import TOKENS

if TYPE_CHECKING:
    from verify.models.vocabularies import Pieces, VocabularyFiles

_SHOWN = 12
_NEGATIVE = re.compile(r"-[0-9]+")


class Tokens:
    """The tokens of a model with `rows` rows of unembedding; parses the tokenizer files at first use.

    vocabulary: the tokenizer files, or None when the model has none: then only ids can be named.
    Every method raises ModelUnavailableError if the files turn out malformed.
    """

    def __init__(self, vocabulary: VocabularyFiles | None, rows: int) -> None:
        self.vocabulary = vocabulary
        self.rows = rows

    @property
    def size(self) -> int | None:
        """Ids the tokenizer knows, counted as highest id + 1 and at most `rows`; None without a tokenizer.

        Rows from here on have no text: padding, or tokens that no tokenizer file names.
        """
        if self._pieces is None:
            return None
        return min(self.rows, max(self._pieces.spelling, default=-1) + 1)

    def text(self, token: int) -> str | None:
        """The decoded text of this one token, leading space kept; bytes that are no UTF-8 alone as `<0xHH>`.

        None where the tokenizer has no such id, or there is no tokenizer. UsageError if out of range.
        """
        self._check_range(token)
        return None if self._pieces is None else self._pieces.text(token)

    def display(self, token: int) -> str:
        """The text for people: in quotes, unprintable characters escaped; or why there is none."""
        text = self.text(token)
        if text is not None:
            return repr(text)
        if self._pieces is None:
            return "(no tokenizer file)"
        size = self.size or 0
        return f"(no text: the tokenizer ends at id {size - 1})" if token >= size else "(no text: unused id)"

    def find(self, text_or_id: str) -> int:
        """The token that a person names. Digits are always an id; `text:123` means the text "123".

        A negative number is an id as well, a bad one, unless it is the text of a token.
        Otherwise the exact text of one token, else its spelling in the tokenizer file (with a visible space).
        UsageError if there is no such token (showing how the text splits), several (listing them), or the id
        is out of range.
        """
        if text_or_id.isascii() and text_or_id.isdigit():
            if len(text_or_id) > 18:
                raise UsageError(
                    f"token id {text_or_id[:18]}... is out of range: ids are 0 to {self.rows - 1}"
                )
            token = int(text_or_id)
            self._check_range(token)
            return token
        wanted = text_or_id.removeprefix("text:")
        if not wanted:
            raise UsageError("an empty text names no token; give an id, or the text of one token")
        negative = _NEGATIVE.fullmatch(text_or_id) is not None
        if negative and not self._by_text.get(wanted):
            raise UsageError(f"token id {wanted[:18]} is out of range: ids are 0 to {self.rows - 1}")
        if self._pieces is None:
            raise UsageError(
                f"the model's folder has no tokenizer file, so {wanted!r} cannot be looked up; "
                f"name the token by its id, 0 to {self.rows - 1}"
            )
        # Texts first: in byte-level files a single byte may be spelled like another token's text.
        found = self._by_text.get(wanted) or self._spelled(wanted)
        if len(found) == 1:
            self._check_range(found[0])
            return found[0]
        if found:
            split = self._split(wanted) or []
            own = f" (the tokenizer makes {split[0][0]} of it)" if len(split) == 1 else ""
            raise UsageError(
                f"{wanted!r} is the text of {len(found)} tokens, {self._list(found)}{own}; name one by its id"
            )
        raise UsageError(f"{wanted!r} is not the text of one token{self._explain(wanted)}")

    @cached_property
    def _pieces(self) -> Pieces | None:
        if self.vocabulary is None:
            return None
        pieces = self.vocabulary.parse()
        if self.vocabulary.name == TOKENS and len(pieces.spelling) != self.rows:
            raise ModelUnavailableError(
                f"{TOKENS} lists {len(pieces.spelling)} texts, but the unembedding has {self.rows} rows: one "
                "text a row is needed. Remove it if it is another kind of file"
            )
        return pieces

    @cached_property
    def _by_text(self) -> dict[str, list[int]]:
        """Text -> ids, ascending."""
        index: dict[str, list[int]] = {}
        if self._pieces is not None:
            for token in sorted(self._pieces.spelling):
                index.setdefault(self._pieces.text(token) or "", []).append(token)
        return index

    def _spelled(self, wanted: str) -> list[int]:
        """Ids whose piece is spelled so in the tokenizer file."""
        spelling = {} if self._pieces is None else self._pieces.spelling
        return [token for token, piece in spelling.items() if piece == wanted]

    def _check_range(self, token: int) -> None:
        if not 0 <= token < self.rows:
            raise UsageError(
                f"token id {token} is out of range: the unembedding has ids 0 to {self.rows - 1}"
            )

    def _list(self, tokens: list[int]) -> str:
        if self._pieces is None:
            return ""
        shown = ", ".join(self._named(token, self._pieces.spelling[token]) for token in tokens[:_SHOWN])
        return shown + (f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else "")

    def _named(self, token: int, piece: str) -> str:
        """An id, its text in quotes, and how the file spells it where that is something else."""
        text = piece if self._pieces is None else self._pieces.text(token)
        spelled = piece if piece.isprintable() else ascii(piece)[1:-1]
        return f"{token} {piece!r}" if text in (None, piece) else f"{token} {text!r} ({spelled})"

    def _explain(self, wanted: str) -> str:
        """How the text splits, and near texts that are one token."""
        split = self._split(wanted)
        if split is None:
            parts = "; how it splits is not known, as the model has no tokenizer.json"
        else:
            pieces = ", ".join(self._named(token, piece) for token, piece in split[:_SHOWN])
            more = f" and {len(split) - _SHOWN} more" if len(split) > _SHOWN else ""
            parts = f"; it splits into {pieces}{more}" if split else "; it splits into no token at all"
        near = [text for text in (" " + wanted, wanted.strip(), wanted.lower()) if text != wanted]
        ids = sorted({token for text in near for token in self._by_text.get(text, [])})
        hint = f"; near it: {self._list(ids)}" if ids else ""
        return f"{parts}{hint}; name a token by its id, or by its exact text (a leading space counts)"

    def _split(self, text: str) -> list[tuple[int, str]] | None:
        """Ids and pieces by the model's own tokenizer; None where there is none to ask."""
        if self.vocabulary is None or self.vocabulary.name != "tokenizer.json":
            return None
        try:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_str(self.vocabulary.data["tokenizer.json"].decode("utf-8"))
            encoding = tokenizer.encode(text, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException:  # noqa: BLE001 - only an explanation is lost; a panic of the library is no Exception
            return None
        return list(zip(encoding.ids, encoding.tokens, strict=True))

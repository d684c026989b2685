"""Ids and texts: against the reference tokenizer, in each file format, and for names that fit several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_models import real_model

from verify.errors import ModelUnavailableError, UsageError
from verify.models import Tokens, load_model
from verify.models.vocabularies import BYTE_OF, find_vocabulary


def tokens(folder: Path, name: str, content: object, rows: int = 100, added: object = None) -> Tokens:
    if added is not None:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_bytes(text.encode())
    return Tokens(find_vocabulary(folder), rows)


@pytest.fixture(scope="module")
def whisper() -> Tokens:
    return load_model("whisper-tiny.en").tokens


def test_whisper(whisper: Tokens) -> None:
    assert whisper.text(30208) == " externalTo"
    assert whisper.display(30208) == "' externalTo'"
    assert whisper.display(198) == "'\\n'"
    assert whisper.display(124) == "'<0xC0>'"
    assert whisper.text(50256) == "<|endoftext|>"
    assert (whisper.size, whisper.rows) == (50363, 51864)
    assert whisper.text(51863) is None
    assert whisper.display(51863) == "(no text: the tokenizer ends at id 50362)"


def test_every_text_is_the_reference_tokenizers(whisper: Tokens) -> None:
    library = pytest.importorskip("tokenizers")
    path = Path(str(load_model("whisper-tiny.en").weights[0].parent / "tokenizer.json"))
    reference = library.Tokenizer.from_file(str(path))
    assert whisper.size == reference.get_vocab_size(with_added_tokens=True)
    partial = 0
    for token in range(whisper.size or 0):
        expected = reference.decode([token], skip_special_tokens=False)
        if "\ufffd" in expected:
            partial += 1
        else:
            assert whisper.text(token) == expected
    assert partial < 1000


@pytest.mark.parametrize("text", ["30208", " externalTo", "\u0120externalTo", "text: externalTo"])
def test_ways_to_name_a_token(whisper: Tokens, text: str) -> None:
    assert whisper.find(text) == 30208


def test_digits_are_an_id_always(whisper: Tokens) -> None:
    assert whisper.find("123") == 123
    assert whisper.text(whisper.find("text:123")) == "123"
    assert whisper.find("007") == 7
    assert whisper.find("51863") == 51863


@pytest.mark.parametrize("text", ["51864", "9" * 30, "9" * 5000, "-1", "-5", "-" + "9" * 5000])
def test_ids_out_of_range(whisper: Tokens, text: str) -> None:
    with pytest.raises(UsageError, match="0 to 51863"):
        whisper.find(text)


def test_texts_that_are_no_token_show_how_they_split(whisper: Tokens) -> None:
    with pytest.raises(UsageError) as caught:
        whisper.find("externalTo")
    assert "near it: 30208" in str(caught.value)
    pytest.importorskip("tokenizers")
    assert "22615 'external', 2514 'To'" in str(caught.value)
    assert "near it: 30208 ' externalTo' (\u0120externalTo);" in str(caught.value)
    for text in ("", "text:", "-1", "\u0663", "1_0", "1 "):
        with pytest.raises(UsageError):
            whisper.find(text)


def test_two_words_show_how_they_split(whisper: Tokens) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(UsageError, match=r"it splits into 11545 'two', 2456 ' words' \(\u0120words\);"):
        whisper.find("two words")


def test_a_row_beyond_the_tokenizer_is_named_as_such(whisper: Tokens) -> None:
    """Decided as any other row, with and against real tokens."""
    assert whisper.find("51000") == 51000
    assert whisper.display(51000) == "(no text: the tokenizer ends at id 50362)"


def test_without_a_tokenizer_json_the_split_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"how it splits is not known.*no tokenizer\.json"):
        tokens(tmp_path, "vocab.txt", "two\n##words\n").find("two words")


def test_of_several_tokens_the_tokenizer_s_own_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    table: dict[str, Any] = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": {"b": 3, "<unk>": 0}, "unk_token": "<unk>"},
        "added_tokens": [],
    }
    added = {"id": 5, "content": "b", "special": False, "single_word": False}
    table["added_tokens"] = [{**added, "lstrip": False, "rstrip": False, "normalized": False}]
    found = tokens(tmp_path, "tokenizer.json", table)
    with pytest.raises(UsageError) as caught:
        found.find("b")
    assert "2 tokens, 3 'b', 5 'b'" in str(caught.value)
    assert "(the tokenizer makes 3 of it)" in str(caught.value)


def test_a_text_wins_over_the_spelling_of_a_byte(whisper: Tokens) -> None:
    """U+00B2 is token 31185's text, and how the file spells the lone byte 0xB2, token 110."""
    assert whisper.find("\u00b2") == 31185
    assert whisper.find("<0xB2>") == 110


def test_out_of_range_for_text_and_display(whisper: Tokens) -> None:
    for token in (-1, 51864):
        with pytest.raises(UsageError, match="out of range"):
            whisper.text(token)
        with pytest.raises(UsageError, match="out of range"):
            whisper.display(token)


def test_no_tokenizer() -> None:
    plain = Tokens(None, 9)
    assert (plain.size, plain.text(3), plain.display(3), plain.find("8")) == (
        None,
        None,
        "(no tokenizer file)",
        8,
    )
    with pytest.raises(UsageError, match="no tokenizer file"):
        plain.find("word")


def test_a_negative_number_is_a_bad_id_unless_it_is_a_text(tmp_path: Path) -> None:
    found = tokens(tmp_path, "tokens.json", ["-5", "b"], rows=2)
    assert found.find("-5") == 0
    for plain in (found, Tokens(None, 2)):
        with pytest.raises(UsageError, match="token id -6 is out of range: ids are 0 to 1"):
            plain.find("-6")


def test_tokens_json_and_ambiguity(tmp_path: Path) -> None:
    found = tokens(tmp_path, "tokens.json", ["<unk>", " a", "b", "b", "\x1b[31m"], rows=5)
    assert (found.size, found.find(" a"), found.display(4)) == (5, 1, "'\\x1b[31m'")
    with pytest.raises(UsageError, match="2 tokens, 2 'b', 3 'b'"):
        found.find("b")


@pytest.mark.parametrize("count", [1, 4, 50])
def test_tokens_json_lists_one_text_a_row(tmp_path: Path, count: int) -> None:
    with pytest.raises(ModelUnavailableError, match=f"lists {count} texts, but the unembedding has 3 rows"):
        tokens(tmp_path, "tokens.json", ["a"] * count, rows=3).text(0)


def test_tokens_json_is_looked_for_last(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps(["<extra>"] * 3))
    assert tokens(tmp_path, "vocab.txt", "a\nb\nc\n", rows=3).text(1) == "b"
    assert tokens(tmp_path, "vocab.json", {"hello": 0}, rows=3).text(0) == "hello"


def test_a_decoder_with_a_vocabulary_of_its_own(tmp_path: Path) -> None:
    ours = tokens(tmp_path, "vocab.json", {"dog": 0}, added={"<x>": 1})
    assert ours.text(0) == "dog"
    assert find_vocabulary(tmp_path, separate=True) is None
    theirs = tokens(tmp_path, "target_vocab.json", {"chien": 0})
    assert [theirs.text(0), theirs.text(1)] == ["chien", None]


def test_ids_and_pieces_out_of_range(tmp_path: Path) -> None:
    table = {"a": 0, "b": 1}
    assert tokens(tmp_path, "vocab.json", table, rows=1).size == 1
    with pytest.raises(UsageError, match="out of range"):
        tokens(tmp_path, "vocab.json", table, rows=1).find("b")
    assert tokens(tmp_path, "vocab.json", table).display(5) == "(no text: the tokenizer ends at id 1)"


class PanicError(BaseException):
    """What the Rust library raises on a bug of its own."""


def test_a_panic_of_the_library_costs_an_explanation_only(
    whisper: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("tokenizers")
    raised: list[type[BaseException]] = [PanicError, KeyboardInterrupt]

    def broken(_: str) -> None:
        raise raised.pop(0)

    monkeypatch.setattr(library, "Tokenizer", type("T", (), {"from_str": broken}))
    with pytest.raises(UsageError, match="is not the text of one token"):
        whisper.find("zzz")
    with pytest.raises(KeyboardInterrupt):
        whisper.find("zzz")


def test_vocab_txt(tmp_path: Path) -> None:
    found = tokens(tmp_path, "vocab.txt", "[PAD]\r\nab\u2028c\n##ing\n", added={"<new>": 3})
    assert [found.text(token) for token in range(4)] == ["[PAD]", "ab\u2028c", "##ing", "<new>"]
    (tmp_path / "vocab.txt").write_bytes(b"\xff\n")
    with pytest.raises(ModelUnavailableError, match="UTF-8"):
        Tokens(find_vocabulary(tmp_path), 5).text(0)


def test_vocab_json_is_byte_level_only_with_all_bytes(tmp_path: Path) -> None:
    plain = tokens(tmp_path, "vocab.json", {"\u0120a": 0})
    assert plain.text(0) == "\u0120a"
    pieces = [*BYTE_OF, "\u0120a"]
    table = {piece: token for token, piece in enumerate(pieces)}
    assert tokens(tmp_path, "vocab.json", table, rows=300).text(256) == " a"


LLAMA_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


@pytest.mark.parametrize(
    ("decoder", "texts"),
    [
        (LLAMA_DECODER, [" the", "A", "<0xC3>"]),
        ({"type": "Metaspace", "replacement": "\u2581"}, [" the", "<0x41>", "<0xC3>"]),
        ({"type": "BPEDecoder", "suffix": "the"}, ["\u2581 ", "<0x41>", "<0xC3>"]),
        ({"type": "Replace", "pattern": {"Regex": "x"}, "content": ""}, ["\u2581the", "<0x41>", "<0xC3>"]),
        (None, ["\u2581the", "<0x41>", "<0xC3>"]),
        ({"type": "WordPiece", "prefix": "##"}, ["\u2581the", "<0x41>", "<0xC3>"]),
    ],
)
@pytest.mark.parametrize("unigram", [False, True])
def test_decoders(tmp_path: Path, decoder: object, texts: list[str], unigram: bool) -> None:
    pieces = ["\u2581the", "<0x41>", "<0xC3>"]
    vocab: Any = [[piece, -1.5] for piece in pieces] if unigram else {p: i for i, p in enumerate(pieces)}
    table = {"model": {"vocab": vocab}, "decoder": decoder, "added_tokens": [{"id": 4, "content": "\u2581x"}]}
    found = tokens(tmp_path, "tokenizer.json", table)
    assert [found.text(token) for token in range(3)] == texts
    assert found.text(3) is None
    assert found.display(3) == "(no text: unused id)"
    assert found.text(4) == "\u2581x"
    assert found.find("\u2581the") == 0
    assert found.size == 5


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", []),
        ("tokenizer.json", {"model": {}}),
        ("tokenizer.json", {"model": {"vocab": {"a": -1}}}),
        ("tokenizer.json", {"model": {"vocab": {"a": 0, "b": 0}}}),
        ("tokenizer.json", {"model": {"vocab": {"a": 1.5}}}),
        ("tokenizer.json", {"model": {"vocab": {"a": True}}}),
        ("tokenizer.json", {"model": {"vocab": [3]}}),
        ("tokenizer.json", {"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}),
        ("tokenizer.json", {"model": {"vocab": {}}, "added_tokens": 5}),
        ("tokenizer.json", '{"model": {"vocab": {"a": 1, "a": 2}}}'),
        ("tokenizer.json", {"model": {"vocab": {}}, "decoder": {"type": "Sequence", "decoders": 5}}),
        ("tokenizer.json", {"model": {"vocab": {}}, "decoder": {"type": "Sequence"}}),
        ("tokens.json", {"a": 0}),
        ("tokens.json", ["a", 1]),
        ("vocab.json", ["a"]),
    ],
)
def test_malformed_tokenizer_files(tmp_path: Path, name: str, content: object) -> None:
    found = tokens(tmp_path, name, content)
    with pytest.raises(ModelUnavailableError):
        found.text(0)
    with pytest.raises(ModelUnavailableError):
        found.find("a")


@pytest.mark.parametrize(
    ("name", "size", "id_and_text"),
    [
        ("stories260K", 512, (1, "\n<s>\n")),
        ("tinygpt-slm-05", 445, (2, "<pad>")),
        ("rxnmapper-albert", 591, (14, "[MASK]")),
    ],
)
def test_real_tokenizer_files(name: str, size: int, id_and_text: tuple[int, str]) -> None:
    found = Tokens(find_vocabulary(real_model(name)), size)
    assert found.size == size
    assert found.text(id_and_text[0]) == id_and_text[1]
    assert found.find(id_and_text[1]) == id_and_text[0]

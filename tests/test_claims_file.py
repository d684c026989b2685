"""Claims files: what is read, and every way to be refused; the schema says the same."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from verify.claims.claim import ClaimsFile
from verify.claims.contribute import toml_bytes
from verify.claims.file import from_bytes, read_claims
from verify.errors import MalformedError
from verify.models import Model

ROOT = Path(__file__).parent.parent
CLAIMS = ROOT / "certificates" / "claims"
PUBLISHED = sorted(CLAIMS.glob("*.toml"))
SCHEMA: dict[str, Any] = json.loads(files("verify").joinpath("schemas/claims-1.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)

GOOD = """
format = "verify-claims"
version = 1
[source]
title = "T"
author = "A"
date = "2026-11-24"
address = "here"
[universe.u]
what = "two tokens"
size = 2
tokens = [1, 2]
[defaults]
model = "m"
domain = "readout"
universe = "u"
[[claim]]
id = "a"
token = 1
verdict = "speakable"
[[claim]]
id = "b"
token = 2
text = "x"
verdict = "unspeakable"
reported = { method = "lp", margin = "1e-7", argmax = 9 }
[[claim]]
id = "n"
tokens = "all"
verdict = "speakable"
count = 1
"""


def read(text: str) -> ClaimsFile:
    return from_bytes(text.encode(), Path("c.toml"))


def test_a_file_is_read() -> None:
    found = read(GOOD)
    assert [c.id for c in found.claims] == ["a", "b", "n"]
    assert [c.line for c in found.claims] == [18, 22, 28]
    assert found.claims[2].members == (1, 2)
    assert found.claims[2].words == "exactly 1 of all 2 tokens of 'u': speakable"


LP = 'method = { name = "post-lp", arithmetic = "exact", margin = "1e-7", says = "infeasible" }'
# (old, new, what the message says, whether the schema sees it too)
BROKEN = {
    "not_toml": ("version = 1", "version = ", "not TOML", False),
    "key_twice": ("version = 1", "version = 1\nversion = 1", "not TOML", False),
    "wrong_format": ("verify-claims", "verify-claim", "format is", True),
    "wrong_version": ("version = 1", "version = 2", "version is", True),
    "huge_version": ("version = 1", "version = 0x" + "1" * 5000, "version is huge", True),
    "version_is_float": ("version = 1", "version = 1.5", "version is 1.5", True),
    "version_is_true": ("version = 1", "version = true", "version: give a number, not true or false", True),
    "version_in_quotes": ("version = 1", 'version = "1"', "version: give a number, not text in quotes", True),
    "version_missing": ("version = 1", "", "version is missing: write version = 1", True),
    "format_a_number": ('"verify-claims"', "1", "format: give text in quotes, not a number", True),
    "date_without_quotes": ('"2026-11-24"', "2026-11-24", "date: give text in quotes, not a date or", False),
    "model_a_number": ('model = "m"', "model = 1", "model: give text in quotes, not a number", True),
    "id_a_number": ('id = "a"', "id = 1", "claim number 1: id: give text in quotes, not a number", True),
    "size_in_quotes": ("size = 2", 'size = "2"', "size: give a number, not text in quotes", True),
    "token_in_quotes": ("token = 1", 'token = "1"', "a token: give a number, not text in quotes", True),
    "verdict_a_list": ('verdict = "speakable"', "verdict = [1]", "give text in quotes, not a list", True),
    "universe_a_list": (
        'universe = "u"',
        "universe = [1]",
        "universe: give text in quotes, not a list",
        True,
    ),
    "revision_a_number": (
        'universe = "u"',
        'universe = "u"\nrevision = 1',
        "revision: give text in quotes, not a number",
        True,
    ),
    "tokens_a_number": ("tokens = [1, 2]", "tokens = 2", "as a list of ids, not a number", True),
    "unknown_top": ("version = 1", "version = 1\nextra = 1", "unknown field 'extra'", True),
    "unknown_in_source": ('author = "A"', 'author = "A"\nmail = "x"', "source: unknown field", True),
    "source_incomplete": ('author = "A"', "", "author is missing", True),
    "source_empty": ('author = "A"', 'author = ""', "author is empty", True),
    "date": ("2026-11-24", "24.11.2026", "date is not", True),
    "date_of_no_day": ("2026-11-24", "2026-02-30", "date is not", False),
    "date_of_no_month": ("2026-11-24", "2026-99", "date is not", False),
    "byte_order_mark": ("\nformat", "\ufeffformat", "byte order mark", False),
    "unknown_in_claim": ('id = "a"', 'id = "a"\nverdit = "x"', "claim 'a': its table: unknown field", True),
    "unknown_default": ('model = "m"', 'model = "m"\ncount = 1', "defaults: unknown field", True),
    "unknown_in_universe": ("size = 2", "size = 2\nname = 1", "universe 'u': unknown field", True),
    "id_twice": ('id = "b"', 'id = "a"', "another claim has this id", False),
    "id_form": ('id = "a"', 'id = "a b"', "id is not of", True),
    "no_id": ('id = "a"\n', "", "id is missing", True),
    "empty_universe": ("size = 2\ntokens = [1, 2]", "size = 0\ntokens = []", "it is empty", True),
    "no_size": ("size = 2\n", "", "its size is missing", True),
    "size_differs": ("size = 2", "size = 3", "2 tokens are listed, its size is said to be 3", False),
    "token_twice_in_universe": ("tokens = [1, 2]", "tokens = [1, 1]", "stands there twice", True),
    "rows_and_tokens": ("size = 2", 'size = 2\nrows = "all"', "either its tokens, or rows", True),
    "neither": ("tokens = [1, 2]", "", "either its tokens, or rows", True),
    "rows_unknown": ("tokens = [1, 2]", 'rows = "some"', "rows is", True),
    "every_with_size": ("tokens = [1, 2]", 'rows = "every"', "has no size", True),
    "negative_token": ("token = 1", "token = -1", "not a natural number", True),
    "token_is_true": ("token = 1", "token = true", "not a natural number", True),
    "token_is_float": ("token = 1", "token = 1.5", "not a natural number", True),
    "outside_universe": ("token = 1", "token = 3", "not in its universe", False),
    "token_lost": (
        "size = 2\ntokens = [1, 2]",
        "size = 3\ntokens = [1, 2, 7]",
        "1 of its 3 tokens are in no",
        False,
    ),
    "token_claimed_twice": ("token = 2", "token = 1", "asserts the same", False),
    "unknown_universe": ('universe = "u"', 'universe = "v"', "not described in this file", False),
    "unused_universe": (
        "[defaults]",
        '[universe.w]\nwhat = "w"\nsize = 1\ntokens = [1]\n[defaults]',
        "no claim is",
        False,
    ),
    "no_verdict": ('token = 1\nverdict = "speakable"', "token = 1", "either a verdict or a method", True),
    "verdict_unknown": ('verdict = "unspeakable"', 'verdict = "unlikely"', "verdict is", True),
    "verdict_and_method": ("token = 1\n", f"token = 1\n{LP}\n", "either a verdict or a method", True),
    "no_token": ("token = 1\n", "", "give either token", False),
    "token_and_tokens": ("token = 1\n", "token = 1\ntokens = [2]\n", "give either token", False),
    "no_domain": ('domain = "readout"\n', "", "domain is missing", False),
    "domain_unknown": ('"readout"', '"everywhere"', "unknown domain", True),
    "domain_spelled": ('"readout"', '"box:1.0"', "unknown domain", True),
    "hard_without_sense": ('verdict = "unspeakable"', 'verdict = "hard to speak"', "needs sense", False),
    "sense_elsewhere": (
        'verdict = "unspeakable"',
        'verdict = "unspeakable"\nsense = "post"',
        "needs sense",
        False,
    ),
    "sense_in_readout": (
        'verdict = "unspeakable"\nreported = { method = "lp", margin = "1e-7", argmax = 9 }',
        'verdict = "hard to speak"\nsense = "post"',
        "domain direction, not readout",
        False,
    ),
    "count_of_one_token": (
        'token = 1\nverdict = "speakable"',
        'token = 1\ncount = 1\nverdict = "speakable"',
        "whole",
        False,
    ),
    "count_too_large": ("count = 1", "count = 3", "in a universe of 2", False),
    "count_negative": ("count = 1", "count = -1", "count is not", True),
    "reported_contradicts": ("argmax = 9", "argmax = 2", "is not what unspeakable means", False),
    "reported_margin": ('margin = "1e-7"', 'margin = "0"', "positive decimal", False),
    "competitors": ('universe = "u"', 'universe = "u"\ncompetitors = "some"', "competitors is", True),
    "revision": ('universe = "u"', 'universe = "u"\nrevision = "main"', "revision is not of", True),
    "fingerprint": ('universe = "u"', 'universe = "u"\nfingerprint = "12"', "fingerprint is not of", True),
    "expect_unchecked": ('universe = "u"', 'universe = "u"\nexpect = "unchecked"', "expect is", True),
    "evidence_absolute": ('universe = "u"', 'universe = "u"\nevidence = ["/etc/passwd"]', "relative", False),
    "evidence_twice": ('universe = "u"', 'universe = "u"\nevidence = ["a", "a"]', "twice", True),
    "evidence_text": (
        'universe = "u"',
        'universe = "u"\nevidence = "a"',
        "evidence: give a list of paths, not text in quotes",
        True,
    ),
    "any_model": ('model = "m"', 'model = "any"', "go together", False),
    "method_unknown": (
        'verdict = "speakable"\n',
        'method = { name = "magic", argmax = 1 }\n',
        "method: name is",
        True,
    ),
    "method_domain": (
        'verdict = "speakable"\n',
        'method = { name = "own-vector", argmax = 1 }\n',
        "direction",
        False,
    ),
    "exact_argmax": (
        'verdict = "speakable"\n',
        LP[:-2].replace("infeasible", "feasible") + ", argmax = 1 }\n",
        "has a direction",
        False,
    ),
    "text_of_many": ('tokens = "all"', 'tokens = "all"\ntext = "x"', "single token", False),
    "no_claims": ("[[claim]]", "[[other]]", "unknown field 'other'", True),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_and_the_message_names_the_rule(name: str) -> None:
    old, new, message, schema = BROKEN[name]
    assert old in GOOD
    text = GOOD.replace(old, new) if name in ("no_claims",) else GOOD.replace(old, new, 1)
    with pytest.raises(MalformedError, match=re.escape(message)):
        read(text)
    if schema:
        assert not VALIDATOR.is_valid(tomllib.loads(text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for data in (b"\xff", b"", b"a" * 100, b"a = " + b"[" * 100000):
        with pytest.raises(MalformedError):
            from_bytes(data, tmp_path)


def test_the_schema_is_valid_and_closed() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert VALIDATOR.is_valid(tomllib.loads(GOOD))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_the_published_files_are_read_valid_and_written_the_same(path: Path) -> None:
    found = read_claims(path)
    assert VALIDATOR.is_valid(tomllib.loads(path.read_text()))
    again = from_bytes(toml_bytes(found), path)
    assert [vars(c) | {"line": 0} for c in again.claims] == [vars(c) | {"line": 0} for c in found.claims]
    assert (again.source, again.universes, again.header) == (found.source, found.universes, found.header)
    VALIDATOR.validate(tomllib.loads(toml_bytes(found).decode()))


TABLES = {"small-list": 59, "small-test": 14, "xl-list": 33, "xl-test": 33, "xl-edit": 33}


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_the_post_s_tables_is_there(name: str, whisper: Model) -> None:
    """So many rows; their texts are those of GPT-2's tokens, which are the bundled model's first."""
    found = read_claims(CLAIMS / f"post-2023-{name}.toml")
    rows = [c for c in found.claims if c.tokens is not None]
    assert len(rows) == TABLES[name] == found.universes[name].size
    for c in rows:
        assert c.text is None or c.text == whisper.tokens.text(c.members[0])
        assert c.model == ("openai-community/gpt2-xl" if name[0] == "x" else "openai-community/gpt2")
        assert c.domain.name == ("box:1" if name == "xl-edit" else "direction")
    assert sum(c.text is None for c in rows) == {"small-list": 46, "small-test": 1}.get(name, 2)


def test_the_tables_agree_with_each_other() -> None:
    tables = {name: read_claims(CLAIMS / f"post-2023-{name}.toml") for name in TABLES}
    tokens = {name: tables[name].universes[name].tokens for name in TABLES}
    assert tokens["xl-list"] == tokens["xl-test"] == tokens["xl-edit"]
    assert set(tokens["small-test"]) < set(tokens["small-list"])
    counts = {
        name: next(c.count for c in tables[name].claims if c.count is not None)
        for name in TABLES
        if name[-4:] != "list"
    }
    assert counts == {"small-test": 11, "xl-test": 4, "xl-edit": 33}

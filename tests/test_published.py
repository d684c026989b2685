"""The published certificates: all proved anew, none missing, and a sample by the standalone auditor."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from built_models import equal_rows
from standalone import AUDITOR, load_standalone

from verify.files import certificate_files
from verify.index import PAGE, SUMS, write_index
from verify.models import Model

PUBLISHED = AUDITOR.parent / "whisper-tiny.en"
DOMAINS = ("readout", "free", "direction", "box-1")
TOKENS = [
    int(word)
    for line in (PUBLISHED / "tokens.txt").read_text().splitlines()
    if not line.startswith("#")
    for word in line.split()
]
FILES = sorted(p.relative_to(PUBLISHED).as_posix() for p in certificate_files([PUBLISHED]))
CHANCE = random.Random(20261124)
UNSPEAKABLE = [f for f in FILES if '"verdict": "unspeakable"' in (PUBLISHED / f).read_text()]
NEVER = [f for f in UNSPEAKABLE if '"kind": "never"' in (PUBLISHED / f).read_text()]
WITNESSES = sorted(set(FILES) - set(UNSPEAKABLE))
TIES = sorted(set(UNSPEAKABLE) - set(NEVER))


def test_the_universe_is_counted() -> None:
    """Every token of the list has its file in every domain, and there are no others."""
    assert len(TOKENS) == len(set(TOKENS)) == 198
    assert sorted(f"{domain}/{token}.json" for domain in DOMAINS for token in TOKENS) == FILES


def test_the_chosen_tokens_are_what_the_page_says(whisper: Model) -> None:
    """All rows that equal another (by value: -0 = 0), the byte tokens 124 to 221, and the post's tokens."""
    equal = equal_rows(whisper)
    assert len(equal) == 78
    assert equal | set(range(124, 222)) | {30208, 30212, 30897, 30898, 30905, 39752, 45544} <= set(TOKENS)


def test_all_are_proved_anew_and_the_index_is_the_tool_s(tmp_path: Path) -> None:
    copy = tmp_path / "whisper-tiny.en"
    shutil.copytree(PUBLISHED, copy)
    for name in (PAGE, SUMS):
        (copy / name).unlink()
    assert write_index(copy) == len(FILES)
    for name in (PAGE, SUMS):
        assert (copy / name).read_bytes() == (PUBLISHED / name).read_bytes()


@pytest.mark.parametrize(
    "file",
    [*CHANCE.sample(WITNESSES, 4), *CHANCE.sample(TIES, 2), *CHANCE.sample(NEVER, 12), "readout/30208.json"],
)
def test_the_standalone_auditor_accepts_a_sample(file: str, whisper: Model) -> None:
    (weights,) = whisper.weights
    config = weights.parent / "config.json"
    result = load_standalone().audit_file(str(PUBLISHED / file), [str(weights)], str(config))
    assert result.outcome == "accepted", result.reason
    assert all("text" in x or "model" in x or "tokenizer" in x for x in result.hypotheses), result.hypotheses


def test_certificates_are_small() -> None:
    """At d = 384: under 20 kB each."""
    assert max((PUBLISHED / f).stat().st_size for f in FILES) < 20_000

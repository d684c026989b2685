"""Every file of the corpus, as both checkers see it: `verify audit` and the standalone auditor.

The corpus is made by tests/corpus/make.py, which shares no code with either; its index says what must
come of each file and why.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from standalone import AUDITOR, CORPUS, INDEX, load_standalone, model_files

from verify.errors import MalformedError
from verify.recheck import Auditor

STANDALONE = load_standalone()
# Written by hand; everything else in the folder is made.
BY_HAND = {".gitattributes"}


def by_verify(case: dict[str, str]) -> tuple[str, str]:
    model = None if case["model"] == "-" else str(CORPUS / "models" / case["model"])
    result = Auditor(model).audit(CORPUS / case["file"])
    error = result.error
    return result.outcome, error.rule if isinstance(error, MalformedError) else "-"


def told_by_standalone(path: Path, model: str) -> dict[str, Any]:
    """What `python certificates/audit.py` says of one file."""
    weights, config = model_files(model)
    arguments = [str(path), "--json"]
    for file in weights:
        arguments += ["--weights", file]
    arguments += [] if config is None else ["--config", config]
    out = io.StringIO()
    with redirect_stdout(out):
        STANDALONE.main(arguments)
    told: dict[str, Any] = json.loads(out.getvalue())
    return told


def by_standalone(case: dict[str, str]) -> tuple[str, str]:
    told = told_by_standalone(CORPUS / case["file"], case["model"])
    return told["outcome"], told["error"] or "-"


@pytest.mark.parametrize("case", INDEX, ids=lambda c: c["file"])
def test_verify_says_what_the_index_says(case: dict[str, str]) -> None:
    assert by_verify(case) == (case["outcome"], case["error"]), case["why"]


@pytest.mark.parametrize("case", INDEX, ids=lambda c: c["file"])
def test_the_standalone_auditor_says_what_the_index_says(case: dict[str, str]) -> None:
    if Path(case["file"]).name.startswith("tokenizer_contradicts_"):
        # It reads no tokenizer: what verify refutes is a hypothesis there, and said to be one.
        told = told_by_standalone(CORPUS / case["file"], case["model"])
        assert told["outcome"] == "accepted"
        assert any("token" in line for line in told["hypotheses"])
        return
    assert by_standalone(case) == (case["outcome"], case["error"]), case["why"]


def test_the_corpus_is_large_enough_and_accounted_for() -> None:
    """The universe is counted: every file is in the index, every line has its file."""
    listed = [case["file"] for case in INDEX]
    assert len(set(listed)) == len(listed)
    found = [
        p.relative_to(CORPUS).as_posix()
        for kind in ("accept", "reject", "malformed")
        for p in (CORPUS / kind).iterdir()
    ]
    assert sorted(found) == sorted(listed)
    kinds = Counter(case["outcome"] for case in INDEX)
    assert kinds["accepted"] >= 100
    assert kinds["refuted"] >= 200
    assert kinds["malformed"] >= 200
    assert kinds["unavailable"] >= 25
    assert all(case["why"] for case in INDEX)
    rules = {error.rule for error in all_rules(MalformedError)}
    assert {case["error"] for case in INDEX} == rules | {"-"}


def all_rules(kind: type[MalformedError]) -> set[type[MalformedError]]:
    return {x for sub in kind.__subclasses__() for x in {sub, *all_rules(sub)}}


def test_the_corpus_is_what_its_script_makes(tmp_path: Path) -> None:
    """Byte for byte, symbolic links by what they say."""
    subprocess.run([sys.executable, str(CORPUS / "make.py"), str(tmp_path)], check=True)

    def listing(root: Path) -> dict[str, bytes | str]:
        return {
            p.relative_to(root).as_posix(): str(p.readlink()) if p.is_symlink() else p.read_bytes()
            for p in root.rglob("*")
            if (p.is_symlink() or p.is_file()) and p.suffix not in (".py", ".pyc") and p.name not in BY_HAND
        }

    made, kept = listing(tmp_path), listing(CORPUS)
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == []


def test_the_standalone_auditor_shares_no_code_with_verify() -> None:
    """In a process of its own, with no path to the package, it loads nothing of it and nothing foreign."""
    code = (
        "import runpy, sys; sys.argv = ['audit.py', '--help']\n"
        f"try: runpy.run_path({str(AUDITOR)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "foreign = [m for m in sys.modules if m.partition('.')[0] not in sys.stdlib_module_names]\n"
        "print([m for m in foreign if not m.startswith('__')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"

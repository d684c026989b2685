"""What a terminal is sent: encodings that lack a letter, colours that are not wanted, large files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import run, run_on_terminal, square_checkpoint
from test_claims import claims

# A locale without letters beyond ASCII, as containers and cron jobs have.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
WORDS = ["裏覚醒", " Ĉirkaŭ", "\x1b[31m", "north", "[bold]", "裏" * 90]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A checkpoint whose tokens no ASCII terminal can show."""
    return square_checkpoint(tmp_path / "fremda", WORDS)


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[:1] in ("|", "+", "│", "┃")]


@pytest.mark.parametrize("form", ["file", "terminal"])
def test_tables_are_drawn_in_ascii_where_there_is_nothing_else(
    foreign: Path, tmp_path: Path, form: str
) -> None:
    def told(*arguments: object) -> str:
        if form == "terminal":
            code, text = run_on_terminal(*arguments, environment=ASCII)
            assert code == 0, text
            return COLOUR.sub("", text).replace("\r\n", "\n")
        done = run(*arguments, environment=ASCII)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    out = tmp_path / "ledgers"
    scan = told("scan", "--model", foreign, "--workers", 1, "--out", out)
    summary = told("summary", out, "--model", foreign)
    tokens = told("token", "0", "--model", foreign, "--domain", "all", "--out", tmp_path / "o")
    for text in (scan, summary, tokens):
        assert "Traceback" not in text
        lines = table_lines(text)
        assert lines
        assert "\n".join(lines).isascii()
    assert r"\u88cf\u899a\u9192" in summary
    # Nothing is cut off by an ellipsis that cannot be shown.
    assert r"\u2026" not in summary
    # Cells are measured as they are written: the right border of each table is a straight line.
    for part in re.split(r"\n *(?:unspeakable|thinnest margins) *\n", summary):
        assert len({len(line.rstrip()) for line in table_lines(part)}) == 1


def test_what_moves_on_a_terminal_is_drawn_in_ascii(foreign: Path, tmp_path: Path) -> None:
    code, text = run_on_terminal("token", "1", "--model", foreign, "--out", tmp_path, environment=ASCII)
    assert code == 0
    assert "proposing and checking" in text
    assert "\\u28" not in text  # a spinner of braille dots


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
@pytest.mark.parametrize("command", ["token", "claims"])
def test_a_verdict_is_coloured_on_terminals_that_want_it(
    model: Path, tmp_path: Path, command: str, environment: dict[str, str], coloured: bool
) -> None:
    if command == "token":
        code, text = run_on_terminal(
            "token", "2", "--model", model, "--out", tmp_path, environment=environment
        )
        word = "UNSPEAKABLE"
    else:
        file = claims(tmp_path, 'verdict = "unspeakable"')
        code, text = run_on_terminal(
            "claims", file, "--model-dir", f"square={model}", environment=environment
        )
        word = "CONFIRMED"
    assert code == 0, text
    assert re.search(rf"\x1b\[3[12]m{word}", text) is not None if coloured else COLOUR.search(text) is None
    assert word in text
    if environment.get("TERM") == "dumb":  # nor is the line drawn over
        assert "\x1b" not in text


def test_a_verdict_in_a_file_has_no_colour(model: Path, tmp_path: Path) -> None:
    assert "\x1b" not in run("token", "2", "--model", model, "--out", tmp_path).stdout


@pytest.mark.parametrize(
    "command", [("bundle",), ("convert", "--multipliers", "support"), ("export", "--format", "vipr")]
)
def test_files_are_not_written_to_a_terminal(model: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    told = run("token", "2", "--domain", "direction", "--model", model, "--out", tmp_path / "o")
    saved = re.search(r"^certificate +(.*)$", told.stdout, re.M)
    assert saved is not None
    whole = (command[0], saved[1], "--model", model, *command[1:])
    code, text = run_on_terminal(*whole)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert "give -o FILE, or redirect" in text
    piped = run(*whole)
    assert piped.returncode == 0
    assert len(piped.stdout) > 500
    code, text = run_on_terminal(*whole, "-o", tmp_path / "written")
    assert code == 0, text
    assert (tmp_path / "written").read_text() == piped.stdout


def test_every_exit_code_is_in_the_help() -> None:
    told = " ".join(run("--help").stdout.split("Exit codes:")[1].split())
    assert [int(code) for code in re.findall(r"(\d+) [a-z]", told)] == [0, 1, 2, 3, 4, 5, 70, 130, 141]


def test_a_reader_who_goes_away_is_no_verdict(model: Path) -> None:
    """`verify models | true`: not 1, which means refuted."""
    command = [sys.executable, "-m", "verify", "models", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.close()
        _, told = child.communicate(timeout=60)
    assert (child.returncode, told) == (141, "")

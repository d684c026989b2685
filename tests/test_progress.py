"""What long work tells while it goes on: a bar on a terminal, lines anywhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command import run, run_on_terminal

from verify.cli import progress


class Clock:
    """time.monotonic, by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    return made


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_long_work_is_told_at_each_tenth_part(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.phases() as tell:
        for done in range(501):
            clock.now = done
            tell("searching", done, 500)
    assert told(capsys) == [
        *(f"searching: {n} of 500 tokens" for n in range(50, 500, 50)),
        "searching: 500 tokens",
    ]


def test_short_work_is_told_once_and_quiet_work_never(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.phases(unit="answers") as tell:
        for done in range(501):
            clock.now = done / 1000
            tell("a", done, 500)
    assert told(capsys) == ["a: 500 answers"]
    with progress.phases(quiet=True, begin=str) as tell:
        for done in range(501):
            clock.now = done
            tell("b", done, 500)
    assert told(capsys) == []


def test_what_an_earlier_run_did_is_not_told_as_progress(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.phases(begin=lambda left: f"{left} to go") as tell:
        clock.now = 100.0
        tell("a", 55, 100)
        tell("a", 56, 100)
        clock.now = 200.0
        tell("a", 61, 100)
    assert told(capsys) == ["45 to go", "a: 61 of 100 tokens"]
    with progress.phases(begin=lambda left: f"{left} to go") as tell:
        tell("a", 100, 100)
    assert told(capsys) == ["a: 100 tokens"]
    with progress.phases() as tell:
        tell("a", 0, 0)
    assert told(capsys) == ["a: 0 tokens"]


def test_many_files_are_told_in_tenths(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for total, lines in ((progress.MANY, 0), (200, 9)):
        with progress.progress("auditing", total) as advance:
            for _ in range(total):
                clock.now += 1
                advance()
        assert len(found := told(capsys)) == lines
    assert found[0] == "auditing: 20 of 200 files"


def test_a_replay_says_at_once_what_it_asks(model: Path, tmp_path: Path) -> None:
    command = ("replay", "post", "--model", model, "--tokens", "0-3", "--margins", "1e-7,1e-6")
    begin = "asking HiGHS about 8 programs; what is answered is kept, and the same command goes on from there"
    first = run(*command, "--out", tmp_path / "a")
    assert first.stderr.splitlines() == [begin, "post, square: 8 answers"]
    again = run(*command, "--out", tmp_path / "a")
    assert again.stderr.splitlines() == ["post, square: 8 answers"]
    assert run(*command, "--out", tmp_path / "b", "--json").stderr == ""
    code, text = run_on_terminal(*command, "--out", tmp_path / "c")
    assert code == 0
    assert "asking HiGHS" not in text
    assert "answers/s" in text


def test_a_comparison_says_what_it_asks_and_what_is_done(model: Path, tmp_path: Path) -> None:
    command = ("token", "2", "--model", model, "--out", tmp_path, "--compare")
    lines = run(*command).stderr.splitlines()
    what = "the field's programs over all rows (minutes): "
    assert lines[0] == f"{what}asking HiGHS ..."
    assert [line.removeprefix(what).split(":")[0] for line in lines[1:]] == [
        "post",
        "post-without-own-row",
        "grivas",
    ]
    assert run(*command, "--json").stderr == ""


def test_a_terminal_that_cannot_draw_is_told_lines(model: Path, tmp_path: Path) -> None:
    command = ("scan", "--model", model, "--workers", "1", "--out")
    _, dumb = run_on_terminal(*command, tmp_path / "dumb", environment={"TERM": "dumb"})
    assert "searching: " in dumb
    assert "tokens/s" not in dumb
    assert "\x1b" not in dumb
    _, drawn = run_on_terminal(*command, tmp_path / "drawn")
    assert "tokens/s" in drawn

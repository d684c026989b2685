"""`verify claims`: errors beside outcomes, and what `--out` writes, keeps and refuses to write over."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command import square_checkpoint
from test_claims import CLAIMS, WHOLE, claims, run

from verify.claims import Result, exit_code, read_claims
from verify.claims.judge import CONFIRMED, ERROR, REFUTED, UNCHECKED, UNDECIDED
from verify.errors import EXIT_UNAVAILABLE
from verify.models.hub import Snapshot

COMMIT = "0123456789abcdef0123456789abcdef01234567"


pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture
def square(tmp_path: Path) -> Path:
    return square_checkpoint(tmp_path / "square")


@pytest.fixture
def here(tmp_path: Path, square: Path) -> list[Any]:
    return ["--model-dir", f"square={square}"]


# ---- an error is an outcome of its claim ----


def test_a_refuted_claim_is_not_lost_by_the_error_of_another(
    tmp_path: Path, here: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    lost = claims(tmp_path, 'verdict = "unspeakable"\nevidence = ["absent.json"]', name="lost.toml")
    false = claims(tmp_path, 'verdict = "speakable"', name="false.toml")
    done = run("claims", lost, false, *here, "--format", "github")
    assert done.returncode == 1
    errors = [line for line in done.stdout.splitlines() if line.startswith("::error ")]
    assert [("absent.json" in line, "REFUTED" in line) for line in errors] == [(True, False), (False, True)]
    assert "| ERROR |" in summary.read_text()
    data = json.loads(run("claims", lost, false, *here, "--format", "json").stdout)
    assert data["exit_code"] == 1
    assert (data["counts"]["ERROR"], data["counts"]["REFUTED"]) == (1, 1)
    assert "absent.json" in data["claims"][1]["reason"]
    junit = run("claims", lost, *here, "--format", "junit").stdout
    assert '<error message="ERROR one' in junit
    (run_,) = json.loads(run("claims", lost, *here, "--format", "sarif").stdout)["runs"]
    assert [(r["ruleId"], r["level"]) for r in run_["results"]] == [("ok", "none"), ("error", "error")]


@pytest.mark.parametrize(
    ("outcomes", "allowed", "code"),
    [
        ([CONFIRMED, (ERROR, 5)], True, 5),
        ([UNCHECKED], True, 0),
        ([UNCHECKED], False, 5),
        ([UNCHECKED, UNDECIDED], False, 3),
        ([UNDECIDED, (ERROR, 5)], False, 5),
        ([UNDECIDED, (ERROR, 5), (ERROR, 4)], False, 4),
        ([REFUTED, (ERROR, 2), UNDECIDED], False, 1),
        ([CONFIRMED, (ERROR, 1)], False, 1),
        ([CONFIRMED], False, 0),
    ],
)
def test_the_exit_code_is_that_of_the_worst(outcomes: list[Any], allowed: bool, code: int) -> None:
    file = read_claims(CLAIMS / "post-2023-margin.toml")
    claim = file.claims[0]
    made = [
        Result(file, claim, o[0], error=o[1]) if isinstance(o, tuple) else Result(file, claim, o)
        for o in outcomes
    ]
    assert claim.expect == "confirmed"
    assert exit_code(made, allow_unchecked=allowed) == code


def test_cached_weights_that_are_broken_are_an_error_and_absent_ones_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = square_checkpoint(tmp_path / COMMIT)
    gone = Snapshot("org/square", COMMIT, folder, ConnectionError("offline"))
    monkeypatch.setattr("verify.models.model.find_snapshot", lambda *_: gone)
    monkeypatch.setattr("verify.models.hub.weights.download", lambda *_: folder)
    path = claims(tmp_path, 'verdict = "unspeakable"')
    path.write_text(path.read_text().replace('"square"', '"org/square"', 1))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    done = run("claims", path, "--allow-unchecked")
    assert (done.returncode, "2 ERROR" in done.stdout) == (5, True)
    weights.unlink()
    done = run("claims", path, "--allow-unchecked")
    assert (done.returncode, "2 UNCHECKED" in done.stdout) == (0, True)
    weights.write_bytes(whole)
    assert run("claims", path).returncode == 0


def test_claims_on_every_model_take_no_folder(tmp_path: Path, square: Path) -> None:
    done = run("claims", claims(tmp_path, 'verdict = "unspeakable"'), "--model-dir", f"any={square}")
    assert (done.returncode, "look at no weights" in done.stderr) == (2, True)


def test_a_summary_that_cannot_be_written_changes_no_exit_code(
    tmp_path: Path, here: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "absent" / "summary.md"))
    done = run("claims", claims(tmp_path, 'verdict = "unspeakable"'), *here, "--format", "github")
    assert done.returncode == 0
    assert "::warning title=verify claims::no step summary" in done.stdout


def test_the_line_of_an_id_is_not_one_inside_a_text(tmp_path: Path) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"\nnote = """\nid = "whole"\nid = "one"\n"""')
    path.write_text(path.read_text().replace("[[claim]]", '[[claim]]\nnote = "first"', 1))
    lines = path.read_text().splitlines()
    for claim in read_claims(path).claims:
        assert lines[claim.line - 1] == f'id = "{claim.id}"'
        assert claim.line < lines.index("note = " + '"""')


def test_messages_move_no_cursor_and_begin_no_line() -> None:
    for name in (
        b"x\r::error title=forged::hi\x1b[2K.toml",
        b"x\n::error title=forged::hi.toml",
        b"\xff.toml",
    ):
        line = [sys.executable, "-m", "verify", "claims", name]
        done = subprocess.run(line, capture_output=True, check=False)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1
        assert not set(done.stderr) & {0x0D, 0x1B, 0xFF}


def test_texts_that_the_terminal_cannot_show_are_no_internal_error(tmp_path: Path, here: list[Any]) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"\nnote = "サーティ"')
    command = [sys.executable, "-m", "verify", "claims", path, *here]
    done = subprocess.run(
        command, capture_output=True, check=False, env={"PYTHONIOENCODING": "cp1252", "HF_HUB_OFFLINE": "1"}
    )
    assert (done.returncode, b"\\u30b5" in done.stdout) == (0, True)


# ---- what --out writes, and over what it does not ----


def decided(out: Path, path: Path, here: list[Any], *more: Any) -> Any:
    return run("claims", path, *here, "--recompute", "--out", out, *more)


@pytest.mark.parametrize("name", ["README.md", "outcomes.json", "SHA256SUMS"])
def test_files_of_others_are_not_written_over(tmp_path: Path, here: list[Any], name: str) -> None:
    path, out = claims(tmp_path, 'verdict = "unspeakable"'), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("precious")
    done = decided(out, path, here)
    assert (done.returncode, name in done.stderr) == (2, True)
    assert [p.name for p in out.iterdir()] == [name]
    assert (out / name).read_text() == "precious"
    (out / name).unlink()
    assert decided(out, path, here).returncode == 0
    assert decided(out, path, here).returncode == 0


@pytest.mark.parametrize("where", ["c.toml", "README.md", "claims/c.toml", "deep/er/c.toml"])
def test_inputs_in_the_folder_are_refused(tmp_path: Path, here: list[Any], where: str) -> None:
    out = tmp_path / "out"
    path = out / where
    path.parent.mkdir(parents=True)
    claims(tmp_path, 'verdict = "unspeakable"').rename(path)
    before = path.read_bytes()
    done = decided(out, path, here)
    assert done.returncode == 2
    assert path.read_bytes() == before


def test_evidence_in_the_folder_is_refused(tmp_path: Path, here: list[Any]) -> None:
    out = tmp_path / "out"
    assert decided(out, claims(tmp_path, 'verdict = "unspeakable"'), here).returncode == 0
    broken = out / "square" / "readout" / "2.json"
    broken.write_bytes(broken.read_bytes().replace(b'"token": 2', b'"token": 3'))
    before = broken.read_bytes()
    path = claims(
        tmp_path, 'verdict = "unspeakable"\nevidence = ["out/square/readout/2.json"]', name="d.toml"
    )
    done = decided(out, path, here)
    assert (done.returncode, "lies in the folder of --out" in done.stderr) == (2, True)
    assert broken.read_bytes() == before


def test_the_folder_names_its_files_from_itself_and_lists_this_run_s_alone(
    tmp_path: Path, here: list[Any]
) -> None:
    out = tmp_path / "out"
    assert decided(out, claims(tmp_path, 'verdict = "unspeakable"', name="a.toml"), here).returncode == 0
    (out / "secret.env").write_text("KEY=1")
    path = claims(tmp_path, 'verdict = "speakable"', token=1, name="b c.toml")
    alone = path.read_text().replace(WHOLE, "")
    path.write_text(alone.replace('[universe.all]\nwhat = "all rows"\nsize = 6\nrows = "all"\n', ""))
    assert decided(out, path, here).returncode == 0
    listed = {line.split("  ", 1)[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    assert listed == {"README.md", "outcomes.json", "claims/b c.toml", "square/readout/1.json"}
    report = json.loads((out / "outcomes.json").read_text())
    assert {c["file"] for c in report["claims"]} == {"claims/b c.toml"}
    page = (out / "README.md").read_text()
    assert "verify claims 'claims/b c.toml' --audit" in page
    assert "square/readout/1.json: speakable" in page
    for text in (page, json.dumps(report), (out / "claims" / "b c.toml").read_text()):
        assert str(tmp_path) not in text


def test_what_other_models_were_not_asked_is_listed(tmp_path: Path, here: list[Any], square: Path) -> None:
    path, out = claims(tmp_path, 'verdict = "unspeakable"\ncompetitors = "all"'), tmp_path / "out"
    text = path.read_text() + '[[claim]]\nid = "hard"\nuniverse = "one"\ntoken = 2\n'
    path.write_text(text + 'verdict = "hard to speak"\nsense = "model"\n')
    done = decided(out, path, [*here, "--model-dir", f"other={square}"], "--also", "other")
    assert done.returncode == 0
    page = (out / "README.md").read_text()
    assert "Not asked of them (other questions, or more than 1,000 tokens): c.toml: hard." in page


def test_an_error_leaves_the_folder_unwritten_and_says_so(tmp_path: Path, here: list[Any]) -> None:
    copy = tmp_path / "m.toml"
    copy.write_text((CLAIMS / "post-2023-margin.toml").read_text())
    (tmp_path / "printed-program.proof").write_text("{}")
    done = decided(tmp_path / "out", copy, [])
    assert done.returncode == 4
    assert not (tmp_path / "out" / "README.md").exists()
    assert "are not in" in done.stderr


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_no_error_of_the_folder_hides_an_outcome(tmp_path: Path, here: list[Any], form: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "claims").write_text("a file where a folder goes")
    done = decided(out, claims(tmp_path, 'verdict = "speakable"'), here, "--format", form)
    assert done.returncode == 1
    assert "REFUTED" in done.stdout
    assert "claims" in done.stderr
    done = decided(out, claims(tmp_path, 'verdict = "unspeakable"'), here, "--format", form)
    assert done.returncode == 5
    assert "CONFIRMED" in done.stdout
    if form == "json":
        assert json.loads(done.stdout)["exit_code"] == 5


@pytest.mark.parametrize("name", ["README.md", "outcomes.json", "claims", "sha256sums"])
def test_no_model_goes_by_the_name_of_a_file_in_the_folder(tmp_path: Path, square: Path, name: str) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"')
    path.write_text(path.read_text().replace('"square"', f'"{name}"', 1))
    done = decided(tmp_path / "out", path, ["--model-dir", f"{name}={square}"])
    assert (done.returncode, "names another file" in done.stderr) == (2, True)


def test_a_path_that_no_system_takes_is_one_claim_s_error(tmp_path: Path, here: list[Any]) -> None:
    long = claims(tmp_path, f'verdict = "unspeakable"\nevidence = ["{"a" * 300}"]', name="long.toml")
    false = claims(tmp_path, 'verdict = "speakable"', name="false.toml")
    done = run("claims", long, false, *here)
    assert done.returncode == 1
    assert ("ERROR" in done.stdout, "REFUTED" in done.stdout) == (True, True)
    assert run("claims", long, *here).returncode == 5


def test_a_link_to_itself_is_no_internal_error(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    assert run("claims", tmp_path / "loop.toml").returncode == 5


def test_junit_is_utf_8_whatever_the_terminal_has(tmp_path: Path, here: list[Any]) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"\nnote = "é サーティ"')
    command = [sys.executable, "-m", "verify", "claims", path, *here, "--format", "junit"]
    done = subprocess.run(
        command, capture_output=True, check=False, env={"PYTHONIOENCODING": "latin-1", "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0
    assert ElementTree.fromstring(done.stdout).tag == "testsuites"


def test_claims_of_strangers_in_the_folder_are_kept_and_those_of_earlier_runs_made_anew(
    tmp_path: Path, here: list[Any]
) -> None:
    path, out = claims(tmp_path, 'verdict = "unspeakable"'), tmp_path / "out"
    (out / "claims").mkdir(parents=True)
    (out / "claims" / path.name).write_text("precious")
    done = decided(out, path, here)
    assert (done.returncode, f"claims/{path.name} would be written over" in done.stderr) == (2, True)
    assert (out / "claims" / path.name).read_text() == "precious"
    (out / "claims" / path.name).unlink()
    assert decided(out, path, here).returncode == 0
    (out / "SHA256SUMS").unlink()  # as if it had been stopped while it wrote
    (out / "outcomes.json").unlink()
    assert decided(out, path, here).returncode == 0
    assert (out / "SHA256SUMS").is_file()


def test_a_folder_of_evidence_is_an_input_too(tmp_path: Path, here: list[Any]) -> None:
    out = tmp_path / "certs" / "v1"
    assert decided(out, claims(tmp_path, 'verdict = "unspeakable"'), here).returncode == 0
    path = claims(tmp_path, 'verdict = "unspeakable"\nevidence = ["certs"]', name="d.toml")
    done = decided(out, path, here)
    assert (done.returncode, "lies in the folder of --out" in done.stderr) == (2, True)


def test_evidence_that_was_not_looked_into_is_left_out_with_a_note(tmp_path: Path, here: list[Any]) -> None:
    first = tmp_path / "first"
    assert decided(first, claims(tmp_path, 'verdict = "unspeakable"'), here).returncode == 0
    text = 'verdict = "unspeakable"\nevidence = ["first/square/readout/2.json"]'
    path = claims(tmp_path, text, name="d.toml")
    path.write_text(path.read_text().replace('"square"', '"org/square"', 1))
    broken = first / "square" / "readout" / "2.json"
    broken.write_text(broken.read_text().replace('"square"', '"org/square"', 1))
    out = tmp_path / "out"
    assert decided(out, path, [], "--allow-unchecked").returncode == 0
    (claim,) = [c for c in read_claims(out / "claims" / "d.toml").claims if c.id == "one"]
    assert claim.evidence == ()
    assert "first/square/readout/2.json" in claim.note
    moved = out.rename(tmp_path / "moved")
    assert run("claims", moved / "claims" / "d.toml", "--audit", "--allow-unchecked").returncode == 0


def sums(out: Path) -> set[str]:
    """The files that SHA256SUMS lists, after checking them."""
    found = [line.split("  ", 1) for line in (out / "SHA256SUMS").read_text().splitlines()]
    for digest, name in found:
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    return {name for _, name in found}


def everything(out: Path) -> set[str]:
    return {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {"SHA256SUMS"}


def test_proofs_that_come_along_are_in_the_sums(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = decided(out, CLAIMS / "post-2023-margin.toml", [], "--allow-unchecked")
    assert done.returncode == 0
    assert "claims/printed-program.proof" in sums(out)
    assert sums(out) == everything(out)
    assert "claims/printed-program.proof" not in (out / "outcomes.json").read_text()


def test_ledgers_are_in_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: list[Any]) -> None:
    monkeypatch.setattr("verify.claims.compute.MANY", 3)
    path, out = claims(tmp_path, 'verdict = "unspeakable"'), tmp_path / "out"
    text = path.read_text() + '[[claim]]\nid = "every"\nuniverse = "all"\ntokens = "all"\n'
    path.write_text(text.replace(WHOLE, "") + 'verdict = "speakable"\nexpect = "refuted"\n')
    done = decided(out, path, here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "square/readout.ledger/ledger.json" in sums(out)
    assert sums(out) == everything(out)


def test_an_out_that_is_a_file_is_told_to_be_one(tmp_path: Path, here: list[Any]) -> None:
    file = tmp_path / "notes.md"
    file.write_text("mine")
    done = run("claims", claims(tmp_path, 'verdict = "unspeakable"'), *here, "--recompute", "--out", file)
    assert done.returncode == EXIT_UNAVAILABLE
    assert f"{file} is a file, and a folder is wanted: choose another with --out" in done.stderr
    assert file.read_text() == "mine"

"""The command line as a user meets it: output, files, exit codes, and what bad input does."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pulp
import pytest
from command import WORDS, run, square_checkpoint

import verify
import verify.api
import verify.cli
from verify.decision import Decision
from verify.errors import MalformedError, OutputError, RefutedError
from verify.files import write_atomically
from verify.kernel import Speakable
from verify.render import decision_lines, short_exact


def test_a_decided_token_is_saved_audited_and_shown(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = run("token", " corner", "--model", model, "--out", out, "--domain", "all")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("SPEAKABLE") >= 4
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.json"))
    assert files == [f"square/{d}/1.json" for d in ("box-1", "direction", "free", "readout")]
    audited = run("audit", out, "--model", model)
    assert audited.returncode == 0
    assert "4 of 4 accepted" in audited.stdout
    shown = run("show", out / files[-1])
    assert shown.returncode == 0
    assert "verify audit" in shown.stdout


def test_an_exact_margin_is_called_hexadecimal(model: Path) -> None:
    told = run("token", "1", "--model", model, cwd=model.parent).stdout
    shown = re.search(r"exactly ([0-9a-f]+/[0-9a-f]+) \(hexadecimal\)", told)
    assert shown is not None, told
    (decision,) = verify.token(1, str(model))
    assert isinstance(decision.claim, Speakable)
    p, q = (int(part, 16) for part in shown[1].split("/"))
    assert Fraction(p, q) == decision.claim.margin
    assert short_exact("a" * 40 + "/" + "1" * 40) == "a" * 20 + "..." + "1" * 12 + " (hexadecimal, 80 digits)"


def hinted(stdout: str) -> list[str]:
    """The arguments of the last command that a hint names."""
    (line,) = [x for x in stdout.splitlines() if x.startswith("To check them again: ")]
    return shlex.split(line.rpartition("verify ")[2])


def test_the_hint_is_about_the_certificates_of_this_model(model: Path, tmp_path: Path) -> None:
    """In a folder of certificates of several models, and where paths have spaces."""
    out, other = tmp_path / "all of them", tmp_path / "another one" / "my model"
    other.parent.mkdir()
    model.rename(other)
    square = square_checkpoint(tmp_path / "square")
    first = square / "model.safetensors"
    first.write_bytes(first.read_bytes().replace(bytes(8), b"\x00\x00\x20\x41" * 2, 1))
    for place in (square, other):
        told = run("token", "1", "2", "--model", place, "--out", out)
        assert run(*hinted(told.stdout)).stdout.splitlines()[-1] == "2 of 2 accepted"
    assert run("audit", out, "--model", other).returncode == 1
    told = run("token", "1", "--model", other, "--out", out, "--readout", "transformer-lens")
    (line,) = [x for x in told.stdout.splitlines() if x.startswith("To check them again: ")]
    pack = shlex.split(line.partition("verify ")[2].partition(",")[0])
    assert run(*pack, cwd=tmp_path).returncode == 0
    assert run(*hinted(told.stdout), cwd=tmp_path).returncode == 0


def test_json_has_one_object_a_domain_with_the_promised_keys(model: Path, tmp_path: Path) -> None:
    told = run("token", "2", "--model", model, "--out", tmp_path / "o", "--domain", "all", "--json")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [x["domain"] for x in lines] == ["readout", "free", "direction", "box:1"]
    for x in lines:
        assert x["verdict"] == "UNSPEAKABLE"
        assert x["kind"] == "never"
        assert x["text"] == "centre"
        assert {"token", "model", "margin", "gap", "certificate", "seconds"} <= set(x)
        assert Path(x["certificate"]).is_file()


def test_a_duplicate_is_named_as_equal_rows(model: Path, tmp_path: Path) -> None:
    told = run("token", "twin", "--model", model, "--out", tmp_path / "o")
    assert "UNSPEAKABLE (tie-only" in told.stdout
    assert "equal rows" in told.stdout
    assert "'<pad>'" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("token", "no such text"), 2, "not the text of one token"),
        (("token", "99"), 2, "out of range"),
        (("token", "-5"), 2, "token id -5 is out of range: ids are 0 to 5"),
        (("token", "1", "-17", "--domain", "all"), 2, "token id -17 is out of range: ids are 0 to 5"),
        (("token", "--domain", "all", "--", "-5"), 2, "token id -5 is out of range: ids are 0 to 5"),
        (("token", "1", "-5x"), 2, "No such option"),
        (("token", "1", "-x"), 2, "No such option"),
        (("token", "1", "--domain", "box:1.50"), 2, "without trailing zeros"),
        (("token", "1", "--domain", "sphere"), 2, "unknown domain"),
        (("token", "1", "--proposer", "oracle"), 2, "oracle"),
        (("token", "1", "--proposer", "pulp", "--solver", "NOSUCH"), 2, "available"),
        (("token", "1", "--time-limit", "5"), 2, "goes with --compare"),
        (("token", "1", "--out", "/dev/null/x"), 5, "--out"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_bad_requests_end_in_one_clear_error(
    model: Path, arguments: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    extra = ("--model", str(model)) if arguments[0] == "token" else ()
    told = run(*arguments, *extra, cwd=tmp_path)
    assert told.returncode == code
    assert words in told.stderr
    assert "Traceback" not in told.stderr


def test_the_proposer_s_solver_error_is_not_swallowed_as_undecided(model: Path, tmp_path: Path) -> None:
    told = run("token", "1", "--model", model, "--solver", "NOSUCH", "--proposer", "pulp", cwd=tmp_path)
    assert told.returncode == 2


def test_a_name_in_a_certificate_is_no_path(model: Path, tmp_path: Path) -> None:
    run("token", "1", "--model", model, "--out", tmp_path / "o")
    told = run("audit", tmp_path / "o", cwd=model.parent)
    assert told.returncode == 5
    assert "pass it with --model" in told.stderr
    assert run("audit", tmp_path / "o", "--model", model.name, cwd=model.parent).returncode == 0


def test_notes_and_revision_stay_on_their_lines(model: Path) -> None:
    loaded = verify.load_model(str(model))
    noted = replace(loaded.readout, notes=("\x1b[2Jhello\nverdict  UNSPEAKABLE",))
    (decision,) = verify.token(1, replace(loaded, readout=noted, revision="x\nverdict  UNSPEAKABLE"))
    lines = decision_lines(decision)
    assert [text for label, text in lines if label == "note"] == [r"'\x1b[2Jhello\nverdict  UNSPEAKABLE'"]
    assert all(text.isprintable() for _, text in lines)


def test_a_certificate_for_other_weights_is_refuted(model: Path, tmp_path: Path) -> None:
    run("token", "1", "--model", model, "--out", tmp_path / "o")
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    told = run("audit", tmp_path / "o", "--model", model)
    assert told.returncode == 1
    assert "other weights" in told.stderr


def test_the_audit_exit_code_is_that_of_the_worst_file(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    run("token", "1", "--model", model, "--out", out)
    good = next(out.rglob("*.json"))
    (out / "bad.json").write_bytes(good.read_bytes()[:-10])
    assert run("audit", out, "--model", model).returncode == 4
    assert run("audit", out / "bad.json", out / "missing.json", "--model", model).returncode == 4
    assert run("audit", out / "missing.json", "--model", model).returncode == 5
    assert run("audit", good, "--model", tmp_path / "nowhere").returncode == 5
    text = good.read_text().replace('"token": 1', '"token": 2')
    (out / "other.json").write_text(text)
    told = run("audit", out, "--model", model)
    assert told.returncode == 1
    assert "1 of 3 accepted" in told.stdout


def test_a_wrong_token_text_is_refuted(model: Path, tmp_path: Path) -> None:
    run("token", "1", "--model", model, "--out", tmp_path / "o")
    path = next((tmp_path / "o").rglob("*.json"))
    path.write_text(path.read_text().replace('"text": " corner"', '"text": "centre"'))
    result = verify.audit(path, str(model))
    assert isinstance(result.error, RefutedError)


def test_a_text_left_out_contradicts_no_tokenizer(model: Path, tmp_path: Path) -> None:
    """docs/certificates.md: null says that no tokenizer was at hand, or that it has no such id."""
    words = (model / "tokens.json").read_bytes()
    (model / "tokens.json").unlink()
    (one,) = verify.token(1, str(model), out=tmp_path / "o")
    alone = verify.audit(str(one.path), str(model))
    assert (alone.outcome, alone.hypotheses) == ("accepted", [])  # what is not said is no hypothesis
    (model / "tokens.json").write_bytes(words)
    result = verify.audit(str(one.path), str(model))
    assert result.outcome == "accepted"
    note = "the statement gives no text; the tokenizer at hand reads token 1 as ' corner'"
    assert note in result.notes
    assert note in run("audit", one.path, "--model", model).stdout


def test_texts_of_rows_beyond_the_tokenizer(model: Path, tmp_path: Path) -> None:
    (model / "tokens.json").unlink()
    (model / "vocab.json").write_text(json.dumps({text: n for n, text in enumerate(WORDS[:5])}))
    (one,) = verify.token(5, str(model), out=tmp_path / "o")
    assert one.path is not None
    result = verify.audit(one.path, str(model))
    assert (result.outcome, [note for note in result.notes if "text" in note]) == ("accepted", [])
    one.path.write_text(one.path.read_text().replace('"text": null', '"text": "twin"'))
    assert verify.audit(one.path, str(model)).outcome == "refuted"


def test_competitors_of_the_tokenizer_are_part_of_the_statement(model: Path, tmp_path: Path) -> None:
    (model / "vocab.json").write_text(json.dumps({word: j for j, word in enumerate(WORDS[:5])}))
    (one,) = verify.token(0, str(model), competitors="tokenizer", out=tmp_path / "o")
    assert one.verdict == "SPEAKABLE"  # its twin, id 5, is no competitor
    assert one.competitors == 5
    assert verify.audit(str(one.path), str(model)).outcome == "accepted"
    (model / "vocab.json").unlink()
    assert verify.audit(str(one.path), str(model)).outcome == "refuted"


def test_a_padded_row_against_the_tokenizer_s_ids(model: Path, tmp_path: Path) -> None:
    (model / "tokens.json").unlink(missing_ok=True)
    (model / "vocab.json").write_text(json.dumps({text: n for n, text in enumerate(WORDS[:5])}))
    told = run("token", "5", "--model", model, "--competitors", "tokenizer", "--out", tmp_path / "o")
    assert "5 (no text: the tokenizer ends at id 4)" in told.stdout
    assert "against the tokenizer's ids 0..4" in told.stdout
    assert run("audit", tmp_path / "o", "--model", model).returncode == 0
    told = run("token", "6", "--model", model)
    assert (told.returncode, "ids 0 to 5" in told.stderr) == (2, True)


def test_a_support_alone_is_smaller_and_audits_as_well(model: Path, tmp_path: Path) -> None:
    sizes = {}
    for form in ("full", "support"):
        (one,) = verify.token("centre", str(model), domain="direction", multipliers=form, out=tmp_path / form)
        assert one.verdict == "UNSPEAKABLE"
        assert verify.audit(str(one.path), str(model)).outcome == "accepted"
        sizes[form] = len(one.certificate)
    assert '"values": null' in (tmp_path / "support" / "square" / "direction" / "2.json").read_text()
    assert sizes["support"] <= sizes["full"]


def test_show_refuses_what_is_no_certificate(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(MalformedError):
        verify.show(path)
    assert run("show", path).returncode == 4


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(tmp_path / "a" / "b.json", b"x" * 1000)
    assert list((tmp_path / "a").iterdir()) == []


def test_an_interruption_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Ctrl-C while a token is decided: exit code 130 and an empty folder."""
    out = tmp_path / "o"
    command = [sys.executable, "-m", "verify", "token", "30208", "--out", str(out)]

    def heed() -> None:
        """Background jobs of a shell are started with SIGINT ignored."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as child:
        while not out.is_dir() and child.poll() is None:  # made just before the work begins
            time.sleep(0.01)
        time.sleep(0.5)  # past the start, where a foreign library's callback may swallow the signal
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted" in stderr
    assert [p for p in out.rglob("*") if p.is_file()] == []


def test_an_interruption_of_workers_is_quiet(tmp_path: Path) -> None:
    """A terminal sends it to the workers too; what they share is given back without a warning."""
    journal = tmp_path / "whisper-tiny.en" / "readout.ledger" / "journal.tsv"
    command = [sys.executable, "-m", "verify", "scan", "--tokens", "0-9999", "--workers", "2"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        while not journal.exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(2)  # until the workers are there
        os.killpg(child.pid, signal.SIGINT)
        _, told = child.communicate(timeout=60)
    assert child.returncode == 130
    lines = [line for line in told.splitlines() if line and not line.startswith("own directions: ")]
    assert lines == [
        "verify: interrupted; what was found is kept: the same command goes on from there",
    ]


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        # While modules are imported.
        ("click.py", ["-m", "verify", "--help"]),
        ("click.py", ["-c", "from verify.__main__ import main; main()", "--help"]),
        # While Python takes itself apart.
        ("sitecustomize.py", ["-m", "verify", "--help"]),
    ],
)
def test_an_interruption_at_the_start_or_the_end_is_quiet(
    tmp_path: Path, stage: str, arguments: list[str]
) -> None:
    wait = "import sys, time; print('HERE', file=sys.stderr, flush=True); time.sleep(30)"
    program = f"import atexit; atexit.register(lambda: exec({wait!r}))" if stage != "click.py" else wait
    (tmp_path / stage).write_text(program)
    root = str(Path(verify.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "HERE\n"
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == ""
    # A shell shows 130 for both.
    assert child.returncode == (130 if stage == "click.py" else -signal.SIGINT)


def test_the_installed_command_is_the_one_that_heeds_interruptions() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"verify": "verify.__main__:main"}


@pytest.mark.parametrize(
    ("word", "said"), [("scan", "goes on"), ("replay", "goes on"), ("token", "saved"), ("audit", "saved")]
)
def test_what_an_interruption_leaves_is_told(
    word: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify.cli.command, "main", interrupted)
    monkeypatch.setattr(sys, "argv", ["verify", word, "x"])
    with pytest.raises(SystemExit) as stop:
        verify.cli.main()
    assert stop.value.code == 130
    assert said in capsys.readouterr().err


def test_a_readout_described_by_hand_is_audited_under_hypotheses(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    refused = run("token", "1", "--model", model, cwd=tmp_path)
    assert refused.returncode == 5
    assert "model.embed_tokens.weight" in refused.stderr
    hand = ["--unembedding", "model.embed_tokens.weight", "--norm", "rmsnorm"]
    hand += ["--norm-gain", "model.norm.weight", "--epsilon", "1e-6"]
    told = run("token", "1", "--model", model, "--out", tmp_path / "o", *hand)
    assert told.returncode == 0
    audited = run("audit", tmp_path / "o", "--model", model)
    assert audited.returncode == 0
    assert audited.stdout.startswith("HYPOTHESIS")


def imported(heavy: set[str], *arguments: object) -> str:
    """Which of these modules a command line imports, as a set in text; it must succeed."""
    code = (
        f"import sys; sys.argv = {['verify', *map(str, arguments)]!r}\n"
        "from verify.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"print({heavy!r} & set(sys.modules), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return told.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["token", "--help"], ["say", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = {"numpy", "scipy", "torch", "transformers", "pulp", "flint", "rich", "huggingface_hub"}
    assert imported(heavy, *arguments) == "set()"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_each_result_is_told_before_the_next_is_decided(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: tuple[str, ...],
) -> None:
    decide_all, told = verify.api.decide_all, []

    def watched(*arguments: Any, **options: Any) -> Iterator[Decision]:
        for decision in decide_all(*arguments, **options):
            yield decision
            told.append(capsys.readouterr().out)

    monkeypatch.setattr(verify.api, "decide_all", watched)
    command = ("token", "1", "2", "--model", str(model), "--domain", "all", "--out", str(tmp_path), *form)
    verify.cli.command.main(command, standalone_mode=False)
    told.append(capsys.readouterr().out)
    words = '"verdict":' if form else "\nverdict "
    assert [text.count(words) for text in told] == [1] * 8


def test_an_easy_token_needs_no_solver(model: Path, tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "pulp", "highspy", "scipy.optimize", "huggingface_hub", "rich"}
    told = imported(heavy, "token", "1", "--model", model, "--out", tmp_path / "o")
    assert told == "set()"


def test_audit_imports_no_solver(model: Path, tmp_path: Path) -> None:
    (one,) = verify.token(1, str(model), out=tmp_path)
    code = (
        "import sys, verify\n"
        f"assert verify.audit({str(one.path)!r}, {str(model)!r}).outcome == 'accepted'\n"
        "heavy = {'scipy', 'torch', 'pulp', 'highspy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_compare_judges_the_field_s_programs(model: Path, tmp_path: Path) -> None:
    told = run("token", "2", "--model", model, "--out", tmp_path / "o", "--compare", "--json")
    rows = [json.loads(x)["compare"] for x in told.stdout.splitlines() if x.startswith('{"compare"')]
    assert [r["program"] for r in rows] == ["post", "post-without-own-row", "grivas"]
    assert {r["exact_verdict"] for r in rows} == {"unspeakable"}


@pytest.mark.parametrize("command", [("token", "1", "--compare"), ("replay", "post", "--tokens", "1")])
@pytest.mark.parametrize("limit", ["nan", "inf", "-inf", "-1", "0", "soon"])
def test_a_time_limit_is_a_number_of_seconds(command: tuple[str, ...], limit: str, tmp_path: Path) -> None:
    """Said before the model is looked for."""
    told = run(*command, "--model", "nowhere/at-all", "--time-limit", limit, cwd=tmp_path)
    assert told.returncode == 2
    assert "--time-limit" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_time_limit_that_was_reached_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(_: object, program: Any) -> None:
        time.sleep(0.1)
        program.assignStatus(pulp.LpStatusNotSolved, pulp.LpSolutionNoSolutionFound)

    monkeypatch.setattr(pulp.HiGHS, "actualSolve", slow)
    command = ("token", "2", "--model", str(model), "--out", str(tmp_path), "--compare", "--time-limit")
    for limit, said in (("0.1", 3), ("1000", 0)):
        verify.cli.command.main((*command, limit), standalone_mode=False)
        told = " ".join(capsys.readouterr().out.split())
        assert told.count("no answer") >= 3
        assert told.count("time limit of 0.1 s reached") == said


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        ("type('Panic', (BaseException,), {})('x')", 70, "internal error, please report: Panic: x"),
        ("OSError(13, 'Permission denied', 'f.json')", 5, "cannot read or write 'f.json': Permission denied"),
        ("OSError(28, 'No space left on device')", 5, "cannot write: No space left on device"),
    ],
)
def test_what_else_is_raised_is_no_verdict(raised: str, code: int, message: str) -> None:
    program = (
        f"from verify import cli\ndef broken(**_): raise {raised}\ncli.command.main = broken\ncli.main()"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (code, f"verify: {message}\n")

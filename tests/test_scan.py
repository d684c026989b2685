"""Scans: ledgers agree with single decisions and brute force, resume, and refuse what does not belong."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from built_models import from_small
from built_models import model as built
from command import run as verify
from command import square_checkpoint
from oracle import decide as oracle_decide
from oracle import random_small_model
from standalone import AUDITOR

from verify.decide import Decider
from verify.errors import (
    EXIT_REFUTED,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    ModelUnavailableError,
    OutputError,
    RefutedError,
    UsageError,
)
from verify.kernel import State, ledger, parse_domain
from verify.kernel.ledger import Row
from verify.models import Model, load_model
from verify.recheck import Auditor
from verify.scan import worker
from verify.scan.extract import _claim as extract_claim
from verify.scan.extract import extract
from verify.scan.folder import HEADER, JOURNAL, QUESTION, Journal, LedgerFolder, find_ledgers
from verify.scan.product import multiplier
from verify.scan.run import Scan, scan
from verify.scan.summary import markdown, summarise, table

DOMAINS = ("readout", "free", "direction", "box:1")
VERDICT = {"own": "SPEAKABLE", "hard": "SPEAKABLE", "tied": "UNSPEAKABLE", "unspeakable": "UNSPEAKABLE"}


def rows_of(found: Scan) -> dict[int, Row]:
    return {row.token: row for row in found.folder.rows()}


def verdicts(found: Scan) -> dict[int, str]:
    return {t: VERDICT.get(row.cls, "UNDECIDED") for t, row in rows_of(found).items()}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("seed", range(6))
def test_a_ledger_agrees_with_brute_force(tmp_path: Path, domain: str, seed: int) -> None:
    """Rational enumeration and the scan give every token of a small model the same verdict."""
    rng = random.Random(seed)
    small = random_small_model(rng, V=rng.randint(3, 9))
    model = from_small(small)
    if model.readout.norm != "none" and model.readout.epsilon == 0:
        pytest.skip("epsilon = 0: no ledger is kept")
    found = verdicts(scan(model, domain, tmp_path))
    for token, verdict in found.items():
        if verdict != "UNDECIDED":
            assert (verdict == "SPEAKABLE") == oracle_decide(small, token, domain).speakable, token


@pytest.mark.parametrize("domain", ["direction", "free"])
@pytest.mark.filterwarnings("error")
def test_huge_rows_overflow_in_silence_and_change_no_verdict(tmp_path: Path, domain: str) -> None:
    rows = np.random.default_rng(3).integers(-64, 65, (24, 3)) / 64.0
    found = [
        verdicts(scan(built(rows * 2.0**k, "rmsnorm"), domain, tmp_path / str(k), workers=1))
        for k in (0, 100)
    ]
    assert found[0] == found[1]
    assert set(found[0].values()) == {"SPEAKABLE", "UNSPEAKABLE"}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", ["stories260K", "rxnmapper-albert"])
def test_a_scan_of_a_real_model_agrees_with_single_decisions(
    tmp_path: Path, real_model: Callable[[str], Model], name: str, domain: str
) -> None:
    """Every token decided; a sample of them decided one by one, by the search of `verify token`, agrees."""
    model = real_model(name)
    part = None if domain != "box:1" else (0, 99)
    found = scan(model, domain, tmp_path, tokens=part)
    assert found.proved.counts.get("undecided", 0) == 0
    here = verdicts(found)
    assert len(here) == (model.readout.vocabulary if part is None else 100)
    decider = Decider(model)
    for token in random.Random(5).sample(sorted(here), 12):
        assert decider.decide(token, parse_domain(domain)).verdict == here[token], token


def test_the_known_tokens_of_a_small_model(tmp_path: Path, real_model: Callable[[str], Model]) -> None:
    """<pad> and <unk> are unspeakable in both domains; <sos> in `direction` alone."""
    model = real_model("tinygpt-slm-05")
    readout = verdicts(scan(model, "readout", tmp_path))
    direction = verdicts(scan(model, "direction", tmp_path))
    assert [t for t, v in readout.items() if v == "UNSPEAKABLE"] == [2, 3]
    assert [t for t, v in direction.items() if v == "UNSPEAKABLE"] == [0, 2, 3]


def test_the_order_of_rows_does_not_matter(tmp_path: Path, real_model: Callable[[str], Model]) -> None:
    """A model with its rows permuted has the same classes and flags, permuted."""
    first = real_model("stories260K").readout.unembedding
    order = np.random.default_rng(3).permutation(first.shape[0])[:200]
    values = first.raw.view("<f4")[np.sort(order)]
    shuffle = np.random.default_rng(4).permutation(len(values))
    a = scan(built(values, "rmsnorm"), "readout", tmp_path / "a")
    b = scan(built(values[shuffle], "rmsnorm"), "readout", tmp_path / "b")
    before, after = rows_of(a), rows_of(b)
    for new, old in enumerate(shuffle.tolist()):
        ours, theirs = after[new], before[old]
        assert (ours.cls, ours.hard_post, ours.hard_model) == (
            theirs.cls,
            theirs.hard_post,
            theirs.hard_model,
        )
        if ours.cls == "own":
            assert ours.amount == theirs.amount


def test_workers_do_not_change_the_answer(tmp_path: Path) -> None:
    """One process and three give the same classes, flags and exact margins of own directions."""
    model = square_checkpoint(tmp_path / "square")
    one = scan(str(model), "readout", tmp_path / "one", workers=1)
    three = scan(str(model), "readout", tmp_path / "three", workers=3)
    assert rows_of(one) == rows_of(three)


class _Stop(Exception):
    """Stands for a kill."""


def test_an_interrupted_scan_goes_on(tmp_path: Path, real_model: Callable[[str], Model]) -> None:
    """Stopped with the last line torn: nothing is lost but that line, and no row is double."""
    model = real_model("tinygpt-slm-05")

    def stop(what: str, done: int, total: int) -> None:
        if what == "searching" and done == 5:
            raise _Stop

    with pytest.raises(_Stop):
        scan(model, "readout", tmp_path, tell=stop)
    folder = LedgerFolder.below(tmp_path, model.name, "readout")
    journal = folder.path / JOURNAL
    kept = journal.read_bytes().count(b"\n")
    assert kept > 400
    journal.write_bytes(journal.read_bytes()[:-7])
    again = scan(model, "readout", tmp_path)
    assert again.resumed == kept - 1
    assert not journal.exists()
    assert not (folder.path / QUESTION).exists()
    whole = scan(model, "readout", tmp_path / "whole")
    assert [r.cls for r in again.folder.rows()] == [r.cls for r in whole.folder.rows()]
    # A finished ledger is only checked.
    assert scan(model, "readout", tmp_path).resumed == 445


def test_what_is_said_of_an_unfinished_scan(tmp_path: Path) -> None:
    """How far it is and how it goes on, from its journal, which a running scan may be writing."""
    model = square_checkpoint(tmp_path / "square")
    out = tmp_path / "out"

    def stop(what: str, done: int, total: int) -> None:
        if what == "checking":
            raise _Stop

    with pytest.raises(_Stop):
        scan(str(model), "readout", out, workers=1, tokens=(0, 4), tell=stop)
    folder = LedgerFolder.below(out, "square", "readout")
    lines = (folder.path / JOURNAL).read_bytes().splitlines(keepends=True)
    for torn, words in (
        (b"".join(lines), "5 of 5 tokens done"),
        (b"".join(lines[:3]) * 2 + lines[3][:-1], "3 of 5 tokens done"),
        (b"", "0 of 5 tokens done"),
    ):
        (folder.path / JOURNAL).write_bytes(torn)
        for command in (("summary", out), ("summary", folder.path), ("extract", folder.path, "0")):
            told = verify(*command, "--model", model)
            assert told.returncode == EXIT_USAGE
            assert f"is unfinished, {words}: the same `verify scan` command" in told.stderr
            assert "model square, domain readout, tokens 0 to 4" in told.stderr
            assert (folder.path / JOURNAL).read_bytes() == torn
    # Beside a finished one it is a note.
    scan(str(model), "free", out, workers=1)
    told = verify("summary", out, "--model", model)
    assert told.returncode == 0
    assert "note: " in told.stderr
    assert "0 of 5 tokens done" in told.stderr
    assert "domain free" in told.stdout
    scan(str(model), "readout", out, workers=1, tokens=(0, 4))
    assert verify("summary", out, "--model", model).stderr == ""


def test_a_killed_command_goes_on(tmp_path: Path, models_folder: Path) -> None:
    """SIGKILL in the middle of the search: the same command ends the scan, and no worker is left."""
    command = [sys.executable, "-m", "verify", "scan", "--model", str(models_folder / "stories260K")]
    command += ["--out", str(tmp_path / "out"), "--workers", "2"]
    journal = tmp_path / "out" / "stories260K" / "readout.ledger" / JOURNAL
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for _ in range(600):
        if process.poll() is not None or (journal.exists() and journal.read_bytes().count(b"\n") > 230):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = verify(*command[3:])
    assert again.returncode == 0, again.stderr
    assert "tokens were there from an earlier run" in again.stderr
    assert sum(1 for _ in find_ledgers(tmp_path)[0].rows()) == 512


@pytest.mark.parametrize("change", ["domain", "weights", "tokens", "competitors"])
def test_another_question_in_the_same_folder_is_refused(tmp_path: Path, change: str) -> None:
    """What belongs to other weights, tokens or competitors is neither mixed in nor overwritten."""
    model = square_checkpoint(tmp_path / "square")
    done = scan(str(model), "readout", tmp_path / "out", workers=1)
    if change == "domain":
        other = LedgerFolder.below(tmp_path / "out", "square", "free")
        done.folder.path.rename(other.path)
        with pytest.raises(UsageError, match="another folder"):
            scan(str(model), "free", tmp_path / "out", workers=1)
        return
    if change == "weights":
        file = model / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    tokens = (0, 2) if change == "tokens" else None
    competitors = "tokenizer" if change == "competitors" else "all"
    with pytest.raises(UsageError, match="another folder"):
        scan(str(model), "readout", tmp_path / "out", workers=1, tokens=tokens, competitors=competitors)


def test_an_audit_counts_rows_and_notices_files(tmp_path: Path) -> None:
    """A file of rows that was changed, is missing or is another's: refuted or unavailable, never accepted."""
    model = square_checkpoint(tmp_path / "square")
    done = scan(str(model), "readout", tmp_path / "out", workers=1)
    auditor = Auditor(str(model))
    assert auditor.audit_ledger(done.folder).accepted
    rows = done.folder.path / "rows-00000.tsv"
    good = rows.read_bytes()
    rows.write_bytes(good.replace(b"own", b"hard", 1))
    assert auditor.audit_ledger(done.folder).outcome == "refuted"
    header = done.folder.header()
    forged = ledger.Header(
        header.statement,
        header.first,
        header.last,
        header.grid,
        (("rows-00000.tsv", ledger.digest(good[: good.index(b"\n") + 1])),),
    )
    rows.write_bytes(good[: good.index(b"\n") + 1])
    (done.folder.path / HEADER).write_bytes(ledger.header_bytes(forged))
    dropped = auditor.audit_ledger(done.folder)
    assert dropped.outcome == "refuted"
    assert "end before token" in str(dropped.error)
    rows.unlink()
    assert auditor.audit_ledger(done.folder).outcome == "unavailable"
    (done.folder.path / HEADER).write_bytes(b"{}")
    assert auditor.audit_ledger(done.folder).outcome == "malformed"


def test_the_commands(tmp_path: Path) -> None:
    """scan, audit, summary and its tables from the command line, with their exit codes."""
    model = square_checkpoint(tmp_path / "square")
    made = verify("scan", "--model", model, "--domain", "all", "--out", tmp_path / "out", "--json")
    assert made.returncode == 0, made.stderr
    lines = [json.loads(line) for line in made.stdout.splitlines()]
    assert [x["domain"] for x in lines] == list(DOMAINS)
    assert lines[0]["classes"] == {"own": 3, "hard": 0, "tied": 2, "unspeakable": 1, "undecided": 0}
    audit = verify("audit", tmp_path / "out", "--model", model)
    assert audit.returncode == 0, audit.stderr
    assert "4 of 4 accepted" in audit.stdout
    assert json.loads(
        verify("audit", tmp_path / "out/square/free.ledger", "--model", model, "--json").stdout
    )["classes"]
    page, rows = tmp_path / "page.md", tmp_path / "rows.csv"
    readout = tmp_path / "out/square/readout.ledger"
    summary = verify("summary", readout, "--model", model, "--csv", rows, "--markdown", page)
    assert summary.returncode == 0, summary.stderr
    assert "' corner'" in summary.stdout
    assert "hard to speak" in page.read_text()
    with rows.open(newline="") as file:
        records = list(csv.DictReader(file))
    assert [r["verdict"] for r in records].count("UNSPEAKABLE") == 3
    assert verify("summary", tmp_path / "out", "--model", model, "--csv", rows).returncode == EXIT_USAGE
    assert verify("summary", tmp_path / "square", "--model", model).returncode == EXIT_USAGE
    assert verify("scan", "--model", model, "--tokens", "3-99").returncode == EXIT_USAGE
    assert verify("scan", "--model", model, "--tokens", "x").returncode == EXIT_USAGE
    first = readout / "rows-00000.tsv"
    first.write_bytes(first.read_bytes()[::-1])
    assert verify("audit", tmp_path / "out", "--model", model).returncode == EXIT_REFUTED


@pytest.mark.parametrize("domain", DOMAINS)
def test_rows_become_certificates(tmp_path: Path, domain: str) -> None:
    """Every row of a ledger as a certificate file, which both auditors accept."""
    model = square_checkpoint(tmp_path / "square")
    found = scan(str(model), domain, tmp_path / "out", workers=1)
    out = tmp_path / "certificates"
    made = verify("extract", found.folder.path, "--model", model, "--out", out, *range(6))
    assert made.returncode == 0, made.stderr
    files = sorted(out.rglob("*.json"))
    assert sorted(map(str, files)) == sorted(made.stdout.split())
    audit = verify("audit", *files, "--model", model)
    assert "6 of 6 accepted" in audit.stdout
    alone = [sys.executable, str(AUDITOR), *map(str, files), "--weights", str(model / "model.safetensors")]
    done = subprocess.run(
        [*alone, "--config", str(model / "config.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for problem in (["6"], ["no such text"]):
        refused = verify("extract", found.folder.path, "--model", model, "--out", out, *problem)
        assert refused.returncode == EXIT_USAGE
    assert (
        verify("extract", tmp_path / "square", "--model", model, "--out", out, "0").returncode == EXIT_USAGE
    )
    undecided = Row(2, "undecided", False, False, 0, 0, reason="nothing passed")
    with pytest.raises(UsageError, match=r"undecided .*\(nothing passed\)"):
        extract_claim(undecided, State((0, 0), 0))


def test_an_undecided_row_keeps_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is proposed: what its own direction does not settle, and no equal row, stays undecided."""
    monkeypatch.setattr("verify.search.Search.run", lambda _: None)
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    found = scan(model, "readout", tmp_path / "out", workers=1)
    rows = [row for row in found.folder.rows() if row.cls == "undecided"]
    assert rows
    assert found.proved.counts["undecided"] == len(rows)
    reason = "no proposal passed the exact check. Tried: nothing"
    assert {row.reason for row in rows} == {reason}
    summary = summarise(found.folder, model)
    assert f"| {rows[0].token} | 'centre' | {reason} |" in markdown([summary], 3)
    assert [x["reason"] for x in table(summary) if x["verdict"] == "UNDECIDED"] == [reason] * len(rows)
    with pytest.raises(UsageError, match="Tried: nothing"):
        list(extract(found.folder, model, [rows[0].token]))


def test_a_readout_described_by_hand_is_scanned(tmp_path: Path) -> None:
    """The same options as for one token; the ledger is audited by its own description."""
    model = square_checkpoint(tmp_path / "square")
    (model / "config.json").unlink()
    described = [
        "--unembedding", "model.embed_tokens.weight", "--norm", "rmsnorm",
        "--norm-gain", "model.norm.weight", "--epsilon", "1e-6",
    ]  # fmt: skip
    out = tmp_path / "out"
    assert verify("scan", "--model", model, "--out", out).returncode == EXIT_UNAVAILABLE
    made = verify("scan", "--model", model, "--out", out, *described, "--workers", "2")
    assert made.returncode == 0, made.stderr
    audit = verify("audit", out, "--model", model)
    assert audit.returncode == 0, audit.stderr
    assert "by hand" in audit.stdout


def test_parquet(tmp_path: Path) -> None:
    """The table survives Parquet with its types."""
    parquet = pytest.importorskip("pyarrow.parquet")
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    done = scan(model, "direction", tmp_path / "out")
    from verify.scan.summary import write_parquet

    summary = summarise(done.folder, model)
    write_parquet(summary, tmp_path / "rows.parquet")
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == list(table(summary))


def test_a_page_of_several_domains(tmp_path: Path) -> None:
    """Counts of all domains side by side; every unspeakable token is listed."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    found = [summarise(scan(model, d, tmp_path / "out").folder, model) for d in ("readout", "direction")]
    page = markdown(found, 3)
    assert "| tied: unspeakable, an equal row ties with it everywhere | 2 | 2 |" in page
    assert page.count("'centre'") >= 2


def test_torch_gives_the_same_rows(tmp_path: Path) -> None:
    """Products by torch (here on the processor) leave the same verdicts and margins as numpy's."""
    pytest.importorskip("torch")
    model = square_checkpoint(tmp_path / "square")
    plain = scan(str(model), "readout", tmp_path / "numpy", workers=1)
    torch = scan(str(model), "readout", tmp_path / "torch", workers=1, device="torch")
    assert rows_of(plain) == rows_of(torch)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, or emulated products: said before any work is done."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        with pytest.raises(ModelUnavailableError, match="no GPU"):
            multiplier("cuda")
    monkeypatch.setenv("CUBLAS_EMULATE_SINGLE_PRECISION", "1")
    with pytest.raises(ModelUnavailableError, match="emulated"):
        multiplier("torch")


def test_a_full_disk_ends_the_scan_and_not_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written is an error; what was written before it is gone on with."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    real, calls = os.fsync, []

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        scan(model, "readout", tmp_path / "out", workers=1)
    monkeypatch.undo()
    assert scan(model, "readout", tmp_path / "out", workers=1).resumed >= 5
    if Path("/dev/full").exists():
        with Journal(Path("/dev/full")) as journal, pytest.raises(OutputError, match="cannot write"):
            journal.add([Row(0, "undecided", False, False, 0, 0)])


def test_a_lying_worker_is_caught_before_the_ledger_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows from workers are checked by the kernel in the scan's own process."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    honest = worker.Worker.search

    def lying(self: worker.Worker, row: Row) -> Row:
        found = honest(self, row)
        return replace(found, amount=(found.amount or 0) + Fraction(1))

    monkeypatch.setattr(worker.Worker, "search", lying)
    with pytest.raises(RefutedError):
        scan(model, "readout", tmp_path / "out", workers=1)
    assert not LedgerFolder.below(tmp_path / "out", model.name, "readout").complete
    monkeypatch.undo()
    again = scan(model, "readout", tmp_path / "out", workers=1)
    assert again.resumed == model.readout.vocabulary - 1
    assert verdicts(again) == verdicts(scan(model, "readout", tmp_path / "other", workers=1))


def test_a_worker_with_other_weights_is_refused(tmp_path: Path) -> None:
    """What a machine of a cluster has under the same path may differ."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    question = worker.Question(model.source, "0" * 64, "readout", "all", 40)
    with pytest.raises(UsageError, match="other weights"):
        worker.Worker(question)
    with pytest.raises(UsageError, match="made in memory"):
        worker.Worker(replace(question, model=None))


def test_a_journal_without_its_question_is_not_believed(tmp_path: Path) -> None:
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    done = scan(model, "readout", tmp_path / "out", workers=1)
    rows = ledger.rows_bytes(done.folder.rows())
    header = replace(done.folder.header(), files=())
    other = LedgerFolder(tmp_path / "interrupted")
    other.path.mkdir()
    (other.path / JOURNAL).write_bytes(rows)
    assert other.resume(header) == {}
    assert not (other.path / JOURNAL).exists()
    (other.path / JOURNAL).write_bytes(rows + b"7\ttorn")
    assert len(other.resume(header)) == len(rows.splitlines())
    assert (other.path / JOURNAL).read_bytes() == rows


def test_files_of_rows_end_before_they_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long rows make short files; together they hold every row once."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    plain = scan(model, "readout", tmp_path / "out", workers=1)
    monkeypatch.setattr("verify.scan.folder._FILE_BYTES", 100)
    many = scan(model, "readout", tmp_path / "many", workers=1)
    assert rows_of(plain) == rows_of(many)
    assert len(many.folder.header().files) > len(plain.folder.header().files) == 1


def test_what_a_ledger_cannot_give_is_not_extracted(tmp_path: Path) -> None:
    """A file that is there, a row that is missing, a header that the model's files contradict."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    done = scan(model, "readout", tmp_path / "out", workers=1)
    out = ["--model", tmp_path / "square", "--out", tmp_path / "certificates"]
    assert verify("extract", done.folder.path, "1", *out).returncode == 0
    there = verify("extract", done.folder.path, "1", *out)
    assert there.returncode == EXIT_USAGE
    assert "there already" in there.stderr
    header, rows = done.folder.header(), list(done.folder.rows())
    for kept, said in (
        (rows[:3] + rows[4:], header.statement),
        (rows, replace(header.statement, competitors=3, competitor_rule="tokenizer")),
    ):
        data = ledger.rows_bytes(kept)
        (done.folder.path / "rows-00000.tsv").write_bytes(data)
        forged = replace(header, statement=said, files=(("rows-00000.tsv", ledger.digest(data)),))
        (done.folder.path / HEADER).write_bytes(ledger.header_bytes(forged))
        with pytest.raises(RefutedError):
            list(extract(done.folder, model, [3]))


def test_an_unknown_device_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        multiplier("gpu")
    model = square_checkpoint(tmp_path / "square")
    done = verify("scan", "--model", model, "--device", "xyz", "--out", tmp_path / "out")
    assert done.returncode == EXIT_USAGE
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two processors")
def test_a_dead_worker_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """A pool whose process was killed: an error, and the same command goes on."""
    model = square_checkpoint(tmp_path / "square")

    def kill(what: str, done: int, total: int) -> None:
        if done == 0:
            import multiprocessing

            for child in multiprocessing.active_children():
                child.kill()

    with pytest.raises((UsageError, ModelUnavailableError)):
        for _ in range(3):
            scan(str(model), "readout", tmp_path / "out", workers=2, tell=kill)
            (find_ledgers(tmp_path / "out")[0].path / HEADER).unlink()
    assert scan(str(model), "readout", tmp_path / "out", workers=2).proved.counts["own"] == 3


def test_a_dask_cluster_and_a_worker_killed_in_the_middle(tmp_path: Path, models_folder: Path) -> None:
    """Two worker processes, one killed while it searches: nothing is lost, the rows are the same classes."""
    distributed = pytest.importorskip("distributed")
    model = str(models_folder / "stories260K")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        killed: list[int] = []

        def kill(what: str, done: int, total: int) -> None:
            if what == "searching" and done == 20 and not killed:
                victim = next(iter(cluster.workers.values())).process.pid
                killed.append(victim)
                os.kill(victim, signal.SIGKILL)

        found = scan(model, "readout", tmp_path / "there", scheduler=cluster.scheduler_address, tell=kill)
    assert killed
    here = scan(model, "readout", tmp_path / "here", workers=1)
    assert [r.cls for r in found.folder.rows()] == [r.cls for r in here.folder.rows()]


def test_no_cluster_at_an_address(tmp_path: Path) -> None:
    """Said plainly, with what to do."""
    pytest.importorskip("distributed")
    model = square_checkpoint(tmp_path / "square")
    with pytest.raises(ModelUnavailableError, match="no Dask scheduler"):
        scan(str(model), "readout", tmp_path / "out", scheduler="nowhere")

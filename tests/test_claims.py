"""`verify claims`: outcomes, expectations, exit codes, and evidence that is for something else."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from subprocess import run as process
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from command import square_checkpoint

from verify.claims import Judge, Result, exit_code, read_claims
from verify.claims.compute import Computer
from verify.claims.printed import check_proof, proof_bytes
from verify.claims.weights import Weights
from verify.cli import command
from verify.errors import (
    FieldValueError,
    MalformedError,
    ModelUnavailableError,
    RefutedError,
    UsageError,
    VerifyError,
)
from verify.kernel import READOUT
from verify.scan.run import scan

ROOT = Path(__file__).parent.parent
CLAIMS = ROOT / "certificates" / "claims"
# Rows of the square: 0 and 5 are equal, 2 is the centre; 1, 3 and 4 are corners.
HEAD = """format = "verify-claims"
version = 1
[source]
title = "The square, <a & b>"
author = "Nobody"
date = "2026"
address = "-"
[universe.all]
what = "all rows"
size = 6
rows = "all"
[universe.one]
what = "one token"
size = 1
tokens = [{token}]
[defaults]
model = "square"
domain = "readout"
"""
WHOLE = """[[claim]]
id = "whole"
universe = "all"
tokens = "all"
verdict = "unspeakable"
count = 3
"""


ENVIRONMENT = {"HF_HUB_OFFLINE": "1"}


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str = ""


def run(*arguments: Any) -> Done:
    """The command in this process; its errors as `main` tells them."""
    words = list(map(str, arguments))
    done = CliRunner().invoke(command, words, standalone_mode=False, env=ENVIRONMENT)
    if isinstance(done.exception, VerifyError):
        return Done(done.exception.exit_code, done.stdout, str(done.exception))
    if done.exception is not None:
        raise done.exception
    return Done(done.return_value, done.stdout, done.stderr)


pytestmark = pytest.mark.usefixtures("no_hub")


def claims(folder: Path, one: str, token: int = 2, name: str = "c.toml") -> Path:
    """A file with the true count, and one claim on one token."""
    path = folder / name
    text = (
        HEAD.format(token=token)
        + WHOLE
        + f'[[claim]]\nid = "one"\nuniverse = "one"\ntoken = {token}\n{one}\n'
    )
    path.write_text(text)
    return path


def judged(path: Path, model: Path | None, mode: str = "default", name: str = "square") -> list[Result]:
    weights = Weights({name: model} if model is not None else {})
    judge = Judge(weights, Computer(), mode)
    file = read_claims(path)
    return [judge.judge(file, claim) for claim in file.claims]


def one(path: Path, model: Path | None, mode: str = "default") -> Result:
    return next(r for r in judged(path, model, mode) if r.claim.id == "one")


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return square_checkpoint(tmp_path_factory.mktemp("model") / "square")


@pytest.fixture(scope="module")
def saved(square: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of all tokens in all domains."""
    import verify

    out = tmp_path_factory.mktemp("saved")
    for token in range(6):
        verify.token(token, str(square), "all", out=out)
    return out


@pytest.fixture
def work(saved: Path, tmp_path: Path) -> Path:
    """A folder with copies of the certificates in square/."""
    shutil.copytree(saved / "square", tmp_path / "square")
    return tmp_path


# ---- outcomes and exit codes ----


def test_confirmed_and_refuted(square: Path, tmp_path: Path) -> None:
    true = claims(tmp_path, 'verdict = "unspeakable"')
    assert [r.outcome for r in judged(true, square)] == ["CONFIRMED", "CONFIRMED"]
    result = one(claims(tmp_path, 'verdict = "speakable"'), square)
    assert result.outcome == "REFUTED"
    assert "unspeakable, Farkas multipliers" in result.findings[0].words


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('verdict = "unspeakable"', 0),
        ('verdict = "unspeakable"\nexpect = "refuted"', 1),
        ('verdict = "unspeakable"\nexpect = "undecided"', 1),
        ('verdict = "unspeakable"\nexpect = "open"', 0),
        ('verdict = "speakable"', 1),
        ('verdict = "speakable"\nexpect = "refuted"', 0),
        ('verdict = "speakable"\nexpect = "open"', 0),
    ],
)
def test_the_exit_code_is_that_of_the_expectation(text: str, code: int, square: Path, tmp_path: Path) -> None:
    done = run("claims", claims(tmp_path, text), "--model-dir", f"square={square}")
    assert done.returncode == code, done.stdout + done.stderr
    assert ("NOT AS EXPECTED" in done.stdout) == (code == 1)


def test_a_wrong_count_is_refuted(square: Path, tmp_path: Path) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"')
    path.write_text(path.read_text().replace("count = 3", "count = 2"))
    result = judged(path, square)[0]
    assert (result.outcome, result.counts) == ("REFUTED", (3, 3, 0))


def test_without_weights_a_claim_is_unchecked_and_never_passes(tmp_path: Path) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"\nexpect = "open"')
    assert {r.outcome for r in judged(path, None)} == {"UNCHECKED"}
    assert run("claims", path).returncode == 5
    done = run("claims", path, "--allow-unchecked")
    assert done.returncode == 0
    assert "2 UNCHECKED" in done.stdout
    assert "not at hand" in done.stdout


def test_an_audit_decides_nothing(square: Path, tmp_path: Path) -> None:
    """With weights at hand and no evidence a claim is undecided, whatever is allowed."""
    path = claims(tmp_path, 'verdict = "unspeakable"')
    done = run("claims", path, "--audit", "--allow-unchecked", "--model-dir", f"square={square}")
    assert done.returncode == 3, done.stdout
    assert one(path, square, "audit").outcome == "UNDECIDED"


def test_the_worst_exit_code_wins(square: Path, tmp_path: Path) -> None:
    good = judged(claims(tmp_path, 'verdict = "unspeakable"'), square)
    bad = judged(claims(tmp_path, 'verdict = "speakable"'), square)
    undecided = judged(claims(tmp_path, 'verdict = "speakable"'), square, "audit")
    unchecked = judged(claims(tmp_path, 'verdict = "speakable"'), None)
    assert exit_code(good) == 0
    assert exit_code([*good, *unchecked]) == 5
    assert exit_code([*good, *unchecked], allow_unchecked=True) == 0
    assert exit_code([*unchecked, *undecided], allow_unchecked=True) == 3
    assert exit_code([*unchecked, *undecided, *bad], allow_unchecked=True) == 1


def test_options_that_do_not_go_together(square: Path, tmp_path: Path) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"')
    for options in (
        ["--audit", "--recompute"],
        ["--out", tmp_path / "o"],
        ["--recompute", "--also", "square"],
        ["--model-dir", "square"],
        ["--model-dir", f"square={tmp_path / 'absent'}"],
        ["--model-dir", f"other={square}"],
        ["--model-dir", f"square={square}", "--model-dir", f"square={square}"],
    ):
        assert run("claims", path, *options).returncode == 2, options


# ---- evidence ----


def test_saved_evidence_confirms_without_a_solver(square: Path, work: Path) -> None:
    path = claims(work, 'verdict = "unspeakable"\nevidence = ["square/readout/2.json"]')
    path.write_text(path.read_text().replace("count = 3", 'count = 3\nevidence = ["square/readout"]'))
    code = (
        "import sys; from verify.cli import command\n"
        f"code = command.main(['claims', {str(path)!r}, '--audit', '--model-dir', 'square={square}'], "
        "standalone_mode=False)\n"
        "heavy = {'scipy', 'torch', 'pulp', 'highspy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = process([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_certificate_that_went_missing_is_noticed(square: Path, work: Path) -> None:
    path = claims(work, 'verdict = "unspeakable"\nevidence = ["square/readout/2.json"]')
    path.write_text(path.read_text().replace("count = 3", 'count = 3\nevidence = ["square/readout"]'))
    (work / "square/readout/5.json").unlink()
    done = run("claims", path, "--audit", "--allow-unchecked", "--model-dir", f"square={square}")
    assert done.returncode == 3
    (work / "square/readout/2.json").unlink()
    done = run("claims", path, "--audit", "--allow-unchecked", "--model-dir", f"square={square}")
    assert done.returncode == 5
    assert "no such file" in done.stdout


def test_certificates_swapped_between_claims(square: Path, work: Path) -> None:
    for model in (square, None):
        with pytest.raises(FieldValueError, match=r"claim 'one': evidence .*: it is about token 1,"):
            one(claims(work, 'verdict = "unspeakable"\nevidence = ["square/readout/1.json"]'), model)
    done = run("claims", claims(work, 'verdict = "unspeakable"\nevidence = ["square/readout/1.json"]'))
    assert done.returncode == 4


def test_evidence_for_another_model(square: Path, work: Path) -> None:
    path = claims(work, 'verdict = "unspeakable"\nevidence = ["square/readout/2.json"]')
    path.write_text(path.read_text().replace('"square"\n', '"circle"\n'))
    with pytest.raises(FieldValueError, match="another model"):
        judged(path, square, name="circle")


def test_evidence_for_other_weights(work: Path, tmp_path: Path) -> None:
    other = square_checkpoint(tmp_path / "other")
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-2] ^= 1
    (other / "model.safetensors").write_bytes(data)
    with pytest.raises(RefutedError, match="other weights"):
        one(claims(work, 'verdict = "unspeakable"\nevidence = ["square/readout/2.json"]'), other)


def test_the_fingerprint_binds_weights_and_evidence(square: Path, work: Path) -> None:
    mark = f'fingerprint = "{"0" * 64}"\n'
    with pytest.raises(UsageError, match="not those of the claim"):
        one(claims(work, mark + 'verdict = "unspeakable"'), square)
    with pytest.raises(FieldValueError, match="fingerprints differ"):
        one(claims(work, mark + 'verdict = "unspeakable"\nevidence = ["square/readout/2.json"]'), None)
    real = Weights({"square": square}).named("square").readout.fingerprint
    text = f'fingerprint = "{real}"\nverdict = "unspeakable"\nevidence = ["square/readout/2.json"]'
    assert one(claims(work, text), square, "audit").outcome == "CONFIRMED"


def test_another_revision(square: Path, work: Path) -> None:
    mark = f'revision = "{"a" * 40}"\n'
    other = json.loads((work / "square/readout/2.json").read_text())
    other["statement"]["revision"] = "c" * 40
    (work / "other.json").write_text(json.dumps(other, sort_keys=True, indent=1) + "\n")
    with pytest.raises(FieldValueError, match="revision"):
        one(claims(work, mark + 'verdict = "unspeakable"\nevidence = ["other.json"]'), square)
    # Evidence that was made from a folder names none, and is bound to the weights at hand by their hashes.
    for text in ('verdict = "unspeakable"', 'verdict = "unspeakable"\nevidence = ["square/readout/2.json"]'):
        result = one(claims(work, mark + text), square)
        assert result.outcome == "CONFIRMED"
        assert result.weights is not None
        assert result.weights.hypothesis == f"this folder is square@{'a' * 40}"
    commit = work / ("b" * 40)
    shutil.copytree(square, commit)
    with pytest.raises(UsageError, match="of revision 'bbb"):
        one(claims(work, mark + 'verdict = "unspeakable"'), commit)


def test_a_certificate_does_not_say_that_a_token_is_hard(square: Path, work: Path) -> None:
    text = 'domain = "direction"\nverdict = "hard to speak"\nsense = "post"\n'
    with pytest.raises(FieldValueError, match="a ledger does"):
        one(claims(work, text + 'evidence = ["square/direction/2.json"]'), square)


def test_models_are_told_apart_by_name(square: Path, tmp_path: Path) -> None:
    """More models than are kept, of different weights: no decision of one is taken for another's."""
    weights, computer = Weights(dict.fromkeys("abcdef", square)), Computer()
    other = biased(tmp_path / "other")
    weights.folders["f"] = other
    for name in "abcdefabcdef":
        model = weights.named(name)
        decision = computer.decide(model, "all", 1, READOUT)
        assert decision.model.name == name
        assert decision.model.readout.d == (4 if name == "f" else 2)


def test_evidence_that_does_not_hold(square: Path, work: Path) -> None:
    file = work / "square/readout/2.json"
    text = 'verdict = "speakable"\nevidence = ["square/readout/2.json"]'
    honest = file.read_text()
    forged = json.loads((work / "square/readout/1.json").read_text())
    forged["statement"] |= {"token": 2, "text": json.loads(honest)["statement"]["text"]}
    file.write_text(json.dumps(forged, sort_keys=True, indent=1) + "\n")
    with pytest.raises(RefutedError, match="claim 'one': evidence"):
        one(claims(work, text), square)
    file.write_text(honest[:-3])
    with pytest.raises(MalformedError, match="evidence"):
        one(claims(work, text), square)
    file.unlink()
    with pytest.raises(ModelUnavailableError, match="no such file"):
        one(claims(work, text), None)
    with pytest.raises(FieldValueError, match="no certificate in this folder"):
        one(claims(work, 'verdict = "speakable"\nevidence = ["square/readout"]'), None)


def biased(folder: Path) -> Path:
    """The square after a LayerNorm with a shift, so that domains differ: GPT-2's layout, d = 4."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir()
    W = np.array(
        [[1, 1, 0, 0], [1, -1, 0, 0], [0, 0, 0, 0], [-1, 1, 0, 0], [-2, -1, 0, 0], [1, 1, 0, 0]], np.float32
    )
    tensors = {
        "wte.weight": W,
        "ln_f.weight": np.ones(4, np.float32),
        "ln_f.bias": np.full(4, 0.25, np.float32),
    }
    save_file(tensors, str(folder / "model.safetensors"))
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 4, "vocab_size": 6}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_inclusions_are_used_and_shown_and_nothing_else_confirms(tmp_path: Path) -> None:
    import verify

    model = biased(tmp_path / "square")
    verify.token(1, str(model), "all", out=tmp_path / "saved")

    def outcome(domain: str, evidence: str) -> Result:
        text = f'verdict = "speakable"\ndomain = "{domain}"\nevidence = ["saved/square/{evidence}/1.json"]'
        return one(claims(tmp_path, text, token=1), model, "audit")

    direct = outcome("readout", "readout")
    assert direct.outcome == "CONFIRMED"
    assert "by inclusion" not in direct.findings[0].words
    for domain, evidence in (
        ("free", "readout"),
        ("free", "direction"),
        ("box:2", "readout"),
        ("readout", "box-1"),
    ):
        result = outcome(domain, evidence)
        assert result.outcome == "CONFIRMED", (domain, evidence)
        assert "by inclusion" in result.findings[0].words
        assert "Theorem 10." in result.findings[0].words
    for domain, evidence in (
        ("readout", "free"),
        ("direction", "free"),
        ("box:0.5", "box-1"),
        ("box:1", "readout"),
    ):
        result = outcome(domain, evidence)
        assert result.outcome == "UNDECIDED", (domain, evidence)
        assert "does not pass" in result.findings[0].words
    for domain, evidence in (("readout", "direction"), ("box:1", "direction"), ("direction", "box-1")):
        with pytest.raises(FieldValueError, match="nothing passes from there"):
            outcome(domain, evidence)


def test_a_ledger_settles_counts_and_hard_to_speak(square: Path, tmp_path: Path) -> None:
    scan(str(square), "readout", tmp_path, workers=1)
    hard = 'universe = "all"\ntokens = "all"\nverdict = "hard to speak"\n'
    path = tmp_path / "c.toml"
    path.write_text(
        HEAD.format(token=2).replace("[universe.one]\nwhat = \"one token\"\nsize = 1\ntokens = [2]\n", "")
        + WHOLE + 'evidence = ["square/readout.ledger"]\n'
        + f'[[claim]]\nid = "post"\ndomain = "direction"\nsense = "post"\ncount = 3\n{hard}'
        + 'evidence = ["square/readout.ledger"]\n'
        + f'[[claim]]\nid = "model"\nsense = "model"\ncount = 3\n{hard}'
    )  # fmt: skip
    found = judged(path, square, "audit")
    assert [r.outcome for r in found] == ["CONFIRMED"] * 3
    assert all("readout.ledger" in f.words for r in found[:2] for f in r.findings)
    # What a ledger says of the model's sense depends on its grid, so the kernel answers for that.
    assert not any("ledger" in f.words for f in found[2].findings)
    # The kernel finds the same by itself.
    path.write_text(path.read_text().replace('evidence = ["square/readout.ledger"]\n', ""))
    again = {r.claim.id: r for r in judged(path, square, "audit")}
    assert (again["post"].outcome, again["model"].outcome) == ("CONFIRMED", "CONFIRMED")
    assert [f.holds for f in again["post"].findings] == [f.holds for f in found[1].findings]
    rows = tmp_path / "square/readout.ledger/rows-00000.tsv"
    path.write_text(
        path.read_text().replace("count = 3\n", 'count = 3\nevidence = ["square/readout.ledger"]\n', 1)
    )
    rows.write_text(rows.read_text().replace("tied", "hard", 1))
    with pytest.raises(RefutedError, match="SHA-256"):
        judged(path, square, "audit")


UNIVERSE = HEAD.replace('[universe.one]\nwhat = "one token"\nsize = 1\ntokens = [{token}]\n', "")


def vocabulary(folder: Path, *claims: tuple[str, str, int, str], name: str = "v.toml") -> Path:
    """Claims (domain, verdict, count, evidence) about all rows of the square."""
    path = folder / name
    path.write_text(
        UNIVERSE
        + "".join(
            f'[[claim]]\nid = "{i}"\nuniverse = "all"\ntokens = "all"\ndomain = "{domain}"\n'
            f'verdict = "{verdict}"\ncount = {count}\nevidence = ["{evidence}"]\n'
            for i, (domain, verdict, count, evidence) in enumerate(claims)
        )
    )
    return path


@pytest.fixture(scope="module")
def ledgers(square: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ledgers")
    for domain in ("readout", "free", "box:1"):
        scan(str(square), domain, out, workers=1)
    return out


def test_a_ledger_is_proved_once_for_all_claims(
    square: Path, ledgers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verify.scan import check

    seen, check_ledger = [], check.check_ledger

    def counted(folder: Any, *rest: Any) -> Any:
        seen.append(folder.path)
        return check_ledger(folder, *rest)

    monkeypatch.setattr(check, "check_ledger", counted)
    path = vocabulary(
        ledgers,
        ("readout", "speakable", 3, "square/readout.ledger"),
        ("readout", "unspeakable", 3, "square/readout.ledger"),
        ("readout", "unspeakable", 2, "./square/readout.ledger"),
        ("readout", "unspeakable", 4, "square/../square/readout.ledger"),
    )
    assert [r.outcome for r in judged(path, square, "audit")] == ["CONFIRMED"] * 2 + ["REFUTED"] * 2
    assert len(seen) == 1


def test_rows_of_a_ledger_pass_by_the_inclusions_alone(tmp_path: Path) -> None:
    model = biased(tmp_path / "square")
    rows = {d: list(scan(str(model), d, tmp_path, workers=1).folder.rows()) for d in ("readout", "box:1")}
    count = sum(row.cls in ("own", "hard") for row in rows["readout"])
    assert 0 < count < 6
    path = vocabulary(
        tmp_path,
        ("free", "speakable", 0, "square/readout.ledger"),
        ("box:2", "speakable", 0, "square/readout.ledger"),
        ("box:0.5", "unspeakable", 0, "square/box-1.ledger"),
        ("readout", "speakable", 0, "square/box-1.ledger"),
    )
    for result, domain in zip(
        judged(path, model, "audit"), ("readout", "readout", "box:1", "box:1"), strict=True
    ):
        passed = ("tied", "unspeakable") if result.claim.verdict == "unspeakable" else ("own", "hard")
        wanted = {row.token for row in rows[domain] if row.cls in passed}
        # What does not pass confirms nothing, and refutes nothing.
        assert {f.token for f in result.findings if f.holds} == wanted
        assert not any(f.holds is False for f in result.findings)
        assert all("Theorem 10" in f.words for f in result.findings if f.holds)
        assert all("does not pass" in f.words for f in result.findings if f.holds is None)
    path = vocabulary(tmp_path, ("direction", "speakable", 3, "square/readout.ledger"))
    with pytest.raises(FieldValueError, match="nothing passes from there"):
        judged(path, model, "audit")


def test_a_universe_of_all_rows_has_as_many_as_the_model(square: Path, ledgers: Path) -> None:
    path = vocabulary(ledgers, ("readout", "speakable", 3, "square/readout.ledger"))
    for size in (5, 7):
        path.write_text(path.read_text().replace("size = 6", f"size = {size}"))
        with pytest.raises(FieldValueError, match=f"has {size} tokens, square has 6 rows"):
            judged(path, square, "audit")
        path.write_text(path.read_text().replace(f"size = {size}", "size = 6"))


def test_ledgers_of_other_models_domains_and_tokens(square: Path, ledgers: Path, tmp_path: Path) -> None:
    """None confirms anything: another name or domain is said at once, other weights when it is proved."""
    shutil.copytree(ledgers / "square", tmp_path / "square")
    header = tmp_path / "square/readout.ledger/ledger.json"
    true = header.read_text()
    path = vocabulary(tmp_path, ("readout", "unspeakable", 3, "square/readout.ledger"))
    header.write_text(true.replace('"model": "square"', '"model": "other"'))
    with pytest.raises(FieldValueError, match="another model"):
        judged(path, None, "audit")
    # The rows of one domain under the name of another.
    header.write_text(true.replace('"domain": "readout"', '"domain": "box:1"'))
    path = vocabulary(tmp_path, ("box:1", "unspeakable", 3, "square/readout.ledger"))
    with pytest.raises(RefutedError):
        judged(path, square, "audit")
    # Other weights under the same name.
    header.write_text(true)
    path = vocabulary(tmp_path, ("readout", "unspeakable", 3, "square/readout.ledger"))
    from safetensors.numpy import load_file, save_file

    other = shutil.copytree(square, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.embed_tokens.weight"][4] *= 2
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(RefutedError, match="other weights"):
        judged(path, other, "audit")
    # A ledger of some of the tokens settles these alone.
    scan(str(square), "readout", tmp_path / "some", tokens=(2, 4), workers=1)
    path = vocabulary(tmp_path, ("readout", "unspeakable", 3, "some/square/readout.ledger"))
    (result,) = judged(path, square, "audit")
    assert (result.outcome, result.counts) == ("UNDECIDED", (1, 2, 3))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb"\n0\ttied\t", rb"\n0\thard\t"),
        (rb"(0\ttied\t[^\n]*\n)", b""),
        (rb"(\n)(1\t[^\n]*\n)", rb"\1\2\2"),
        (rb"\n1\town\te\te", rb"\n1\town\th\te"),
        (rb"\n1\town\te\te", rb"\n1\thard\te\te"),
        (rb"(\n2\tunspeakable\t.*?)[0-9a-f]+(\t\d\t-\t)", rb"\g<1>5\2"),  # a gap that is too large
    ],
)
def test_forged_rows_do_not_count(
    square: Path, ledgers: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    """Rows that were changed, with the hash in the header made to fit."""
    shutil.copytree(ledgers / "square", tmp_path / "square")
    folder = tmp_path / "square/readout.ledger"
    rows, header = folder / "rows-00000.tsv", folder / "ledger.json"
    true = rows.read_bytes()
    forged = re.sub(old, new, b"\n" + true, count=1)[1:]
    assert forged != true
    rows.write_bytes(forged)
    header.write_text(header.read_text().replace(sha256(true).hexdigest(), sha256(forged).hexdigest()))
    path = vocabulary(tmp_path, ("readout", "unspeakable", 3, "square/readout.ledger"))
    with pytest.raises(RefutedError):
        judged(path, square, "audit")


def test_an_undecided_row_settles_nothing_and_says_why(square: Path, ledgers: Path, tmp_path: Path) -> None:
    shutil.copytree(ledgers / "square", tmp_path / "square")
    folder = tmp_path / "square/readout.ledger"
    rows, header = folder / "rows-00000.tsv", folder / "ledger.json"
    true = rows.read_bytes()
    cells = rb"\n2\tunspeakable((?:\t[^\t\n]*){4})[^\n]*"
    weaker = re.sub(cells, rb"\n2\tundecided\1" + rb"\t-" * 7 + rb"\tthe time ran out", true)
    assert weaker != true
    rows.write_bytes(weaker)
    header.write_text(header.read_text().replace(sha256(true).hexdigest(), sha256(weaker).hexdigest()))
    (result,) = judged(
        vocabulary(tmp_path, ("readout", "unspeakable", 3, "square/readout.ledger")), square, "audit"
    )
    assert (result.outcome, result.counts) == ("UNDECIDED", (2, 3, 1))
    assert "undecided there (the time ran out)" in result.findings[2].words


@pytest.mark.parametrize(
    ("token", "argmax", "outcome"),
    [
        (1, 1, "CONFIRMED"),
        (1, 0, "REFUTED"),
        (0, 5, "CONFIRMED"),
        (0, 0, "CONFIRMED"),
        (2, 2, "REFUTED"),
    ],
)
def test_the_row_on_top_at_the_own_vector(
    token: int, argmax: int, outcome: str, square: Path, tmp_path: Path
) -> None:
    text = f'domain = "direction"\nmethod = {{ name = "own-vector", argmax = {argmax} }}'
    assert one(claims(tmp_path, text, token=token), square, "audit").outcome == outcome


def test_tokens_that_the_model_lacks(square: Path, tmp_path: Path) -> None:
    for text, token, message in (
        ('verdict = "speakable"', 6, "token 6 is outside the vocabulary"),
        ('verdict = "speakable"\ntext = "west"', 2, "the claim says 'west'"),
        ('verdict = "unspeakable"\nreported = { method = "x", argmax = 77 }', 2, "row 77 is outside"),
    ):
        with pytest.raises(FieldValueError, match=message):
            one(claims(tmp_path, text, token), square)
    path = claims(tmp_path, 'verdict = "speakable"')
    path.write_text(path.read_text().replace("size = 6", "size = 7"))
    with pytest.raises(FieldValueError, match="has 7 tokens, square has 6 rows"):
        judged(path, square)


# ---- the printed program ----


FORGED = [
    (b'"own": 1', b'"own": 0'),
    (b'"own": 1', b'"row 3": 1'),
    (b'"own": 1', b'"own": -1'),
    (b"<= -margin", b"<= margin"),
    (b'"infeasible"', b'"feasible"'),
    (b'"version": 1', b'"version":  1'),
    (b'{\n  "own": 1\n }', b"{}"),
]


def test_the_printed_program_is_infeasible_by_its_own_row() -> None:
    assert (CLAIMS / "printed-program.proof").read_bytes() == proof_bytes()
    check_proof(proof_bytes())
    for old, new in FORGED:
        assert old in proof_bytes()
        with pytest.raises(VerifyError):
            check_proof(proof_bytes().replace(old, new))


def test_the_margin_experiment_as_far_as_it_needs_no_weights(tmp_path: Path) -> None:
    found = {r.claim.id: r for r in judged(CLAIMS / "post-2023-margin.toml", None)}
    assert {k: r.outcome for k, r in found.items() if "solver" not in k} == {
        "infeasible-at-1.01e-7": "CONFIRMED",
        "feasible-at-1.00e-7": "REFUTED",
        "infeasible-at-every-margin": "CONFIRMED",
    }
    text = (CLAIMS / "post-2023-margin.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace('evidence = ["printed-program.proof"]\n', "", 1))
    with pytest.raises(FieldValueError, match="the proof about the program, is missing"):
        judged(tmp_path / "c.toml", None)


def test_the_printed_program_run_again(square: Path, tmp_path: Path) -> None:
    method = 'name = "post-lp", arithmetic = "float", margin = "1e-3", says = "%s"'
    text = f'domain = "direction"\nmethod = {{ {method} }}'
    result = one(claims(tmp_path, text % "infeasible", 1), square, "recompute")
    assert (result.outcome, result.exit_code, result.counts) == ("SAME ANSWER", 0, (0, 0, 1))
    result = one(claims(tmp_path, text % "feasible", 1), square, "recompute")
    assert (result.outcome, result.exit_code) == ("OTHER ANSWER", 1)
    assert "no proof" in result.findings[0].words
    result = one(claims(tmp_path, text % "feasible" + '\nexpect = "other answer"', 1), square, "recompute")
    assert result.exit_code == 0
    assert one(claims(tmp_path, text % "feasible", 1), square).outcome == "UNCHECKED"


# ---- formats ----


@pytest.fixture
def mixed(square: Path, work: Path) -> list[Any]:
    """A run with one outcome of every kind: files and options."""
    bad = claims(work, 'verdict = "speakable"', name="bad, one%.toml")
    lost = claims(work, 'verdict = "unspeakable"\nmodel = "elsewhere"', name="lost.toml")
    return [bad, lost, "--model-dir", f"square={square}"]


def test_json(mixed: list[Any]) -> None:
    done = run("claims", *mixed, "--format", "json")
    data = json.loads(done.stdout)
    assert done.returncode == data["exit_code"] == 1
    assert data["counts"] == {
        "CONFIRMED": 2, "REFUTED": 1, "SAME ANSWER": 0, "OTHER ANSWER": 0, "UNDECIDED": 0, "UNCHECKED": 1,
        "ERROR": 0,
    }  # fmt: skip
    assert [c["outcome"] for c in data["claims"]] == ["CONFIRMED", "REFUTED", "CONFIRMED", "UNCHECKED"]
    assert data["claims"][1]["tokens"][0]["holds"] is False
    assert data["claims"][1]["line"] == 26


def test_junit(mixed: list[Any]) -> None:
    root = ET.fromstring(run("claims", *mixed, "--format", "junit").stdout)
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == (
        "4",
        "1",
        "0",
        "1",
    )
    assert [x.tag for case in root.iter("testcase") for x in case] == [
        "system-out",
        "failure",
        "system-out",
        "skipped",
    ]
    for suite in root:
        assert int(suite.get("tests") or 0) == len(suite)


def test_sarif(mixed: list[Any]) -> None:
    data = json.loads(run("claims", *mixed, "--format", "sarif").stdout)
    assert data["version"] == "2.1.0"
    (only,) = data["runs"]
    rules = [rule["id"] for rule in only["tool"]["driver"]["rules"]]
    assert only["tool"]["driver"]["name"]
    assert [r["kind"] for r in only["results"]] == ["pass", "fail", "pass", "notApplicable"]
    for r in only["results"]:
        assert rules[r["ruleIndex"]] == r["ruleId"]
        assert r["message"]["text"]
        # A level other than none belongs to the kind fail alone.
        assert r["level"] == ("error" if r["kind"] == "fail" else "none")
        (place,) = r["locations"]
        assert place["physicalLocation"]["region"]["startLine"] >= 1
        assert place["physicalLocation"]["artifactLocation"]["uri"].endswith(".toml")


def test_github(mixed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    lines = run("claims", *mixed, "--format", "github").stdout.splitlines()
    assert lines[0].startswith("::error file=")
    assert "bad%2C one%25.toml,line=26,title=verify claims one::REFUTED (NOT AS EXPECTED" in lines[0]
    assert "%0A" in lines[0]
    assert lines[1].startswith("::warning file=")
    assert len(lines) == 3
    summary = (tmp_path / "summary.md").read_text()
    assert "**not as expected**" in summary
    assert summary.index("REFUTED") < summary.rindex("CONFIRMED")


def test_github_tells_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("format = 1\n")
    done = run("claims", tmp_path / "c.toml", "--format", "github")
    assert done.returncode == 4
    assert done.stdout.startswith("::error title=verify claims cannot check::")

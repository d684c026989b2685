"""`verify claims` against files, folders and names that are made to mislead it, or to waste its work."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from built_models import model as build_model
from command import square_checkpoint
from test_claims import HEAD, claims, judged, one, run

from verify.claims import Result, read_claims
from verify.claims.compute import Computer
from verify.claims.contribute import questions_of, toml_bytes
from verify.claims.file import from_bytes
from verify.claims.judge import Finding, shown
from verify.claims.report import as_json
from verify.claims.weights import Weights, key_of
from verify.errors import (
    EXIT_UNAVAILABLE,
    FieldValueError,
    MalformedError,
    ModelUnavailableError,
    NotAtHandError,
)
from verify.kernel import READOUT
from verify.models import load_model
from verify.models.hub import Snapshot
from verify.recheck import Auditor
from verify.scan.run import scan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = "openai-community/gpt2"


pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture
def square(tmp_path: Path) -> Path:
    return square_checkpoint(tmp_path / "square")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The square in the hub's cache, under the name of GPT-2."""
    folder = square_checkpoint(tmp_path / COMMIT)

    def found(repository: str, revision: str | None) -> Snapshot:
        if repository != HUB or revision not in (None, COMMIT):
            raise NotAtHandError("not in the local cache")
        return Snapshot(repository, COMMIT, folder, None)

    monkeypatch.setattr("verify.models.model.find_snapshot", found)
    return folder


def about(model: str, folder: Path, one: str = 'verdict = "unspeakable"', token: int = 2) -> Path:
    path = claims(folder, one, token)
    path.write_text(path.read_text().replace('model = "square"', f'model = "{model}"'))
    return path


def reported(*arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("claims", *arguments, "--format", "json").stdout)
    return found


def other_square(folder: Path, **changes: Any) -> Path:
    """The same name and layout, other weights or another configuration."""
    folder = square_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


# ---- which model it is ----


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By their tensors, by what the configuration says, and by their tokenizers."""
    for name in "abcd":
        (tmp_path / name).mkdir()
    a = square_checkpoint(tmp_path / "a" / "m")
    b = square_checkpoint(tmp_path / "b" / "m")
    data = (b / "model.safetensors").read_bytes()
    # Row 2, the centre, becomes a corner of its own.
    zeros, far = bytes(8), b"\x00\x00\x20\x41" * 2
    (b / "model.safetensors").write_bytes(data.replace(zeros, far, 1))
    c = other_square(tmp_path / "c" / "m", rms_norm_eps=1e-5)
    d = square_checkpoint(tmp_path / "d" / "m")
    (d / "tokens.json").write_text(json.dumps(["a", "b", "c", "d", "e", "f"]))
    models = [load_model(str(x)) for x in (a, b, c, d)]
    assert {m.name for m in models} == {"m"}
    assert len({key_of(m) for m in models}) == 4
    computer = Computer()
    found = [computer.decide(m, "all", 2, READOUT).verdict for m in models]
    assert found == ["UNSPEAKABLE", "SPEAKABLE", "UNSPEAKABLE", "UNSPEAKABLE"]


def test_a_folder_called_like_a_hub_model_is_not_that_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("openai-community").mkdir()
    square_checkpoint(Path(HUB))
    path = about(HUB, tmp_path)
    for options in ([], ["--audit"], ["--recompute"]):
        assert {c["outcome"] for c in reported(path, *options)["claims"]} == {"UNCHECKED"}
        assert run("claims", path, *options).returncode == EXIT_UNAVAILABLE
    # An audit of certificates takes names from files, too.
    import verify

    verify.token(2, HUB, out="saved")
    saved = Path("saved/gpt2/readout/2.json")
    named = saved.read_text().replace('"model": "gpt2"', f'"model": "{HUB}"')
    saved.write_text(named)
    assert Auditor().audit(saved).outcome == "unavailable"
    assert Auditor(HUB).audit(saved).outcome == "accepted"


def test_evidence_about_a_cached_model_audits_and_names_its_commit(cached: Path, tmp_path: Path) -> None:
    path, out = about(HUB, tmp_path), tmp_path / "out"
    assert run("claims", path, "--recompute", "--out", out).returncode == 0
    found = reported(out / "claims" / "c.toml", "--audit")
    assert found["exit_code"] == 0
    for claim in found["claims"]:
        assert claim["weights"] == {
            "fingerprint": load_model(str(cached)).readout.fingerprint,
            "revision": COMMIT,
        }
        assert claim["hypotheses"] == []
    audit = Auditor().audit(out / "openai-community-gpt2" / "readout" / "2.json")
    assert audit.outcome == "accepted"
    assert audit.hypotheses == []


def test_a_name_that_loads_another_is_refused(cached: Path, tmp_path: Path) -> None:
    done = run("claims", about(f"{HUB}@{COMMIT}", tmp_path))
    assert done.returncode == 2
    assert "write that name" in done.stdout


def test_a_folder_does_not_take_the_revision_of_the_claim(square: Path, tmp_path: Path) -> None:
    path, out = about(HUB, tmp_path, f'revision = "{COMMIT}"\nverdict = "unspeakable"'), tmp_path / "out"
    options = ["--model-dir", f"{HUB}={square}"]
    words = f"this folder is {HUB}@{COMMIT}"
    told = next(c for c in reported(path, *options)["claims"] if c["id"] == "one")
    assert told["outcome"] == "CONFIRMED"
    assert told["hypotheses"] == [words]
    assert told["weights"]["revision"] is None
    for form in ("text", "junit", "sarif"):
        assert words in run("claims", path, *options, "--format", form).stdout
    assert run("claims", path, *options, "--recompute", "--out", out).returncode == 0
    statement = json.loads((out / "openai-community-gpt2/readout/2.json").read_text())["statement"]
    assert statement["revision"] is None
    assert "HYPOTHESIS: this folder is" in (out / "README.md").read_text()
    # The copy names the weights by their fingerprint from now on, and does not lose what was taken on trust.
    copy = next(c for c in read_claims(out / "claims" / "c.toml").claims if c.id == "one")
    assert copy.fingerprint == told["weights"]["fingerprint"]
    assert copy.revision == COMMIT
    assert words in copy.note
    done = run("claims", out / "claims" / "c.toml", "--audit", *options)
    assert done.returncode == 0
    assert words in done.stdout


def test_a_fingerprint_in_the_claim_says_which_weights(square: Path, tmp_path: Path) -> None:
    mark = load_model(str(square)).readout.fingerprint
    path = about("square", tmp_path, f'fingerprint = "{mark}"\nverdict = "unspeakable"')
    told = {c["id"]: c for c in reported(path, "--model-dir", f"square={square}")["claims"]}
    # Of the tensors; what the folder's other files say is on trust all the same.
    assert told["one"]["hypotheses"] == ["norm, epsilon and tokenizer of square are those of this folder"]
    assert told["whole"]["hypotheses"] == ["this folder is square"]


def test_the_weights_are_told_in_every_format(
    square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = load_model(str(square)).readout.fingerprint
    path, options = claims(tmp_path, 'verdict = "unspeakable"'), ["--model-dir", f"square={square}"]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    for form in ("text", "json", "junit", "sarif"):
        assert mark in run("claims", path, *options, "--format", form).stdout, form
    run("claims", path, *options, "--format", "github")
    assert mark in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("options", [[], ["--allow-unchecked"], ["--audit", "--allow-unchecked"]])
def test_weights_that_were_named_and_cannot_be_loaded_are_an_error(
    options: list[str], tmp_path: Path
) -> None:
    broken = square_checkpoint(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no")
    done = run(
        "claims", claims(tmp_path, 'verdict = "speakable"'), "--model-dir", f"square={broken}", *options
    )
    assert done.returncode == EXIT_UNAVAILABLE
    assert "--model-dir 'square'" in done.stdout
    assert "2 ERROR" in done.stdout


def test_the_bundled_model_is_the_bundled_model(square: Path, tmp_path: Path) -> None:
    path = about("whisper-tiny.en", tmp_path)
    done = run("claims", path, "--model-dir", f"whisper-tiny.en={square}")
    assert (done.returncode, "comes with this program" in done.stderr) == (2, True)


def test_an_absent_tokenizer_leaves_its_claim_unchecked_and_no_other(square: Path, tmp_path: Path) -> None:
    (square / "tokens.json").unlink()
    path = claims(tmp_path, 'verdict = "unspeakable"\ncompetitors = "tokenizer"')
    found = {r.claim.id: r for r in judged(path, square)}
    assert (found["whole"].outcome, found["one"].outcome) == ("CONFIRMED", "UNCHECKED")
    assert "no tokenizer file" in found["one"].reason


def test_the_hub_is_not_asked_without_fetch(
    square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def found(*_: object) -> None:
        seen.append(os.environ["HF_HUB_OFFLINE"])
        raise NotAtHandError("not in the local cache")

    monkeypatch.setattr("verify.models.model.find_snapshot", found)
    monkeypatch.setattr("test_claims.ENVIRONMENT", {"HF_HUB_OFFLINE": "0"})
    path = about(HUB, tmp_path)
    run("claims", path)
    run("claims", path, "--fetch")
    assert seen == ["1", "0"]


# ---- what is asserted ----


def test_hard_to_speak_in_the_model_s_sense_is_never_a_ledger_s_word(square: Path, tmp_path: Path) -> None:
    """hard_model depends on the grid, which whoever makes the ledger chooses."""
    scan(str(square), "readout", tmp_path / "out", workers=1)
    text = 'verdict = "hard to speak"\nsense = "model"'
    with pytest.raises(FieldValueError, match="takes no evidence"):
        one(claims(tmp_path, text + '\nevidence = ["out/square/readout.ledger"]'), square, "audit")
    assert one(claims(tmp_path, text), square, "audit").outcome == "CONFIRMED"


def test_hard_to_speak_on_a_sphere_is_undecided(tmp_path: Path) -> None:
    model = other_square(tmp_path / "square", rms_norm_eps=0.0)
    path = claims(tmp_path, 'verdict = "hard to speak"\nsense = "model"')
    result = one(path, model)
    assert result.outcome == "UNDECIDED"
    assert "epsilon = 0" in result.findings[0].words


def test_a_large_universe_on_a_sphere_is_decided_token_by_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verify.claims.compute.MANY", 3)
    model = other_square(tmp_path / "square", rms_norm_eps=0.0)
    found = judged(claims(tmp_path, 'verdict = "unspeakable"'), model)
    assert [r.outcome for r in found] == ["CONFIRMED", "CONFIRMED"]


def counted(result: Result, count: int, holds: Sequence[bool | None]) -> list[str]:
    """What is shown of a refuted count, of tokens that are settled so."""
    findings = [Finding(t, each, str(each)) for t, each in enumerate(holds)]
    claim = replace(result.claim, count=count, tokens=tuple(range(len(holds))))
    return list(shown(Result(result.file, claim, "REFUTED", findings)))


def test_a_wrong_count_shows_the_whole_of_the_smaller_group(square: Path, tmp_path: Path) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"')
    for count, named, verdict in (
        (4, "not unspeakable, 3 of 6: 1, 3, 4", "speakable"),
        (2, "unspeakable, 3 of 6: 0, 2, 5", "unspeakable"),
    ):
        path.write_text(path.read_text().replace("count = 3", f"count = {count}"))
        result = judged(path, square)[0]
        assert result.outcome == "REFUTED"
        first, *rest = shown(result)
        assert first == f"proved {named}"
        assert all(f": {verdict}," in words for words in rest)
        assert len(rest) == 3
        assert named in run("claims", path, "--model-dir", f"square={square}").stdout
        path.write_text(path.read_text().replace(f"count = {count}", "count = 3"))
    # Too many or too few: the smaller group tells the number of the other.
    kinds = [*[True] * 2, *[False] * 7]
    for count in (1, 5):
        first, *words = counted(result, count, kinds)
        assert first == "proved unspeakable, 2 of 9: 0, 1"
        assert words == ["token 0: True", "token 1: True"]
        first, *words = counted(result, 9 - count, [not x for x in kinds])
        assert first == "proved not unspeakable, 2 of 9: 0, 1"
        assert words == ["token 0: False", "token 1: False"]
    first, *words = counted(result, 2, [False] * 7)
    assert first == "proved unspeakable: none of 7"
    assert words[0] == "token 0: False"
    assert counted(result, 2, [True] * 7)[:2] == ["proved unspeakable: every one of 7", "token 0: True"]
    first, *_ = counted(result, 1, [*[True] * 120, *[False] * 121])
    assert first.endswith(", 98, 99 and 20 more")


def test_with_open_tokens_only_the_group_that_refutes_a_count_is_shown(square: Path, tmp_path: Path) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"')
    result = judged(path, square)[0]
    # At most two of five hold: three are proved otherwise.
    assert counted(result, 5, [True, False, False, None, False])[0] == (
        "proved not unspeakable, 3 of 5: 1, 2, 4"
    )
    # Three hold, though the smaller group is the other.
    assert counted(result, 2, [True, True, False, None, True])[0] == ("proved unspeakable, 3 of 5: 0, 1, 4")


def test_of_many_tokens_a_report_lists_those_that_stand_out(square: Path, tmp_path: Path) -> None:
    (result,) = judged(claims(tmp_path, 'verdict = "unspeakable"'), square)[:1]

    def told(many: int) -> Any:
        kinds = [True] * 20 + [False, None] + [True] * (many - 22)
        result.findings = [Finding(t, holds, str(holds)) for t, holds in enumerate(kinds)]
        report = json.loads(as_json([result], 0))
        (claim,) = report["claims"]
        assert (claim["holds"], claim["fails"], claim["unsettled"]) == (many - 2, 1, 1)
        return report["version"], claim["tokens"], claim["others"]

    few, many = told(1000), told(1001)
    assert (few[0], len(few[1]), few[2]) == (2, 1000, None)
    assert (
        many[1]
        == few[1][20:22]
        == [
            {"token": 20, "holds": False, "evidence": "False"},
            {"token": 21, "holds": None, "evidence": "None"},
        ]
    )
    assert many[2] == {"tokens": 999, "holds": True}


def test_both_answers_of_one_program_for_one_token_are_no_two_tables(tmp_path: Path) -> None:
    method = 'method = {{ name = "post-lp", arithmetic = "float", margin = "{}", says = "{}" }}\n'
    text = claims(tmp_path, 'domain = "direction"\n' + method.format("1e-3", "feasible")).read_text()
    again = '[[claim]]\nid = "two"\nuniverse = "one"\ntoken = 2\ndomain = "direction"\n'
    with pytest.raises(MalformedError, match="asserts the same"):
        from_bytes((text + again + method.format("0.001", "infeasible")).encode(), tmp_path)
    from_bytes((text + again + method.format("0.002", "infeasible")).encode(), tmp_path)


def test_other_models_are_asked_what_can_be_compared(tmp_path: Path) -> None:
    """Not hard to speak in the model's sense, no floats, no other competitors."""
    several = {
        "a": 'verdict = "speakable"',
        "b": 'verdict = "speakable"\ncompetitors = "tokenizer"',
        "c": 'verdict = "hard to speak"\nsense = "model"',
        "d": 'domain = "direction"\nmethod = { name = "post-lp", arithmetic = "float", margin = "1e-7", '
        'says = "feasible" }',
        "e": 'domain = "direction"\nmethod = { name = "own-vector", argmax = 1 }',
        "f": 'domain = "direction"\nverdict = "hard to speak"\nsense = "post"',
    }
    for token, (name, text) in enumerate(several.items()):
        file = read_claims(claims(tmp_path, text, token))
        questions = questions_of([replace(file, claims=tuple(c for c in file.claims if c.id == "one"))])
        assert list(questions.verdicts) == ([(token, "readout")] if name == "a" else []), name
        assert questions.own == ((token,) if name in "ef" else ()), name


# ---- texts ----


FORGED = "t\n::error file=README.md,line=1::forged\n\x1b[2K\x1b[32mCONFIRMED\x1b[0m b: all is well"


@pytest.mark.parametrize("form", ["text", "github"])
def test_texts_of_a_file_forge_no_line(form: str, square: Path, tmp_path: Path) -> None:
    words = json.dumps(FORGED)
    path = claims(
        tmp_path,
        f'verdict = "speakable"\nnote = {words}\nreported = {{ method = {words}, argmax = 2 }}',
    )
    path.write_text(path.read_text().replace('"The square, <a & b>"', words).replace('"Nobody"', words))
    out = run("claims", path, "--model-dir", f"square={square}", "--format", form).stdout
    assert "forged" in out
    assert "\x1b" not in out
    assert not any(line.startswith(("::error file=README", "CONFIRMED b")) for line in out.splitlines())


def test_a_sarif_address_is_relative_and_encoded(
    square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = claims(tmp_path, 'verdict = "unspeakable"', name="a b%.toml")
    for folder, wanted in ((tmp_path, "a%20b%25.toml"), (square, path.as_uri())):
        monkeypatch.chdir(folder)
        done = run("claims", path, "--model-dir", f"square={square}", "--format", "sarif")
        (place,) = json.loads(done.stdout)["runs"][0]["results"][0]["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == wanted


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("claims", tmp_path / "absent.toml")
    assert done.returncode == EXIT_UNAVAILABLE
    assert "absent.toml: cannot read" in done.stderr
    assert "docs/claims.md" in done.stderr


def test_a_malformed_certificate_in_a_folder_of_evidence_is_no_other_claim_s(
    square: Path, tmp_path: Path
) -> None:
    import verify

    verify.token(2, str(square), out=tmp_path / "saved")
    (tmp_path / "saved/square/readout/3.json").write_text("{}")
    path = claims(tmp_path, 'verdict = "unspeakable"\nevidence = ["saved/square/readout"]')
    with pytest.raises(MalformedError, match=r"readout.*3\.json"):
        one(path, square, "audit")


# ---- folders that are contributed ----


def contributed(path: Path, square: Path, out: Path, *more: Any) -> Any:
    options = ["--recompute", "--out", out, "--model-dir", f"square={square}", *more]
    return run("claims", path, *options)


def audited(out: Path, square: Path, name: str = "c.toml") -> int:
    return run("claims", out / "claims" / name, "--audit", "--model-dir", f"square={square}").returncode


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Universes of more than three tokens are scanned."""
    for module in ("compute", "contribute", "judge"):
        monkeypatch.setattr(f"verify.claims.{module}.MANY", 3)


@pytest.mark.usefixtures("few")
def test_a_scan_stays_linked_beside_tokens_decided_singly(square: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = contributed(claims(tmp_path, 'verdict = "unspeakable"'), square, out)
    assert done.returncode == 0, done.stderr
    evidence = {c.id: c.evidence for c in read_claims(out / "claims" / "c.toml").claims}
    assert evidence == {
        "whole": ("../square/readout.ledger",),
        "one": ("../square/readout/2.json",),
    }
    assert audited(out, square) == 0


@pytest.mark.usefixtures("few")
def test_scans_against_other_competitors_lie_apart(square: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", claims(tmp_path, 'verdict = "unspeakable"')
    more = '[[claim]]\nid = "ids"\nuniverse = "all"\ntokens = "all"\nverdict = "speakable"\ncount = 4\n'
    path.write_text(path.read_text() + more + 'competitors = "tokenizer"\n')
    (square / "tokens.json").unlink()
    (square / "vocab.json").write_text(json.dumps({text: n for n, text in enumerate("abcde")}))
    done = contributed(path, square, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert audited(out, square) == 0


def test_words_name_no_temporary_folder(square: Path, tmp_path: Path, few: None) -> None:
    result = judged(claims(tmp_path, 'verdict = "unspeakable"'), square)[0]
    assert all(f.words.startswith("decided here") for f in result.findings)
    assert all(f.source is None for f in result.findings)


def test_a_file_given_twice_is_judged_once(square: Path, tmp_path: Path) -> None:
    path, out = claims(tmp_path, 'verdict = "unspeakable"'), tmp_path / "out"
    again = tmp_path / "square" / ".." / path.name
    done = contributed(path, square, out, again)
    assert done.returncode == 0, done.stderr
    assert "2 claims" in done.stdout
    assert audited(out, square) == 0


@pytest.mark.parametrize("margin", ["1e-31", "1e-250", "0.0000000001", "1.00e-7"])
def test_margins_are_written_as_they_were_read(margin: str, tmp_path: Path) -> None:
    method = f'{{ name = "post-lp", arithmetic = "float", margin = "{margin}", says = "feasible" }}'
    found = read_claims(claims(tmp_path, f'domain = "direction"\nmethod = {method}'))
    again = from_bytes(toml_bytes(found), found.path)
    assert again.claims[1].method == found.claims[1].method
    assert f"margin {margin}" in again.claims[1].words


def test_an_input_is_not_written_over(square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "claims").mkdir()
    path = claims(tmp_path / "claims", 'verdict = "unspeakable"')
    text = path.read_text()
    monkeypatch.chdir(tmp_path)
    done = contributed(Path("claims/c.toml"), square, Path())
    assert done.returncode == 2
    assert "written over" in done.stderr
    assert path.read_text() == text


def test_what_would_make_the_work_vain_is_said_before_it(
    square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("something was decided")

    monkeypatch.setattr(Computer, "decide", forbidden)
    path, out = claims(tmp_path, 'verdict = "unspeakable"'), tmp_path / "out"
    done = contributed(path, square, out, "--also", "absent/model")
    assert (done.returncode, "absent/model" in done.stderr) == (EXIT_UNAVAILABLE, True)
    mark = f'fingerprint = "{"0" * 64}"'
    done = contributed(about("square", tmp_path, f'{mark}\nverdict = "speakable"'), square, out)
    assert (done.returncode, "not those of the claim" in done.stderr) == (2, True)
    path = claims(tmp_path, 'verdict = "unspeakable"')
    small = build_small(tmp_path / "small")
    done = contributed(path, square, out, "--also", "small", "--model-dir", f"small={small}")
    assert (done.returncode, "rows 0..2" in done.stderr) == (2, True)
    (tmp_path / "other").mkdir()
    same_name = claims(tmp_path / "other", 'verdict = "unspeakable"')
    done = contributed(path, square, out, same_name)
    assert (done.returncode, "two files are called c.toml" in done.stderr) == (2, True)


def build_small(folder: Path) -> Path:
    """The square without its last three rows."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = other_square(folder, vocab_size=3)
    rows = np.array([[1, 1], [1, -1], [-1, 0]], dtype=np.float32)
    tensors = {"model.embed_tokens.weight": rows, "model.norm.weight": np.ones(2, dtype=np.float32)}
    save_file(tensors, str(folder / "model.safetensors"))
    (folder / "tokens.json").unlink()
    return folder


def test_the_same_command_goes_on_where_it_was(
    square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates of the same statement are proved again; one that does not hold is decided anew."""
    from verify.decide import Decider

    decided, decide = [], Decider.decide

    def counted(self: Decider, token: int, *rest: Any) -> Any:
        decided.append(token)
        return decide(self, token, *rest)

    monkeypatch.setattr(Decider, "decide", counted)
    path, out = claims(tmp_path, 'verdict = "unspeakable"'), tmp_path / "out"
    contributed(path, square, out)
    assert sorted(decided) == list(range(6))
    decided.clear()
    folder = out / "square" / "readout"
    (folder / "3.json").unlink()
    forged = json.loads((folder / "1.json").read_text())
    forged["statement"] |= {
        k: json.loads((folder / "2.json").read_text())["statement"][k] for k in ("token", "text")
    }
    (folder / "2.json").write_text(json.dumps(forged, sort_keys=True, indent=1) + "\n")
    assert contributed(path, square, out).returncode == 0
    assert sorted(decided) == [2, 3]
    assert audited(out, square) == 0


# ---- what is refused when a file is read ----


def text_with(old: str, new: str, one: str = 'verdict = "speakable"') -> str:
    text = HEAD.format(token=2) + f'[[claim]]\nid = "one"\nuniverse = "one"\ntoken = 2\n{one}\n'
    text = text.replace('[universe.all]\nwhat = "all rows"\nsize = 6\nrows = "all"\n', "")
    assert old in text
    return text.replace(old, new, 1)


FLOAT = """domain = "direction"
method = { name = "post-lp", arithmetic = "float", margin = "1e-7", says = "feasible" }"""
ANY = """format = "verify-claims"
version = 1
[source]
title = "T"
author = "A"
date = "2026"
address = "here"
[universe.every]
what = "all"
rows = "every"
[[claim]]
id = "a"
model = "any"
domain = "direction"
universe = "every"
tokens = "all"
method = { name = "post-lp", arithmetic = "exact", margin = "1e-7", says = "infeasible" }
evidence = ["printed-program.proof"]
"""
REFUSED = {
    "huge_integer": (text_with("version = 1", "version = " + "1" * 5000), "thousands of digits"),
    "huge_integer_in_hex": (text_with("version = 1", "version = 0x" + "1" * 5000), "version is"),
    "huge_verdict": (text_with('"speakable"', "0x" + "1" * 5000), "verdict: give text in quotes"),
    "huge_id": (text_with('id = "one"', "id = 0x" + "1" * 5000), "id: give text in quotes"),
    "huge_size": (text_with("size = 1", "size = 16777217"), "size is not a natural number of at most"),
    "model_of_two_lines": (text_with('"square"', '"a\\nb"'), "cannot be printed"),
    "float_margin_overflows": (text_with("1e-7", "1e999", FLOAT), "as a float it is 0 or infinite"),
    "float_margin_vanishes": (text_with("1e-7", "1e-400", FLOAT), "as a float it is 0 or infinite"),
    "float_of_all": (text_with("token = 2", 'tokens = "all"', FLOAT), "takes a single one"),
    "float_with_evidence": (text_with("token = 2", 'token = 2\nevidence = ["a"]', FLOAT), "no evidence"),
    "float_confirmed": (text_with("token = 2", 'token = 2\nexpect = "confirmed"', FLOAT), "same answer"),
    "verdict_same_answer": (text_with("token = 2", 'token = 2\nexpect = "same answer"'), "expect is"),
    "exact_of_a_model": (text_with('"float"', '"exact"', FLOAT), "looks at no weights"),
    "any_with_competitors": (ANY + 'competitors = "tokenizer"\n', "competitors is about the weights"),
    "any_with_revision": (ANY + f'revision = "{COMMIT}"\n', "revision is about the weights"),
    "any_with_fingerprint": (ANY + f'fingerprint = "{"a" * 64}"\n', "fingerprint is about the weights"),
    "lost_tokens": (
        text_with("size = 1\ntokens = [2]", "size = 2\ntokens = [2, 3]"),
        "1 of its 2 tokens are in no claim of this kind about square, readout: 3; add claims",
    ),
    "lost_millions": (
        text_with("size = 1\ntokens = [2]", 'size = 16777216\nrows = "all"'),
        "16777215 of its 16777216 tokens are in no claim of this kind about square, readout: 0, 1, 3, 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_with_a_word(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(MalformedError) as caught:
        from_bytes(text.encode(), Path("c.toml"))
    assert message in str(caught.value)


def test_a_claim_about_every_model_inherits_nothing_about_weights() -> None:
    defaults = f'[defaults]\nrevision = "{COMMIT}"\nfingerprint = "{"a" * 64}"\ncompetitors = "tokenizer"\n'
    (claim,) = from_bytes(ANY.replace("[[claim]]", defaults + "[[claim]]").encode(), Path("c.toml")).claims
    assert (claim.revision, claim.fingerprint, claim.competitors) == (None, None, "all")


def test_own_vectors_of_many_tokens_are_only_compared() -> None:
    """Which row is on top is not worked out for a count; whether the token is, is exact all the same."""
    model = build_model(
        [[1, 1], [1, -1], [0, 0], [-1, 1], [-2, -1], [1, 1]], "rmsnorm", epsilon=Fraction(1, 100)
    )
    computer = Computer()
    for sense in ("post", "model"):
        found = [
            [s.sign for _, s in computer.own_vectors(model, 6, sense, range(6), rows=rows)]
            for rows in (True, False)
        ]
        assert found[0] == found[1]


def test_absent_models_do_not_push_out_those_that_are_loaded(square: Path) -> None:
    weights = Weights({"square": square})
    model = weights.named("square")
    for name in "abcdefgh":
        for _ in range(2):
            with pytest.raises(ModelUnavailableError):
                weights.named(name)
    assert weights.named("square") is model

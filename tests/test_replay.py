"""Tables of the float programs' answers: made, resumed, shown; and refused where they are not so."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pulp
import pytest
from command import ROWS, WORDS, square_checkpoint
from command import run as verify
from safetensors.numpy import save_file

from verify.compare import FAKE_FEASIBLE, FAKE_INFEASIBLE, NO_ANSWER, RIGHT_AS_POSED, UNDECIDED
from verify.errors import (
    MalformedError,
    ModelUnavailableError,
    OutputError,
    RefutedError,
    UsageError,
    VerifyError,
)
from verify.kernel import Claim, Domain
from verify.models import Model, Tokens, load_model
from verify.models.vocabularies import VocabularyFiles
from verify.posed import Posed
from verify.propose.field import (
    GRIVAS,
    OWN_ROW,
    PROGRAMS,
    WITHOUT_OWN_ROW,
    Written,
    find_engine,
    solve,
    solver_version,
)
from verify.replay import (
    Question,
    Row,
    Table,
    check,
    decided_claims,
    find_tables,
    markdown,
    question_for,
    rule_of,
    stored_claims,
    summarise,
)
from verify.replay import run as replay
from verify.replay.summary import missed
from verify.replay.table import token_ids

ROOT = Path(__file__).parent.parent
DATA = ROOT / "docs" / "replay"
MARGINS, TOLERANCES = (1e-9, 1.00e-7, 1.01e-7, 1e-3), (1e-7, 1e-9)


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(square_checkpoint(tmp_path_factory.mktemp("models") / "square")))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same square, its gain so small that tokens 1 and 3 lead by less than 1e-3 anywhere in the box."""
    folder = square_checkpoint(tmp_path_factory.mktemp("models") / "small")
    gain = np.full(2, 1 / 2048, dtype=np.float32)
    rows = np.array(ROWS, dtype=np.float32)
    save_file(
        {"model.embed_tokens.weight": rows, "model.norm.weight": gain}, str(folder / "model.safetensors")
    )
    return load_model(str(folder))


def asked(model: Model, program: str = OWN_ROW, tokens: str = "all", **other: Any) -> Question:
    options: dict[str, Any] = {"margins": MARGINS, "tolerances": TOLERANCES, **other}
    return question_for(model, program, tokens, **options)


def made(model: Model, folder: Path, program: str = OWN_ROW, **other: Any) -> tuple[Question, list[Row]]:
    question = asked(model, program, **other)
    return question, replay(model, question, Table.below(folder, question), decided_claims(model))


# The grid.


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_asked_again_answers_as_a_new_one(program: str, square: Model) -> None:
    count = square.readout.vocabulary
    for token in range(count):
        written = Written(program, square.readout, token, count)
        for margin in (1e-9, 1e-3, 1.01e-7):
            again = written.ask(find_engine(program), margin)
            new = solve(program, square.readout, token, count, margin=margin)
            assert (again.status, again.claim, again.argmax) == (new.status, new.claim, new.argmax)
            assert again.argmax_float32 == new.argmax_float32
            assert again.objective == new.objective
            assert (again.direction is None) == (new.direction is None)
            if again.direction is not None and new.direction is not None:
                assert again.direction.tobytes() == new.direction.tobytes()


def test_the_last_answer_does_not_stand_in_for_a_failed_one(
    square: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Written(WITHOUT_OWN_ROW, square.readout, 1, 6)
    assert written.ask(find_engine(WITHOUT_OWN_ROW)).claim == "feasible"

    def pretend(_: object, program: Any) -> None:
        program.assignStatus(pulp.LpStatusOptimal, pulp.LpSolutionOptimal)

    monkeypatch.setattr(pulp.HiGHS, "actualSolve", pretend)
    assert written.ask(find_engine(WITHOUT_OWN_ROW)).claim == "no answer"


def test_the_own_row_is_feasible_up_to_the_tolerance_alone(square: Model, tmp_path: Path) -> None:
    _, rows = made(square, tmp_path, tokens="4")
    assert {(r.tolerance, r.margin) for r in rows if r.claim == "feasible"} == {
        (1e-7, 1e-9),
        (1e-7, 1e-7),
        (1e-9, 1e-9),
    }
    assert {r.judgement for r in rows if r.claim != "feasible"} == {FAKE_INFEASIBLE}
    assert {r.judgement for r in rows if r.claim == "feasible"} == {"agrees"}
    assert {r.posed for r in rows} == {"infeasible"}
    assert {r.without_own_row for r in rows} == {"feasible"}
    assert all(r.verdict == "speakable" for r in rows)


@pytest.mark.parametrize("program", PROGRAMS)
def test_whether_there_is_a_solution_without_the_own_row(program: str, small: Model, tmp_path: Path) -> None:
    question, rows = made(small, tmp_path, program, tokens="1-4", margins=(9e-4, 1e-3), tolerances=(None,))
    found = {(r.token, r.margin): (r.posed, r.without_own_row, r.judgement) for r in rows}
    no, yes = "infeasible", "feasible"
    if program == GRIVAS:
        assert found == {
            (t, 1e-8): (no, no, "agrees") if t == 2 else (yes, yes, "agrees") for t in (1, 2, 3, 4)
        }
        return
    own_row = program == OWN_ROW
    wins = (no, yes, FAKE_INFEASIBLE) if own_row else (yes, yes, "agrees")
    assert found == {
        (1, 9e-4): wins,
        (1, 1e-3): (no, no, RIGHT_AS_POSED),
        (2, 9e-4): (no, no, "agrees"),
        (2, 1e-3): (no, no, "agrees"),
        (3, 9e-4): (no, no, RIGHT_AS_POSED),
        (3, 1e-3): (no, no, RIGHT_AS_POSED),
        (4, 9e-4): wins,
        (4, 1e-3): wins,
    }
    exact = decided_claims(small)
    assert check(small, question, rows, exact) == len(rows)
    for at, other in ((1, "feasible"), (1, "open"), (6, "infeasible")):
        for judgement in (FAKE_INFEASIBLE, RIGHT_AS_POSED, rows[at].judgement):
            forged = replace(rows[at], without_own_row=other, judgement=judgement)
            with pytest.raises(RefutedError, match="without_own_row is"):
                check(small, question, [*rows[:at], forged, *rows[at + 1 :]], exact)
    forged = replace(rows[1], judgement=FAKE_INFEASIBLE)
    with pytest.raises(RefutedError, match="judgement is right as posed, not FAKE INFEASIBLE"):
        check(small, question, [rows[0], forged, *rows[2:]], exact)


def test_highs_is_given_the_tolerance(square: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    before = pulp.HiGHS.callSolver

    def look(self: Any, lp: Any) -> None:
        before(self, lp)
        seen.append(lp.solverModel.getOptionValue("primal_feasibility_tolerance")[1])

    monkeypatch.setattr(pulp.HiGHS, "callSolver", look)
    for program, tolerance in [(OWN_ROW, None), (OWN_ROW, 1e-10), (GRIVAS, None), (GRIVAS, 1e-7)]:
        solve(program, square.readout, 1, 6, "HiGHS", tolerance=tolerance)
    assert seen == [1e-7, 1e-10, 1e-9, 1e-7]


NO_CBC = pytest.mark.skipif(
    "PULP_CBC_CMD" not in pulp.listSolvers(onlyAvailable=True), reason="no CBC in this PuLP"
)


@NO_CBC
def test_cbc_takes_a_tolerance_too(square: Model) -> None:
    claims = [
        solve(OWN_ROW, square.readout, 4, 6, "PULP_CBC_CMD", margin=1e-6, tolerance=t).claim
        for t in (1e-9, 1e-3)
    ]
    assert claims == ["infeasible", "feasible"]


@NO_CBC
def test_a_table_of_cbc_names_its_version(square: Model) -> None:
    version = asked(square, solver="PULP_CBC_CMD").version
    assert re.fullmatch(rf"PuLP {re.escape(pulp.__version__)}, CBC \d+\.\d+(\.\d+)?", version)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for CBC")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            '[ "$*" = -quit ] && printf "Welcome to CBC\\nVersion: 9.8.7 \\nBuild Date: today\\n"',
            ", CBC 9.8.7",
        ),
        ("echo Version: 9.8.7; exec sleep 20", ""),
        ("echo The Version: 9.8.7", ""),
        ("exit 1", ""),
        (None, ""),
    ],
)
def test_cbc_is_asked_for_its_version(
    script: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cbc:
        path = str(tmp_path / "cbc")

    if script is not None:
        Path(Cbc.path).write_text(f"#!/bin/sh\n{script}\n")
        Path(Cbc.path).chmod(0o755)
    monkeypatch.setattr("verify.propose.field.find_solver", lambda _: Cbc)
    monkeypatch.setattr("verify.propose.field._CBC_SECONDS", 1.0)
    for name in ("PULP_CBC_CMD", "COIN_CMD"):
        assert solver_version(name) == f"PuLP {pulp.__version__}{words}"


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for CBC")
def test_cbc_is_not_given_what_was_meant_for_verify(tmp_path: Path) -> None:
    program = tmp_path / "cbc"
    program.write_text('#!/bin/sh\nread line && echo "Version: $line" || echo Version: nothing\n')
    program.chmod(0o755)
    code = "import sys; from verify.propose.field import _cbc_version; print(_cbc_version(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(program)],
        input="something\n",
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == "nothing\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"program": "simplex"}, "unknown program"),
        ({"tokens": "6"}, "ids 0 to 5"),
        ({"tokens": "3-1"}, "names no token"),
        ({"tokens": "1,1"}, "twice"),
        ({"tokens": "one"}, "ids and ranges"),
        ({"margins": ()}, "at least one margin"),
        ({"margins": (0.0,)}, "between 0 and 1"),
        ({"margins": (float("nan"),)}, "between 0 and 1"),
        ({"margins": (1e-7, 1e-7)}, "twice"),
        ({"tolerances": (1e-11,)}, "out of range"),
        ({"solver": "NO_SUCH"}, "NO_SUCH"),
    ],
)
def test_questions_without_sense(options: dict[str, Any], words: str, square: Model) -> None:
    with pytest.raises(UsageError, match=words):
        asked(square, **options)


def test_an_epsilon_that_cannot_be_written(square: Model) -> None:
    with pytest.raises(UsageError, match="epsilon"):
        asked(replace(square, readout=replace(square.readout, epsilon=Fraction(1, 3))))


def test_a_solver_of_unknown_options_takes_no_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        name = "GLPK_CMD"

    monkeypatch.setattr("verify.propose.field.find_solver", lambda _: Other)
    with pytest.raises(UsageError, match="GLPK_CMD takes a tolerance"):
        find_engine(OWN_ROW, "GLPK_CMD", None, 1e-9)


def test_a_time_limit_is_no_answer(square: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(_: object, program: Any) -> None:
        for variable in program.variables():
            variable.varValue = 1.0
        program.assignStatus(pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible)

    monkeypatch.setattr(pulp.HiGHS, "actualSolve", pretend)
    question, rows = made(square, tmp_path, time_limit=1.0)
    assert {row.judgement for row in rows} == {NO_ANSWER}
    assert all(c.as_posed[NO_ANSWER] == c.steps[NO_ANSWER] == 6 for c in summarise(rows))
    assert "| 0 / 0 / 0 / 0 (6 no answer) |" in markdown(question, rows)
    assert check(square, question, rows, decided_claims(square)) == len(rows)


def test_an_undecided_verdict_is_no_agreement(square: Model, tmp_path: Path) -> None:
    question = asked(square, WITHOUT_OWN_ROW)
    rows = replay(square, question, Table.below(tmp_path, question), lambda *_: None)
    infeasible = [row for row in rows if row.claim == "infeasible"]
    assert infeasible
    assert {row.judgement for row in infeasible} == {UNDECIDED}
    counts = summarise(rows)
    assert sum(c.judgements[UNDECIDED] for c in counts) == len(infeasible)
    assert sum(c.steps[UNDECIDED] for c in counts) == len(rows)
    assert not any(c.judgements[NO_ANSWER] or c.steps[NO_ANSWER] for c in counts)
    assert "undecided)" in markdown(question, rows)
    assert "no answer" not in markdown(question, rows)


# On disk.


def test_a_table_reads_as_it_was_written(square: Model, tmp_path: Path) -> None:
    question, rows = made(square, tmp_path, WITHOUT_OWN_ROW, tolerances=(None, 1e-9))
    odd = (float.fromhex("0x1.0000000000001p-1074"), -0.0)
    rows[2] = replace(rows[2], claim="feasible", x=odd, exact_margin=Fraction(-1, 3), status="caf\u00e9\tx")
    rows[3] = replace(rows[3], claim="feasible", x=(odd[0], 0.0))
    table = Table(tmp_path / "odd.tsv")
    table.finish(question, rows)
    found, read = Table(tmp_path / "odd.tsv.gz").read()
    assert found == question
    assert read[2].status == "caf??x"
    assert read[:2] + read[3:] == rows[:2] + rows[3:]
    assert [v.hex() for r in read for v in r.x or ()] == [v.hex() for r in rows for v in r.x or ()]
    once = table.finished.read_bytes()
    table.finish(found, read)
    assert table.finished.read_bytes() == once


class StopError(Exception):
    pass


@pytest.mark.parametrize("torn", [b"", b"1\t1e-07\t1e-0", b"\xff"])
def test_an_interrupted_run_goes_on(torn: bytes, square: Model, tmp_path: Path) -> None:
    question, whole = made(square, tmp_path / "whole", WITHOUT_OWN_ROW)
    table = Table.below(tmp_path / "parts", question)

    def stop(done: int, _: int) -> None:
        if done == 11:
            raise StopError

    with pytest.raises(StopError):
        replay(square, question, table, decided_claims(square), stop)
    assert not table.complete
    with table.unfinished.open("ab") as file:
        file.write(torn)
    told: list[int] = []
    rows = replay(square, question, table, decided_claims(square), lambda done, _: told.append(done))
    assert told[0] == 11
    assert table.complete
    assert not table.unfinished.exists()
    assert [replace(r, seconds=0) for r in rows] == [replace(r, seconds=0) for r in whole]
    assert table.read() == (question, rows)


def test_a_finished_run_asks_no_solver(
    square: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, rows = made(square, tmp_path)
    monkeypatch.setattr("verify.replay.grid.Written", None)
    assert replay(square, question, Table.below(tmp_path, question), decided_claims(square)) == rows


@pytest.mark.parametrize(
    "other", [{"margins": (1e-8,)}, {"tolerances": (None,)}, {"tokens": "0-4"}, {"time_limit": 5.0}]
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_question_is_refused(
    other: dict[str, Any], finished: bool, square: Model, tmp_path: Path
) -> None:
    question, rows = made(square, tmp_path)
    table = Table.below(tmp_path, question)
    if not finished:
        table.unfinished.write_bytes(gzip.decompress(table.finished.read_bytes()))
        table.finished.unlink()
    with pytest.raises(UsageError, match="another question"):
        made(square, tmp_path, **other)
    assert table.read() == (question, rows)


@pytest.mark.parametrize("other", [{"norm": "layernorm"}, {"gain_offset": 1}, {"epsilon": "0.00001"}])
def test_answers_of_another_readout_are_not_continued(
    other: dict[str, Any], square: Model, tmp_path: Path
) -> None:
    question, _ = made(square, tmp_path, tokens="1")
    assert (question.norm, question.gain_offset, question.epsilon) == ("rmsnorm", 0, "0.000001")
    with pytest.raises(UsageError, match=rf"\({next(iter(other))} differ\)"):
        Table.below(tmp_path, question).resume(replace(question, **other))


def test_rows_out_of_order_are_not_continued(square: Model, tmp_path: Path) -> None:
    question, _ = made(square, tmp_path)
    table = Table.below(tmp_path, question)
    head, names, first, _, *rest = gzip.decompress(table.finished.read_bytes()).split(b"\n")
    table.finished.unlink()
    table.unfinished.write_bytes(b"\n".join([head, names, first, *rest]))
    with pytest.raises(MalformedError, match="order"):
        made(square, tmp_path)


def test_a_finished_table_holds_every_row(square: Model, tmp_path: Path) -> None:
    question, rows = made(square, tmp_path)
    table = Table.below(tmp_path, question)
    table.finish(question, rows[:-1])
    with pytest.raises(MalformedError, match="47 of 48 rows"):
        table.read()
    with pytest.raises(MalformedError, match="47 of 48 rows"):
        made(square, tmp_path)
    assert verify("replay", "show", tmp_path).returncode == 4


def test_a_folder_that_cannot_be_written(square: Model, tmp_path: Path) -> None:
    question = asked(square)
    table = Table.below(tmp_path, question)
    table.unfinished.mkdir(parents=True)
    with pytest.raises(OutputError):
        table.appender(question, [])
    with pytest.raises(ModelUnavailableError, match="no such table"):
        table.read()


def lines_of(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().split("\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [],
        lambda lines: ["# not json", *lines[1:]],
        lambda lines: [lines[0].replace("verify-replay-3", "verify-replay-2"), *lines[1:]],
        lambda lines: [lines[0].replace('"solver"', '"solvent"'), *lines[1:]],
        lambda lines: [lines[0], "token", *lines[2:]],
        lambda lines: [*lines[:2], lines[2] + "\t", *lines[3:]],
        lambda lines: [*lines[:2], lines[2].replace("agrees", "is right"), *lines[3:]],
        lambda lines: [*lines[:2], lines[2].replace("\tfeasible", "\tperhaps", 1), *lines[3:]],
        lambda lines: [*lines[:2], lines[2].replace("\tfeasible\tagrees", "\tperhaps\tagrees"), *lines[3:]],
        lambda lines: [
            *lines[:2],
            lines[2].replace("\tfeasible\tfeasible\t", "\tperhaps\tfeasible\t"),
            *lines[3:],
        ],
        lambda lines: [*lines[:2], lines[2].replace("\tfeasible\tagrees", "\tagrees"), *lines[3:]],
        lambda lines: [*lines[:2], lines[2].rsplit("\t", 1)[0] + "\t=", *lines[3:]],
        lambda lines: [*lines[:2], lines[2].rsplit("\t", 1)[0] + "\t+.3f", *lines[3:]],
        lambda lines: [*lines[:2], "one" + lines[2], *lines[3:]],
        lambda lines: [*lines[:2], lines[2].rsplit("\t", 1)[0] + "\t." + "7ff" + "0" * 13, *lines[3:]],
        lambda lines: ["# []", *lines[1:]],
        lambda lines: [lines[0].replace('"post-without-own-row"', '"simplex"'), *lines[1:]],
        lambda lines: [lines[0].replace('"direction"', '"free"'), *lines[1:]],
        lambda lines: [lines[0].replace('"square"', "7"), *lines[1:]],
        lambda lines: [lines[0].replace('"revision": null', '"revision": 7'), *lines[1:]],
        lambda lines: [lines[0].replace('"norm": "rmsnorm", ', ""), *lines[1:]],
        lambda lines: [lines[0].replace('"rmsnorm"', '"batchnorm"'), *lines[1:]],
        lambda lines: [lines[0].replace('"rmsnorm"', "null"), *lines[1:]],
        lambda lines: [lines[0].replace('"gain_offset": 0', '"gain_offset": 2'), *lines[1:]],
        lambda lines: [lines[0].replace('"gain_offset": 0', '"gain_offset": false'), *lines[1:]],
        lambda lines: [lines[0].replace('"0.000001"', '"1e-6"'), *lines[1:]],
        lambda lines: [lines[0].replace('"0.000001"', '"0.0000010"'), *lines[1:]],
        lambda lines: [lines[0].replace('"0.000001"', '"-0.000001"'), *lines[1:]],
        lambda lines: [lines[0].replace('"0.000001"', "0.000001"), *lines[1:]],
        lambda lines: [lines[0].replace("1e-09, 1e-07", "NaN, 1e-07"), *lines[1:]],
        lambda lines: [lines[0].replace('"1-2"', '"0-9999999"'), *lines[1:]],
        lambda lines: [lines[0].replace('"1-2"', '"0-9999999,0-9999999"'), *lines[1:]],
        lambda lines: [lines[0].replace('"1-2"', '"1-x"'), *lines[1:]],
        lambda lines: [*lines[:2], lines[2].replace("/", "/0 "), *lines[3:]],
        lambda lines: [*lines[:2], re.sub("/[0-9a-f]+", "/0", lines[2]), *lines[3:]],
    ],
)
def test_malformed_tables(spoil: Callable[[list[str]], list[str]], square: Model, tmp_path: Path) -> None:
    question, _ = made(square, tmp_path, WITHOUT_OWN_ROW, tokens="1-2")
    table = Table.below(tmp_path, question)
    lines = lines_of(table.finished)
    assert spoil(lines) != lines
    table.finished.write_bytes(gzip.compress("\n".join(spoil(lines)).encode()))
    with pytest.raises(MalformedError):
        table.read()


def test_a_broken_gzip_is_malformed(square: Model, tmp_path: Path) -> None:
    question, _ = made(square, tmp_path, tokens="1")
    table = Table.below(tmp_path, question)
    for data in (b"no gzip", table.finished.read_bytes()[:-9]):
        table.finished.write_bytes(data)
        with pytest.raises(MalformedError):
            table.read()


# Checked without a solver.


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_table_is_made_again_without_a_solver(
    program: str, square: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, rows = made(square, tmp_path, program)
    monkeypatch.setattr(pulp.HiGHS, "actualSolve", None)
    assert check(square, question, rows, decided_claims(square)) == len(rows)
    assert check(square, question, rows, decided_claims(square), every=3) < len(rows)


FORGERIES: dict[str, Callable[[Row], Row]] = {
    "verdict": lambda r: replace(r, verdict="unspeakable"),
    "undecided": lambda r: replace(r, verdict="undecided"),
    "judgement": lambda r: replace(r, judgement=FAKE_FEASIBLE),
    "posed": lambda r: replace(r, posed="infeasible"),
    "open": lambda r: replace(r, posed="open"),
    "without_own_row": lambda r: replace(r, without_own_row="infeasible"),
    "outside_the_box": lambda r: replace(r, x=(1.0 + 2e-7, *(r.x or ())[1:])),
    "margin": lambda r: replace(r, exact_margin=(r.exact_margin or Fraction(0)) * 2),
    "no_margin": lambda r: replace(r, exact_margin=None),
    "argmax": lambda r: replace(r, exact_argmax=3),
    "x": lambda r: replace(r, x=((r.x or ())[0] * 0.5, *(r.x or ())[1:])),
    "short_x": lambda r: replace(r, x=(r.x or ())[:-1]),
    "no_x": lambda r: replace(r, x=None, exact_margin=None, exact_argmax=None),
    "claim": lambda r: replace(r, claim="infeasible"),
    "no_answer": lambda r: replace(r, claim="no answer", judgement=NO_ANSWER),
    "other_token": lambda r: replace(r, token=5),
    "other_margin": lambda r: replace(r, margin=1e-5),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_rows_are_refused(name: str, square: Model, tmp_path: Path) -> None:
    question, rows = made(square, tmp_path, WITHOUT_OWN_ROW, tokens="4")
    assert rows[1].judgement == "agrees"
    rows[1] = FORGERIES[name](rows[1])
    with pytest.raises(RefutedError):
        check(square, question, rows, decided_claims(square))


@pytest.mark.parametrize(
    ("program", "token", "found", "words"),
    [
        (OWN_ROW, "4", {OWN_ROW: True}, "own row asks for 0 <= -margin"),
        (OWN_ROW, "2", {WITHOUT_OWN_ROW: True}, "unspeakable, yet the program without its own row has"),
        (OWN_ROW, "4", {WITHOUT_OWN_ROW: False}, "the solver's point is one"),
        (
            WITHOUT_OWN_ROW,
            "2",
            {WITHOUT_OWN_ROW: True},
            "unspeakable, yet the program without its own row has",
        ),
        (WITHOUT_OWN_ROW, "4", {WITHOUT_OWN_ROW: False}, "the solver's point is one"),
        (OWN_ROW, "4", None, "unspeakable, yet its exact margin"),
        (WITHOUT_OWN_ROW, "4", None, "unspeakable, yet its exact margin"),
        (GRIVAS, "4", None, "unspeakable, yet its exact margin"),
    ],
)
def test_facts_that_contradict_each_other_are_no_judgement(
    program: str,
    token: str,
    found: dict[str, bool] | None,
    words: str,
    square: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in a run nor in a check: one of them was proved wrongly, and nobody can say which.

    found: what a broken `Posed` says; or broken claims, that every token is unspeakable.
    """
    exact = decided_claims(square)
    question, rows = made(square, tmp_path, program, tokens=token, tolerances=(1e-7,))
    if found is not None:
        before = Posed.feasible
        monkeypatch.setattr(
            Posed, "feasible", lambda self, p, *other: found[p] if p in found else before(self, p, *other)
        )
    claims = exact if found is not None else lambda _, domain: exact(2, domain)
    with pytest.raises(VerifyError, match=f"^internal error: .*{words}.*token {token}") as raised:
        check(square, question, rows, claims)
    assert raised.type is VerifyError
    with pytest.raises(VerifyError, match=r"^internal error"):
        replay(square, question, Table.below(tmp_path / "again", question), claims)


def test_tables_that_are_not_whole_or_of_something_else_are_refused(square: Model, tmp_path: Path) -> None:
    question, rows = made(square, tmp_path)
    exact = decided_claims(square)
    other = {**question.tensors, "unembedding": "0" * 64}
    away = replace(rows[0], token=6)
    for bad in (
        (question, rows[:-1]),
        (question, [*rows, rows[-1]]),
        (question, rows[::-1]),
        (replace(question, tensors=other), rows),
        (replace(question, competitors=7), rows),
        (replace(question, norm="none"), rows),
        (replace(question, gain_offset=1), rows),
        (replace(question, epsilon="0.0000011"), rows),
        (replace(question, tokens="6", tolerances=(1e-7,), margins=(1e-9,)), [away]),
    ):
        with pytest.raises(RefutedError):
            check(square, *bad, exact)


def test_the_same_weights_with_another_epsilon_are_another_readout(square: Model, tmp_path: Path) -> None:
    """The hashes of the tensors do not tell what the logits are."""
    question, rows = made(square, tmp_path / "out", tokens="1")
    folder = square_checkpoint(tmp_path / "square")
    config = json.loads((folder / "config.json").read_text())
    assert verify("replay", "check", tmp_path / "out", "--model", folder).returncode == 0
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    other = load_model(str(folder))
    with pytest.raises(RefutedError, match="epsilon: the table says 1/1000000, square has 1/100000"):
        check(other, question, rows, decided_claims(other))
    done = verify("replay", "check", tmp_path / "out", "--model", folder)
    assert (done.returncode, "epsilon" in done.stdout + done.stderr) == (1, True)


def test_the_competitors_follow_from_a_rule(square: Model) -> None:
    question = asked(square)
    assert rule_of(square, question) == "all"
    with pytest.raises(RefutedError, match="no rule gives 4"):
        rule_of(square, replace(question, competitors=4))
    four = json.dumps(WORDS[:4]).encode()
    fewer = Tokens(VocabularyFiles("tokens.json", {}, {"tokens.json": four}), 4)
    assert rule_of(replace(square, tokens=fewer), replace(question, competitors=4)) == "tokenizer"


def test_stored_certificates_are_proved_before_they_are_believed(square: Model, tmp_path: Path) -> None:
    def never(token: int, _: Domain) -> Claim | None:
        raise AssertionError(token)

    done = verify(
        "token", "4", "2", "--model", square.weights[0].parent, "--domain", "direction", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "verify-certificates"
    question, rows = made(square, tmp_path, tokens="2,4")
    assert check(square, question, rows, stored_claims(square, folder, never)) == len(rows)
    with pytest.raises(AssertionError, match="3"):
        stored_claims(square, folder, never)(3, question.states)
    path = folder / square.name / "direction" / "2.json"
    path.write_bytes((path.parent / "4.json").read_bytes())  # of another token
    with pytest.raises(AssertionError, match="2"):
        check(square, question, rows, stored_claims(square, folder, never))
    path.write_text(path.read_text().replace('"token": 4', '"token": 2'))
    with pytest.raises((RefutedError, MalformedError)):
        check(square, question, rows, stored_claims(square, folder, never))


# What people see.


def test_the_post_s_second_step(square: Model, tmp_path: Path) -> None:
    _, rows = made(square, tmp_path, WITHOUT_OWN_ROW, margins=(1e-3,), tolerances=(None,), tokens="2,4")
    inside, corner = rows
    assert (inside.verdict, corner.verdict) == ("unspeakable", "speakable")
    (counts,) = summarise(
        [
            inside,
            corner,
            replace(corner, argmax_float32=1),
            replace(inside, claim="feasible", argmax_float32=2),
            replace(corner, claim="infeasible"),
        ]
    )
    assert counts.steps == {"right": 2, "wrongly unspeakable": 2, "wrongly speakable": 1}
    assert counts.floats == 2


def test_the_picture_is_the_same_twice(square: Model, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from verify.replay.plot import svg

    tables = [made(square, tmp_path, program) for program in PROGRAMS]
    picture = svg(tables)
    assert picture == svg(tables)
    for words in (b"square: post,", b"FAKE INFEASIBLE", b"right as posed", b"1.01e-7", b"no answer"):
        assert words in picture
    assert b"<dc:date>" not in picture


def test_the_commands(square: Model, tmp_path: Path) -> None:
    folder = square.weights[0].parent
    options = ("--model", folder, "--tokens", "0-3", "--margins", "1e-7,1.01e-7", "--out", tmp_path / "out")
    first = verify("replay", "post", *options)
    assert first.returncode == 0, first.stderr
    assert "| 1.01e-7 | 2 / 0 / 2 / 0 | 4 / 0 | 2 / 0 / 2 |" in first.stdout
    again = verify("replay", "post", *options, "--json")
    assert [json.loads(line)["tokens"] for line in again.stdout.splitlines()] == [4, 4]
    other = verify("replay", "post", *options, "--tolerances", "1e-9")
    assert (other.returncode, "another question" in other.stderr) == (2, True)
    done = verify("replay", "check", tmp_path / "out", "--model", folder)
    assert (done.returncode, "8 of 8 answers made again" in done.stdout) == (0, True)
    pytest.importorskip("matplotlib")
    shown = verify("replay", "show", tmp_path / "out", "--plot", tmp_path / "out.svg")
    assert shown.returncode == 0
    assert (tmp_path / "out.svg").read_bytes().startswith(b"<?xml")
    (table,) = find_tables(tmp_path / "out")
    lines = lines_of(table.finished)
    table.finished.write_bytes(gzip.compress("\n".join(lines).replace("\tspeakable", "\tundecided").encode()))
    assert verify("replay", "check", tmp_path / "out", "--model", folder).returncode == 1
    table.finished.write_bytes(b"")
    assert verify("replay", "show", tmp_path / "out").returncode == 4
    (tmp_path / "empty").mkdir()
    for bad in (("show", tmp_path / "empty"), ("post", *options, "--margins", "a")):
        assert verify("replay", *bad).returncode == 2


def test_points_that_miss_what_was_asked(square: Model, tmp_path: Path) -> None:
    question, rows = made(square, tmp_path, WITHOUT_OWN_ROW, tokens="4", tolerances=(1e-7,))
    assert [row.claim for row in rows] == ["feasible"] * 4
    assert missed(question, rows) == (4, 0)
    x = rows[0].x or ()
    spoilt = [
        replace(rows[0], x=(1.0 + 2.0**-52, *x[1:])),
        replace(rows[1], exact_margin=Fraction(rows[1].margin) * Fraction(999, 1000)),
        replace(rows[2], x=None, exact_margin=None),
        rows[3],
    ]
    assert missed(question, spoilt) == (3, 2)
    assert "In exact arithmetic 2 of 3 points miss the margin or leave the box." in markdown(question, spoilt)


def test_tables_are_put_into_a_page(square: Model, tmp_path: Path) -> None:
    question, rows = made(square, tmp_path / "out", WITHOUT_OWN_ROW, tokens="1-4")
    other, _ = made(square, tmp_path / "out", tokens="1-4")
    table = Table.below(tmp_path / "out", other)
    table.unfinished.write_bytes(gzip.decompress(table.finished.read_bytes()))
    table.finished.unlink()
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables -->\nold\n<!-- end of tables -->\nafter\n")
    assert verify("replay", "show", tmp_path / "out", "--page", page).returncode == 0
    filled = f"before\n<!-- tables -->\n\n{markdown(question, rows)}\n<!-- end of tables -->\nafter\n"
    assert page.read_text() == filled
    assert "| 2 | unspeakable | 1e-3 | 1e-7 | infeasible | infeasible |  |  |  | agrees |" in filled
    assert verify("replay", "show", tmp_path / "out", "--page", page).returncode == 0
    assert page.read_text() == filled
    page.write_text("no marks")
    assert verify("replay", "show", tmp_path / "out", "--page", page).returncode == 2


def test_ids() -> None:
    assert token_ids("3, 5-7,0") == (3, 5, 6, 7, 0)


# What is published.

# Every table that the page promises: dropping one from the folder must not go unseen.
MODELS = ("rxnmapper-albert", "stories260K", "tinygpt-slm-05", "tinygpt-slm-12", "whisper-tiny.en")
PUBLISHED = sorted(
    {Path(model, f"{program}.HiGHS.tsv.gz") for model in MODELS for program in PROGRAMS}
    | {Path("tinygpt-slm-05", f"{program}.PULP_CBC_CMD.tsv.gz") for program in PROGRAMS}
)
VOCABULARIES = {"rxnmapper-albert": 591, "stories260K": 512, "tinygpt-slm-05": 445, "tinygpt-slm-12": 445}


def test_what_the_page_promises_is_published() -> None:
    found = {path.relative_to(DATA) for path in DATA.rglob("*.tsv*")}
    assert found == set(PUBLISHED)
    page = (ROOT / "docs" / "replay.md").read_text()
    (named,) = re.findall("^T=([0-9,]+)$", page, re.MULTILINE)
    for path in PUBLISHED:
        question, rows = Table(DATA / path).read()
        assert Path(question.model, f"{question.program}.{question.solver}.tsv.gz") == path
        every = question.model in VOCABULARIES
        tokens = tuple(range(VOCABULARIES[question.model])) if every else token_ids(named)
        assert tuple(dict.fromkeys(row.token for row in rows)) == tokens
        # The page says so of all of them.
        assert not {row.judgement for row in rows} & {UNDECIDED, NO_ANSWER}
        excused = {row.key for row in rows if (row.claim, row.judgement) == ("infeasible", RIGHT_AS_POSED)}
        of_two_tokens = question.model == "stories260K" and question.program != GRIVAS
        assert excused == (
            {(t, o, 1e-3) for t in (10, 108) for o in question.tolerances} if of_two_tokens else set()
        )
        if "CBC" in path.name:
            assert question.version == "PuLP 3.3.2, CBC 2.10.3"
        fake = [row for row in rows if row.judgement == FAKE_INFEASIBLE]
        assert bool(fake) == (question.program == "post")
        assert {row.posed for row in fake} <= {"infeasible"}
        assert "open" not in {row.posed for row in rows}
        assert question.tolerances == ((1e-7, 1e-9, 1e-10) if every and "CBC" not in path.name else (None,))


@pytest.mark.parametrize("path", PUBLISHED, ids=str)
def test_published_tables_hold(path: Path) -> None:
    """Every answer of the bundled model; of the others those of some tokens, where their weights are."""
    question, rows = Table(DATA / path).read()
    if question.model == "whisper-tiny.en":
        model, every = load_model(question.model), 1
        exact = stored_claims(model, ROOT / "certificates", decided_claims(model))
    else:
        folder = Path(os.environ.get("VERIFY_TEST_MODELS", ""), question.model)
        if not (folder / "config.json").is_file():
            pytest.skip("set VERIFY_TEST_MODELS to a folder that holds this model")
        model, every = load_model(str(folder)), 23
        exact = decided_claims(model)
    assert check(model, question, rows, exact, every=every) > 0


def test_the_page_shows_the_published_tables() -> None:
    page = (ROOT / "docs" / "replay.md").read_text()
    for path in PUBLISHED:
        assert markdown(*Table(DATA / path).read()) in page, path

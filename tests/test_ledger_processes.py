"""A ledger checked by several processes: what one process refuses, they refuse, and no row goes missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import square_checkpoint
from ledgers import BASES, LN, Base, proved

from verify.errors import ModelUnavailableError, RefutedError, UsageError, VerifyError
from verify.kernel import Readout, ledger, processes, proved_ledger
from verify.kernel.ledger import Row
from verify.kernel.proved_ledger import LedgerCheck, ProvedLedger, check_in_processes
from verify.models import load_model
from verify.scan import check
from verify.scan.run import scan

SQUARE = BASES["square readout"]


def load(base: str) -> tuple[Readout, None]:
    """What a process of the check loads; the bases are made anew in it."""
    return BASES[base].readout, None


def no_weights() -> tuple[Readout, None]:
    raise ModelUnavailableError("the folder is gone")


def killed() -> tuple[Readout, None]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class InThisProcess:
    """In place of a pool: the same calls, here, so that every line of them is seen to run."""

    def __init__(self, count: int, prepare: Callable[..., None], *arguments: Any) -> None:
        proved_ledger._here.clear()
        prepare(*arguments)

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        proved_ledger._here.clear()

    def submit(self, task: Callable[..., None], *arguments: Any) -> Any:
        class Done:
            def result(self) -> None:
                return task(*arguments)

        return Done()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proved_ledger, "processes", InThisProcess)


def parallel(
    base: Base, blocks: Sequence[Sequence[Row]], name: str = "layernorm readout", **header: Any
) -> ProvedLedger:
    told: list[int] = []
    said = replace(base.header, **header)
    found = check_in_processes(said, base.readout, blocks, partial(load, name), 2, told.append)
    assert told
    assert told == sorted(told)
    assert told[-1] == sum(map(len, blocks))
    return found


def test_two_processes_prove_what_one_does() -> None:
    found, alone = parallel(LN, [LN.rows[:3], LN.rows[3:]]), proved(LN.header, LN.rows, LN.readout)
    assert (found.counts, found.hard_post, found.hard_model) == (
        alone.counts,
        alone.hard_post,
        alone.hard_model,
    )


def test_a_false_row_is_refused_in_another_process() -> None:
    said = replace(LN.rows[3], amount=(LN.rows[3].amount or 0) + Fraction(1))
    with pytest.raises(RefutedError, match="token 3"):
        parallel(LN, [[*LN.rows[:3], said, *LN.rows[4:]]])


def test_a_process_that_dies_or_has_no_weights_proves_nothing() -> None:
    for broken, error in ((no_weights, ModelUnavailableError), (killed, RuntimeError)):
        with pytest.raises(error):
            check_in_processes(LN.header, LN.readout, [LN.rows], broken, 1, print)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", BASES)
def test_every_base_is_proved_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the parts and the blocks."""
    base, alone = BASES[name], proved(BASES[name].header, BASES[name].rows, BASES[name].readout)
    for part in (1, 2, 100):
        monkeypatch.setattr(proved_ledger, "_PART", part)
        monkeypatch.setattr(proved_ledger, "_AHEAD", part)
        for blocks in ([base.rows], [base.rows[:2], (), base.rows[2:]]):
            assert parallel(base, blocks, name).counts == alone.counts


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r[1:], lambda r: r[:-1], lambda r: (*r[:3], *r[4:]), lambda r: (),
        lambda r: (r[0], *r), lambda r: (*r, r[-1]), lambda r: (r[1], r[0], *r[2:]),
        lambda r: (*r, replace(r[-1], token=len(r))), lambda r: r + r,
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", [1, 3, 100])
def test_rows_missing_twice_or_out_of_order(
    edit: Callable[[Any], Any], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proved_ledger, "_PART", part)
    with pytest.raises(RefutedError):
        check_in_processes(
            LN.header, LN.readout, [edit(LN.rows)], partial(load, "layernorm readout"), 1, lambda _: None
        )


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("header", "name"),
    [({"first": 1}, "layernorm readout"), ({"last": 6}, "layernorm readout"), ({}, "square readout")],
)
def test_another_range_or_other_weights(header: dict[str, int], name: str) -> None:
    with pytest.raises(RefutedError):
        parallel(LN, [LN.rows], name, **header)


@pytest.mark.usefixtures("in_this_process")
def test_weights_that_cannot_be_loaded_are_told_with_the_first_rows() -> None:
    with pytest.raises(ModelUnavailableError, match="gone"):
        check_in_processes(LN.header, LN.readout, [LN.rows], no_weights, 1, print)


def test_rows_that_were_not_checked_are_not_counted() -> None:
    """A part whose check says nothing of it leaves its rows missing."""
    accounts = proved_ledger._Accounts(LN.header)
    accounts.count(LN.rows[:2])
    with pytest.raises(RefutedError, match="2 was not"):
        accounts.count(LN.rows[3:])
    with pytest.raises(RefutedError, match="before token 2"):
        accounts.proved()


def test_a_process_begins_with_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *a: ignored.append(a))
    prepared: list[Any] = []
    processes._begin(os.getppid(), prepared.append, (7,))
    assert prepared == [7]
    assert ignored == [(signal.SIGINT, signal.SIG_IGN)]


def test_a_process_ends_when_its_parent_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([7, 7, 1])
    events: list[Any] = []
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(time, "sleep", events.append)
    monkeypatch.setattr(os, "_exit", lambda code: events.append(("exit", code)))
    processes._end_with(7)
    assert events == [1, 1, ("exit", 1)]


def test_an_error_ends_the_processes() -> None:
    """Nothing goes on computing after an interruption."""
    with pytest.raises(KeyboardInterrupt), processes.processes(1, print) as pool:
        pool.submit(time.sleep, 600)
        raise KeyboardInterrupt
    found = [p for p in getattr(pool, "_processes", None) or {} if alive(p)]
    assert found == []


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


ORPHAN = """
import os, sys, time
from verify.kernel.processes import processes
if __name__ == "__main__":
    with processes(1, os.getpid) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def test_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.1)
    raise AssertionError("the child outlived its parent")


def test_no_process_takes_modules_from_the_working_directory(tmp_path: Path) -> None:
    """That may be a stranger's folder of certificates."""
    strange = tmp_path / "strange"
    (strange / "multiprocessing").mkdir(parents=True)
    (strange / "multiprocessing" / "__init__.py").write_text("raise SystemExit(9)")
    # As the installed command starts: the working directory is not on its own path.
    script = tmp_path / "start.py"
    script.write_text(SAFE)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=strange, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "7 None\n"), done.stderr


def test_the_setting_of_the_caller_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    with processes.processes(1, print):
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONSAFEPATH"] == ""


SAFE = """
import os
from verify.kernel.processes import processes

if __name__ == "__main__":
    with processes(1, os.getpid) as pool:
        found = pool.submit(abs, -7).result()
    print(found, os.environ.get("PYTHONSAFEPATH"))
"""


def test_a_whole_scan_is_checked_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `check_ledger`, as `verify audit` does for a ledger of many rows."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    found = scan(model, "readout", tmp_path / "out", workers=1)
    monkeypatch.setattr(check, "_MANY", 1)
    again = check.check_ledger(found.folder, model, workers=2)
    assert again.counts == found.proved.counts


def test_the_model_at_hand_is_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only what the processes load: in one process or several, the answer is the same."""
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    found = scan(model, "readout", tmp_path / "out", workers=1)
    other = replace(model, readout=replace(model.readout, epsilon=Fraction(1, 3)))
    monkeypatch.setattr(check, "_MANY", 1)
    for workers in (1, 2):
        with pytest.raises(RefutedError):
            check.check_ledger(found.folder, other, workers=workers)


def test_a_header_that_says_nothing_of_any_row(tmp_path: Path) -> None:
    """An empty range, weights of no model, a domain whose name and bound differ."""
    statement = LN.header.statement
    other = replace(statement.tensors["gain"], sha256="0" * 64)
    for header in (
        replace(LN.header, first=3, last=2),
        replace(LN.header, statement=replace(statement, tensors={**statement.tensors, "gain": other})),
        replace(LN.header, statement=replace(statement, domain=replace(statement.domain, bound=Fraction(3)))),
    ):
        with pytest.raises(VerifyError):
            check_in_processes(header, LN.readout, [], no_weights, 1, print)
        with pytest.raises(VerifyError):
            LedgerCheck(header, LN.readout).proved()


def test_a_check_whose_process_dies_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(str(square_checkpoint(tmp_path / "square")))
    found = scan(model, "readout", tmp_path / "out", workers=1)
    monkeypatch.setattr(check, "_MANY", 1)

    def dies(*_: object) -> None:
        raise BrokenProcessPool("killed")

    monkeypatch.setattr(check, "check_in_processes", dies)
    with pytest.raises(ModelUnavailableError, match="run the same command again"):
        check.check_ledger(found.folder, model, workers=2)


def test_errors_travel_between_processes() -> None:
    for error in (RefutedError("token 3: no"), UsageError("x"), ModelUnavailableError("y")):
        again = __import__("pickle").loads(__import__("pickle").dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
    assert issubclass(RefutedError, VerifyError)
    assert ledger.BLOCK > 0

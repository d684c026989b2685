"""GLUE. `verify scan`: every token of a model in one domain, by several processes, into a ledger.

The rows come from workers and are believed for the ledger's sake only; at the end the kernel checks all.
"""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verify.decide import Decider
from verify.errors import RefutedError, UsageError, VerifyError
from verify.files import require_writable
from verify.kernel import FREE, READOUT, System, parse_domain
from verify.kernel.filter import as_float64
from verify.kernel.ledger import MAX_GRID, Header, row_range
from verify.kernel.processes import processes
from verify.models import load_model
from verify.scan import worker as tasks
from verify.scan.check import check_ledger, cores, one_blas_thread
from verify.scan.cluster import cluster
from verify.scan.folder import LedgerFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from verify.kernel import Domain
    from verify.kernel.ledger import Row
    from verify.kernel.proved_ledger import ProvedLedger
    from verify.models import Model, ReadoutOverrides
    from verify.scan.check import Tell

    Own = Callable[[Iterable[list[int]]], Iterable[tuple[list[Row], list[Row]]]]
    Find = Callable[[Iterable[Row]], Iterable[Row]]

_TOKEN = re.compile(r"^token ([0-9]+)")
# Tokens of one matrix product.
_BLOCK = 512
# The own state of the longest direction is at least 2**16 steps of the grid long.
_GRID_BITS = 17


@dataclass(frozen=True)
class Scan:
    """A finished scan: where it lies, of what, what was proved, how many rows an earlier run had left."""

    folder: LedgerFolder
    model: Model
    proved: ProvedLedger
    resumed: int


def scan(
    model: str | Model,
    domain: str,
    out: Path,
    *,
    competitors: str = "all",
    tokens: tuple[int, int] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    proposer: str = "default",
    overrides: ReadoutOverrides | None = None,
    readout: str = "checkpoint",
    scheduler: str | None = None,
    tell: Tell = lambda what, done, total: None,  # noqa: ARG005 - the signature of a listener
) -> Scan:
    """Decide tokens first..last (all rows, unless given) and keep a ledger below `out`.

    model: a name or folder, or a Model; one that was not loaded is scanned by this process alone. readout:
    of a name, see `load_model`. workers: processes; None for one a core. scheduler: a Dask cluster in place
    of processes of this machine. tell: called with a phase, and how many of how many tokens of it are done.
    A finished ledger is checked only; an interrupted one goes on. Raises UsageError (options, another scan in
    the folder), OutputError.
    """
    if isinstance(model, str):
        model = load_model(model, overrides=overrides, readout=readout)
    decider = Decider(model, competitors, proposer)
    header = _header(decider, domain, tokens)
    question = tasks.Question(
        model.source, model.readout.fingerprint, domain, competitors, header.grid, proposer, device
    )
    count = (workers or cores()) if model.source is not None else 1
    require_writable(out)
    folder = LedgerFolder.below(out, model.name, domain)
    if folder.complete:
        folder.require_finished(header)
        proved = check_ledger(folder, model, device, tell, count)
        resumed = len(row_range(header))
    else:
        rows = folder.resume(header)
        resumed = len(rows)
        todo = [t for t in row_range(header) if t not in rows]
        with contextlib.ExitStack() as stack, folder.journal() as journal:
            executor: Executor | None = None
            ahead = count
            if scheduler is not None and model.source is not None:
                executor, ahead = stack.enter_context(cluster(scheduler))
            elif count > 1 and len(todo) > 1:
                executor = stack.enter_context(processes(count, one_blas_thread))
            own: Own
            search: Find
            if executor is None:
                here = tasks.Worker(question, decider)
                own = partial(map, partial(tasks.own_and_reflected, here))
                search = partial(map, here.search)
            else:
                # A few tasks more than there are workers are on their way.
                there = partial(_elsewhere, executor, 4 * ahead)
                own = partial(there, partial(tasks.own_task, question))
                search = partial(there, partial(tasks.search_task, question))
            for found in _settle(todo, own, search, tell):
                journal.add(found)
                rows.update((row.token, row) for row in found)
        header = folder.write_rows(header, rows)
        try:
            proved = check_ledger(folder, model, device, tell, count, header)
        except RefutedError as error:
            token = _TOKEN.search(str(error))
            if token is None:
                raise
            folder.forget(int(token[1]))
            raise RefutedError(
                f"{error}. This row came from a worker or an earlier run and is dropped: run the same "
                "command again to decide the token anew"
            ) from None
        folder.finish(header)
    return Scan(folder, model, proved, resumed)


def _header(decider: Decider, domain: str, tokens: tuple[int, int] | None) -> Header:
    """The header of the ledger to be."""
    last = decider.model.readout.vocabulary - 1
    first, last = tokens or (0, last)
    if not 0 <= first <= last < decider.model.readout.vocabulary:
        raise UsageError(f"tokens {first}-{last} are not all among 0-{decider.model.readout.vocabulary - 1}")
    statement = replace(decider.statement(0, parse_domain(domain)), text=None)
    return Header(statement, first, last, grid_of(decider, statement.domain))


def grid_of(decider: Decider, domain: Domain) -> int:
    """Bits after the point of own states, such that even the longest direction has a scale of 17 bits."""
    readout, view, bits = decider.model.readout, decider.view(READOUT), 0
    for each in {domain, READOUT}:
        rows = view.rows - view.centre
        if each == FREE and readout.gain is not None:
            rows *= as_float64(readout.gain, 0, readout.d) + readout.gain_offset
        longest = float(np.linalg.norm(rows, axis=1).max(initial=0.0)) or 1.0
        unit = System(readout, each, 0, decider.count).direction_unit
        bits = max(bits, ceil(log2(longest) + log2(readout.vocabulary * readout.d)) - unit)
    if domain.kind == "box":
        bits += max(0, domain.bound.denominator.bit_length() - domain.bound.numerator.bit_length() + 1)
    if bits + _GRID_BITS > MAX_GRID:
        raise UsageError("the rows are too short or too long for own states on the finest grid")
    return bits + _GRID_BITS


def _settle(todo: list[int], own: Own, search: Find, tell: Tell) -> Iterator[list[Row]]:
    """Rows as they are found, in any order: own directions of blocks first, then searches for the rest."""
    hard: list[Row] = []
    done = 0
    tell("own directions", 0, len(todo))
    for settled, rest in own(todo[i : i + _BLOCK] for i in range(0, len(todo), _BLOCK)):
        hard += rest
        done += len(settled) + len(rest)
        yield settled
        tell("own directions", done, len(todo))
    hard.sort(key=lambda row: row.token)
    tell("searching", 0, len(hard))
    for done, row in enumerate(search(hard), 1):
        yield [row]
        tell("searching", done, len(hard))


def _elsewhere(
    executor: Executor, ahead: int, task: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """`task` of every item in other processes, in any order; at most `ahead` are on their way."""
    waiting, pending = iter(items), set[Future[Any]]()
    try:
        while True:
            for item in waiting:
                pending.add(executor.submit(task, item))
                if len(pending) >= ahead:
                    break
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except VerifyError:
        raise
    except Exception as error:
        # By name: those of a cluster are classes of a package that may not be there.
        names = {kind.__name__ for kind in type(error).__mro__}
        if not names & {"BrokenExecutor", "KilledWorker", "CancelledError", "CommClosedError", "OSError"}:
            raise
        raise UsageError(
            f"a worker process ended ({error}); run the same command again to go on from here"
        ) from None

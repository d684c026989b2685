"""GLUE. `verify scan`: every token of a model in one domain, by several processes, into a ledger.

The rows come from workers and are believed for the ledger's sake only; at the end the kernel checks all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verify.decide import Decider
from verify.errors import UsageError, VerifyError
from verify.files import require_writable
from verify.kernel import FREE, READOUT, System, parse_domain
from verify.kernel.ledger import MAX_GRID, Header, row_range
from verify.models import load_model
from verify.scan import worker as tasks
from verify.scan.check import check_ledger
from verify.scan.cluster import cluster
from verify.scan.folder import LedgerFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from verify.kernel.ledger import Row
    from verify.kernel.proved_ledger import ProvedLedger
    from verify.models import Model, ReadoutOverrides
    from verify.scan.check import Tell

# Tokens of one matrix product.
_BLOCK = 512
# The own state of the longest direction is at least 2**16 steps of the grid long.
_GRID_BITS = 17


@dataclass(frozen=True)
class Scan:
    """A finished scan: where it lies, what was proved, and how many rows an earlier run had left."""

    folder: LedgerFolder
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
    scheduler: str | None = None,
    tell: Tell = lambda what, done, total: None,  # noqa: ARG005 - the signature of a listener
) -> Scan:
    """Decide tokens first..last (all rows, unless given) and keep a ledger below `out`.

    model: a name or folder; a Model in memory is scanned by this process alone. workers: processes; None for
    one a core. scheduler: a Dask cluster in place of processes of this machine. tell:
    called with a phase, and how many of how many tokens of it are done. A finished ledger is checked only;
    an interrupted one goes on. Raises UsageError (options, another scan in the folder), OutputError.
    """
    asked = model if isinstance(model, str) else None
    model = load_model(model, overrides=overrides) if isinstance(model, str) else model
    decider = Decider(model, competitors, proposer)
    header = _header(decider, domain, tokens)
    question = tasks.Question(asked or "", overrides, domain, competitors, header.grid, proposer, device)
    require_writable(out)
    folder = LedgerFolder.below(out, model.name, domain)
    rows = folder.resume(header)
    resumed = len(rows)
    if not folder.complete:
        todo = [t for t in row_range(header) if t not in rows]
        count = (workers or os.cpu_count() or 1) if asked is not None else 1
        with contextlib.ExitStack() as stack, folder.journal() as journal:
            executor: Executor | None = None
            if scheduler is not None and asked is not None:
                executor, count = stack.enter_context(cluster(scheduler))
            elif count > 1 and len(todo) > 1:
                executor = stack.enter_context(_processes(count))
            if executor is None:
                local = tasks.Worker(question, model)
                run: Runner = _Here(local)
            else:
                run = _There(executor, question, count)
            for found in run.settle(todo, tell):
                journal.add(found)
                rows.update((row.token, row) for row in found)
        header = folder.finish(header, rows)
    return Scan(folder, check_ledger(folder, model, device, tell), resumed)


def _header(decider: Decider, domain: str, tokens: tuple[int, int] | None) -> Header:
    """The header of the ledger to be."""
    last = decider.model.readout.vocabulary - 1
    first, last = tokens or (0, last)
    if not 0 <= first <= last < decider.model.readout.vocabulary:
        raise UsageError(f"tokens {first}-{last} are not all among 0-{decider.model.readout.vocabulary - 1}")
    statement = replace(decider.statement(0, parse_domain(domain)), text=None)
    return Header(statement, first, last, _grid(decider))


def _grid(decider: Decider) -> int:
    """Bits after the point of own states, such that even the longest direction has a scale of 17 bits."""
    readout, bits = decider.model.readout, 0
    for domain in (READOUT, FREE):
        view = decider.view(domain)
        longest = float(np.linalg.norm(view.rows - view.centre, axis=1).max(initial=0.0)) or 1.0
        unit = System(readout, domain, 0, decider.count).direction_unit
        bits = max(bits, ceil(log2(longest) + log2(readout.vocabulary * readout.d)) - unit)
    return min(bits + _GRID_BITS, MAX_GRID)


@contextlib.contextmanager
def _processes(count: int) -> Iterator[Executor]:
    """A pool of processes that does not outlive an interruption."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, tasks.prepare_process, (os.getpid(),))
    try:
        yield pool
    except BaseException:
        for process in list(getattr(pool, "_processes", {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


class Runner:
    """Settles tokens, some rows at a time, in any order."""

    def settle(self, todo: list[int], tell: Tell) -> Iterator[list[Row]]:
        """Rows as they are found."""
        hard: list[Row] = []
        done = 0
        tell("own directions", 0, len(todo))
        for settled, rest in self.own(todo[i : i + _BLOCK] for i in range(0, len(todo), _BLOCK)):
            hard += rest
            done += len(settled) + len(rest)
            yield settled
            tell("own directions", done, len(todo))
        hard.sort(key=lambda row: row.token)
        tell("searching", 0, len(hard))
        for done, row in enumerate(self.search(hard), 1):
            yield [row]
            tell("searching", done, len(hard))

    def own(self, blocks: Iterable[list[int]]) -> Iterator[tuple[list[Row], list[Row]]]:
        """`Worker.own` of every block."""
        raise NotImplementedError

    def search(self, rows: list[Row]) -> Iterator[Row]:
        """`Worker.search` of every row."""
        raise NotImplementedError


class _Here(Runner):
    """In this process."""

    def __init__(self, worker: tasks.Worker) -> None:
        self.worker = worker

    def own(self, blocks: Iterable[list[int]]) -> Iterator[tuple[list[Row], list[Row]]]:
        return map(self.worker.own, blocks)

    def search(self, rows: list[Row]) -> Iterator[Row]:
        return map(self.worker.search, rows)


class _There(Runner):
    """In other processes; a few tasks more than there are workers are on their way."""

    def __init__(self, executor: Executor, question: tasks.Question, workers: int) -> None:
        self.executor, self.question, self.ahead = executor, question, 4 * workers

    def own(self, blocks: Iterable[list[int]]) -> Iterator[tuple[list[Row], list[Row]]]:
        return self._map(tasks.own_task, blocks)

    def search(self, rows: list[Row]) -> Iterator[Row]:
        return self._map(tasks.search_task, rows)

    def _map(self, task: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        waiting, pending = iter(items), set[Future[Any]]()
        try:
            while True:
                for item in waiting:
                    pending.add(self.executor.submit(task, self.question, item))
                    if len(pending) >= self.ahead:
                        break
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except (OSError, RuntimeError) as error:
            if isinstance(error, VerifyError):
                raise
            raise UsageError(
                f"a worker process ended ({error}); run the same command again to go on from here"
            ) from None

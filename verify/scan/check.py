"""GLUE around the kernel: a ledger on disk put to `LedgerCheck`, row by row. Imports no solver."""

from __future__ import annotations

import os
from concurrent.futures import BrokenExecutor
from functools import partial
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from verify.errors import ModelUnavailableError
from verify.kernel.ledger import row_range
from verify.kernel.proved_ledger import LedgerCheck, check_in_processes
from verify.models import load_again
from verify.scan.product import multiplier

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.kernel import Readout
    from verify.kernel.filter import Multiply
    from verify.kernel.ledger import Header
    from verify.kernel.proved_ledger import ProvedLedger
    from verify.models import Model, Source
    from verify.scan.folder import LedgerFolder

    # Called with a phase, and how many of how many tokens of it are done.
    Tell = Callable[[str, int, int], None]

# Rows put to the kernel at once, and how many are worth more processes than one.
_CHECKED = 512
_MANY = 4096


def check_ledger(
    folder: LedgerFolder,
    model: Model,
    device: str = "cpu",
    tell: Tell | None = None,
    workers: int | None = None,
    header: Header | None = None,
) -> ProvedLedger:
    """Put every row of a ledger to the kernel. workers: processes; None for one a core. header: of a ledger
    that is not finished yet.

    Raises RefutedError, MalformedError, ModelUnavailableError if a process dies.
    """
    header = header or folder.header()
    total = len(row_range(header))
    workers = cores() if workers is None else workers

    def told(done: int) -> None:
        if tell is not None:
            tell("checking", done, total)

    told(0)
    if workers > 1 and total >= _MANY and model.source is not None:
        load = partial(_load, model.source, device)
        try:
            return check_in_processes(header, model.readout, folder.blocks(header), load, workers, told)
        except BrokenExecutor:
            raise ModelUnavailableError(
                "a process of the check was killed, perhaps for want of memory: run the same command again, "
                "with fewer --workers"
            ) from None
    ledger = LedgerCheck(header, model.readout, multiplier(device))
    done = 0
    for block in folder.blocks(header):
        for start in range(0, len(block), _CHECKED):
            some = block[start : start + _CHECKED]
            ledger.add(some)
            done += len(some)
            told(done)
    return ledger.proved()


def _load(source: Source, device: str) -> tuple[Readout, Multiply | None]:
    """What a process of the check works with."""
    one_blas_thread()
    return load_again(source).readout, multiplier(device)


def one_blas_thread() -> None:
    """For this process: several of them share the cores."""
    threadpool_limits(1)


def cores() -> int:
    """How many processes can run at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

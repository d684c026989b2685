"""GLUE around the kernel: a ledger on disk put to `LedgerCheck`, row by row. Imports no solver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.kernel.ledger import row_range
from verify.kernel.proved_ledger import LedgerCheck
from verify.scan.product import multiplier

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.kernel.proved_ledger import ProvedLedger
    from verify.models import Model
    from verify.scan.folder import LedgerFolder

    # Called with a phase, and how many of how many tokens of it are done.
    Tell = Callable[[str, int, int], None]

# Rows put to the kernel at once.
_CHECKED = 512


def check_ledger(
    folder: LedgerFolder, model: Model, device: str = "cpu", tell: Tell | None = None
) -> ProvedLedger:
    """Put every row of a finished ledger to the kernel. Raises RefutedError, MalformedError."""
    header = folder.header()
    ledger = LedgerCheck(header, model.readout, multiplier(device))
    done, total = 0, len(row_range(header))
    for block in folder.blocks(header):
        for start in range(0, len(block), _CHECKED):
            some = block[start : start + _CHECKED]
            ledger.add(some)
            done += len(some)
            if tell is not None:
                tell("checking", done, total)
    return ledger.proved()

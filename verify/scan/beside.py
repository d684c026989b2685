"""GLUE. The ledger of processed matrices beside that of the checkpoint's own. Proves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify.decision import OTHER_STATES
from verify.kernel import tensor_ids
from verify.scan.folder import LedgerFolder

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel.ledger import Row
    from verify.scan.run import Scan

_VERDICTS = {"own": "SPEAKABLE", "hard": "SPEAKABLE", "tied": "UNSPEAKABLE", "unspeakable": "UNSPEAKABLE"}


@dataclass(frozen=True)
class Beside:
    """Two ledgers of one domain: where the checkpoint's own lies, how many tokens both decide, and
    (token, verdict for the processed matrices, verdict for the checkpoint's own) where these differ.

    note: why they are not compared; the rest says nothing then.
    """

    ledger: Path | None = None
    compared: int = 0
    differing: tuple[tuple[int, str, str], ...] = ()
    note: str = ""


def checkpoint_beside(done: Scan, out: Path) -> Beside | None:
    """The comparison with a finished ledger of the checkpoint's own matrices below `out`; None without one.

    Its rows are taken as they stand there. Errors as `LedgerFolder.rows`.
    """
    checkpoint, statement = done.model.checkpoint, done.proved.header.statement
    if checkpoint is None:
        return None
    if statement.domain.kind == "free":
        return Beside(note=OTHER_STATES)
    folder = LedgerFolder.below(out, checkpoint.name, statement.domain.name)
    if not folder.complete:
        return None
    theirs = folder.header().statement
    same = (theirs.domain, theirs.competitors) == (statement.domain, statement.competitors)
    if not same or theirs.tensors != tensor_ids(checkpoint.readout):
        return None
    own = {row.token: _verdict(row) for row in folder.rows()}
    pairs = [(row.token, _verdict(row), own.get(row.token, "")) for row in done.folder.rows()]
    decided = [pair for pair in pairs if pair[1] and pair[2]]
    return Beside(folder.path, len(decided), tuple(x for x in decided if x[1] != x[2]))


def _verdict(row: Row) -> str:
    """SPEAKABLE or UNSPEAKABLE; empty where undecided."""
    return _VERDICTS.get(row.cls, "")

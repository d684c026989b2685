"""GLUE. Rows of a ledger as certificates. Each is proved before it is handed out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verify import __version__
from verify.errors import RefutedError, UsageError
from verify.kernel import Certificate, Speakable, System, Unspeakable, prove
from verify.kernel.ledger_rows import OwnStates
from verify.recheck import Audit, derive_statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verify.kernel import Proved, State
    from verify.kernel.evidence import Claim
    from verify.kernel.ledger import Row
    from verify.models import Model
    from verify.scan.folder import LedgerFolder


def extract(folder: LedgerFolder, model: Model, tokens: Sequence[int]) -> Iterator[Proved]:
    """The certificates of some rows of a finished ledger, proved, in ascending order of tokens.

    Raises UsageError for tokens that are not in it or undecided, RefutedError where a row does not hold or
    is missing, or where the header says what the model's files do not.
    """
    header, wanted = folder.header(), set(tokens)
    for token in sorted(wanted):
        if not header.first <= token <= header.last:
            raise UsageError(f"token {token} is not in this ledger of {header.first} to {header.last}")
    readout, s = model.readout, header.statement
    derive_statement(replace(s, text=model.tokens.text(0)), model, Audit(str(folder.path)))
    system = System(readout, s.domain, 0, s.competitors)
    own = OwnStates(system, readout.unembedding.column_sums(), header.grid)
    for row in folder.rows():
        if row.token not in wanted:
            continue
        wanted.remove(row.token)
        state = own.state_of(readout.unembedding.integers([row.token])[0], row.scale)
        statement = replace(s, token=row.token, text=model.tokens.text(row.token))
        provenance = {"tool": f"unspeakable {__version__}", "extracted": f"from a ledger, class {row.cls}"}
        certificate = Certificate(statement, _claim(row, state), provenance)
        try:
            yield prove(certificate, readout)
        except RefutedError as error:
            raise RefutedError(f"token {row.token}: {error}") from None
    if wanted:
        raise RefutedError(f"the ledger has no row of token {min(wanted)}")


def _claim(row: Row, own_state: State) -> Claim:
    state = own_state if row.own else row.witness
    if row.amount is not None and row.cls in ("own", "hard"):
        return Speakable(row.amount, state, None, row.ceiling, row.at_most)
    if row.amount is not None and row.multipliers is not None and row.kind is not None:
        return Unspeakable(row.amount, row.kind, row.multipliers, state)
    reason = f" ({row.reason})" if row.reason else ""
    raise UsageError(f"token {row.token} is undecided in this ledger: there is no certificate{reason}")

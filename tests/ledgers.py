"""Ledgers of small models that tests change: scanned, accepted, with every class and kind in them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from built_models import from_small
from oracle import SmallModel, small

from verify.errors import (
    RefutedError,
)
from verify.kernel import Multipliers, Readout, State, System, ledger
from verify.kernel.ledger import Header, Row
from verify.kernel.ledger_rows import OwnStates, Views
from verify.kernel.proved_ledger import LedgerCheck, ProvedLedger
from verify.scan.run import scan

DOMAINS = ("readout", "free", "direction", "box:1")
_ROWS = [
    (3, 0, 0, 1), (0, 3, 0, 1), (0, 0, 3, 1), (1, 1, 1, 9),
    (1, 1, 1, 3), (2, 2, 0, 0), (4, 0, 4, 0), (4, 0, 4, 0),
]  # fmt: skip
_CORNERS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
MODELS: dict[str, SmallModel] = {
    # bias, shift and gain; 4 is inside, 6 and 7 are equal
    "layernorm": small("layernorm", _ROWS, [1, 2, 1, 1], [1, 0, -1, 0], [0, 1, 0, 0, -20, 0, 1, 1]),
    # 4 is inside, 5 the middle of an edge, 6 equal to 0
    "square": small("rmsnorm", [*_CORNERS, (0, 0), (1, 0), (1, 1)]),
    # 4 is the mean row: its own direction is zero; so is 5, equal to it
    "centre": small("rmsnorm", [*_CORNERS, (0, 0), (0, 0)], [2, 6]),
    # 0 is above the others near z = 0 alone
    "near": small("rmsnorm", [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], bias=["1/4", 0, 0, 0, 0]),
    "none": small("none", [*_CORNERS, (0, 0), (1, 0)], bias=[0, 0, 0, 0, -1, 0]),
    # 0 is below 1 by the bias alone: not equal, but in `direction`
    "biased": small("rmsnorm", [(1, 0), (1, 0), (0, 1)], bias=[0, 1, 0]),
    # all rows but the last differ by a multiple of 1: equal after the norm
    "parallel": small("layernorm", [(3, 3), (0, 0), (1, 1), (1, 0)]),
}


@dataclass(frozen=True)
class Base:
    """An accepted ledger and the readout it is about."""

    header: Header
    rows: tuple[Row, ...]
    readout: Readout
    model: SmallModel


def scanned(model: SmallModel, domain: str) -> Base:
    of = from_small(model)
    with tempfile.TemporaryDirectory() as folder:
        found = scan(of, domain, Path(folder))
        return Base(found.folder.header(), tuple(found.folder.rows()), of.readout, model)


def with_tie(base: Base) -> Base:
    """Row 5, the middle of an edge, with the tie state that shows it."""
    edge = Multipliers((0, 1), (1, 1))
    fields = {"kind": "tie-only", "amount": Fraction(0), "rival": 0, "multipliers": edge}
    rows = list(base.rows)
    rows[5] = replace(rows[5], witness=State((1, 0), 1), **fields)  # type: ignore[arg-type] # of these types
    return replace(base, rows=tuple(rows))


BASES = {f"{name} {domain}": scanned(m, domain) for name, m in MODELS.items() for domain in DOMAINS}
BASES |= {name: with_tie(BASES[name]) for name in BASES if name.split()[0] in ("square", "none")}
EVERY = [(base, row) for base in BASES.values() for row in base.rows]


def proved(header: Header, rows: Sequence[Row], readout: Readout) -> ProvedLedger:
    """A whole ledger put to the kernel, through its files."""
    check = LedgerCheck(ledger.header_from_bytes(ledger.header_bytes(header)), readout)
    check.add(ledger.rows_from_bytes(ledger.rows_bytes(rows)))
    return check.proved()


_checks: dict[int, Views] = {}


def accepts(base: Base, row: Row) -> bool:
    """Whether one row of a ledger passes, read from its line."""
    views = _checks.setdefault(id(base), Views(base.readout, *subject(base)))
    try:
        views.check(ledger.rows_from_bytes(ledger.rows_bytes([row])))
    except RefutedError:
        return False
    return True


def subject(base: Base) -> tuple[Any, int, int]:
    statement = base.header.statement
    return statement.domain, statement.competitors, base.header.grid


def own_state(base: Base, row: Row) -> State:
    """p of Theorem 16, from the domain's own direction."""
    domain, count, grid = subject(base)
    own = OwnStates(System(base.readout, domain, 0, count), base.readout.unembedding.column_sums(), grid)
    return own.state(own.direction(base.readout.unembedding.integers([row.token])[0]), row.scale)


# ---- what the bases hold, and that they are true ----

LN, SQUARE = BASES["layernorm readout"], BASES["square direction"]

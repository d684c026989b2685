"""TRUSTED. A whole ledger: every row checked, none missing. `ProvedLedger` cannot be built anywhere else.

If this is wrong, a row is passed over. The rows themselves are checked by ledger_rows.py, the count of them
rests on the header's range alone.
"""

from __future__ import annotations

from collections import Counter, deque
from types import MappingProxyType
from typing import TYPE_CHECKING

from verify.errors import RefutedError, UsageError
from verify.kernel.ledger import header_bytes, header_from_bytes, line, row_from_line
from verify.kernel.ledger_rows import Views
from verify.kernel.processes import processes
from verify.kernel.statement import require_same_readout, require_same_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from verify.kernel.filter import Multiply
    from verify.kernel.ledger import Header, Row
    from verify.kernel.readout import Readout

    # Loads the weights in another process: the readout, and the product of the filter (None: numpy's).
    Load = Callable[[], tuple[Readout, Multiply | None]]

_KEY = object()
# Rows that go to another process at once, and parts on their way for each process.
_PART = 512
_AHEAD = 3


class ProvedLedger:
    """A ledger of which every row was checked, in this process or in ones that it began. Made here alone.

    counts: rows by class. hard_post, hard_model: how many are hard to speak in either sense.
    """

    __slots__ = ("counts", "hard_model", "hard_post", "header")

    header: Header
    counts: Mapping[str, int]
    hard_post: int
    hard_model: int

    def __init__(self, key: object, header: Header, counts: Mapping[str, int], post: int, model: int) -> None:
        if key is not _KEY:
            raise TypeError("ProvedLedger is made by LedgerCheck and check_in_processes alone")
        object.__setattr__(self, "header", header)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "hard_post", post)
        object.__setattr__(self, "hard_model", model)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("ProvedLedger does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("ProvedLedger does not change")


class LedgerCheck:
    """Checks the rows of one ledger, some at a time and in order; `proved` when all are accounted for."""

    def __init__(self, header: Header, readout: Readout, multiply: Multiply | None = None) -> None:
        """Raises RefutedError unless the header is about this readout, and its range about its rows."""
        header = _about(header, readout)
        self._views = _views(header, readout, multiply)
        self._accounts = _Accounts(header)

    def add(self, rows: Sequence[Row]) -> None:
        """Check the next rows. Raises RefutedError, naming the token, at the first that does not hold.

        Rows of a call that raises are not counted, and are still missing.
        """
        found = _parsed(self._accounts.lines(rows, self._accounts.next))
        self._views.check(found)
        self._accounts.count(found)

    def proved(self) -> ProvedLedger:
        """The ledger, if every token of its range was accounted for."""
        return self._accounts.proved()


def check_in_processes(
    header: Header,
    readout: Readout,
    blocks: Iterable[Sequence[Row]],
    load: Load,
    count: int,
    told: Callable[[int], None],
) -> ProvedLedger:
    """`LedgerCheck` by `count` processes of this machine, which `load` the weights for themselves.

    This process and each of the others compare the weights with the header, as `LedgerCheck` does. They
    check the rows that they are sent; this one sees to it that none is missing. told: called with how many
    rows are done. Errors as `LedgerCheck`; BrokenProcessPool if a process dies.
    """
    header = _about(header, readout)
    accounts = _Accounts(header)
    waiting: deque[tuple[list[str], Future[None]]] = deque()

    def take() -> None:
        lines, future = waiting.popleft()
        future.result()
        accounts.count(_parsed(lines))
        told(accounts.next - header.first)

    with processes(count, _open, load, header_bytes(header)) as pool:
        sent = header.first
        for block in blocks:
            for i in range(0, len(block), _PART):
                lines = accounts.lines(block[i : i + _PART], sent)
                sent += len(lines)
                waiting.append((lines, pool.submit(_check_there, lines)))
                if len(waiting) > _AHEAD * count:
                    take()
        while waiting:
            take()
    return accounts.proved()


class _Accounts:
    """Which rows of a ledger are still to come, and how many there were of each class."""

    def __init__(self, header: Header) -> None:
        self.header, self.next = header, header.first
        self.counts: Counter[str] = Counter()
        self.hard_post = self.hard_model = 0

    def lines(self, rows: Sequence[Row], start: int) -> list[str]:
        """Rows `start` and on as lines: what is checked is what a file says, whatever objects it came from.

        RefutedError where one is missing, or one too many.
        """
        for expected, row in enumerate(rows, start):
            if row.token != expected or row.token > self.header.last:
                raise RefutedError(f"token {row.token} stands where {expected} is expected")
        return [line(row) for row in rows]

    def count(self, rows: Sequence[Row]) -> None:
        """The next rows have been checked."""
        for row in rows:
            if row.token != self.next:
                raise RefutedError(f"token {row.token} was checked, {self.next} was not")
            self.next += 1
            self.counts[row.cls] += 1
            self.hard_post += row.hard_post
            self.hard_model += row.hard_model

    def proved(self) -> ProvedLedger:
        if self.next != self.header.last + 1:
            raise RefutedError(f"the rows end before token {self.next}; {self.header.last} is the last")
        counts = MappingProxyType(dict(self.counts))
        return ProvedLedger(_KEY, self.header, counts, self.hard_post, self.hard_model)


def _parsed(lines: Sequence[str]) -> list[Row]:
    return [row_from_line(x) for x in lines]


def _about(header: Header, readout: Readout) -> Header:
    """The header as its bytes say it; RefutedError unless it is about this readout, and some of its rows."""
    header = header_from_bytes(header_bytes(header))
    require_same_tensors(header.statement, readout)
    require_same_readout(header.statement, readout)
    if not 0 <= header.first <= header.last < readout.vocabulary:
        raise RefutedError(f"the tokens {header.first} to {header.last} are not all rows of the matrix")
    return header


def _views(header: Header, readout: Readout, multiply: Multiply | None) -> Views:
    """What checks the rows of a ledger. RefutedError where there can be none."""
    statement = header.statement
    try:
        return Views(readout, statement.domain, statement.competitors, header.grid, multiply)
    except UsageError as error:
        raise RefutedError(str(error)) from None


_here: list[Views | Exception] = []


def _open(load: Load, written: bytes) -> None:
    """In another process: load the weights, once. What goes wrong is told with the first rows."""
    try:
        readout, multiply = load()
        _here.append(_views(_about(header_from_bytes(written), readout), readout, multiply))
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the check
        _here.append(error)


def _check_there(lines: list[str]) -> None:
    (views,) = _here
    if isinstance(views, Exception):
        raise views
    views.check(_parsed(lines))

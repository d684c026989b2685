"""GLUE. A ledger on disk: its header, files of rows, and the journal of a scan that is not finished."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from verify.errors import MalformedError, OutputError, RefutedError, UsageError, VerifyError
from verify.figures import plain
from verify.files import LEDGER_FILES, domain_path, read_regular, write_atomically
from verify.kernel import ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from verify.kernel.ledger import Header, Row

JOURNAL = "journal.tsv"
# Of one file of rows; a reader takes twice as many.
_FILE_BYTES = 1 << 27
HEADER, QUESTION = LEDGER_FILES


class LedgerFolder:
    """The folder of one ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def below(cls, out: Path, model: str, domain: str) -> LedgerFolder:
        """`out`/model/domain.ledger, with only harmless characters in the names."""
        path = domain_path(out, model, domain)
        return cls(path.with_name(f"{path.name}.ledger"))

    @property
    def complete(self) -> bool:
        """Whether a finished ledger lies here."""
        return (self.path / HEADER).exists()

    def header(self) -> Header:
        """The header. Raises MalformedError, ModelUnavailableError if it cannot be read."""
        return ledger.header_from_bytes(read_regular(self.path / HEADER))

    def blocks(self, header: Header) -> Iterator[list[Row]]:
        """The rows, a file at a time. RefutedError where a file is not the one the header names."""
        for name, digest in header.files:
            data = read_regular(self.path / name)
            if ledger.digest(data) != digest:
                raise RefutedError(f"{name} is not the file that {HEADER} names (SHA-256 differs)")
            try:
                yield ledger.rows_from_bytes(data)
            except MalformedError as error:
                raise type(error)(f"{name}: {error}") from None

    def rows(self) -> Iterator[Row]:
        """All rows of a finished ledger, unchecked."""
        for block in self.blocks(self.header()):
            yield from block

    def resume(self, header: Header) -> dict[int, Row]:
        """Rows that an interrupted scan of the same question left. UsageError if the question is another.

        A last line that was torn, and lines that cannot be read, are done again.
        """
        found = self.path / QUESTION
        if not found.exists():
            (self.path / JOURNAL).unlink(missing_ok=True)
            write_atomically(found, ledger.header_bytes(header))
            return {}
        self._require_same(header, QUESTION)
        rows: dict[int, Row] = {}
        if not (self.path / JOURNAL).is_file():
            return rows
        whole = 0
        with (self.path / JOURNAL).open("rb") as file:
            for written in file:
                if not written.endswith(b"\n"):
                    break
                whole += len(written)
                try:
                    row = ledger.row_from_line(written[:-1].decode("ascii", errors="replace"))
                except VerifyError:
                    continue
                if row.token in ledger.row_range(header):
                    rows[row.token] = row
        os.truncate(self.path / JOURNAL, whole)
        return rows

    def unfinished(self) -> str:
        """How far the scan here has come, for people. The journal is read, and left as it is."""
        header = ledger.header_from_bytes(read_regular(self.path / QUESTION))
        tokens, done = ledger.row_range(header), set[int]()
        if (self.path / JOURNAL).is_file():
            with (self.path / JOURNAL).open("rb") as file:
                first = (line.partition(b"\t")[0] for line in file if line.endswith(b"\n"))
                done = {int(number) for number in first if number.isdigit()} & set(tokens)
        s = header.statement
        about = f"model {plain(s.model)}, domain {s.domain.name}, tokens {header.first} to {header.last}"
        return (
            f"{self.path} is unfinished, {len(done)} of {len(tokens)} tokens done: the same `verify scan` "
            f"command as before goes on ({about}); it ends when every row is checked"
        )

    def require_finished(self, header: Header) -> None:
        """Raise UsageError unless the finished ledger here answers this question."""
        self._require_same(header, HEADER)

    def _require_same(self, header: Header, name: str) -> None:
        found = ledger.header_from_bytes(read_regular(self.path / name))
        if not ledger.same_subject(found, header):
            raise UsageError(
                f"{self.path / name} belongs to a scan of other weights, domain, competitors or tokens; "
                "choose another folder with --out, or remove this one"
            )

    def journal(self) -> Journal:
        """Where a running scan writes rows as they are found."""
        return Journal(self.path / JOURNAL)

    def write_rows(self, header: Header, rows: dict[int, Row]) -> Header:
        """Write the files of rows; the header that names them. The journal stays until `finish`."""
        files: list[tuple[str, str]] = []
        some: list[bytes] = []

        def write() -> None:
            data, name = b"".join(some), f"rows-{len(files):05d}.tsv"
            write_atomically(self.path / name, data)
            files.append((name, ledger.digest(data)))
            some.clear()

        for token in ledger.row_range(header):
            written = ledger.rows_bytes([rows[token]])
            if some and (len(some) == ledger.BLOCK or sum(map(len, some)) + len(written) > _FILE_BYTES):
                write()
            some.append(written)
        write()
        return replace(header, files=tuple(files))

    def finish(self, header: Header) -> None:
        """Write the header of rows that were checked, then remove the journal."""
        write_atomically(self.path / HEADER, ledger.header_bytes(header))
        for name in (JOURNAL, QUESTION):
            (self.path / name).unlink(missing_ok=True)

    def forget(self, token: int) -> None:
        """Take a token's rows out of the journal."""
        kept = [
            line
            for line in (self.path / JOURNAL).read_bytes().splitlines(keepends=True)
            if not line.startswith(b"%d\t" % token)
        ]
        write_atomically(self.path / JOURNAL, b"".join(kept))


class Journal:
    """Rows appended one by one, on disk before the next is asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        self._path = path

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        # What `add` could not write is still in the buffer, and was an error there.
        with contextlib.suppress(OSError):
            self._file.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows. Raises OutputError, on a full disk for example."""
        try:
            self._file.write(ledger.rows_bytes(rows))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None


def find_unfinished(path: Path) -> list[LedgerFolder]:
    """The scans that are running, or were stopped, at or below a folder, in order."""
    found = [path / QUESTION] if (path / QUESTION).is_file() else sorted(path.rglob(QUESTION))
    return [x for x in (LedgerFolder(p.parent) for p in found) if not x.complete]


def find_ledgers(path: Path) -> list[LedgerFolder]:
    """The finished ledgers at or below a folder, in order."""
    if (path / HEADER).is_file():
        return [LedgerFolder(path)]
    return [LedgerFolder(p.parent) for p in sorted(path.rglob(HEADER))] if path.is_dir() else []

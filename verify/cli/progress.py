"""GLUE. Progress: for commands on many files, and for work in phases. Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from verify.terminal import error_console, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Beyond so many files there is a bar, and accepted ones are counted instead of listed. Of different
# hypotheses so many are printed.
MANY = 20
# Between two lines, so that short work is told in one.
_SECONDS = 2.0


class _Tenths:
    """Where nobody looks at a terminal: a line on stderr at each tenth part of long work."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._told: dict[str, int] = {}
        self._last = time.monotonic()

    def tell(self, what: str, done: int, total: int) -> None:
        """Nothing of the first call of each phase: an earlier run may have come as far."""
        tenth, now = 10 * done // total if total else 10, time.monotonic()
        if tenth <= self._told.setdefault(what, tenth) or done == total or now - self._last < _SECONDS:
            return
        self._told[what], self._last = tenth, now
        click.echo(f"{what}: {done} of {total} {self._unit}", err=True)


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Any]:
    """A bar for long work on a terminal's stderr, what is printed meanwhile above it; yields advance()."""
    if total <= MANY:
        yield lambda: None
        return
    if not watched(sys.stderr):
        tenths, done = _Tenths("files"), itertools.count(1)
        tenths.tell(what, 0, total)
        yield lambda: tenths.tell(what, next(done), total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Redirected output stays where the user sent it.
    with Progress(*columns, console=error_console(), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def phases(
    quiet: bool = False, unit: str = "tokens", begin: Callable[[int], str] | None = None
) -> Iterator[Any]:
    """A bar a phase, with rate and time left; where nobody looks at a terminal, a line as each phase ends,
    and at each tenth part of a long one. begin: what to say there before, of so many units that are left.

    Yields tell(phase, done, total).
    """
    if quiet:
        yield lambda _what, _done, _total: None
        return
    if not watched(sys.stderr):
        tenths, begun = _Tenths(unit), begin is None

        def line(what: str, done: int, total: int) -> None:
            nonlocal begun
            if begin is not None and not begun and done < total:
                click.echo(begin(total - done), err=True)
            begun = True
            tenths.tell(what, done, total)
            if done == total:
                click.echo(f"{what}: {total} {unit}", err=True)

        yield line
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed or 0.0:.1f} {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console(), redirect_stdout=sys.stdout.isatty()) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield tell

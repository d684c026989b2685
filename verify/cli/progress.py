"""GLUE. Progress bars: for commands on many files, and for scans in phases."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from verify.terminal import error_console, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

# Beyond so many files there is a bar, and accepted ones are counted instead of listed. Of different
# hypotheses so many are printed.
MANY = 20


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Any]:
    """A bar on a terminal's stderr for long work; what is printed meanwhile goes above it."""
    if total <= MANY or not watched(sys.stderr):
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Redirected output stays where the user sent it.
    with Progress(*columns, console=error_console(), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def phases(quiet: bool = False, unit: str = "tokens") -> Iterator[Any]:
    """A bar a phase, with rate and time left; where nobody looks at a terminal, a line as each phase ends.

    Yields tell(phase, done, total).
    """
    if quiet or not watched(sys.stderr):

        def line(what: str, done: int, total: int) -> None:
            if done == total and not quiet:
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

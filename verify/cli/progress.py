"""GLUE. A progress bar for commands on many files."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Beyond so many files there is a bar, and accepted ones are counted instead of listed. Of different
# hypotheses so many are printed.
MANY = 20


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Any]:
    """A bar on a terminal's stderr for long work; what is printed meanwhile goes above it."""
    if total <= MANY or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Redirected output stays where the user sent it.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)

"""GLUE. What is drawn on a terminal, and whether anybody looks at one. Wrong here = output that is ugly.

rich is imported where something is drawn, not before.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.table import Table


def watched(stream: TextIO) -> bool:
    """Whether somebody looks at a terminal that can draw over a line."""
    return stream.isatty() and not _dumb()


def colour() -> bool | None:
    """What click is told: False where no colours are wanted, None where the stream decides."""
    return False if _dumb() or os.environ.get("NO_COLOR") else None


def _dumb() -> bool:
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def console(width: int) -> Console:
    """Standard output; as wide as the terminal, or `width` where there is none."""
    return _console(width=None if sys.stdout.isatty() else width)


def error_console() -> Console:
    """Standard error."""
    return _console(stderr=True)


def table(on: Console, *names: str, title: str | None = None) -> Table:
    """A table with these columns. Where the encoding has no sign for what was cut off, nothing is cut off."""
    from rich.table import Table

    made = Table(title=title)
    for name in names:
        made.add_column(name, overflow="fold" if on.options.ascii_only else "ellipsis")
    return made


@contextlib.contextmanager
def spinner(
    what: str, doing: str, quiet: bool = False, lines: bool = False
) -> Iterator[Callable[[str], None]]:
    """A line on a terminal's standard error while work is going on; elsewhere nothing, or `lines`.

    Yields what changes its second half.
    """

    def line(doing: str) -> str:
        text = f"{what}: {doing} ..."
        return text if text.isprintable() else ascii(text)[1:-1]

    if not quiet and watched(sys.stderr):
        from rich.text import Text

        on = error_console()
        with on.status(Text(line(doing)), spinner="line" if on.options.ascii_only else "dots") as status:
            yield lambda doing: status.update(Text(line(doing)))
        return

    def say(doing: str) -> None:
        if lines and not quiet:
            click.echo(line(doing), err=True)

    say(doing)
    yield say


def _console(**options: Any) -> Console:
    from rich.console import Console

    class Escaped(Console):
        """Writes as \\u0123 what its encoding has not, before widths are counted."""

        def render_str(self, text: str, **kwargs: Any) -> Any:
            said = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            return super().render_str(said, **kwargs)

    return Escaped(highlight=False, **options)

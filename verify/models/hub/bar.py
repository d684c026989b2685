"""GLUE. A bar of bytes on a terminal's stderr. Decides nothing."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from verify import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Fewer bytes are there before a bar is drawn.
_SMALL = 1 << 20


def watched() -> bool:
    """Whether somebody looks: a terminal, bars not switched off, and no command that was asked for JSON."""
    from huggingface_hub.utils import are_progress_bars_disabled

    context = click.get_current_context(silent=True)
    as_json = context is not None and bool(context.params.get("as_json"))
    return terminal.watched(sys.stderr) and not as_json and not are_progress_bars_disabled()


def tell(text: str) -> None:
    """A line for whoever looks."""
    if watched():
        click.echo(text, err=True)


@contextlib.contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields advance(bytes)."""
    if total < _SMALL or not watched():
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal.error_console(), redirect_stdout=sys.stdout.isatty()) as shown:
        task = shown.add_task(what, total=total)
        yield lambda count: shown.advance(task, count)


def client_bar() -> Any:
    """The client's own class of bars, silent where nobody looks."""
    from huggingface_hub.utils import tqdm

    if watched():
        return tqdm

    class Silent(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

    return Silent

"""GLUE. `verify models`: what is bundled, cached and packed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command(
    "models",
    epilog="\b\nExamples:\n  verify models\n  verify models ~/packs --json",
)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[FOLDER...]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and model.")
def command(folders: tuple[Path, ...], as_json: bool) -> int:
    """List the models at hand: bundled, in the hub's cache, and GGUF files and packs in FOLDER.

    Without FOLDER, files are looked for in the current one. Nothing is downloaded. Each is said to be
    loadable or not, and why not; of files the header is read alone.
    """
    from verify.cli.pack import megabytes
    from verify.inventory import inventory

    entries = inventory(list(folders) or [Path()])
    if as_json:
        for entry in entries:
            click.echo(json.dumps(asdict(entry) | {"loadable": entry.problem is None}))
        return 0
    from rich.markup import escape

    from verify.terminal import console, table

    on = console(200)
    shown = table(on, "model", "kind", "size", "loadable", "what")
    for entry in entries:
        said = "yes" if entry.problem is None else "no"
        row = (entry.model, entry.kind, megabytes(entry.size), said, entry.problem or entry.about)
        shown.add_row(*map(escape, row))
    on.print(shown)
    return 0

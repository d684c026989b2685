"""GLUE. `verify index`: an index page and SHA256SUMS for a folder of certificates."""

from __future__ import annotations

from pathlib import Path

import click

from verify.cli.options import stated_model_option
from verify.cli.progress import progress


@click.command("index", epilog="\b\nExample:\n  verify index certificates/whisper-tiny.en")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@stated_model_option
def command(folder: Path, model: str | None) -> int:
    """Prove every certificate below FOLDER, of one model, and write FOLDER/README.md and FOLDER/SHA256SUMS.

    A file that is not accepted ends it, and nothing is written.
    """
    from verify.files import certificate_files
    from verify.index import PAGE, SUMS, write_index

    total = len(list(certificate_files([folder])))
    with progress("indexing", total) as advance:
        count = write_index(folder, model, advance)
    click.echo(f"{count} certificates, listed in {folder / PAGE} and {folder / SUMS}")
    return 0

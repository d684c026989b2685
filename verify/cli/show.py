"""GLUE. `verify show`: render a certificate for a person."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "show", epilog="\b\nExample:\n  verify show verify-certificates/whisper-tiny.en/readout/30208.json"
)
@click.argument("certificate", type=click.Path(path_type=Path))
def command(certificate: Path) -> int:
    """Print what a certificate says and by which evidence. Checks the format only; see `verify audit`."""
    from verify.api import show

    click.echo(show(certificate))
    return 0

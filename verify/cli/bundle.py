"""GLUE. `verify bundle`: a certificate of unspeakability with the rows it needs, to check without weights."""

from __future__ import annotations

from pathlib import Path

import click

from verify.cli.evidence import out_option, proved_certificate, write_out
from verify.cli.options import stated_model_option


@click.command(
    "bundle",
    epilog="\b\nExamples:\n"
    "  verify bundle verify-certificates/whisper-tiny.en/box-1/30208.json -o 30208.bundle.json\n"
    "  verify audit 30208.bundle.json",
)
@click.argument("certificate", type=click.Path(path_type=Path))
@stated_model_option
@out_option
def command(certificate: Path, model: str | None, out: Path | None) -> int:
    """Write a self-contained file: the certificate, the rows it needs, and a proof of where they belong.

    The bundle is checked without the model's weights. It shows that the claim holds for every tensor with
    the stated Merkle root; whether that root is the model's is for the reader to find out.
    """
    from verify.forms import bundled

    proved, loaded = proved_certificate(certificate, model)
    data, notes = bundled(proved, loaded.readout)
    write_out(data, out)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return 0

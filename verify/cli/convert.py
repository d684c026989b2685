"""GLUE. `verify convert`: the same evidence with its multipliers in full, or as the support alone."""

from __future__ import annotations

from pathlib import Path

import click

from verify.cli.evidence import out_option, proved_certificate, write_out
from verify.cli.options import stated_model_option


@click.command(
    "convert",
    epilog="\b\nExamples:\n"
    "  verify convert 3.json --multipliers support -o 3-small.json\n"
    "  verify convert 3-small.json --multipliers full -o 3.json",
)
@click.argument("certificate", type=click.Path(path_type=Path))
@click.option(
    "--multipliers",
    type=click.Choice(["full", "support"]),
    required=True,
    help="In full (large, checked by multiplication), or the support alone (small, solved by every auditor).",
)
@stated_model_option
@out_option
def command(certificate: Path, multipliers: str, model: str | None, out: Path | None) -> int:
    """Rewrite a certificate's multipliers in the other stored form. It is proved before and after."""
    from verify.forms import converted

    proved, loaded = proved_certificate(certificate, model)
    write_out(converted(proved, loaded.readout, multipliers), out)
    return 0

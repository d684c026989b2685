"""GLUE. `verify export`: the evidence of a certificate in the format of another program."""

from __future__ import annotations

from pathlib import Path

import click

from verify.cli.evidence import out_option, tell_hypotheses, write_out
from verify.cli.options import stated_model_option


@click.command(
    "export",
    epilog="\b\nExamples:\n"
    "  verify export verify-certificates/my-model/direction/0.json --model ./my-model -o 0.vipr\n"
    "  viprchk 0.vipr",
)
@click.argument("certificate", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "to",
    type=click.Choice(["vipr"]),
    default="vipr",
    show_default=True,
    help="vipr: the file of a linear program and its infeasibility, for viprchk.",
)
@stated_model_option
@out_option
def command(certificate: Path, to: str, model: str | None, out: Path | None) -> int:
    """Write the evidence of a certificate (or bundle) of UNSPEAKABLE for another program to check.

    It is audited first. Only multipliers that cancel can be said in the format vipr: those of the domains
    free and direction always cancel. What the audit could not derive is listed as HYPOTHESIS on standard
    error.
    """
    from verify.export import export

    exported = export(certificate, model, to=to)
    write_out(exported.data, out)
    tell_hypotheses(exported.hypotheses)
    return 0

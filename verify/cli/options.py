"""GLUE. Options of the commands that decide tokens."""

from __future__ import annotations

import click

decided_model_option = click.option(
    "--model", default="whisper-tiny.en", show_default=True, help="Bundled name, folder, or hub name."
)
domain_option = click.option(
    "--domain", default="readout", show_default=True, help="readout, free, direction, box:B, or all."
)
competitors_option = click.option(
    "--competitors",
    type=click.Choice(["all", "tokenizer"]),
    default="all",
    show_default=True,
    help="All rows, or only ids of the tokenizer.",
)

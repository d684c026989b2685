"""GLUE. Options of the commands that decide tokens."""

from __future__ import annotations

import os
from typing import Any

import click

from verify.errors import UsageError


def decided_model_option(command: Any) -> Any:
    """--model, with --revision (which becomes a part of the name) and --token-env."""
    options = (
        click.option(
            "--model",
            default="whisper-tiny.en",
            show_default=True,
            callback=_at_revision,
            help="Bundled name, folder, or hub name: org/name, org/name@REVISION.",
        ),
        click.option(
            "--revision",
            is_eager=True,
            expose_value=False,
            callback=_remember,
            help="Branch, tag or commit of a hub name. [its default branch]",
        ),
        click.option(
            "--token-env",
            metavar="NAME",
            expose_value=False,
            callback=_use_token,
            help="Environment variable that holds the hub's token. [HF_TOKEN, or `hf auth login`]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _remember(context: click.Context, _: click.Parameter, revision: str | None) -> None:
    context.meta["verify.revision"] = revision


def _at_revision(context: click.Context, _: click.Parameter, model: str) -> str:
    from verify.models.hub import at_revision

    revision = context.meta.get("verify.revision")
    return model if revision is None else at_revision(model, revision)


def _use_token(_: click.Context, __: click.Parameter, name: str | None) -> None:
    """Hand the token to the hub's client, here and in processes started from here, by its own variable."""
    if name is None:
        return
    token = os.environ.get(name, "").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"--token-env {name[:60]!a}: no such variable, or it holds no token")
    os.environ |= {"HF_TOKEN": token, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}


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

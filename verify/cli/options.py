"""GLUE. Options of the commands that decide tokens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from verify.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.models import ReadoutOverrides


def decided_model_option(command: Any) -> Any:
    """--model, with --revision (which becomes a part of the name) and --token-env."""
    options = (
        click.option(
            "--model",
            default="whisper-tiny.en",
            show_default=True,
            callback=_at_revision,
            help="Bundled name, folder, .gguf file, pack, or hub name: org/name, org/name@REVISION.",
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


readout_option = click.option(
    "--readout",
    type=click.Choice(["checkpoint", "transformer-lens"]),
    default="checkpoint",
    show_default=True,
    help="transformer-lens: the float32 matrices that TransformerLens makes of the checkpoint.",
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
_BY_HAND = (
    click.option("--unembedding", default=None, help="By hand: name of the unembedding tensor."),
    click.option(
        "--norm",
        type=click.Choice(["layernorm", "rmsnorm", "none"]),
        default=None,
        help="By hand: final norm.",
    ),
    click.option("--norm-gain", default=None, help="By hand: name of the norm's gain."),
    click.option("--norm-shift", default=None, help="By hand: name of the norm's shift."),
    click.option("--logit-bias", default=None, help="By hand: name of the logit bias."),
    click.option("--gain-offset", type=click.IntRange(0, 1), default=0, help="By hand: added to every gain."),
    click.option("--epsilon", default=None, help="By hand: the norm's epsilon, a decimal."),
)


def by_hand_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that describe a readout by hand; see `by_hand`."""
    for option in reversed(_BY_HAND):
        command = option(command)
    return command


def by_hand(options: dict[str, Any]) -> ReadoutOverrides | None:
    """What those options say, if anything."""
    from verify.models import ReadoutOverrides

    names = ("unembedding", "norm", "norm_gain", "norm_shift", "logit_bias", "epsilon", "gain_offset")
    given = ReadoutOverrides(**{name: options[name] for name in names})
    return None if given.empty else given

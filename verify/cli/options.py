"""GLUE. Options of the commands that decide tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.models import ReadoutOverrides

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

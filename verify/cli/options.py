"""GLUE. Options that several commands share: which model, and what to decide of it."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, Any

import click

from verify.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.models import ReadoutOverrides


_NEGATIVE = re.compile(r"-[0-9]+")
_REVISION = click.option(
    "--revision",
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, revision: context.meta.update({"verify.revision": revision}),
    help="Branch, tag or commit of a hub name. [its default branch]",
)


def at_revision(context: click.Context, _: click.Parameter, model: str | None) -> str | None:
    """Callback of the parameter that names a model: what --revision says becomes a part of the name."""
    revision = context.meta.get("verify.revision")
    if revision is None:
        return model
    if model is None:
        raise UsageError("--revision goes with --model NAME: what is saved names its own revision")
    from verify.models.hub.names import at_revision as named

    return named(model, revision)


def _model_option(default: str | None, about: str) -> Callable[[Any], Any]:
    return click.option("--model", default=default, show_default=True, callback=at_revision, help=about)


def _use_token(_: click.Context, __: click.Parameter, name: str | None) -> None:
    """Hand the token to the hub's client, here and in processes started from here, by its own variable."""
    if name is None:
        return
    token = os.environ.get(name, "").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"--token-env {name[:60]!a}: no such variable, or it holds no token")
    os.environ |= {"HF_TOKEN": token, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}


token_env_option = click.option(
    "--token-env",
    metavar="NAME",
    expose_value=False,
    callback=_use_token,
    help="Environment variable that holds the hub's token. [HF_TOKEN, or `hf auth login`]",
)


def hub_options(command: Any) -> Any:
    """--revision, for a command with a parameter whose callback is `at_revision`, and --token-env."""
    return _REVISION(token_env_option(command))


def decided_model_option(command: Any) -> Any:
    """--model of a command that decides, with --revision and --token-env."""
    about = "Bundled name, folder, .gguf file, pack, or hub name: org/name, org/name@REVISION."
    return _model_option("whisper-tiny.en", about)(hub_options(command))


def stated_model_option(command: Any) -> Any:
    """--model of a command on saved evidence, which names its own model; with --revision and --token-env."""
    about = "Bundled name, folder, file or hub name, instead of the one named inside."
    return _model_option(None, about)(hub_options(command))


class _Seconds(click.FloatRange):
    """A time limit: click's own ranges let NaN and infinity through."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds; leave the option out for no limit.", param, ctx)
        return seconds


def time_limit_option(about: str) -> Callable[[Any], Any]:
    """--time-limit, a finite number of seconds."""
    return click.option("--time-limit", type=_Seconds(min=0.1), metavar="SECONDS", default=None, help=about)


class TokensCommand(click.Command):
    """A command with tokens as arguments: -5 is a (bad) token there, not an unknown option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Ask again with negative numbers after `--`, where click takes one for an option."""
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            if not error.option_name[1:].isdigit():
                raise
        end = args.index("--") if "--" in args else len(args)
        numbers = [arg for arg in args[:end] if _NEGATIVE.fullmatch(arg)]
        others = [arg for arg in args[:end] if arg not in numbers]
        return super().parse_args(ctx, [*others, "--", *numbers, *args[end + 1 :]])


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
    click.option(
        "--readout-file",
        default=None,
        metavar="FILE.toml",
        help="By hand: all of these in a file, one key each (docs/models.md).",
    ),
)


def by_hand_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that describe a readout by hand; see `by_hand`."""
    for option in reversed(_BY_HAND):
        command = option(command)
    return command


def by_hand(options: dict[str, Any]) -> ReadoutOverrides | None:
    """What those options say, if anything. UsageError if they and a file say it, or the file is none."""
    from verify.models import ReadoutOverrides

    names = ("unembedding", "norm", "norm_gain", "norm_shift", "logit_bias", "epsilon", "gain_offset")
    given = ReadoutOverrides(**{name: options[name] for name in names})
    file = options["readout_file"]
    if file is None:
        given.exact_epsilon()  # an error before any model is looked for
        return None if given.empty else given
    if not given.empty:
        raise UsageError(
            "--readout-file describes the whole readout: leave --unembedding and the other flags out, or "
            "write all of it in flags"
        )
    described = ReadoutOverrides.from_toml(file)
    described.exact_epsilon()
    return described

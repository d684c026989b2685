"""GLUE. `verify scan`: decide every token of a model and keep a ledger."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verify.cli.options import (
    by_hand,
    by_hand_options,
    competitors_option,
    decided_model_option,
    domain_option,
    readout_option,
)
from verify.cli.progress import phases
from verify.errors import EXIT_DECIDED, EXIT_UNDECIDED, UsageError

if TYPE_CHECKING:
    from verify.scan.beside import Beside
    from verify.scan.run import Scan

_SHOWN = 12
_RANGE = re.compile(r"([0-9]{1,12})(?:-([0-9]{1,12}))?")


@click.command(
    "scan",
    epilog="\b\nExamples:\n"
    "  verify scan --model whisper-tiny.en\n"
    "  verify scan --model ./my-checkpoint --domain all --out ledgers --workers 8\n"
    "  verify scan --tokens 30000-30999            a part of the vocabulary\n"
    "  verify scan --scheduler tcp://10.0.0.1:8786 on a Dask cluster that sees the same model\n"
    "  verify audit verify-ledgers/                check every row again, without a solver\n"
    "  verify summary verify-ledgers/              counts, the unspeakable, the thinnest",
)
@decided_model_option
@domain_option
@click.option("--tokens", default=None, metavar="A-B", help="These ids only. [all rows]")
@competitors_option
@readout_option
@click.option("--out", default="verify-ledgers", show_default=True, metavar="DIR", help="Folder for ledgers.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes. [one a core]")
@click.option("--device", default="cpu", show_default=True, help="cuda: matrix products by torch on a GPU.")
@click.option(
    "--scheduler", default=None, metavar="ADDRESS", help="tcp://HOST:PORT of a Dask cluster to work on."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a domain.")
@by_hand_options
def command(
    model: str,
    domain: str,
    tokens: str | None,
    competitors: str,
    readout: str,
    out: str,
    workers: int | None,
    device: str,
    scheduler: str | None,
    as_json: bool,
    **described: Any,
) -> int:
    """Decide ALL tokens of a model, each with evidence, in one ledger a domain.

    Tokens that their own direction settles are found in matrix products with a proved rounding bound; the
    rest are searched for one by one. At the end every row is checked by the kernel. Interrupted by Ctrl-C or
    otherwise, the same command goes on where it was; a finished ledger is only checked again.
    """
    from verify.api import ALL_DOMAINS
    from verify.kernel import parse_domain
    from verify.render import ledger_text
    from verify.scan.beside import checkpoint_beside
    from verify.scan.run import scan
    from verify.scan.summary import as_json as figures
    from verify.scan.summary import summarise

    part = _range(tokens)
    decided = True
    domains = [parse_domain(d) for d in (ALL_DOMAINS if domain == "all" else (domain,))]
    for each in domains:
        with phases(quiet=as_json) as tell:
            done: Scan = scan(
                model,
                each.name,
                Path(out),
                competitors=competitors,
                tokens=part,
                workers=workers,
                device=device,
                overrides=by_hand(described),
                readout=readout,
                scheduler=scheduler,
                tell=tell,
            )
        decided &= not done.proved.counts.get("undecided", 0)
        if done.resumed and not as_json:
            click.echo(f"{done.resumed} tokens were there from an earlier run", err=True)
        summary = summarise(done.folder, done.model)
        beside = checkpoint_beside(done, Path(out))
        if as_json:
            data: dict[str, Any] = {"ledger": str(done.folder.path), **figures(summary, 10)}
            data["checkpoint"] = None if beside is None else _beside_json(beside)
            click.echo(json.dumps(data))
        else:
            from verify.cli.summary import print_summary

            print_summary(summary)
            click.echo(f"proved: {ledger_text(done.proved)}")
            click.echo(f"ledger: {done.folder.path}")
            if done.model.checkpoint is not None:
                click.echo(_beside_text(beside))
    return EXIT_DECIDED if decided else EXIT_UNDECIDED


def _beside_json(beside: Beside) -> dict[str, Any]:
    if beside.note:
        return {"ledger": None, "compared": None, "differing": None, "note": beside.note}
    return vars(beside) | {"ledger": str(beside.ledger), "note": None}


def _beside_text(beside: Beside | None) -> str:
    """Where the checkpoint's own matrices have other verdicts."""
    if beside is None:
        return (
            "checkpoint's own matrices: not compared; with --readout checkpoint and the same --out they are "
            "scanned too, and the next run of this command compares"
        )
    if beside.note:
        return f"checkpoint's own matrices: {beside.note}"
    if not beside.differing:
        return (
            f"checkpoint's own matrices: the same verdict for all {beside.compared} tokens that both decide"
        )
    named = ", ".join(f"{token} ({own})" for token, _, own in beside.differing[:_SHOWN])
    rest = len(beside.differing) - _SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return (
        f"checkpoint's own matrices: THE VERDICTS DIFFER for {len(beside.differing)} of {beside.compared} "
        f"tokens; its own are {named}{more}"
    )


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = _RANGE.fullmatch(text)
    if not found:
        raise UsageError(f"--tokens {text[:40]!r}: give a range of ids, such as 30000-30999, or one id")
    return int(found[1]), int(found[2] or found[1])

"""GLUE. `verify summary`: what stands in ledgers, for people, pages and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from verify.cli.options import stated_model_option

if TYPE_CHECKING:
    from verify.scan.summary import Line, Summary


@click.command(
    "summary",
    epilog="\b\nExamples:\n"
    "  verify summary verify-ledgers/\n"
    "  verify summary verify-ledgers/whisper-tiny.en/readout.ledger --csv tokens.csv\n"
    "  verify summary verify-ledgers/whisper-tiny.en --markdown SUMMARY.md",
)
@click.argument("folder", type=click.Path(path_type=Path))
@stated_model_option
@click.option(
    "--most", type=click.IntRange(1), default=10, show_default=True, help="Thinnest margins to list."
)
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), default=None, help="Write all rows there."
)
@click.option(
    "--parquet", type=click.Path(path_type=Path), default=None, help="Write all rows there; needs pyarrow."
)
@click.option("--markdown", type=click.Path(path_type=Path), default=None, help="Write a page there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a ledger.")
def command(
    folder: Path,
    model: str | None,
    most: int,
    csv_path: Path | None,
    parquet: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> int:
    """Counts by class, the unspeakable tokens with their text, the thinnest margins of the ledgers in FOLDER.

    Reads, and checks nothing: `verify audit FOLDER` proves every row.
    """
    from verify.errors import OutputError, UsageError
    from verify.files import write_atomically
    from verify.recheck import Auditor
    from verify.scan import summary as pages
    from verify.scan.folder import find_ledgers, find_unfinished

    ledgers = find_ledgers(folder)
    unfinished = [x.unfinished() for x in find_unfinished(folder)]
    if not ledgers:
        none = f"no finished ledger in {folder}: give the --out folder of a `verify scan`"
        raise UsageError("\n".join(unfinished) or none)
    if (csv_path or parquet) and len(ledgers) > 1:
        raise UsageError(f"{folder} holds {len(ledgers)} ledgers; a table is of one: name its folder")
    auditor = Auditor(model)
    found = [pages.summarise(ledger, auditor.ledger_model(ledger)) for ledger in ledgers]
    try:
        if csv_path is not None:
            pages.write_csv(found[0], csv_path)
        if parquet is not None:
            pages.write_parquet(found[0], parquet)
    except OSError as error:
        raise OutputError(f"cannot write the table: {error.strerror or error}") from None
    if markdown is not None:
        subjects = {(x.header.statement.model, x.header.first, x.header.last) for x in found}
        if len(subjects) > 1:
            raise UsageError(f"{folder} holds ledgers of several models; a page is of one")
        write_atomically(markdown, pages.markdown(found, most).encode())
    for line in unfinished:
        click.echo(f"note: {line}", err=True)
    for ledger, summary in zip(ledgers, found, strict=True):
        if as_json:
            click.echo(json.dumps({"ledger": str(ledger.path), **pages.as_json(summary, most)}))
        else:
            print_summary(summary, most)
    return 0


def print_summary(summary: Summary, most: int = 10) -> None:
    """Tables for a terminal."""
    from rich.markup import escape

    from verify.figures import approximate
    from verify.scan.summary import MEANING
    from verify.terminal import console, table

    h = summary.header
    on = console(160)
    title = f"{h.statement.model}, tokens {h.first} to {h.last}, domain {h.statement.domain.name}"
    counts = table(on, "class", "tokens", "meaning", title=escape(title))
    for name, n in summary.counts.items():
        counts.add_row(name, f"{n:,}", MEANING[name])
    counts.add_section()
    counts.add_row("", f"{summary.hard[0]:,}", "hard to speak in the post's sense (no bias, its own vector)")
    counts.add_row("", f"{summary.hard[1]:,}", "hard to speak as the model sees it (norm's image, biases in)")
    if summary.near_constant:
        counts.add_row("", f"{summary.near_constant:,}", "witness found needs near-constant residuals")
    on.print(counts)

    def text(value: str | None) -> str:
        return "" if value is None else escape(repr(value))

    if summary.unspeakable:
        lost = table(
            on, "token", "text", "class", "kind", "gap", "equal or heaviest row", title="unspeakable"
        )
        for line in summary.unspeakable[: 4 * most]:
            r = line.row
            gap = f"{approximate(r.amount):.3g}" if r.amount else ""
            rival = f"{r.rival} {text(line.rival_text)}"
            lost.add_row(str(r.token), text(line.text), r.cls, r.kind or "", gap, rival)
        more = len(summary.unspeakable) - 4 * most
        on.print(lost)
        if more > 0:
            on.print(f"and {more} more: --most, --csv or --markdown list them")
    thin = table(on, "token", "text", "class", "margin", "at most", "nearest rival", title="thinnest margins")
    for line in summary.thinnest(most):
        thin.add_row(*_thin_cells(line, text(line.text), text(line.rival_text)))
    on.print(thin)


def _thin_cells(line: Line, text: str, rival: str) -> tuple[str, ...]:
    from verify.figures import approximate

    r = line.row
    top = "" if r.at_most is None else f"{approximate(r.at_most):.4g}"
    return str(r.token), text, r.cls, f"{line.thinness:.4g}", top, f"{r.rival} {rival}"

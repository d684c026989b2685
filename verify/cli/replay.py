"""GLUE. `verify replay`: the field's float programs over many tokens, beside the exact verdicts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verify.cli.options import (
    competitors_option,
    decided_model_option,
    stated_model_option,
    time_limit_option,
)
from verify.cli.progress import phases
from verify.errors import EXIT_DECIDED, UsageError

if TYPE_CHECKING:
    from verify.replay import Question, Row

_MARGINS = "1e-9,1e-8,1.00e-7,1.01e-7,1e-6,1e-5,1e-4,1e-3"
_BEGIN = "asking {} about {} programs; what is answered is kept, and the same command goes on from there"
_TABLES = click.argument(
    "tables", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TABLE..."
)


@click.group(
    "replay",
    epilog="\b\nExamples:\n"
    "  verify replay post --model ./stories260K --tokens all\n"
    "  verify replay post --tokens 30208,173 --margins 1.00e-7,1.01e-7    minutes a program\n"
    "  verify replay check replay/ --model ./stories260K\n"
    "  verify replay show replay/ --plot replay.svg",
)
def command() -> None:
    """What the field's float methods say of many tokens, each answer beside the exact verdict.

    Runs keep a table of every answer; the same command goes on where it was stopped.
    """


def _program(name: str, about: str) -> None:
    @command.command(name, help=about, short_help=about.split(".", maxsplit=1)[0])
    @decided_model_option
    @click.option("--tokens", required=True, metavar="LIST", help="Ids and ranges, such as 0-99,173; or all.")
    @click.option(
        "--margins", default=_MARGINS, show_default=True, metavar="LIST", help="In logits. Not for grivas."
    )
    @click.option(
        "--tolerances",
        default="",
        metavar="LIST",
        help="Of the solver on a constraint, HiGHS and CBC only. [as the program was posed]",
    )
    @click.option("--solver", default=None, help="One that PuLP finds. [HiGHS]")
    @time_limit_option("Of the solver on each program.")
    @competitors_option
    @click.option("--out", default="replay", show_default=True, metavar="DIR", help="Folder for tables.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a tolerance and margin.")
    def run(
        model: str,
        tokens: str,
        margins: str,
        tolerances: str,
        solver: str | None,
        time_limit: float | None,
        competitors: str,
        out: str,
        as_json: bool,
    ) -> int:
        from verify.files import require_writable
        from verify.models import load_model
        from verify.replay import Table, decided_claims, question_for
        from verify.replay import run as replay

        loaded = load_model(model)
        asked: list[float | None] = [*_numbers("--tolerances", tolerances)] if tolerances else [None]
        question = question_for(
            loaded, name, tokens, _numbers("--margins", margins), asked, solver, competitors, time_limit
        )
        require_writable(Path(out))
        table = Table.below(Path(out), question)
        begin = partial(_BEGIN.format, question.solver)
        with phases(quiet=as_json, unit="answers", begin=begin) as tell:
            rows = replay(
                loaded,
                question,
                table,
                decided_claims(loaded, competitors),
                partial(tell, f"{name}, {question.model}"),
            )
        _tell(question, rows, as_json)
        if not as_json:
            click.echo(f"table: {table.finished}")
        return EXIT_DECIDED


_program("post", "The linear program of the 2023 post. The token's own row is among its constraints.")
_program("post-without-own-row", "The same without the token's own row.")
_program("grivas", "The largest ball of Grivas et al. 2022. Rows as stored, the final norm ignored.")


@command.command("check")
@_TABLES
@stated_model_option
@click.option(
    "--every", type=click.IntRange(1), default=1, show_default=True, help="Only one token of so many."
)
@click.option(
    "--certificates",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Take verdicts from certificates there, proved first. [decide every token anew]",
)
def check_command(tables: tuple[Path, ...], model: str | None, every: int, certificates: Path | None) -> int:
    """Make everything in finished tables again that needs no solver; refuse them where anything differs.

    The exact margin and the row on top at each stored point, the exact verdicts, what is so of the programs
    as posed, the judgements. Not what a solver or floats said: claims, points, the argmax in float32.
    """
    from verify.models import load_model
    from verify.replay import check, decided_claims, rule_of, stored_claims

    for path, question, rows in _read(tables):
        loaded = load_model(model or question.model)
        rule = rule_of(loaded, question)
        with phases(unit="answers") as tell:
            said = partial(tell, f"checking {path.name}")
            claims = decided_claims(loaded, rule)
            if certificates is not None and rule == "all":
                claims = stored_claims(loaded, certificates, claims)
            done = check(loaded, question, rows, claims, said, every)
        click.echo(f"accepted   {path}: {done} of {len(rows)} answers made again")
    return EXIT_DECIDED


@command.command("show")
@_TABLES
@click.option("--plot", type=click.Path(path_type=Path), default=None, help="Write a picture (SVG) there.")
@click.option(
    "--page",
    type=click.Path(path_type=Path),
    default=None,
    help="Put the tables between its two marks; unfinished ones are left out.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a tolerance and margin.")
def show_command(tables: tuple[Path, ...], plot: Path | None, page: Path | None, as_json: bool) -> int:
    """Counts of the judgements in tables, as Markdown; a picture of them."""
    from verify.files import write_atomically

    found = [x for x in _read(tables) if page is None or x[0].suffix == ".gz"]
    if page is None:
        for _, question, rows in found:
            _tell(question, rows, as_json)
    else:
        _fill(page, [(question, rows) for _, question, rows in found])
    if plot is not None:
        from verify.replay.plot import svg

        write_atomically(plot, svg([(question, rows) for _, question, rows in found]))
    return EXIT_DECIDED


def _fill(page: Path, tables: list[tuple[Question, list[Row]]]) -> None:
    from verify.files import read_regular, write_atomically
    from verify.replay import markdown

    head, begin, rest = read_regular(page).decode().partition("<!-- tables -->\n")
    _, end, tail = rest.partition("<!-- end of tables -->\n")
    if not (begin and end):
        raise UsageError(f"{page} has no lines <!-- tables --> and <!-- end of tables -->")
    filled = "\n".join(markdown(question, rows) for question, rows in tables)
    write_atomically(page, f"{head}{begin}\n{filled}\n{end}{tail}".encode())


def _read(paths: tuple[Path, ...]) -> Any:
    from verify.propose.field import PROGRAMS
    from verify.replay import find_tables

    tables = [table for path in paths for table in find_tables(path)]
    if not tables:
        raise UsageError("there are no tables: give the --out folder of a run")
    found = [((table.finished if table.complete else table.unfinished), *table.read()) for table in tables]
    yield from sorted(found, key=lambda x: (x[1].model, x[1].solver, PROGRAMS.index(x[1].program)))


def _tell(question: Question, rows: list[Row], as_json: bool) -> None:
    from verify.replay import markdown, summarise

    if not as_json:
        click.echo(markdown(question, rows))
        return
    for c in summarise(rows):
        subject = {k: getattr(question, k) for k in ("model", "program", "domain", "solver", "version")}
        numbers: dict[str, Any] = {"tolerance": c.tolerance, "margin": c.margin, "tokens": c.total}
        counts: dict[str, Any] = {"judgements": dict(c.judgements), "as_posed": dict(c.as_posed)}
        counts |= {"second_step": dict(c.steps), "float_argmax": c.floats}
        click.echo(json.dumps({**subject, **numbers, **counts}))


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text[:40]!r}: give numbers parted by commas, as 1e-7,1e-6") from None

"""GLUE. `verify claims`: files of published claims, each confirmed, refuted, undecided, unchecked, or in
error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from verify.cli.options import token_env_option
from verify.errors import EXIT_REFUTED, EXIT_UNDECIDED, OutputError, UsageError, VerifyError
from verify.terminal import watched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verify.claims import ClaimsFile, Judge, Result

_FORMATS = ("text", "json", "junit", "sarif", "github")


@click.command(
    "claims",
    epilog="\b\nExamples:\n"
    "  verify claims certificates/claims/*.toml --audit --allow-unchecked\n"
    "  verify claims my-paper.toml --model-dir my-org/my-model=./checkpoint\n"
    "  verify claims my-paper.toml --model-dir my-org/my-model=my-model.pack.safetensors\n"
    "  verify claims my-paper.toml --recompute --out contribution\n"
    "\b\nExit codes: 0 all as the files expect, 1 a claim is not, 3 undecided, 5 unchecked (its\n"
    "weights are not at hand); an ERROR: 1 evidence does not hold, 2 usage or other weights,\n"
    "4 malformed, 5 unavailable.",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--model-dir",
    "folders",
    multiple=True,
    metavar="NAME=PATH",
    help="Where the weights of a model lie: a folder, a pack or a .gguf file.",
)
@click.option("--recompute", is_flag=True, help="Decide everything anew; leave saved evidence aside.")
@click.option("--audit", is_flag=True, help="Saved evidence only, and what needs no solver.")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option("--allow-unchecked", is_flag=True, help="Unchecked claims do not fail the run.")
@click.option("--fetch", is_flag=True, help="Fetch models from the hub that are not in its local cache.")
@token_env_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="With --recompute: keep the evidence there."
)
@click.option(
    "--also",
    multiple=True,
    metavar="NAME",
    help="With --out: decide all tokens of the claims in this model too.",
)
def command(
    files: tuple[Path, ...],
    folders: tuple[str, ...],
    recompute: bool,
    audit: bool,
    form: str,
    allow_unchecked: bool,
    fetch: bool,
    out: Path | None,
    also: tuple[str, ...],
) -> int:
    """Check published claims (TOML files, docs/claims.md), and tell the outcome of each with its evidence.

    CONFIRMED and REFUTED are proved; UNDECIDED claims were not settled; UNCHECKED means that the weights are
    not at hand, which is never a pass; ERROR that they, or the evidence, are not what they should be. SAME
    ANSWER and OTHER ANSWER are what a solver says in floats when it is run again (--recompute only), and no
    proof. Without an option saved evidence is audited first, and what it does not settle is decided anew.
    Weights: bundled models, --model-dir, and the hub's local cache.
    """
    from verify.claims import Judge, exit_code, read_claims
    from verify.claims.compute import Computer
    from verify.claims.contribute import everywhere, questions_of, require_ready, write_folder
    from verify.claims.judge import ERROR
    from verify.claims.weights import Weights

    if recompute and audit:
        raise UsageError("--recompute and --audit exclude each other")
    if (out is not None or also) and not recompute:
        raise UsageError("--out and --also go with --recompute")
    if also and out is None:
        raise UsageError("--also goes with --out")
    if not fetch:
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        read = [read_claims(path) for path in _once(files)]
        claims = [c for file in read for c in file.claims]
        weights = Weights(_folders(folders), fetch=fetch)
        weights.require_used([*(c.model for c in claims), *also])
        questions = questions_of(read if also else ())
        if out is not None:
            require_ready(out, read, questions, also, weights)
        computer = Computer(out, _tell)
        mode = "audit" if audit else "recompute" if recompute else "default"
        results = _judge(read, Judge(weights, computer, mode), quiet=form != "text")
        code = exit_code(results, allow_unchecked=allow_unchecked)
    except VerifyError as error:
        _annotate(error, form)
        raise
    late: VerifyError | None = None
    failed = any(r.outcome == ERROR for r in results)
    if out is not None and not failed:
        try:
            others = everywhere(questions, list(dict.fromkeys(also)), weights, computer)
            code = code or (EXIT_UNDECIDED if any(o.undecided for o in others) else 0)
            write_folder(out, results, code, others, questions, computer.evidence)
        except (VerifyError, OSError) as error:  # which must not hide the outcomes
            late, code = _late(error, out, code)
            failed = True
    _tell("")
    _report(results, form, code, None if failed else out)
    if late is not None:
        _annotate(late, form)
        click.echo(f"verify: {late}", err=True)
    if out is not None and failed:
        click.echo(f"verify: claims and summary of this run are not in {out}, because of errors", err=True)
    return code


def _once(files: Sequence[Path]) -> list[Path]:
    """Each file once, by whatever names and links it is given."""
    found: dict[str, Path] = {}
    for path in files:
        if not str(path).isprintable():  # messages, reports and pages name it
            raise UsageError(f"{str(path)!a}: give the file a name that can be printed")
        found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _late(error: VerifyError | OSError, out: Path, code: int) -> tuple[VerifyError, int]:
    """An error after the outcomes, and the exit code: claims that are not as expected come first."""
    if isinstance(error, OSError):
        error = OutputError(f"cannot write below {out}: {error.strerror or error}")
    return error, EXIT_REFUTED if code == EXIT_REFUTED else error.exit_code


def _annotate(error: VerifyError, form: str) -> None:
    if form == "github":
        from verify.claims.report import error_annotation

        click.echo(error_annotation(error))


def _folders(given: Sequence[str]) -> dict[str, Path]:
    out: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not name or not equals or not path:
            raise UsageError(f"--model-dir {text[:100]!a}: write NAME=PATH")
        if name in out:
            raise UsageError(f"--model-dir {name[:100]!a} is given twice")
        out[name] = _place(path, f"--model-dir {name[:100]!a}")
    return out


def _place(text: str, option: str) -> Path:
    """A folder or file that is there, and may be a model."""
    from verify.models import gguf, packed

    shown = ascii(text[:200])
    try:
        path = Path(text).expanduser()
        known = path.is_dir() or (path.is_file() and path.name.lower().endswith((gguf.SUFFIX, packed.SUFFIX)))
        if not known and path.exists():
            raise UsageError(
                f"{option}: {shown} is neither a folder with config.json and the weights, nor a pack "
                f"({packed.SUFFIX}, made by `verify pack`), nor a {gguf.SUFFIX} file"
            )
    except (OSError, ValueError, RuntimeError):  # too long, or no name of a file at all
        known = False
    if not known:
        raise UsageError(f"{option}: there is no folder or file {shown}")
    return path


def _judge(files: Sequence[ClaimsFile], judge: Judge, *, quiet: bool) -> list[Result]:
    from verify.claims.report import text_lines
    from verify.figures import plain

    results: list[Result] = []
    for file in files:
        if not quiet:
            s = file.source
            click.echo(plain(f"file {file.path}: {s.author}, {s.title} ({s.date})"))
        for claim in file.claims:
            result = judge.outcome(file, claim)
            results.append(result)
            if not quiet:
                _tell("")
                _print(text_lines(result), result)
    return results


def _print(lines: Sequence[str], result: Result) -> None:
    colour = {"CONFIRMED": "green", "REFUTED": "red"}.get(result.outcome, "yellow")
    first = lines[0].removeprefix(result.outcome)
    click.echo(click.style(result.outcome, fg=colour) + first)
    for line in lines[1:]:
        click.echo(line)


def _report(results: Sequence[Result], form: str, code: int, out: Path | None) -> None:
    from verify import __version__
    from verify.claims import report

    if form == "text":
        click.echo(report.totals(results))
        if out is not None:
            click.echo(f"the evidence, the claims with it, and a summary: {out}")
    elif form == "json":
        click.echo(report.as_json(results, code))
    elif form == "junit":
        # Its declaration says UTF-8, whatever the terminal's encoding.
        click.echo(report.as_junit(results).encode("utf-8", "backslashreplace"))
    elif form == "sarif":
        click.echo(report.as_sarif(results, __version__))
    else:
        for line in report.github_annotations(results):
            click.echo(line)
        click.echo(report.totals(results))
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        try:
            if summary:
                with Path(summary).open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(report.markdown(results))
        except OSError as error:  # the outcomes stand above, and the exit code is theirs
            click.echo(report.annotation("warning", f"no step summary: {error.strerror or error}"))


def _tell(text: str) -> None:
    """What is being decided, on a terminal's stderr; one line that is written over."""
    if watched(sys.stderr):
        click.echo(f"\r\x1b[K{text[:150]}", err=True, nl=False)

"""GLUE. `verify audit`: re-check saved certificates against the weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from verify.errors import EXIT_INTERNAL, EXIT_MALFORMED, EXIT_REFUTED, EXIT_UNAVAILABLE, EXIT_USAGE

# The exit code of many files is that of the worst one; worst first.
_WORST_FIRST = (EXIT_INTERNAL, EXIT_REFUTED, EXIT_MALFORMED, EXIT_UNAVAILABLE, EXIT_USAGE, 0)


@click.command(
    "audit",
    epilog="\b\nExamples:\n"
    "  verify audit verify-certificates/\n"
    "  verify audit 30208.json --model ./whisper-tiny.en",
)
@click.argument("certificates", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CERT...")
@click.option(
    "--model", default=None, help="Bundled name, folder or hub name, instead of the one named inside."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and file.")
def command(certificates: tuple[Path, ...], model: str | None, as_json: bool) -> int:
    """Check certificate files (or folders of them) against the weights. Uses no solver.

    What stands in no tensor (norm, epsilon, token text) is derived anew from the model's own files;
    what cannot be derived is listed as a HYPOTHESIS above the verdict. The exit code is that of the
    worst file: refuted 1, malformed 4, unavailable 5. In a folder every .json file counts as one.
    """
    from verify.errors import UsageError
    from verify.files import certificate_files
    from verify.recheck import Auditor

    auditor = Auditor(model)
    codes, count = [], 0
    files = list(certificate_files(list(certificates)))
    if not files:
        raise UsageError("no certificate found: the folders hold no .json file")
    for path in _progress(files, as_json):
        result = auditor.audit(path)
        codes.append(result.exit_code)
        count += result.proved is not None
        _print(result, as_json)
    if not as_json and len(files) > 1:
        click.echo(f"{count} of {len(files)} accepted")
    return next(code for code in _WORST_FIRST if code in codes)


def _progress(files: list[Path], quiet: bool) -> Any:
    if quiet or len(files) < 20 or not sys.stderr.isatty():
        return files
    from rich.console import Console
    from rich.progress import track

    return track(files, "auditing", console=Console(stderr=True))


def _print(result: Any, as_json: bool) -> None:
    from verify.render import audit_line, claim_text

    if as_json:
        proved = result.proved
        s = proved.certificate.statement if proved else None
        data = {
            "path": result.path,
            "outcome": result.outcome,
            "verdict": proved.verdict.upper() if proved else None,
            "model": s.model if s else None,
            "revision": s.revision if s else None,
            "token": s.token if s else None,
            "text": s.text if s else None,
            "domain": s.domain.name if s else None,
            "competitors": s.competitors if s else None,
            "competitor_rule": s.competitor_rule if s else None,
            "claim": claim_text(proved.certificate) if proved else None,
            "hypotheses": result.hypotheses,
            "notes": result.notes,
            "error": str(result.error) if result.error else None,
        }
        click.echo(json.dumps(data))
        return
    for line in result.hypotheses:
        click.echo(f"HYPOTHESIS {line}")
    for line in result.notes:
        click.echo(f"note       {line}")
    click.echo(audit_line(result), err=result.proved is None)

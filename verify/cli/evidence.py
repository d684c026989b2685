"""GLUE. What the commands on saved evidence share: options, proving one certificate, writing out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from verify.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verify.kernel import Proved
    from verify.models import Model


def _not_to_a_terminal(context: click.Context, _: click.Parameter, out: Path | None) -> Path | None:
    """Before any work: files of megabytes are nothing to look at."""
    if out is None and sys.stdout.isatty() and not context.resilient_parsing:
        raise UsageError(
            f"what {context.info_name} writes is a file, too large for a terminal: give -o FILE, or redirect "
            "standard output (> FILE)"
        )
    return out


out_option = click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=None,
    callback=_not_to_a_terminal,
    help="File to write. [standard output, if that is no terminal]",
)


def proved_certificate(path: Path, model: str | None) -> tuple[Proved, Model]:
    """The certificate in a file, proved, and the model it was proved of. Raises what the audit found."""
    from verify.recheck import Auditor

    auditor = Auditor(model)
    result = auditor.audit(path)
    if result.error is not None:
        raise result.error
    if result.proved is None or result.model is None or result.proved.from_rows:
        raise UsageError(f"{path} is a bundle: give the certificate it was made from")
    tell_hypotheses(result.hypotheses)
    return result.proved, result.model


def tell_hypotheses(hypotheses: Iterable[str]) -> None:
    """On standard error, as standard output may be the file that is written."""
    for line in hypotheses:
        click.echo(f"HYPOTHESIS {line}", err=True)


def write_out(data: bytes, out: Path | None) -> None:
    """To the file, whole or not at all; to standard output where none is named."""
    from verify.files import write_atomically

    if out is None:
        sys.stdout.buffer.write(data)
    else:
        write_atomically(out, data)

"""GLUE. `verify extract`: rows of a ledger as certificate files."""

from __future__ import annotations

from pathlib import Path

import click

from verify.cli.options import TokensCommand, stated_model_option


@click.command(
    "extract",
    cls=TokensCommand,
    epilog="\b\nExamples:\n"
    "  verify extract verify-ledgers/whisper-tiny.en/readout.ledger 14531 41551\n"
    "  verify extract verify-ledgers/whisper-tiny.en/free.ledger 100 --out evidence",
)
@click.argument("ledger", type=click.Path(path_type=Path))
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN...")
@click.option(
    "--out", default="verify-certificates", show_default=True, metavar="DIR", help="Folder for certificates."
)
@stated_model_option
def command(ledger: Path, tokens: tuple[str, ...], out: str, model: str | None) -> int:
    """Write the certificates of some tokens (ids, or their texts) of a LEDGER.

    Each is proved before it is written. The files have the names that `verify token` gives, and hold what the
    ledger does: no residual vector, and a ceiling only where it keeps one.
    """
    from verify.errors import UsageError
    from verify.files import certificate_path, require_writable, write_atomically
    from verify.kernel import to_bytes
    from verify.recheck import Auditor
    from verify.scan.extract import extract
    from verify.scan.folder import find_ledgers, find_unfinished

    found = find_ledgers(ledger)
    if not found and (unfinished := find_unfinished(ledger)):
        raise UsageError("\n".join(x.unfinished() for x in unfinished))
    if len(found) != 1:
        raise UsageError(f"{ledger} holds {len(found)} finished ledgers: name the folder of one")
    loaded = Auditor(model).ledger_model(found[0])
    ids = [loaded.tokens.find(token) for token in tokens]
    require_writable(Path(out))
    for proved in extract(found[0], loaded, ids):
        path = certificate_path(Path(out), proved.certificate.statement)
        if path.exists():
            raise UsageError(f"{path} is there already: choose another folder with --out")
        write_atomically(path, to_bytes(proved.certificate))
        click.echo(str(path))
    return 0

"""GLUE. `verify audit`: re-check saved certificates against the weights, and bundles by themselves."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verify.cli.options import stated_model_option
from verify.cli.progress import MANY, phases, progress
from verify.errors import EXIT_INTERNAL, EXIT_MALFORMED, EXIT_REFUTED, EXIT_UNAVAILABLE, EXIT_USAGE

if TYPE_CHECKING:
    from verify.kernel.proved_ledger import ProvedLedger
    from verify.recheck import Audit

# The exit code of many files is that of the worst one; worst first.
_WORST_FIRST = (EXIT_INTERNAL, EXIT_REFUTED, EXIT_MALFORMED, EXIT_UNAVAILABLE, EXIT_USAGE, 0)


@click.command(
    "audit",
    epilog="\b\nExamples:\n"
    "  verify audit verify-certificates/\n"
    "  verify audit 30208.json --model ./whisper-tiny.en\n"
    "  verify audit 30208.bundle.json             needs no weights\n"
    "  verify audit verify-ledgers/               every row of a scan",
)
@click.argument("certificates", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CERT...")
@stated_model_option
@click.option(
    "--workers", type=click.IntRange(1), default=None, help="Processes for a large ledger. [one a core]"
)
@click.option("-v", "--verbose", is_flag=True, help=f"A line for every file, even of more than {MANY}.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and file.")
def command(
    certificates: tuple[Path, ...], model: str | None, workers: int | None, verbose: bool, as_json: bool
) -> int:
    """Check certificates, bundles and ledgers (files, or folders of them). Uses no solver.

    What stands in no tensor (norm, epsilon, token text) is derived anew from the model's own files;
    what cannot be derived is listed as a HYPOTHESIS above the verdict. The exit code is that of the
    worst file: refuted 1, malformed 4, unavailable 5. In a folder every .json file counts as one, but
    reports of `verify claims`. Files that are unavailable for one reason are told once and counted.
    A certificate that names a hub model has it fetched, unless HF_HUB_OFFLINE=1 or --model is given.
    """
    from verify.errors import UsageError
    from verify.files import certificate_files
    from verify.recheck import Auditor
    from verify.scan.folder import find_ledgers

    files = list(certificate_files(list(certificates)))
    ledgers = [ledger for path in certificates for ledger in find_ledgers(path)]
    if not files and not ledgers:
        raise UsageError("nothing to audit: the folders hold no .json file and no finished ledger")
    report = _Json() if as_json else _Lines(verbose) if verbose or len(files) <= MANY else _Summary()
    auditor, codes = Auditor(model), set()
    skipped = 0
    with progress("auditing", 0 if as_json else len(files)) as advance:
        for path in files:
            result = auditor.audit(path)
            advance()
            if result.claims_report and path not in certificates:
                skipped += 1
                continue
            codes.add(result.exit_code)
            report.add(result)
    for ledger in ledgers:
        with phases(quiet=as_json) as tell:
            result = auditor.audit_ledger(ledger, tell, workers=workers)
        codes.add(result.exit_code)
        report.add(result)
    report.end(len(files) - skipped + len(ledgers))
    if skipped:
        what = "a report" if skipped == 1 else f"{skipped} reports"
        click.echo(f"skipped {what} of `verify claims`, which proves nothing by itself", err=as_json)
    if not codes:
        raise UsageError("nothing to audit: the folders hold no certificate and no finished ledger")
    return next(code for code in _WORST_FIRST if code in codes)


class _Lines:
    """Hypotheses, notes and a verdict for every file; what makes several unavailable once, unless `every`."""

    def __init__(self, every: bool = False) -> None:
        self.outcomes: Counter[str] = Counter()
        self.every = every
        # Reason -> what was told of the first file, and how many files there are.
        self.missing: dict[str, tuple[str, int]] = {}

    def add(self, result: Audit) -> None:
        from verify.figures import plain
        from verify.render import audit_line

        self.outcomes[result.outcome] += 1
        if self.grouped(result):
            return
        for line in result.hypotheses:
            click.echo(f"HYPOTHESIS {plain(line)}")
        for line in result.notes:
            click.echo(f"note       {plain(line)}")
        click.echo(audit_line(result), err=not result.accepted)

    def grouped(self, result: Audit) -> bool:
        """Whether this is told at the end, with others of its reason."""
        from verify.render import audit_line

        reason = str(result.error)
        if self.every or result.outcome != "unavailable":
            return False
        if reason not in self.missing and len(self.missing) >= MANY:
            return False
        line, count = self.missing.get(reason) or (audit_line(result), 0)
        self.missing[reason] = line, count + 1
        return True

    def end(self, total: int) -> None:
        for line, count in self.missing.values():
            click.echo(f"{line} [{count} files]" if count > 1 else line, err=True)
        if total > 1:
            parts = [
                f"{n} {outcome}" for outcome, n in sorted(self.outcomes.items()) if outcome != "accepted"
            ]
            click.echo(", ".join([f"{self.outcomes['accepted']} of {total} accepted", *parts]))


class _Summary(_Lines):
    """A line a failure; hypotheses and notes once each, with how many files rest on them."""

    def __init__(self) -> None:
        super().__init__()
        self.said: Counter[str] = Counter()
        self.unsaid = 0

    def add(self, result: Audit) -> None:
        from verify.figures import plain
        from verify.render import audit_line

        self.outcomes[result.outcome] += 1
        if self.grouped(result):
            return
        if not result.accepted or result.ledger is not None:
            click.echo(audit_line(result), err=not result.accepted)
        if not result.accepted:
            return
        for line in [f"HYPOTHESIS {plain(x)}" for x in result.hypotheses] + [
            f"note       {plain(x)}" for x in result.notes
        ]:
            if line in self.said or len(self.said) < MANY:
                self.said[line] += 1
            else:
                self.unsaid += 1

    def end(self, total: int) -> None:
        for line, count in self.said.items():
            click.echo(f"{line} [{count} files]")
        if self.unsaid:
            click.echo(f"HYPOTHESIS and {self.unsaid} more hypotheses and notes: list them with --verbose")
        super().end(total)


class _Json(_Lines):
    """One object a line."""

    def add(self, result: Audit) -> None:
        click.echo(json.dumps(_object(result)))

    def end(self, total: int) -> None:
        """Nothing: every line stands for itself."""


def _object(result: Audit) -> dict[str, Any]:
    from verify.errors import MalformedError
    from verify.render import claim_text

    proved, error = result.proved, result.error
    if result.ledger is not None:
        return _ledger_object(result, result.ledger)
    s = proved.certificate.statement if proved else None
    return {
        "path": result.path,
        "outcome": result.outcome,
        "verdict": proved.verdict.upper() if proved else None,
        "from_rows": proved.from_rows if proved else None,
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
        "error": str(error) if error else None,
        "rule": error.rule if isinstance(error, MalformedError) else None,
    }


def _ledger_object(result: Audit, ledger: ProvedLedger) -> dict[str, Any]:
    h = ledger.header
    return {
        "path": result.path,
        "outcome": result.outcome,
        "model": h.statement.model,
        "revision": h.statement.revision,
        "domain": h.statement.domain.name,
        "competitors": h.statement.competitors,
        "competitor_rule": h.statement.competitor_rule,
        "first": h.first,
        "last": h.last,
        "classes": dict(ledger.counts),
        "hard_to_speak_post": ledger.hard_post,
        "hard_to_speak_model": ledger.hard_model,
        "hypotheses": result.hypotheses,
        "notes": result.notes,
    }

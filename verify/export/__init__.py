"""GLUE. Evidence that was proved here, written in the formats of other programs; it proves nothing itself.

Wrong here = a foreign file that says something else than the certificate it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verify.errors import RefutedError, UsageError
from verify.export import vipr
from verify.recheck import Auditor

__all__ = ["FORMATS", "Exported", "export"]

FORMATS = ("vipr",)


@dataclass(frozen=True)
class Exported:
    """A foreign file, and the hypotheses under which the certificate was accepted."""

    data: bytes
    hypotheses: tuple[str, ...]


def export(path: str | Path, model: str | None = None, *, to: str = "vipr") -> Exported:
    """The evidence of a certificate or bundle as a file of the format `to`; the file is audited first.

    model: a name or folder to find the weights of a certificate by, instead of the name inside.
    Raises UsageError where the evidence cannot be said in that format, and what an audit finds where the
    file is not accepted: MalformedError, RefutedError, ModelUnavailableError.
    """
    if to not in FORMATS:
        raise UsageError(f"unknown format {to[:40]!a}: use {', '.join(FORMATS)}")
    path = Path(path)
    audit = Auditor(model).audit(path)
    readout = audit.readout
    if audit.proved is None or readout is None:
        raise audit.error or RefutedError(f"{path} was not accepted")
    return Exported(vipr.to_bytes(audit.proved, readout), tuple(audit.hypotheses))

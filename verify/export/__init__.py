"""GLUE. Evidence that was proved here, written in the formats of other programs; it proves nothing itself.

Wrong here = a foreign file that says something else than the certificate it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verify.errors import RefutedError, UsageError
from verify.export import vipr
from verify.files import read_certificate
from verify.kernel import Bundle, Readout, read
from verify.kernel.bundle import tensors_of
from verify.recheck import Auditor

if TYPE_CHECKING:
    from verify.kernel import Proved

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
    if audit.proved is None:
        raise audit.error or RefutedError(f"{path} was not accepted")
    readout = _rows(path, audit.proved) if audit.model is None else audit.model.readout
    return Exported(vipr.to_bytes(audit.proved, readout), tuple(audit.hypotheses))


def _rows(path: Path, proved: Proved) -> Readout:
    """The readout of the rows in a bundle, bound to its Merkle roots anew as the file is read again."""
    found = read(read_certificate(path))
    if not isinstance(found, Bundle) or found.certificate != proved.certificate:
        raise RefutedError(f"{path} changed while it was read: export it again")
    tensors, statement = tensors_of(found), found.certificate.statement
    return Readout(
        norm=statement.norm,
        unembedding=tensors["unembedding"],
        gain=tensors.get("gain"),
        shift=tensors.get("shift"),
        bias=tensors.get("bias"),
        gain_offset=statement.gain_offset,
        epsilon=statement.epsilon,
    )

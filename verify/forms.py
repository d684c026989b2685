"""GLUE. Other forms of evidence that was proved: full multipliers or the support alone, and bundles.

Wrong here costs a refusal: what is made is proved by the kernel before it is handed out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verify import __version__
from verify.errors import RefutedError, UsageError
from verify.kernel import (
    Bundle,
    Speakable,
    System,
    Unspeakable,
    bundle,
    prove,
    prove_bundle,
    to_bytes,
)
from verify.kernel.solve import in_full

if TYPE_CHECKING:
    from verify.kernel import Proved, Readout
    from verify.kernel.evidence import Claim


def converted(proved: Proved, readout: Readout, form: str) -> bytes:
    """The certificate with its multipliers stored in `form`: "full", or the "support" alone.

    Full multipliers are checked by multiplication and take megabytes in large models; a support takes
    kilobytes and is solved again by every auditor. UsageError where the evidence has no other form.
    """
    certificate = proved.certificate
    s, claim = certificate.statement, certificate.claim
    system = System(readout, s.domain, s.token, s.competitors)
    changed: Claim
    if form == "full":
        if isinstance(claim, Unspeakable):
            changed = replace(claim, multipliers=in_full(system, claim.multipliers))
        elif claim.ceiling is not None:
            changed = replace(claim, ceiling=in_full(system, claim.ceiling))
        else:
            changed = claim
    elif isinstance(claim, Unspeakable):
        changed = replace(claim, multipliers=replace(claim.multipliers, values=None))
    else:
        raise UsageError("a witness is stored in one form only; its ceiling, if it has one, does not cancel")
    if changed == claim:
        raise UsageError(f"the certificate is in the form {form!r} already")
    provenance = {
        **certificate.provenance,
        "converted": f"to {form} multipliers by unspeakable {__version__}",
    }
    try:
        again = prove(replace(certificate, claim=changed, provenance=provenance), readout)
    except RefutedError as error:
        raise UsageError(
            f"the support alone does not prove the claim ({error}): these multipliers are stored in full only"
        ) from None
    return to_bytes(again.certificate)


def bundled(proved: Proved, readout: Readout) -> tuple[bytes, list[str]]:
    """A bundle of the certificate and the rows it needs, and notes on what it does not carry over.

    UsageError for a witness, which must be compared with all rows.
    """
    certificate, notes = proved.certificate, []
    claim = certificate.claim
    if isinstance(claim, Speakable):
        raise UsageError(
            "a witness must be compared with every row, so it cannot be bundled; audit the certificate itself"
        )
    if claim.tie is not None:
        certificate = replace(certificate, claim=replace(claim, kind="unsettled", tie=None))
        notes.append(
            "the tie state must be compared with every row and is left out: the bundle proves UNSPEAKABLE "
            "and the gap, not that the token can tie"
        )
    data = bundle.to_bytes(Bundle(certificate, bundle.make_parts(certificate, readout)))
    prove_bundle(data)
    return data, notes

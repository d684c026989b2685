"""TRUSTED. The only place where a verdict is made. `Proved` cannot be built anywhere else.

A `Proved` holds a certificate whose every claim was checked against a readout in this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError, RefutedError, UsageError
from verify.kernel import bundle
from verify.kernel.certificate import from_bytes, to_bytes
from verify.kernel.check import (
    check_bound,
    check_never,
    check_residual,
    check_tie,
    check_witness,
    combine,
)
from verify.kernel.evidence import KINDS, Speakable, Unspeakable
from verify.kernel.solve import in_full
from verify.kernel.statement import require_same_readout, require_same_tensors
from verify.kernel.system import System

if TYPE_CHECKING:
    from verify.kernel.readout import Readout
    from verify.kernel.statement import Certificate

_KEY = object()


class Proved:
    """A checked certificate. Only `prove` and `prove_bundle` make one.

    from_rows: proved from the rows in a bundle, of any tensors with the stated Merkle roots; otherwise
    from the whole tensors, whose SHA-256 agree.
    """

    __slots__ = ("certificate", "from_rows")

    certificate: Certificate
    from_rows: bool

    def __init__(self, key: object, certificate: Certificate, *, from_rows: bool) -> None:
        if key is not _KEY:
            raise TypeError("Proved is made by verify.kernel.prove alone")
        object.__setattr__(self, "certificate", certificate)
        object.__setattr__(self, "from_rows", from_rows)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Proved does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Proved does not change")

    @property
    def verdict(self) -> str:
        """`speakable` or `unspeakable`."""
        return "speakable" if isinstance(self.certificate.claim, Speakable) else "unspeakable"


def prove(certificate: Certificate, readout: Readout) -> Proved:
    """Check every part of `certificate` against `readout`. Raises RefutedError if any part fails.

    Sound by Theorems 3 to 8: nothing in the certificate is believed but what they let be checked.
    It goes through its own bytes first, so that what is proved is what a file says, whatever objects
    it was built from. MalformedError if it has no such bytes.
    """
    certificate = from_bytes(to_bytes(certificate))
    require_same_tensors(certificate.statement, readout)
    _check(certificate, readout)
    return Proved(_KEY, certificate, from_rows=False)


def prove_bundle(data: bytes) -> Proved:
    """Check every part of the bundle in a file, with no weights at hand. Raises as `prove` does.

    Sound by Theorem 14: whatever tensors have the stated Merkle roots, these are rows of theirs, and the
    theorems on multipliers read no others.
    """
    found = bundle.from_bytes(data)
    try:
        readout = bundle.readout_of(found)
        _check(found.certificate, readout)
    except ModelUnavailableError as error:
        # In a bundle the tensors are part of the file: what is wrong with them is wrong with it.
        raise RefutedError(str(error)) from None
    return Proved(_KEY, found.certificate, from_rows=True)


def _check(certificate: Certificate, readout: Readout) -> None:
    statement, claim = certificate.statement, certificate.claim
    require_same_readout(statement, readout)
    try:
        system = System(readout, statement.domain, statement.token, statement.competitors)
        if isinstance(claim, Speakable):
            _check_speakable(system, claim)
        else:
            _check_unspeakable(system, claim)
    except UsageError as error:
        # In a certificate a token or row out of range is no slip of the user's but a false statement.
        raise RefutedError(str(error)) from None


def _check_speakable(system: System, claim: Speakable) -> None:
    if claim.margin <= 0:
        raise RefutedError("a margin must be positive: a tie is not a witness")
    if claim.state is not None:
        check_witness(system, claim.state, claim.margin)
    if claim.residual is not None:
        check_residual(system, claim.residual, claim.margin if claim.state is None else None)
    elif claim.state is None:
        raise RefutedError("there is no witness")
    if (claim.ceiling is None) != (claim.at_most is None):
        raise RefutedError("a ceiling needs both its multipliers and its value")
    if claim.ceiling is not None and claim.at_most is not None:
        check_bound(system, combine(system, in_full(system, claim.ceiling)), claim.at_most)


def _check_unspeakable(system: System, claim: Unspeakable) -> None:
    if claim.gap < 0 or claim.kind not in KINDS:
        raise RefutedError("a gap is not negative, and a kind is never, tie-only or unsettled")
    multipliers = in_full(system, claim.multipliers)
    combination = combine(system, multipliers)
    check_bound(system, combination, -claim.gap)
    if (claim.kind == "tie-only") != (claim.tie is not None):
        raise RefutedError("tie-only needs a tie state, and no other kind has one")
    if claim.kind == "never":
        check_never(system, combination)
    if claim.tie is not None:
        check_tie(system, claim.tie)

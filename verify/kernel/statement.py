"""TRUSTED. What a certificate says, and the check that it says it of these very tensors.

If this is wrong, a proof about one model is taken for a proof about another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from verify.errors import MalformedError, RefutedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verify.kernel.domain import Domain
    from verify.kernel.evidence import Claim
    from verify.kernel.readout import Readout

COMPETITOR_RULES = ("all", "tokenizer")


@dataclass(frozen=True)
class TensorId:
    """Which tensor: its name in the checkpoint, how its bytes are read, their SHA-256, and the Merkle root
    of its rows.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    merkle: str


@dataclass(frozen=True)
class Statement:
    """Model, token, domain and competitors (ids 0..competitors-1 but the token's own)."""

    model: str
    revision: str | None
    tensors: Mapping[str, TensorId]
    norm: str
    gain_offset: int
    epsilon: Fraction
    epsilon_source: str
    files: Mapping[str, str]
    token: int
    text: str | None
    domain: Domain
    competitors: int
    competitor_rule: str


@dataclass(frozen=True)
class Certificate:
    """A statement, the claim with its evidence, and a note on what produced it (never believed)."""

    statement: Statement
    claim: Claim
    provenance: Mapping[str, str] = field(default_factory=dict)


def tensor_ids(readout: Readout) -> dict[str, TensorId]:
    """The identities of a readout's tensors, by role. Hashes the bytes."""
    return {
        role: TensorId(t.name, t.dtype, t.shape, t.sha256, t.merkle) for role, t in readout.tensors.items()
    }


def require_same_tensors(statement: Statement, readout: Readout) -> None:
    """Raise RefutedError unless the statement is about exactly these tensors, in these roles.

    Tensor names may differ (the same bytes may be stored under another name); roles, dtypes, shapes and
    bytes may not.
    """
    theirs, ours = statement.tensors, readout.tensors
    if set(theirs) != set(ours):
        raise RefutedError(f"the statement is about tensors {sorted(theirs)}, this model has {sorted(ours)}")
    for role, a in theirs.items():
        b = ours[role]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            raise RefutedError(
                f"{role}: the statement says {a.dtype} {list(a.shape)}, "
                f"this model has {b.dtype} {list(b.shape)}"
            )
        if a.sha256 != b.sha256:
            raise RefutedError(f"{role}: these are other weights (SHA-256 differs from the statement's)")
        if a.merkle != b.merkle:
            raise RefutedError(f"{role}: the statement's Merkle root is not that of these weights")


def require_same_readout(statement: Statement, readout: Readout) -> None:
    """Raise RefutedError unless norm, gain offset, epsilon and the number of rows are the statement's."""
    if statement.norm == "none" and statement.epsilon != 0:
        raise RefutedError("epsilon: there is no norm that it could belong to")
    if statement.competitor_rule == "all" and statement.competitors != readout.vocabulary:
        raise RefutedError(
            f"competitors: the statement says all, and {statement.competitors} of {readout.vocabulary} rows"
        )
    for what, said, found in (
        ("norm", statement.norm, readout.norm),
        ("gain offset", statement.gain_offset, readout.gain_offset),
        ("epsilon", statement.epsilon, readout.epsilon),
    ):
        if said != found:
            raise RefutedError(f"{what}: the statement says {said}, this model has {found}")


def decimal_text(value: Fraction) -> str:
    """A non-negative fraction with a finite decimal expansion, without exponent or trailing zeros.

    Raises MalformedError when the expansion is not finite or longer than 200 digits.
    """
    for places in range(201):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = str(scaled.numerator).rjust(places + 1, "0")
            return f"{digits[:-places]}.{digits[-places:]}" if places else digits
    raise MalformedError("not an exact decimal of at most 200 places")

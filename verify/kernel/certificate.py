"""TRUSTED. Certificate files: bytes in, a typed certificate out, or a MalformedError. docs/certificates.md.

If this is wrong, a file may be read as saying something other than what a person reads in it.
The format is canonical: a file is accepted only if writing what was read gives the same bytes.
"""

from __future__ import annotations

import re
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from verify.errors import (
    FieldValueError,
    MissingKeyError,
    NotationError,
    OversizedError,
    UnknownKeyError,
    UsageError,
)
from verify.kernel import strict_json
from verify.kernel.domain import parse_domain
from verify.kernel.evidence import KINDS, Claim, Multipliers, Residual, Speakable, State, Unspeakable
from verify.kernel.readout import NORMS, ROLES
from verify.kernel.statement import COMPETITOR_RULES, Certificate, Statement, TensorId, decimal_text
from verify.kernel.strict_json import count, fields, fraction, hex_list, one_of, optional_text, text, texts
from verify.kernel.tensor import DTYPES

FORMAT = "verify-certificate"
_MAX_SHIFT = 1 << 14
_EPSILON = re.compile(r"(0|[1-9][0-9]{0,199})(\.[0-9]{0,199}[1-9])?")


def to_bytes(certificate: Certificate) -> bytes:
    """The canonical file of a certificate."""
    return strict_json.write(to_object(certificate))


def from_bytes(data: bytes) -> Certificate:
    """The certificate in a file. Raises a MalformedError, and nothing else, on any other bytes."""
    return from_object(strict_json.parse(data), data)


def to_object(certificate: Certificate) -> dict[str, Any]:
    """A certificate as plain JSON values."""
    return {
        "format": FORMAT,
        "version": strict_json.VERSION,
        "statement": statement_data(certificate.statement),
        "claim": _claim_data(certificate.claim),
        "provenance": dict(certificate.provenance),
    }


def from_object(root: object, data: bytes | None = None) -> Certificate:
    """The certificate that plain JSON values describe, and must be written as `data` if that is given.

    Raises a MalformedError, and nothing else.
    """
    top = strict_json.file_fields(root, FORMAT, "statement", "claim", "provenance")
    certificate = Certificate(
        statement_from(top["statement"]),
        _claim(top["claim"]),
        MappingProxyType(texts(top["provenance"], "provenance")),
    )
    if data is not None:
        strict_json.require_canonical(to_bytes(certificate), data)
    return certificate


def statement_data(s: Statement, *, per_token: bool = True) -> dict[str, Any]:
    """A statement as plain JSON values; of a ledger, without the token and its text."""
    return {
        "model": s.model,
        "revision": s.revision,
        "tensors": {
            role: {
                "name": t.name,
                "dtype": t.dtype,
                "shape": list(t.shape),
                "sha256": t.sha256,
                "merkle": t.merkle,
            }
            for role, t in s.tensors.items()
        },
        "norm": s.norm,
        "gain_offset": s.gain_offset,
        "epsilon": decimal_text(s.epsilon),
        "epsilon_source": s.epsilon_source,
        "files": dict(s.files),
        **({"token": s.token, "text": s.text} if per_token else {}),
        "domain": s.domain.name,
        "competitors": s.competitors,
        "competitor_rule": s.competitor_rule,
    }


def _claim_data(claim: Claim) -> dict[str, Any]:
    if isinstance(claim, Unspeakable):
        return {
            "verdict": "unspeakable",
            "gap": _fraction_text(claim.gap),
            "kind": claim.kind,
            "multipliers": _multipliers_data(claim.multipliers),
            "tie": None if claim.tie is None else _vector_data(claim.tie.p, claim.tie.k),
        }
    residual = claim.residual
    return {
        "verdict": "speakable",
        "margin": _fraction_text(claim.margin),
        "state": None if claim.state is None else _vector_data(claim.state.p, claim.state.k),
        "residual": None
        if residual is None
        else {**_vector_data(residual.p, residual.k), "dtype": residual.dtype},
        "ceiling": None if claim.ceiling is None else _multipliers_data(claim.ceiling),
        "at_most": None if claim.at_most is None else _fraction_text(claim.at_most),
    }


def _vector_data(p: tuple[int, ...], k: int) -> dict[str, Any]:
    return {"p": " ".join(f"{x:x}" for x in p), "k": k}


def _multipliers_data(m: Multipliers) -> dict[str, Any]:
    values = None if m.values is None else " ".join(f"{x:x}" for x in m.values)
    return {"rows": " ".join(map(str, m.rows)), "values": values}


def _fraction_text(x: Fraction) -> str:
    return f"{x.numerator:x}/{x.denominator:x}"


def statement_from(value: object, *, per_token: bool = True) -> Statement:
    """The statement that plain JSON values describe; that of a ledger has token 0 and no text."""
    names = [x for x in Statement.__dataclass_fields__ if per_token or x not in ("token", "text")]
    f = {"token": 0, "text": None, **fields(value, "statement", *names)}
    tensors = f["tensors"]
    if not isinstance(tensors, dict):
        raise FieldValueError("tensors is not an object")
    if not set(tensors) <= set(ROLES):
        raise UnknownKeyError(f"tensors: roles must be among {', '.join(ROLES)}")
    if "unembedding" not in tensors:
        raise MissingKeyError("tensors: the unembedding is missing")
    epsilon = text(f["epsilon"], "epsilon")
    if not _EPSILON.fullmatch(epsilon):
        raise NotationError("epsilon is not a plain exact decimal")
    try:
        domain = parse_domain(text(f["domain"], "domain"))
    except UsageError as error:
        raise FieldValueError(str(error)) from None
    return Statement(
        model=text(f["model"], "model"),
        revision=optional_text(f["revision"], "revision"),
        tensors=MappingProxyType({role: _tensor(t, role) for role, t in tensors.items()}),
        norm=one_of(f["norm"], NORMS, "norm"),
        gain_offset=count(f["gain_offset"], "gain_offset", most=1),
        epsilon=Fraction(epsilon),
        epsilon_source=text(f["epsilon_source"], "epsilon_source"),
        files=MappingProxyType(
            {name: strict_json.sha256(x, "files") for name, x in texts(f["files"], "files").items()}
        ),
        token=count(f["token"], "token"),
        text=optional_text(f["text"], "text"),
        domain=domain,
        competitors=count(f["competitors"], "competitors"),
        competitor_rule=one_of(f["competitor_rule"], COMPETITOR_RULES, "competitor_rule"),
    )


def _tensor(value: object, role: str) -> TensorId:
    f = fields(value, role, *TensorId.__dataclass_fields__)
    shape = f["shape"]
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2:
        raise FieldValueError(f"{role}: shape is not a list of one or two lengths")
    return TensorId(
        name=text(f["name"], role),
        dtype=one_of(f["dtype"], DTYPES, role),
        shape=tuple(count(n, f"{role}: shape") for n in shape),
        sha256=strict_json.sha256(f["sha256"], f"{role}: sha256"),
        merkle=strict_json.sha256(f["merkle"], f"{role}: merkle"),
    )


def _claim(value: object) -> Claim:
    if not isinstance(value, dict):
        raise FieldValueError("claim is not an object")
    if "verdict" not in value:
        raise MissingKeyError("claim: the verdict is missing")
    if one_of(value["verdict"], ("speakable", "unspeakable"), "verdict") == "unspeakable":
        f = fields(value, "claim", "verdict", "gap", "kind", "multipliers", "tie")
        return Unspeakable(
            gap=fraction(f["gap"], "gap"),
            kind=one_of(f["kind"], KINDS, "kind"),
            multipliers=_multipliers(f["multipliers"], "multipliers"),
            tie=None if f["tie"] is None else State(*_vector(f["tie"], "tie")),
        )
    f = fields(value, "claim", "verdict", "margin", "state", "residual", "ceiling", "at_most")
    return Speakable(
        margin=fraction(f["margin"], "margin"),
        state=None if f["state"] is None else State(*_vector(f["state"], "state")),
        residual=None if f["residual"] is None else _residual(f["residual"]),
        ceiling=None if f["ceiling"] is None else _multipliers(f["ceiling"], "ceiling"),
        at_most=None if f["at_most"] is None else fraction(f["at_most"], "at_most"),
    )


def _residual(value: object) -> Residual:
    f = fields(value, "residual", "p", "k", "dtype")
    return Residual(
        *_vector({"p": f["p"], "k": f["k"]}, "residual"), one_of(f["dtype"], DTYPES, "residual: dtype")
    )


def _vector(value: object, what: str) -> tuple[tuple[int, ...], int]:
    f = fields(value, what, "p", "k")
    k = count(f["k"], f"{what}: k")
    if k > _MAX_SHIFT:
        raise OversizedError(f"{what}: k is over {_MAX_SHIFT}")
    return hex_list(f["p"], what, strict_json.ENTRY_DIGITS), k


def _multipliers(value: object, what: str) -> Multipliers:
    f = fields(value, what, "rows", "values")
    values = f["values"]
    return Multipliers(
        strict_json.rows(f["rows"], what),
        None if values is None else hex_list(values, what, strict_json.MULTIPLIER_DIGITS),
    )

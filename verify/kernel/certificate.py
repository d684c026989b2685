"""TRUSTED. Certificate files: bytes in, a typed certificate out, or MalformedError. docs/certificates.md.

If this is wrong, a file may be read as saying something other than what a person reads in it.
The format is canonical: a file is accepted only if writing what was read gives the same bytes.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NoReturn

from verify.errors import MalformedError, UsageError
from verify.kernel.domain import parse_domain
from verify.kernel.evidence import KINDS, Claim, Multipliers, Residual, Speakable, State, Unspeakable
from verify.kernel.readout import NORMS, ROLES
from verify.kernel.statement import COMPETITOR_RULES, Certificate, Statement, TensorId, decimal_text
from verify.kernel.tensor import DTYPES

FORMAT = "verify-certificate"
VERSION = 0
MAX_BYTES = 1 << 28
_MAX_INT = 1 << 40
_MAX_SHIFT = 1 << 16
# Lowest terms cost time quadratic in the length: hexadecimal digits of a margin, a gap or a ceiling.
_MAX_FRACTION = 1 << 15
_HEX = re.compile(r"-?[1-9a-f][0-9a-f]*|0")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EPSILON = re.compile(r"(0|[1-9][0-9]{0,199})(\.[0-9]{0,199}[1-9])?")


def to_bytes(certificate: Certificate) -> bytes:
    """The canonical file of a certificate: ASCII JSON, sorted keys, one space of indent, one newline."""
    s = certificate.statement
    data = {
        "format": FORMAT,
        "version": VERSION,
        "statement": {
            "model": s.model,
            "revision": s.revision,
            "tensors": {
                role: {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "sha256": t.sha256}
                for role, t in s.tensors.items()
            },
            "norm": s.norm,
            "gain_offset": s.gain_offset,
            "epsilon": decimal_text(s.epsilon),
            "epsilon_source": s.epsilon_source,
            "files": dict(s.files),
            "token": s.token,
            "text": s.text,
            "domain": s.domain.name,
            "competitors": s.competitors,
            "competitor_rule": s.competitor_rule,
        },
        "claim": _claim_data(certificate.claim),
        "provenance": dict(certificate.provenance),
    }
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def from_bytes(data: bytes) -> Certificate:
    """The certificate in a file. Raises MalformedError, and nothing else, on any other bytes."""
    if len(data) > MAX_BYTES:
        raise MalformedError(f"a certificate of {len(data)} bytes is over the limit of {MAX_BYTES}")
    try:
        text = data.decode("ascii")
        root = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_small_int,
        )
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not ASCII JSON: {error}") from None
    certificate = _certificate(root)
    if to_bytes(certificate) != data:
        raise MalformedError("not in canonical form: writing what was read gives other bytes")
    return certificate


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


def _certificate(root: object) -> Certificate:
    top = _fields(root, "file", "format", "version", "statement", "claim", "provenance")
    if top["format"] != FORMAT:
        raise MalformedError(f"format is {str(top['format'])[:40]!r}, expected {FORMAT!r}")
    if _integer(top["version"], "version") != VERSION:
        raise MalformedError(f"version {top['version']} is not {VERSION}, the one this program reads")
    return Certificate(
        _statement(top["statement"]),
        _claim(top["claim"]),
        MappingProxyType(_texts(top["provenance"], "provenance")),
    )


def _statement(value: object) -> Statement:
    f = _fields(value, "statement", *Statement.__dataclass_fields__)
    tensors = f["tensors"]
    if not isinstance(tensors, dict) or not set(tensors) <= set(ROLES) or "unembedding" not in tensors:
        raise MalformedError(f"tensors: roles must be among {', '.join(ROLES)}, unembedding included")
    epsilon = _text(f["epsilon"], "epsilon")
    if not _EPSILON.fullmatch(epsilon):
        raise MalformedError("epsilon is not a plain exact decimal")
    files = _texts(f["files"], "files")
    if not all(_SHA256.fullmatch(x) for x in files.values()):
        raise MalformedError("files: a value is not a SHA-256 in lower-case hex")
    try:
        domain = parse_domain(_text(f["domain"], "domain"))
    except UsageError as error:
        raise MalformedError(str(error)) from None
    return Statement(
        model=_text(f["model"], "model"),
        revision=_optional_text(f["revision"], "revision"),
        tensors=MappingProxyType({role: _tensor(t, role) for role, t in tensors.items()}),
        norm=_one_of(f["norm"], NORMS, "norm"),
        gain_offset=_integer(f["gain_offset"], "gain_offset"),
        epsilon=Fraction(epsilon),
        epsilon_source=_text(f["epsilon_source"], "epsilon_source"),
        files=MappingProxyType(files),
        token=_integer(f["token"], "token"),
        text=_optional_text(f["text"], "text"),
        domain=domain,
        competitors=_integer(f["competitors"], "competitors"),
        competitor_rule=_one_of(f["competitor_rule"], COMPETITOR_RULES, "competitor_rule"),
    )


def _tensor(value: object, role: str) -> TensorId:
    f = _fields(value, role, "name", "dtype", "shape", "sha256")
    shape = f["shape"]
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2:
        raise MalformedError(f"{role}: shape is not a list of one or two lengths")
    sha256 = _text(f["sha256"], role)
    if not _SHA256.fullmatch(sha256):
        raise MalformedError(f"{role}: not a SHA-256 in lower-case hex")
    lengths = tuple(_integer(n, f"{role}: shape") for n in shape)
    return TensorId(_text(f["name"], role), _one_of(f["dtype"], DTYPES, role), lengths, sha256)


def _claim(value: object) -> Claim:
    if not isinstance(value, dict):
        raise MalformedError("claim is not an object")
    if value.get("verdict") == "unspeakable":
        f = _fields(value, "claim", "verdict", "gap", "kind", "multipliers", "tie")
        tie = None if f["tie"] is None else State(*_vector(f["tie"], "tie"))
        return Unspeakable(
            gap=_fraction(f["gap"], "gap"),
            kind=_one_of(f["kind"], KINDS, "kind"),
            multipliers=_multipliers(f["multipliers"], "multipliers"),
            tie=tie,
        )
    f = _fields(value, "claim", "verdict", "margin", "state", "residual", "ceiling", "at_most")
    if f["verdict"] != "speakable":
        raise MalformedError("verdict is neither speakable nor unspeakable")
    residual = None
    if f["residual"] is not None:
        r = _fields(f["residual"], "residual", "p", "k", "dtype")
        residual = Residual(
            *_vector({"p": r["p"], "k": r["k"]}, "residual"), _one_of(r["dtype"], DTYPES, "residual")
        )
    return Speakable(
        margin=_fraction(f["margin"], "margin"),
        state=None if f["state"] is None else State(*_vector(f["state"], "state")),
        residual=residual,
        ceiling=None if f["ceiling"] is None else _multipliers(f["ceiling"], "ceiling"),
        at_most=None if f["at_most"] is None else _fraction(f["at_most"], "at_most"),
    )


def _vector(value: object, what: str) -> tuple[tuple[int, ...], int]:
    f = _fields(value, what, "p", "k")
    k = _integer(f["k"], f"{what}: k")
    if k > _MAX_SHIFT:
        raise MalformedError(f"{what}: k is over {_MAX_SHIFT}")
    return _hex_list(f["p"], what), k


def _multipliers(value: object, what: str) -> Multipliers:
    f = _fields(value, what, "rows", "values")
    words = _text(f["rows"], what).split(" ")
    if not all(_DECIMAL.fullmatch(w) for w in words):
        raise MalformedError(f"{what}: a row id is not a plain decimal number")
    return Multipliers(
        tuple(int(w) for w in words), None if f["values"] is None else _hex_list(f["values"], what)
    )


def _hex_list(value: object, what: str) -> tuple[int, ...]:
    words = _text(value, what).split(" ")
    if not all(_HEX.fullmatch(w) for w in words):
        raise MalformedError(f"{what}: not canonical hexadecimal integers separated by single spaces")
    return tuple(int(w, 16) for w in words)


def _fraction(value: object, what: str) -> Fraction:
    parts = _text(value, what)[: 2 * _MAX_FRACTION].split("/")
    if len(parts) != 2 or not all(len(p) <= _MAX_FRACTION and _HEX.fullmatch(p) for p in parts):
        raise MalformedError(
            f"{what}: not a fraction of two hexadecimal integers of at most {_MAX_FRACTION} digits"
        )
    numerator, denominator = int(parts[0], 16), int(parts[1], 16)
    if denominator <= 0:
        raise MalformedError(f"{what}: the denominator is not positive")
    return Fraction(numerator, denominator)


def _fields(value: object, what: str, *names: str) -> dict[str, Any]:
    """`value` as an object with exactly these keys."""
    if not isinstance(value, dict):
        raise MalformedError(f"{what} is not an object")
    if set(value) != set(names):
        missing, unknown = sorted(set(names) - set(value)), sorted(set(value) - set(names))
        raise MalformedError(f"{what}: missing fields {missing}, unknown fields {str(unknown)[:200]}")
    return value


def _integer(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_INT:
        raise MalformedError(f"{what} is not an integer between 0 and 2^40")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise MalformedError(f"{what} is not a string")
    return value


def _optional_text(value: object, what: str) -> str | None:
    return None if value is None else _text(value, what)


def _texts(value: object, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(x, str) for x in value.values()):
        raise MalformedError(f"{what} is not an object of strings")
    return dict(value)


def _one_of(value: object, allowed: tuple[str, ...], what: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise MalformedError(f"{what} is not one of {', '.join(allowed)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("an object repeats a key")
    return found


def _no_float(text: str) -> NoReturn:
    raise MalformedError(f"floats are not allowed: {text[:40]}")


def _small_int(text: str) -> int:
    if len(text) > 16:
        raise MalformedError(f"an integer of {len(text)} digits where small ones are expected")
    return int(text)

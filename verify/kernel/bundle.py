"""TRUSTED. Bundles: a certificate of unspeakability with the rows it needs. docs/certificates.md, section 6.

If this is wrong, a claim is proved of rows that no tensor with the stated Merkle root has (Theorem 14).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from verify.errors import FieldValueError, MissingKeyError, RefutedError, UnknownKeyError
from verify.kernel import merkle, strict_json
from verify.kernel.certificate import from_object, to_object
from verify.kernel.evidence import Unspeakable
from verify.kernel.readout import Readout
from verify.kernel.tensor import Tensor, itemsize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verify.kernel.statement import Certificate, TensorId

FORMAT = "verify-bundle"
# Of these only some rows are given; the others are short and given whole.
_BY_ROW = ("unembedding", "bias")


@dataclass(frozen=True)
class Part:
    """Some rows of one tensor. rows None: all of them. proof: the closed parts of the Merkle tree."""

    rows: tuple[int, ...] | None
    data: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Bundle:
    """A certificate and, by role, the parts of its tensors that its evidence needs."""

    certificate: Certificate
    parts: Mapping[str, Part]


def to_bytes(bundle: Bundle) -> bytes:
    """The canonical file of a bundle."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "version": strict_json.VERSION,
        "certificate": to_object(bundle.certificate),
        "tensors": {
            role: {
                "rows": None if p.rows is None else " ".join(map(str, p.rows)),
                "bytes": p.data.hex(),
                "proof": " ".join(x.hex() for x in p.proof) or None,
            }
            for role, p in bundle.parts.items()
        },
    }
    return strict_json.write(data)


def from_bytes(data: bytes) -> Bundle:
    """The bundle in a file. Raises a MalformedError, and nothing else, on any other bytes."""
    return _from_object(strict_json.parse(data), data)


def read(data: bytes) -> Certificate | Bundle:
    """What is in a file: a bundle if it says so, else a certificate. Raises a MalformedError alone."""
    root = strict_json.parse(data)
    if root.get("format") == FORMAT:
        return _from_object(root, data)
    return from_object(root, data)


def _from_object(root: object, data: bytes) -> Bundle:
    top = strict_json.file_fields(root, FORMAT, "certificate", "tensors")
    certificate = from_object(top["certificate"])
    tensors, roles = top["tensors"], set(certificate.statement.tensors)
    if not isinstance(tensors, dict):
        raise FieldValueError("tensors is not an object")
    if not set(tensors) <= roles:
        raise UnknownKeyError("tensors: a role that the statement does not have")
    if set(tensors) != roles:
        raise MissingKeyError(f"tensors: {sorted(roles - set(tensors))} missing")
    bundle = Bundle(certificate, MappingProxyType({role: _part(x, role) for role, x in tensors.items()}))
    strict_json.require_canonical(to_bytes(bundle), data)
    return bundle


def _part(value: object, role: str) -> Part:
    f = strict_json.fields(value, role, "rows", "bytes", "proof")
    return Part(
        rows=None if f["rows"] is None else strict_json.rows(f["rows"], f"{role}: rows"),
        data=strict_json.raw_bytes(f["bytes"], f"{role}: bytes"),
        proof=() if f["proof"] is None else strict_json.hash_list(f["proof"], f"{role}: proof"),
    )


class Rows(Tensor):
    """A tensor of which only some rows are at hand: all that asks for others raises RefutedError."""

    def __init__(self, identity: TensorId, given: Tensor, rows: tuple[int, ...]) -> None:
        for name, value in (
            ("name", identity.name),
            ("dtype", identity.dtype),
            ("_hashes", {}),
            ("_shape", identity.shape),
            ("_given", given),
            ("_place", {j: i for i, j in enumerate(rows)}),
        ):
            object.__setattr__(self, name, value)

    _shape: tuple[int, ...]
    _given: Tensor
    _place: dict[int, int]

    @property
    def raw(self) -> NoReturn:
        """Never at hand."""
        raise RefutedError("a bundle holds only the rows of its support")

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes of the whole tensor, as stated and bound by the Merkle root."""
        return self._shape

    def chosen(self, rows: Iterable[int]) -> Any:
        """As of any tensor, for rows that are given."""
        rows = list(rows)
        if not all(j in self._place for j in rows):
            raise RefutedError("a row that the evidence needs is not in the bundle")
        return self._given.chosen([self._place[j] for j in rows])


def needed_rows(certificate: Certificate) -> tuple[int, ...]:
    """The rows of the unembedding that the evidence touches, ascending."""
    claim = certificate.claim
    if not isinstance(claim, Unspeakable) or claim.tie is not None:
        raise RefutedError("a witness or a tie must be compared with all competitors: it cannot be bundled")
    return tuple(sorted({certificate.statement.token, *claim.multipliers.rows}))


def make_parts(certificate: Certificate, readout: Readout) -> dict[str, Part]:
    """The parts of the readout's tensors that a bundle of `certificate` holds."""
    rows, parts = needed_rows(certificate), {}
    for role, tensor in readout.tensors.items():
        if role in _BY_ROW:
            data = tensor.raw[list(rows)].tobytes()
            parts[role] = Part(rows, data, tuple(merkle.prune(tensor.leaves(), rows)))
        else:
            parts[role] = Part(None, tensor.raw.tobytes(), ())
    return parts


def tensors_of(bundle: Bundle) -> dict[str, Tensor]:
    """The tensors of a bundle, by role, each shown to have the stated Merkle root (Theorem 14).

    Raises RefutedError when a part is not what the statement's hashes say, or not what the evidence needs.
    """
    rows, found = needed_rows(bundle.certificate), {}
    for role, identity in bundle.certificate.statement.tensors.items():
        part = bundle.parts[role]
        if min(identity.shape) < 1:
            raise RefutedError(f"{role}: a tensor of shape {list(identity.shape)} has no rows")
        if role in _BY_ROW:
            found[role] = _some_rows(role, identity, part, rows)
        else:
            found[role] = _whole(role, identity, part)
    return found


def readout_of(bundle: Bundle) -> Readout:
    """The readout that the statement and the rows of a bundle describe. Raises as `tensors_of`, and
    ModelUnavailableError when the shapes do not make one.
    """
    statement, tensors = bundle.certificate.statement, tensors_of(bundle)
    return Readout(
        norm=statement.norm,
        unembedding=tensors["unembedding"],
        gain=tensors.get("gain"),
        shift=tensors.get("shift"),
        bias=tensors.get("bias"),
        gain_offset=statement.gain_offset,
        epsilon=statement.epsilon,
    )


def _some_rows(role: str, identity: TensorId, part: Part, rows: tuple[int, ...]) -> Tensor:
    if part.rows != rows:
        raise RefutedError(f"{role}: the rows are not exactly the token's and the support's, ascending")
    row_shape = identity.shape[1:]
    size = prod(row_shape) * itemsize(identity.dtype)
    if len(part.data) != len(rows) * size:
        raise RefutedError(f"{role}: {len(part.data)} bytes for {len(rows)} rows of {size} bytes")
    given = {j: part.data[i * size : (i + 1) * size] for i, j in enumerate(rows)}
    if merkle.pruned_root(identity.dtype, identity.shape, given, part.proof) != identity.merkle:
        raise RefutedError(f"{role}: the rows do not lead to the stated Merkle root")
    return Rows(
        identity, Tensor.from_bytes(identity.name, identity.dtype, (len(rows), *row_shape), part.data), rows
    )


def _whole(role: str, identity: TensorId, part: Part) -> Tensor:
    if part.rows is not None or part.proof:
        raise RefutedError(f"{role}: a {role} is given whole, without rows or proof")
    if len(part.data) != prod(identity.shape) * itemsize(identity.dtype):
        raise RefutedError(f"{role}: {len(part.data)} bytes do not fill {list(identity.shape)}")
    tensor = Tensor.from_bytes(identity.name, identity.dtype, identity.shape, part.data)
    if (tensor.sha256, tensor.merkle) != (identity.sha256, identity.merkle):
        raise RefutedError(f"{role}: the bytes do not have the stated hashes")
    return tensor

"""TRUSTED. Merkle roots of tensors, and rows shown to belong to one. docs/certificates.md, sections 2 and 6.

If this is wrong, rows that are not a tensor's may be taken for its rows (Theorem 14).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from verify.errors import RefutedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def leaf(row: bytes) -> bytes:
    """The hash of one row's bytes."""
    return hashlib.sha256(b"\0" + row).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _tree(leaves: Sequence[bytes]) -> bytes:
    """The tree over at least one leaf. Pairing neighbours, an odd last one carried over, splits every part
    at the largest power of two below its size, as RFC 6962 does.
    """
    level = list(leaves)
    while len(level) > 1:
        pairs = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) & ~1 :]
    return level[0]


def root(dtype: str, shape: tuple[int, ...], leaves: Sequence[bytes]) -> str:
    """The root of a tensor with these leaves, one a row and at least one, in hex."""
    return _headed(dtype, shape, _tree(leaves))


def _headed(dtype: str, shape: tuple[int, ...], tree: bytes) -> str:
    """The root proper: the tree under a header without which its number of rows could be misstated."""
    text = " ".join([dtype, *map(str, shape)]) + "\n"
    return hashlib.sha256(b"\2" + text.encode("ascii") + tree).hexdigest()


def prune(leaves: Sequence[bytes], rows: Sequence[int]) -> list[bytes]:
    """The proof for the given ascending rows: the closed parts of the tree, from left to right."""
    proof: list[bytes] = []

    def visit(low: int, high: int, inside: Sequence[int]) -> None:
        if not inside:
            proof.append(_tree(leaves[low:high]))
        elif high - low > 1:
            middle = low + _split(high - low)
            visit(low, middle, [j for j in inside if j < middle])
            visit(middle, high, [j for j in inside if j >= middle])

    visit(0, len(leaves), rows)
    return proof


def pruned_root(dtype: str, shape: tuple[int, ...], rows: Mapping[int, bytes], proof: Sequence[bytes]) -> str:
    """The root that these rows (id -> bytes) and closed parts give. RefutedError unless all are used up.

    Sound because every hash but the closed ones is computed here, from the root's header down to the rows.
    """
    if not all(0 <= j < shape[0] for j in rows):
        raise RefutedError(f"a row that is given is not one of {shape[0]}")
    closed = iter(proof)

    def visit(low: int, high: int, inside: Sequence[int]) -> bytes:
        if not inside:
            found = next(closed, None)
            if found is None:
                raise RefutedError("the Merkle proof is too short")
            return found
        if high - low == 1:
            return leaf(rows[low])
        middle = low + _split(high - low)
        left = visit(low, middle, [j for j in inside if j < middle])
        return _node(left, visit(middle, high, [j for j in inside if j >= middle]))

    tree = visit(0, shape[0], sorted(rows))
    if next(closed, None) is not None:
        raise RefutedError("the Merkle proof is too long")
    return _headed(dtype, shape, tree)


def _split(n: int) -> int:
    """The largest power of two below n, n > 1."""
    return 1 << ((n - 1).bit_length() - 1)

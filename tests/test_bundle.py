"""Theorem 14: what a bundle shows holds of every tensor with its Merkle root, and nothing else passes.

Roots and pruned proofs are compared with a recursion written from RFC 6962's definition.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from built_models import model, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.decide import Decider
from verify.errors import MalformedError, RefutedError, UsageError
from verify.forms import bundled, converted
from verify.kernel import (
    Bundle,
    Multipliers,
    Readout,
    Speakable,
    Tensor,
    TensorId,
    Unspeakable,
    bundle,
    from_bytes,
    merkle,
    parse_domain,
    prove,
    prove_bundle,
    read,
)

RNG = np.random.default_rng(5)
ROWS = [[6, 0], [0, 6], [-6, -6], [1, 1], [0, 0], [3, 3], [2, -1], [-1, 2], [1, 0], [0, 1], [-1, -1]]
GAIN, SHIFT, BIAS = [1, 2], [0.5, 0], [0, 0, 0, 1, -3, 0, 0, 0, 0, 0, 0]
BIASED = model(ROWS, "rmsnorm", gain=GAIN, shift=SHIFT, bias=BIAS, dtype="F16")
PLAIN = model(ROWS, "rmsnorm", dtype="BF16")


def h(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def tree(rows: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1: k is the largest power of two smaller than n."""
    n = len(rows)
    if n == 1:
        return h(b"\x00" + rows[0])
    k = max(2**i for i in range(64) if 2**i < n)
    return h(b"\x01" + tree(rows[:k]) + tree(rows[k:]))


@pytest.mark.parametrize("n", [*range(1, 20), 31, 32, 33, 127, 128, 129])
def test_roots_are_those_of_rfc_6962_under_a_header(n: int) -> None:
    t = Tensor("t", "F16", RNG.integers(0, 1 << 15, (n, 3)).astype("<u2"))
    rows = [t.raw[j].tobytes() for j in range(n)]
    assert t.merkle == h(b"\x02" + f"F16 {n} 3\n".encode() + tree(rows)).hex()
    flat = Tensor("t", "F32", RNG.integers(0, 1 << 30, n).astype("<u4"))
    values = [flat.raw[j].tobytes() for j in range(n)]
    assert flat.merkle == h(b"\x02" + f"F32 {n}\n".encode() + tree(values)).hex()


def test_large_tensors_are_hashed_in_blocks_of_whole_rows() -> None:
    t = Tensor("t", "F16", RNG.integers(0, 1 << 15, (5000, 700)).astype("<u2"))
    assert t.raw.nbytes > 1 << 22
    assert t.merkle == merkle.root("F16", (5000, 700), [merkle.leaf(row.tobytes()) for row in t.raw])
    assert t.sha256 == hashlib.sha256(t.raw.tobytes()).hexdigest()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 40), st.data())
def test_pruned_trees_have_the_root_and_no_other_rows_do(n: int, data: st.DataObject) -> None:
    """Theorem 14: the proof of the honest prover passes; with any given row or hash changed it does not."""
    rows = [bytes([j]) for j in range(n)]
    chosen = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    root = merkle.root("F16", (n, 1), [merkle.leaf(r) for r in rows])
    proof = merkle.prune([merkle.leaf(r) for r in rows], chosen)
    shown = {j: rows[j] for j in chosen}
    assert merkle.pruned_root("F16", (n, 1), shown, proof) == root
    j = data.draw(st.sampled_from(chosen))
    assert merkle.pruned_root("F16", (n, 1), {**shown, j: b"\xff"}, proof) != root
    for i in range(len(proof)):
        changed = [*proof[:i], h(proof[i]), *proof[i + 1 :]]
        assert merkle.pruned_root("F16", (n, 1), shown, changed) != root
    with pytest.raises(RefutedError, match="too long"):
        merkle.pruned_root("F16", (n, 1), shown, [*proof, b""])
    if proof:
        with pytest.raises(RefutedError, match="too short"):
            merkle.pruned_root("F16", (n, 1), shown, proof[:-1])
    for other in range(1, 44):
        if other != n and max(chosen) < other:
            with contextlib.suppress(RefutedError):
                assert merkle.pruned_root("F16", (other, 1), shown, proof) != root
    for outside in (-1, n):
        with pytest.raises(RefutedError, match="not one of"):
            merkle.pruned_root("F16", (n, 1), {**shown, outside: b""}, proof)


CLAIM = Unspeakable(Fraction(0), "never", Multipliers((0, 1, 2), (1, 1, 1)))


def made(built: Any, token: int, domain: str) -> bytes:
    """A bundle of multipliers (1, 1, 1) on the rows 0, 1, 2, which cancel: e is 0 or makes v negative."""
    decision = Decider(built).decide(token, parse_domain(domain))
    assert decision.proved is not None
    assert decision.verdict == "UNSPEAKABLE"
    certificate = decision.proved.certificate
    return bundled(prove(replace(certificate, claim=CLAIM), built.readout), built.readout)[0]


CASES = [(BIASED, "readout"), (BIASED, "free"), (BIASED, "direction"), (BIASED, "box:1"), (PLAIN, "readout")]


@pytest.mark.parametrize(("built", "domain"), CASES, ids=lambda x: str(x)[:9])
def test_bundles_prove_the_verdict_without_weights(built: Any, domain: str) -> None:
    data = made(built, 4, domain)
    proved = prove_bundle(data)
    assert proved.verdict == "unspeakable"
    assert proved.from_rows
    found = read(data)
    assert isinstance(found, Bundle)
    assert bundle.to_bytes(found) == data
    given_rows = found.parts["unembedding"].rows
    assert given_rows == (0, 1, 2, 4)
    assert found.parts["unembedding"].proof
    with pytest.raises(MalformedError):
        from_bytes(data)


DATA = made(BIASED, 4, "readout")
HONEST = bundle.from_bytes(DATA)


def refuted(changed: Bundle, match: str | None = None) -> None:
    with pytest.raises(RefutedError, match=match):
        prove_bundle(bundle.to_bytes(changed))


def with_part(role: str, **fields: Any) -> Bundle:
    parts = {**HONEST.parts, role: replace(HONEST.parts[role], **fields)}
    return replace(HONEST, parts=parts)


def with_statement(**fields: Any) -> Bundle:
    c = HONEST.certificate
    return replace(HONEST, certificate=replace(c, statement=replace(c.statement, **fields)))


def with_tensor(role: str, **fields: Any) -> Bundle:
    tensors = dict(HONEST.certificate.statement.tensors)
    return with_statement(tensors={**tensors, role: replace(tensors[role], **fields)})


@pytest.mark.parametrize("role", ["unembedding", "bias"])
def test_parts_by_row_are_what_the_root_says(role: str) -> None:
    part = HONEST.parts[role]
    assert part.rows is not None
    for i in range(len(part.data)):
        refuted(with_part(role, data=part.data[:i] + bytes([part.data[i] ^ 1]) + part.data[i + 1 :]), "root")
    for i, x in enumerate(part.proof):
        refuted(with_part(role, proof=(*part.proof[:i], h(x), *part.proof[i + 1 :])), "root")
    refuted(with_part(role, proof=part.proof[:-1]), "too short")
    refuted(with_part(role, proof=(*part.proof, bytes(32))), "too long")
    refuted(with_part(role, proof=()), "too short")
    refuted(with_part(role, data=part.data[:-1]), "bytes for")
    refuted(with_part(role, data=part.data + b"\0"), "bytes for")
    refuted(with_part(role, rows=None), "not exactly")
    refuted(with_part(role, rows=part.rows[::-1]), "not exactly")
    refuted(with_part(role, rows=part.rows[1:]), "not exactly")
    refuted(with_part(role, rows=(*part.rows, 10)), "not exactly")
    refuted(with_tensor(role, merkle="0" * 64), "root")
    refuted(with_tensor(role, dtype="BF16"), "root")
    assert prove_bundle(bundle.to_bytes(with_tensor(role, sha256="0" * 64))).verdict == "unspeakable"


@pytest.mark.parametrize("role", ["gain", "shift"])
def test_short_parts_are_whole(role: str) -> None:
    part = HONEST.parts[role]
    for i in range(len(part.data)):
        refuted(
            with_part(role, data=part.data[:i] + bytes([part.data[i] ^ 1]) + part.data[i + 1 :]), "hashes"
        )
    refuted(with_part(role, data=part.data[:-2]), "do not fill")
    refuted(with_part(role, rows=(0, 1)), "whole")
    refuted(with_part(role, proof=(bytes(32),)), "whole")
    refuted(with_tensor(role, merkle="0" * 64), "hashes")
    refuted(with_tensor(role, sha256="0" * 64), "hashes")
    refuted(with_tensor(role, shape=(0,)), "no rows")
    refuted(with_tensor(role, shape=(1, 2)), "hashes")


@pytest.mark.parametrize(
    "changed",
    [
        with_statement(token=3), with_statement(token=11), with_statement(competitors=10),
        with_statement(competitors=12),
        with_tensor("unembedding", shape=(12, 2)),
        with_tensor("unembedding", shape=(11, 1)), with_tensor("unembedding", shape=(11,)),
        with_tensor("unembedding", shape=(0, 2)), with_tensor("bias", shape=(12,)),
    ],
    ids=range(9),
)  # fmt: skip
def test_statements_that_the_rows_do_not_bear_out(changed: Bundle) -> None:
    refuted(changed)


def test_the_header_binds_the_number_of_rows() -> None:
    """In a tree of 6 rows, row 5 lies where a tree of 7 has row 6: without the header it would pass."""
    rows = [bytes([j]) for j in range(6)]
    leaves = [merkle.leaf(r) for r in rows]
    left = h(b"\x01" + h(b"\x01" + leaves[0] + leaves[1]) + h(b"\x01" + leaves[2] + leaves[3]))
    forged = h(b"\x01" + left + h(b"\x01" + leaves[4] + leaves[5]))
    assert forged == tree(rows)
    honest = merkle.root("F16", (6, 1), leaves)
    assert honest == h(b"\x02F16 6 1\n" + forged).hex()
    assert merkle.pruned_root("F16", (7, 1), {6: rows[5]}, [left, leaves[4]]) != honest
    assert merkle.pruned_root("F16", (6, 1), {5: rows[5]}, [left, leaves[4]]) == honest


def test_witnesses_and_ties_cannot_be_bundled() -> None:
    speakable = Decider(BIASED).decide(0, parse_domain("readout"))
    assert speakable.proved is not None
    with pytest.raises(UsageError, match="cannot be bundled"):
        bundled(speakable.proved, BIASED.readout)
    for certificate in (
        speakable.proved.certificate,
        replace(HONEST.certificate, claim=replace(CLAIM, kind="tie-only", tie=STATE)),
    ):
        refuted(replace(HONEST, certificate=certificate), "cannot be bundled")


def _tie() -> tuple[Any, Any]:
    twins = model([[2, 0], [2, 0], [-1, 1]], "rmsnorm", dtype="F32")
    decision = Decider(twins).decide(0, parse_domain("readout"))
    assert decision.proved is not None
    assert isinstance(decision.claim, Unspeakable)
    assert decision.claim.kind == "tie-only"
    return twins, decision.proved.certificate


TWINS, TIE = _tie()
STATE = TIE.claim.tie


def test_a_tie_is_left_out_and_said_so() -> None:
    data, notes = bundled(prove(TIE, TWINS.readout), TWINS.readout)
    claim = prove_bundle(data).certificate.claim
    assert isinstance(claim, Unspeakable)
    assert (claim.kind, claim.tie) == ("unsettled", None)
    assert "left out" in notes[0]


def test_nan_in_a_row_of_a_bundle_is_refuted() -> None:
    bad = model([[6, 0], [0, float("nan")], [1, 1]], "rmsnorm", dtype="F16").readout
    w = bad.unembedding
    identity = TensorId("w", "F16", (3, 2), w.sha256, w.merkle)
    s = replace(HONEST.certificate.statement, tensors={"unembedding": identity}, token=0, competitors=3)
    claim = Unspeakable(Fraction(0), "unsettled", Multipliers((1,), (1,)))
    forged = Bundle(replace(HONEST.certificate, statement=s, claim=claim), {})
    forged = replace(forged, parts=bundle.make_parts(forged.certificate, bad))
    refuted(forged, "NaN")


Edit = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("wrong-version", lambda r: r.update(version=0)),
        ("wrong-version", lambda r: r["certificate"].update(version=2)),
        ("wrong-format", lambda r: r["certificate"].update(format="verify-bundle")),
        ("unknown-key", lambda r: r.update(extra=1)),
        ("missing-key", lambda r: r.pop("tensors")),
        ("value", lambda r: r.update(tensors=[])),
        ("value", lambda r: r.update(certificate=None)),
        ("unknown-key", lambda r: r["tensors"].update(other=r["tensors"]["bias"])),
        ("missing-key", lambda r: r["tensors"].pop("bias")),
        ("unknown-key", lambda r: r["tensors"]["bias"].update(x=0)),
        ("missing-key", lambda r: r["tensors"]["bias"].pop("proof")),
        ("notation", lambda r: r["tensors"]["bias"].update(bytes="0")),
        ("notation", lambda r: r["tensors"]["bias"].update(bytes="AA")),
        ("notation", lambda r: r["tensors"]["bias"].update(proof="")),
        ("notation", lambda r: r["tensors"]["bias"].update(proof="0" * 63)),
        ("notation", lambda r: r["tensors"]["bias"].update(rows="01")),
        ("value", lambda r: r["tensors"]["bias"].update(rows=0)),
        ("value", lambda r: r["tensors"]["bias"].update(bytes=None)),
    ],
)  # fmt: skip
def test_malformed_bundles_name_the_rule(rule: str, edit: Edit) -> None:
    root = json.loads(DATA)
    edit(root)
    data = (json.dumps(root, sort_keys=True, indent=1) + "\n").encode()
    for reader in (bundle.from_bytes, read, prove_bundle):
        if reader is read and root.get("format") != "verify-bundle":
            continue
        with pytest.raises(MalformedError) as caught:
            reader(data)
        assert caught.value.rule == rule


def test_a_bundle_in_other_spacing_is_malformed() -> None:
    with pytest.raises(MalformedError) as caught:
        prove_bundle(DATA.replace(b": ", b":  ", 1))
    assert caught.value.rule == "not-canonical"


def test_rows_give_nothing_but_what_they_hold() -> None:
    tensors = bundle.tensors_of(HONEST)
    rows = tensors["unembedding"]
    held = HONEST.parts["unembedding"].rows
    assert held is not None
    assert rows.integers(held) == BIASED.readout.unembedding.integers(held)
    absent = next(j for j in range(len(ROWS)) if j not in held)
    for use in (
        lambda: rows.integers([absent]), lambda: rows.raw, lambda: rows.sha256, lambda: rows.merkle,
        rows.vector, rows.require_finite, rows.leaves,
    ):  # fmt: skip
        with pytest.raises(RefutedError):
            use()


def test_conversion_between_the_stored_forms() -> None:
    certificate = from_bytes(Decider(PLAIN).decide(4, parse_domain("direction")).certificate)
    assert isinstance(certificate.claim, Unspeakable)
    spoken = from_bytes(Decider(PLAIN).decide(0, parse_domain("readout")).certificate)
    assert isinstance(spoken.claim, Speakable)
    proved, said = prove(certificate, PLAIN.readout), prove(spoken, PLAIN.readout)
    small = from_bytes(converted(proved, PLAIN.readout, "support"))
    assert isinstance(small.claim, Unspeakable)
    assert small.claim.multipliers.values is None
    again = from_bytes(converted(prove(small, PLAIN.readout), PLAIN.readout, "full"))
    assert isinstance(again.claim, Unspeakable)
    a, b = certificate.claim.multipliers.values, again.claim.multipliers.values
    assert a is not None
    assert b is not None
    assert len({Fraction(x, y) for x, y in zip(a, b, strict=True)}) == 1
    assert "converted" in again.provenance
    with pytest.raises(UsageError, match="already"):
        converted(proved, PLAIN.readout, "full")
    with pytest.raises(UsageError, match="already"):
        converted(said, PLAIN.readout, "full")
    with pytest.raises(UsageError, match="one form"):
        converted(said, PLAIN.readout, "support")
    ball = from_bytes(Decider(BIASED).decide(4, parse_domain("readout")).certificate)
    with pytest.raises(UsageError, match="in full only"):
        converted(prove(ball, BIASED.readout), BIASED.readout, "support")


def readout_of(t: Tensor) -> Readout:
    return Readout(norm="rmsnorm", unembedding=t, epsilon=Fraction(1, 10**5), epsilon_source="test")


def test_same_rows_under_another_root_are_another_statement() -> None:
    """The same numbers in another dtype, or with a row more, have another root."""
    a, b = tensor("w", ROWS, "F16"), tensor("w", ROWS, "F32")
    more = tensor("w", [*ROWS, [0, 0]], "F16")
    assert len({a.merkle, b.merkle, more.merkle}) == 3
    certificate = from_bytes(
        Decider(model(ROWS, "rmsnorm", dtype="F16")).decide(4, parse_domain("readout")).certificate
    )
    prove(certificate, replace(readout_of(a), epsilon=certificate.statement.epsilon))
    ids = dict(certificate.statement.tensors)
    forged = replace(
        certificate.statement, tensors={"unembedding": replace(ids["unembedding"], merkle=b.merkle)}
    )
    with pytest.raises(RefutedError, match="Merkle"):
        prove(replace(certificate, statement=forged), readout_of(a))

"""The standalone auditor and files: weights, hashes, shapes, bundles, and files that are none."""

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from desk import (
    HAND,
    INSIDE,
    SPEAKABLE,
    Desk,
    Model,
    audit,
    bundle,
    certificate,
    edit,
    safetensors,
    state,
    unspeakable,
    wide_model,
)

# --- Steps 4 and 5 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"token": 4},
        {"competitors": 3},
        {"competitors": 5, "competitor_rule": "tokenizer"},
        {"competitors": 0, "competitor_rule": "tokenizer"},
    ],
)
def test_numbers_out_of_range(desk: Desk, change: Any) -> None:
    desk.refutes(certificate(INSIDE["statement"] | change, INSIDE["claim"]), HAND)


def test_shapes(desk: Desk) -> None:
    claim = unspeakable([1], [1])
    one = Model([[1], [1]])
    desk.accepts(certificate(one.statement(), claim), one)
    desk.refutes(certificate(one.statement(norm="layernorm"), claim), one, "too small")
    for role, shape in (("gain", [3]), ("bias", [3]), ("shift", [1, 2]), ("unembedding", [4])):
        st = Model(HAND.rows, gain=[1, 1], shift=[0, 0], bias=[0] * 4).statement(token=3)
        st["tensors"][role]["shape"] = shape
        desk.refutes(certificate(st, INSIDE["claim"]), HAND)


@pytest.mark.parametrize(
    ("key", "other"), [("dtype", "BF16"), ("shape", [2, 4]), ("sha256", "0" * 64), ("merkle", "0" * 64)]
)
def test_a_tensor_that_is_not_the_stated_one(desk: Desk, key: str, other: Any) -> None:
    st = HAND.statement(token=3, competitors=2, competitor_rule="tokenizer")
    st["token"] = 0
    st["tensors"]["unembedding"][key] = other
    desk.refutes(certificate(st, unspeakable([1], [1])), HAND, key)


def test_finding_tensors(desk: Desk) -> None:
    desk.accepts(INSIDE, HAND, names={"unembedding": "elsewhere"})
    other = Model([[2, 0], [0, 2], [-2, -2], [0.25, 0.5]])
    desk.refutes(INSIDE, other, "another sha256")
    two = Model(HAND.rows)  # the stated name is that of another tensor; names are not compared
    two.tensors["other"] = other.tensors["unembedding"]
    desk.accepts(INSIDE, two, names={"unembedding": "elsewhere", "other": "the.unembedding"})
    desk.unavailable(INSIDE, other, "no tensor", names={"unembedding": "elsewhere"})
    bare = audit.audit_file(desk.file(INSIDE), [])
    assert bare.outcome == "unavailable"


def test_shards(desk: Desk) -> None:
    model = Model(HAND.rows, gain=[1, 1], shift=[0, 0])
    data = certificate(model.statement(token=3), INSIDE["claim"])
    first = model.weights(desk.new(".safetensors"), roles=["unembedding", "shift"])
    second = model.weights(desk.new(".safetensors"), roles=["gain"])
    assert audit.audit_file(desk.file(data), [first, second]).outcome == "accepted"
    assert audit.audit_file(desk.file(data), [first]).outcome == "unavailable"
    again = desk.new(".safetensors")
    again.write_bytes(Path(second).read_bytes())
    assert audit.audit_file(desk.file(data), [second, first, str(again)]).outcome == "unavailable"


# --- Safetensors files -----------------------------------------------------------------------------------


def entry(dtype: Any = "F16", shape: Any = (4, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{",
        b"{} {}",
        b"\xff",
        b"[" * 5000,
        {"w": 5},
        {"w": entry() | {"more": 1}},
        {"w": {"dtype": "F16", "shape": [4, 2]}},
        {"w": entry("F17")},
        {"w": entry(None)},
        {"w": entry(["F16"])},
        {"w": entry(shape=None)},
        {"w": entry(shape="4")},
        {"w": entry(shape=(8, True))},
        {"w": entry(shape=(-4, -2))},
        {"w": entry(shape=(4.0, 2))},
        {"w": entry(shape=(4, 3))},
        {"w": entry(shape=[10**18] * 30)},
        {"w": entry(shape=(10**25,))},
        {"w": entry(offsets=(0,))},
        {"w": entry(offsets=None)},
        {"w": entry(offsets=(16, 0))},
        {"w": entry(offsets=(8, 24))},
        {"w": entry(shape=(3, 2), offsets=(0, 12))},
        {"w": entry(shape=(3, 2), offsets=(4, 16))},
        {"w": entry(), "v": entry(shape=(1, 2), offsets=(0, 4))},
        {},
        {"w": entry(), "__metadata__": {"a": 1}},
        {"w": entry(), "__metadata__": []},
        b'{"w": {"dtype": "F16", "dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}}',
        b'{"w": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16.0]}}',
        b'{"w": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, NaN]}}',
    ],
    ids=str,
)
def test_broken_safetensors(desk: Desk, header: Any) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw = b"".join(HAND.cut("unembedding"))
    path = safetensors(desk.new(".safetensors"), {"w": ("F16", (4, 2), raw)}, text)
    result = audit.audit_file(desk.file(INSIDE), [path])
    assert result.outcome == "unavailable"
    assert len(result.reason.splitlines()) == 1


def test_safetensors_that_end_early(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path(HAND.weights(desk.new(".safetensors"))).read_bytes()
    for raw in (b"", whole[:7], whole[:20], b"\xff" * 16, whole[:-1], whole + b"\0"):
        path = desk.new(".safetensors")
        path.write_bytes(raw)
        assert audit.audit_file(desk.file(INSIDE), [str(path)]).outcome == "unavailable"
    monkeypatch.setattr(audit, "HEADER_LIMIT", 20)
    desk.unavailable(INSIDE, HAND, "header")


def test_safetensors_with_metadata_padding_and_empty_tensors(desk: Desk) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "empty": entry("I64", (0, 3), (0, 0)),
        "flag": entry("BOOL", (), (0, 1)),
        "the.unembedding": entry(offsets=(1, 17)),
    }
    raw = b"\1" + b"".join(HAND.cut("unembedding"))
    text = json.dumps(header).encode() + b"   "
    path = safetensors(desk.new(".safetensors"), {"x": ("U8", (17,), raw)}, text)
    assert audit.audit_file(desk.file(INSIDE), [path]).outcome == "accepted"


# --- Files that are no files -----------------------------------------------------------------------------


def test_paths_that_are_no_regular_files(desk: Desk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    good, weights = desk.file(INSIDE), HAND.weights(desk.new(".safetensors"))
    (tmp_path / "link").symlink_to(good)
    bad = [str(tmp_path / name) for name in ("fifo", "dangling", "loop", ".", "missing", "a\0b", "x" * 300)]
    for path in (*bad, "/dev/null"):
        assert audit.audit_file(path, [weights]).outcome == "unavailable"
        assert audit.audit_file(good, [path]).outcome == "unavailable"
        assert audit.audit_file(good, [weights], path).outcome == "unavailable"
    assert audit.audit_file(str(tmp_path / "link"), [weights]).outcome == "accepted"


def test_memory_and_reading_errors(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), OSError(5, "Input/output error")):

        def read(raw: bytes, error: Exception = error) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(audit, "read", read)
            desk.unavailable(INSIDE, HAND)


# --- Bundles ---------------------------------------------------------------------------------------------


def wide_bundle(gap: Any = 0, **changes: Any) -> tuple[Model, Any]:
    model = wide_model()
    st = model.statement(token=7, norm="layernorm", **changes)
    return model, bundle(model, certificate(st, unspeakable([9, 2], [1, 1], gap)))


def test_a_bundle_with_a_pruned_proof(desk: Desk) -> None:
    model, data = wide_bundle()
    assert data["tensors"]["unembedding"]["rows"] == "2 7 9"
    assert len(data["tensors"]["unembedding"]["proof"].split(" ")) == 6  # 01, 3, 45, 6, 8, 10
    result = desk.accepts(data)
    for role in model.tensors:
        merkle = model.stated(role)["merkle"]
        assert f"the {role} of the model is the tensor with Merkle root {merkle}" in result.hypotheses
    assert "the final norm is layernorm" in result.hypotheses
    desk.accepts(data["certificate"], model)
    desk.refutes(wide_bundle(Fraction(1, 10**9))[1])
    desk.accepts(wide_bundle(competitors=10, competitor_rule="tokenizer")[1])
    desk.refutes(wide_bundle(competitors=10)[1])


PART = "tensors/unembedding"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (f"{PART}/rows", lambda x: "2 9 7"),
        (f"{PART}/rows", lambda x: "2 7"),
        (f"{PART}/rows", lambda x: "2 7 9 10"),
        (f"{PART}/rows", lambda x: None),
        (f"{PART}/bytes", lambda x: x[:-4]),
        (f"{PART}/bytes", lambda x: x + "0000"),
        (f"{PART}/bytes", lambda x: ""),
        (f"{PART}/bytes", lambda x: ("1" if x[0] == "0" else "0") + x[1:]),
        (f"{PART}/proof", lambda x: None),
        (f"{PART}/proof", lambda x: x[65:]),
        (f"{PART}/proof", lambda x: x[:-65]),
        (f"{PART}/proof", lambda x: x + " " + x[:64]),
        (f"{PART}/proof", lambda x: x[65:130] + x[:65] + x[130:]),
        ("tensors/bias/rows", lambda x: "2 9"),
        ("tensors/bias/bytes", lambda x: "00000001" + x[8:]),
        ("tensors/gain/rows", lambda x: "0 1 2"),
        ("tensors/gain/proof", lambda x: "0" * 64),
        ("tensors/gain/bytes", lambda x: x[:-8]),
        ("tensors/gain/bytes", lambda x: x[8:16] + x[:8] + x[16:]),
        ("certificate/statement/tensors/shift/sha256", lambda x: "0" * 64),
        ("certificate/statement/tensors/shift/merkle", lambda x: "0" * 64),
        ("certificate/statement/tensors/bias/merkle", lambda x: "0" * 64),
        ("certificate/statement/tensors/unembedding/shape", lambda x: [12, 3]),
        ("certificate/statement/tensors/unembedding/shape", lambda x: [2**40, 3]),
        ("certificate/statement/tensors/unembedding/dtype", lambda x: "BF16"),
        ("certificate/statement/token", lambda x: 11),
        ("certificate/claim/multipliers/rows", lambda x: "9 11"),
        ("certificate/claim/multipliers/rows", lambda x: "9 7"),
        ("certificate/claim/multipliers/rows", lambda x: "9 9"),
    ],
)
def test_a_bundle_with_something_wrong(desk: Desk, path: str, change: Any) -> None:
    _, data = wide_bundle()
    at = data
    for key in path.split("/"):
        at = at[key]
    desk.refutes(edit(data, path, change(at)))


def test_only_unspeakable_without_a_tie_is_bundled(desk: Desk) -> None:
    part = {"unembedding": {"rows": "0", "bytes": "00", "proof": None}}
    whole = {"format": "verify-bundle", "version": 1, "certificate": SPEAKABLE, "tensors": part}
    desk.refutes(whole, reason="bundled")
    model = Model([[1, 0], [1, 0]])
    inner = certificate(model.statement(), unspeakable([1], [1], 0, "tie-only", state(2, [1, 0])))
    desk.accepts(inner, model)
    desk.refutes(bundle(model, inner), reason="bundled")


def test_a_support_only_bundle(desk: Desk) -> None:
    inner = certificate(INSIDE["statement"], unspeakable([0, 1, 2], None, kind="never"))
    desk.accepts(bundle(HAND, inner))

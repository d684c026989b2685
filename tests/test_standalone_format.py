"""The standalone auditor and the format: every rule of section 1 and 2 has its error."""

import json
from typing import Any

import pytest
from desk import (
    BUNDLE,
    HAND,
    INSIDE,
    SPEAKABLE,
    TEXT,
    Desk,
    Model,
    audit,
    canonical,
    certificate,
    edit,
    speakable,
    state,
)

# --- Malformed files -------------------------------------------------------------------------------------

TENSOR = "statement/tensors/unembedding"


FIELDS = [
    (INSIDE, "format", "verify-something", "wrong-format"),
    (INSIDE, "format", 7, "wrong-format"),
    (INSIDE, "version", 0, "wrong-version"),
    (INSIDE, "version", True, "wrong-version"),
    (INSIDE, "version", "1", "wrong-version"),
    (INSIDE, "version", ..., "wrong-version"),
    (INSIDE, "format", ..., "wrong-format"),
    (INSIDE, "claim", ..., "missing-key"),
    (INSIDE, "claim/tie", ..., "missing-key"),
    (INSIDE, "claim/verdict", ..., "missing-key"),
    (INSIDE, "statement/tensors/unembedding", ..., "missing-key"),
    (INSIDE, "comment", "x", "unknown-key"),
    (INSIDE, "claim/margin", "1/1", "unknown-key"),
    (INSIDE, "statement/tensors/scale", HAND.stated("unembedding"), "unknown-key"),
    (INSIDE, "statement", [], "value"),
    (INSIDE, "claim", None, "value"),
    (INSIDE, "claim/verdict", "maybe", "value"),
    (INSIDE, "claim/verdict", 1, "value"),
    (INSIDE, "claim/kind", "ever", "value"),
    (INSIDE, "claim/gap", 0, "value"),
    (INSIDE, "claim/gap", "0", "notation"),
    (INSIDE, "claim/gap", "0/1/1", "notation"),
    (INSIDE, "claim/gap", "2/4", "notation"),
    (INSIDE, "claim/gap", "1/0", "notation"),
    (INSIDE, "claim/gap", "1/-2", "notation"),
    (INSIDE, "claim/gap", "0/2", "notation"),
    (INSIDE, "claim/gap", "-0/1", "notation"),
    (INSIDE, "claim/gap", "A/1", "notation"),
    (INSIDE, "claim/gap", "1" * (2**15 + 1) + "/1", "oversized"),
    (INSIDE, "claim/multipliers", None, "value"),
    (INSIDE, "claim/multipliers/rows", [0, 1, 2], "value"),
    (INSIDE, "claim/multipliers/rows", "", "notation"),
    (INSIDE, "claim/multipliers/rows", "0  1", "notation"),
    (INSIDE, "claim/multipliers/rows", "0 1 ", "notation"),
    (INSIDE, "claim/multipliers/rows", "00 1 2", "notation"),
    (INSIDE, "claim/multipliers/rows", "0\n1", "notation"),
    (INSIDE, "claim/multipliers/rows", "1" * 17, "notation"),
    (INSIDE, "claim/multipliers/rows", "0 1 a", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 03", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 0x2", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 -0", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 +2", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 --2", "notation"),
    (INSIDE, "claim/multipliers/values", "3 3 " + "f" * (2**18 + 1), "oversized"),
    (INSIDE, "claim/multipliers/values", "1" + " 1" * 2**20, "oversized"),
    (INSIDE, "provenance", {"a": 1}, "value"),
    (INSIDE, "provenance", {"a": "x" * 65537}, "oversized"),
    (INSIDE, "provenance", {"x" * 65537: ""}, "oversized"),
    (INSIDE, "provenance", "x", "value"),
    (INSIDE, "provenance", {str(i): "" for i in range(65537)}, "oversized"),
    (INSIDE, "provenance", {"a": "," * 65537}, "oversized"),
    (INSIDE, "statement/model", None, "value"),
    (INSIDE, "statement/revision", 5, "value"),
    (INSIDE, "statement/text", ["x"], "value"),
    (INSIDE, "statement/files", {"config.json": None}, "value"),
    (INSIDE, "statement/norm", "batchnorm", "value"),
    (INSIDE, "statement/gain_offset", 2, "value"),
    (INSIDE, "statement/gain_offset", True, "value"),
    (INSIDE, "statement/gain_offset", "0", "value"),
    (INSIDE, "statement/token", -1, "value"),
    (INSIDE, "statement/token", 2**40 + 1, "value"),
    (INSIDE, "statement/token", 10**30, "value"),
    (INSIDE, "statement/competitor_rule", "some", "value"),
    (INSIDE, "statement/epsilon", "00.1", "notation"),
    (INSIDE, "statement/epsilon", "0.10", "notation"),
    (INSIDE, "statement/epsilon", ".1", "notation"),
    (INSIDE, "statement/epsilon", "1.", "notation"),
    (INSIDE, "statement/epsilon", "1e-5", "notation"),
    (INSIDE, "statement/epsilon", "-1", "notation"),
    (INSIDE, "statement/epsilon", "1" * 201, "notation"),
    (INSIDE, "statement/epsilon", "0." + "1" * 201, "notation"),
    (INSIDE, "statement/epsilon", "0.1\n", "notation"),
    (INSIDE, "statement/domain", "everywhere", "value"),
    (INSIDE, "statement/domain", 1, "value"),
    (INSIDE, "statement/domain", "box:0", "value"),
    (INSIDE, "statement/domain", "box:01", "value"),
    (INSIDE, "statement/domain", "box:1.0", "value"),
    (INSIDE, "statement/domain", "box:-1", "value"),
    (INSIDE, "statement/domain", "box:" + "1" * 19, "value"),
    (INSIDE, "statement/domain", "box:", "value"),
    (INSIDE, "statement/domain", "box:1\n", "value"),
    (INSIDE, "statement/domain", "box:" + "1" * 18 + "." + "1" * 18, "value"),
    (INSIDE, f"{TENSOR}/dtype", "I8", "value"),
    (INSIDE, f"{TENSOR}/shape", [4, 2, 1], "value"),
    (INSIDE, f"{TENSOR}/shape", [], "value"),
    (INSIDE, f"{TENSOR}/shape", "4 2", "value"),
    (INSIDE, f"{TENSOR}/shape", [4, -2], "value"),
    (INSIDE, f"{TENSOR}/sha256", "A" * 64, "notation"),
    (INSIDE, f"{TENSOR}/merkle", "a" * 63, "notation"),
    (SPEAKABLE, "claim/state/k", 2**14 + 1, "oversized"),
    (SPEAKABLE, "claim/state/k", -1, "value"),
    (SPEAKABLE, "claim/state/p", "f" * (2**12 + 1) + " 1", "oversized"),
    (SPEAKABLE, "claim/state/p", "1 01", "notation"),
    (SPEAKABLE, "claim/residual/dtype", "F8", "value"),
    (SPEAKABLE, "claim/residual", speakable(1), "missing-key"),
    (BUNDLE, "version", 2, "wrong-version"),
    (BUNDLE, "certificate", ..., "missing-key"),
    (BUNDLE, "certificate/format", "verify-bundle", "wrong-format"),
    (BUNDLE, "certificate/version", 2, "wrong-version"),
    (BUNDLE, "certificate/claim/gap", "2/4", "notation"),
    (BUNDLE, "tensors", {}, "missing-key"),
    (BUNDLE, "tensors/gain", {"rows": None, "bytes": "", "proof": None}, "unknown-key"),
    (BUNDLE, "tensors/unembedding/bytes", "A0", "notation"),
    (BUNDLE, "tensors/unembedding/bytes", "a", "notation"),
    (BUNDLE, "tensors/unembedding/bytes", None, "value"),
    (BUNDLE, "tensors/unembedding/proof", "a" * 63, "notation"),
    (BUNDLE, "tensors/unembedding/rows", "a", "notation"),
]


@pytest.mark.parametrize(("data", "path", "new", "name"), FIELDS, ids=lambda x: str(x)[:30])
def test_a_field_that_breaks_a_rule(desk: Desk, data: Any, path: str, new: Any, name: str) -> None:
    result = desk.audit(edit(data, path, new), HAND)
    assert (result.outcome, result.error) == ("malformed", name), result.reason
    assert not result.hypotheses


@pytest.mark.parametrize(
    ("data", "path", "new"),
    [
        (INSIDE, "statement/norm", "none"),
        (INSIDE, "claim/kind", "tie-only"),
        (INSIDE, "claim/tie", state(0, [1, 0])),
        (INSIDE, "claim/gap", "-1/2"),
        (SPEAKABLE, "claim/at_most", "5/1"),
        (SPEAKABLE, "claim/ceiling", {"rows": "1", "values": "1"}),
        (SPEAKABLE, "claim/margin", "0/1"),
        (SPEAKABLE, "claim/margin", "-1/1"),
        (SPEAKABLE, "statement/domain", "free"),
    ],
)
def test_a_field_that_a_later_step_refuses(desk: Desk, data: Any, path: str, new: Any) -> None:
    desk.refutes(edit(data, path, new), HAND)


def test_no_witness_and_a_bundle_without_a_tensor(desk: Desk) -> None:
    desk.refutes(certificate(HAND.statement(), speakable(1)), HAND, "no witness")
    copy = edit(BUNDLE, "certificate/statement/tensors/gain", Model([[1, 1]], gain=[1, 1]).stated("gain"))
    assert desk.audit(copy, HAND).error == "missing-key"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"", "not-json"),
        (b"\xef\xbb\xbf" + TEXT.encode(), "not-json"),
        (TEXT.replace("by hand", "b\u00fc hand"), "not-json"),
        (TEXT[:-3], "not-json"),
        (TEXT.replace('"token": 3', '"token": 03'), "not-json"),
        (TEXT.replace("by hand", "by\x01hand"), "not-json"),
        ("[" * 60000, "not-json"),
        ("[]", "value"),
        ("3", "value"),
        (TEXT + "\n", "trailing-bytes"),
        (TEXT + "{}", "trailing-bytes"),
        (TEXT + " ", "trailing-bytes"),
        (TEXT.replace(' "version": 1', ' "version": 1,\n "version": 1'), "duplicate-key"),
        (TEXT.replace('"token": 3', '"token": 3,\n  "token": 3'), "duplicate-key"),
        (TEXT.replace('"token": 3', '"token": NaN'), "not-finite"),
        (TEXT.replace('"token": 3', '"token": -Infinity'), "not-finite"),
        (TEXT.replace('"token": 3', '"token": 3.0'), "float"),
        (TEXT.replace('"token": 3', '"token": 3e0'), "float"),
        (TEXT[:-1], "not-canonical"),
        (" " + TEXT, "not-canonical"),
        (TEXT.replace("\n", "\r\n"), "trailing-bytes"),
        (TEXT[:-1].replace("\n", "\r\n"), "not-canonical"),
        (json.dumps(INSIDE), "not-canonical"),
        (json.dumps(INSIDE, indent=1) + "\n", "not-canonical"),
        (TEXT.replace("by hand", "b\\u0079 hand"), "not-canonical"),
        (TEXT.replace("by hand", "by\\/hand"), "not-canonical"),
        (TEXT.replace('"gain_offset": 0', '"gain_offset": -0'), "not-canonical"),
        (canonical(BUNDLE).replace("  ", " "), "not-canonical"),
        (canonical(INSIDE | {"provenance": {"a": "\u00e9"}}).replace("00e9", "00E9"), "not-canonical"),
    ],
    ids=range(29),
)
def test_bytes_that_break_a_rule(desk: Desk, text: Any, name: str) -> None:
    result = desk.audit(text, HAND)
    assert (result.outcome, result.error) == ("malformed", name), result.reason


def test_strings_that_are_allowed(desk: Desk) -> None:
    odd = {"": "\0\x7f\n\u202e\U0001f600", "lone": "\ud800", "long": "x" * 65536}
    st = HAND.statement(token=3, revision="main", text="\x1b[2J\u202e", files={"tokenizer.json": "0" * 64})
    desk.accepts(certificate(st, INSIDE["claim"]) | {"provenance": odd}, HAND)
    for bad in ("?", "0" * 63, "0" * 65, "A" * 64):
        st["files"] = {"tokenizer.json": bad}
        assert desk.audit(certificate(st, INSIDE["claim"]), HAND).error == "notation"


def test_a_file_that_is_too_large(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "FILE_LIMIT", len(TEXT))
    desk.accepts(TEXT, HAND)
    assert desk.audit(TEXT + "\n", HAND).error == "oversized"

"""The JSON Schema of certificate files: well-formed files are valid by it, and what it cannot say is listed.

The schema is for editors and other programs; the kernel does not use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from built_models import every_form_of_claim
from built_models import model as build_model
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from verify import errors
from verify.decide import Decider
from verify.errors import MalformedError
from verify.forms import bundled
from verify.kernel import (
    Certificate,
    Statement,
    TensorId,
    from_bytes,
    parse_domain,
    read,
    strict_json,
    to_bytes,
)
from verify.kernel.evidence import KINDS
from verify.kernel.readout import NORMS, ROLES
from verify.kernel.statement import COMPETITOR_RULES
from verify.kernel.tensor import DTYPES

SCHEMA: dict[str, Any] = json.loads(files("verify").joinpath("schemas/certificate-1.schema.json").read_text())
DEFINED: dict[str, Any] = SCHEMA["$defs"]
VALIDATOR = Draft202012Validator(SCHEMA)
TESTS = Path(__file__).parent

SQUARE = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0], [1, 0]]
MODEL = build_model(SQUARE, "layernorm", gain=[1, 2], shift=[0, 1], bias=[0, 0, 0, 0, -3, 0])
DECIDED = [
    Decider(MODEL, stored=stored).decide(token, parse_domain(domain)).proved
    for token, domain, stored in (
        (0, "readout", "full"), (4, "readout", "full"), (5, "direction", "full"), (4, "free", "support"),
        (0, "free", "full"), (4, "box:0.5", "full"), (4, "direction", "support"),
    )
]  # fmt: skip
CERTIFICATES = [to_bytes(x.certificate) for x in DECIDED if x is not None]
BUNDLES = [bundled(x, MODEL.readout)[0] for x in DECIDED if x is not None and x.verdict == "unspeakable"]


def valid(data: bytes | Any) -> bool:
    return bool(VALIDATOR.is_valid(json.loads(data) if isinstance(data, bytes) else data))


def of(verdict: str) -> Any:
    return next(x for x in map(json.loads, CERTIFICATES) if x["claim"]["verdict"] == verdict)


# ---- the schema itself ----


def subschemas(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            yield from subschemas(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for i, value in enumerate(schema):
            yield from subschemas(value, f"{path}/{i}")


def test_the_schema_is_valid_and_names_no_host() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"].startswith("urn:uuid:")
    for path, schema in subschemas(SCHEMA):
        reference = schema.get("$ref")
        assert reference is None or reference.removeprefix("#/$defs/") in DEFINED, path


def test_every_object_is_closed_and_every_key_is_described() -> None:
    for path, schema in subschemas(SCHEMA):
        if schema.get("type") == "object":
            assert "additionalProperties" in schema, path
        for key, value in schema.get("properties", {}).items() if schema.get("type") == "object" else ():
            target = DEFINED.get(value.get("$ref", "").removeprefix("#/$defs/"), {})
            assert "description" in value or "description" in target, f"{path}/{key}"
        if "properties" in schema and "required" in schema and "unembedding" not in schema["properties"]:
            assert set(schema["required"]) == set(schema["properties"]), path


def test_keys_words_and_limits_are_the_kernel_s() -> None:
    statement, tensor = DEFINED["statement"]["properties"], DEFINED["tensor"]["properties"]
    assert set(statement) == set(Statement.__dataclass_fields__)
    assert set(tensor) == set(TensorId.__dataclass_fields__)
    assert set(statement["tensors"]["properties"]) == set(ROLES)
    assert set(DEFINED["bundle"]["properties"]["tensors"]["properties"]) == set(ROLES)
    for found, wanted in (
        (statement["norm"]["enum"], NORMS),
        (statement["competitor_rule"]["enum"], COMPETITOR_RULES),
        (DEFINED["unspeakable"]["properties"]["kind"]["enum"], KINDS),
        (DEFINED["dtype"]["enum"], DTYPES),
    ):
        assert sorted(found) == sorted(wanted)
    assert DEFINED["version"]["const"] == strict_json.VERSION
    assert DEFINED["text"]["maxLength"] == DEFINED["optional_text"]["maxLength"] == strict_json.MAX_TEXT
    assert DEFINED["count"]["maximum"] == 1 << 40
    assert DEFINED["shift"]["maximum"] == 1 << 14


def test_patterns_are_of_the_part_of_regular_expressions_that_languages_share() -> None:
    for path, schema in subschemas(SCHEMA):
        if isinstance(schema.get("pattern"), str):
            assert schema["pattern"].startswith("^"), path
            assert schema["pattern"].endswith("$"), path
            assert not re.search(r"\(\?|\\[^.]|[*+}][?+]", schema["pattern"]), path


# ---- what is well-formed is valid ----


@pytest.mark.parametrize("data", [*CERTIFICATES, *BUNDLES])
def test_what_this_program_writes_is_valid(data: bytes) -> None:
    assert valid(data)


def test_every_form_of_claim_is_valid() -> None:
    statement = from_bytes(CERTIFICATES[0]).statement
    for claim in every_form_of_claim():
        certificate = Certificate(statement, claim, {"tool": 'é \ud800 \U0001f600 "\\\n', "": ""})
        assert valid(to_bytes(certificate))


def test_every_well_formed_file_of_the_corpus_is_valid() -> None:
    if not (TESTS / "corpus" / "accept").is_dir():
        pytest.skip("there is no corpus")
    seen = 0
    for path in sorted((TESTS / "corpus").rglob("*.json")):
        if not path.is_file():  # a link to nowhere, say
            continue
        data = path.read_bytes()
        try:
            read(data)
        except MalformedError:
            assert path.parent.name != "accept", path
            continue
        assert valid(data), path
        seen += path.parent.name == "accept"
    assert seen > 50


def test_the_worked_examples_are_valid() -> None:
    docs = TESTS.parent / "docs"
    found = re.findall(r"```json\n(\{\n.*?\n\}\n)```", (docs / "certificates.md").read_text(), re.DOTALL)
    assert found
    for text in [*found, *(p.read_text() for p in (docs / "examples").glob("*.json"))]:
        assert valid(text.encode())


# ---- what is not valid ----


def objects(root: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of the objects with fixed keys."""
    if not isinstance(root, dict):
        return []
    inner = [found for key in root for found in objects(root[key], (*path, key))]
    return inner if path and path[-1] in ("provenance", "files") else [path, *inner]


def at(root: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        root = root[key]
    return root


@pytest.mark.parametrize("data", [*CERTIFICATES[:4], BUNDLES[0]])
def test_missing_and_unknown_keys_and_wrong_types_everywhere(data: bytes) -> None:
    for path in objects(json.loads(data)):
        for key in list(at(json.loads(data), path)):
            without = json.loads(data)
            del at(without, path)[key]
            # An optional role may be missing in a statement; a bundle then has one too many, which the
            # schema cannot say.
            optional = key in ("gain", "shift", "bias")
            assert valid(without) == optional, (path, key)
            wrong: Any
            for wrong in (True, 1.5, [], [[]], -1):
                changed = json.loads(data)
                at(changed, path)[key] = wrong
                assert not valid(changed), (path, key, wrong)
        more = json.loads(data)
        at(more, path)["more"] = None
        assert not valid(more), path


def claim_edit(verdict: str, key: str, value: Any) -> Any:
    root = of(verdict)
    root["claim"][key] = value
    return root


def statement_edit(key: str, value: Any) -> Any:
    root = of("unspeakable")
    root["statement"][key] = value
    return root


WRONG: dict[str, list[Any]] = {
    "fraction": ["1", "1/0", "1/-1", "+1/2", "01/2", "1/02", "A/2", "-0/1", "1 /2", "1/2/3", "0x1/2"],
    "epsilon": ["", ".5", "5.", "0.50", "01", "1e-5", "-1", "0." + "0" * 200 + "1", "1" * 201, "1/2", " 1"],
    "domain": ["", "all", "box", "box:", "box:0", "box:0.0", "box:01", "box:1.0", "box:-1", "box:" + "1" * 19,
               "box:1e3", "readout ", "box:" + "1" * 18 + "." + "1" * 18],
    "rows": ["", " ", "1 ", " 1", "1  2", "01", "-1", "a", "1,2", "1" * 17],
    "hex": ["", " ", "1 ", "1  2", "01", "-0", "A", "0x1", "1\t2", "--1", "1.0"],
    "hash": ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64],
    "count": [-1, (1 << 40) + 1, 0.5, "0", True, None],
    "bytes": ["0", "0G", "AA", "00 00", "00 "],
    "proof": ["", "0" * 64 + " ", "0" * 63, "0" * 64 + "  " + "0" * 64, "F" * 64],
}  # fmt: skip


def wrongly_written() -> Iterator[Any]:
    for x in WRONG["fraction"]:
        yield claim_edit("unspeakable", "gap", x)
        yield claim_edit("speakable", "margin", x)
        yield claim_edit("speakable", "at_most", x)
    for x in WRONG["epsilon"]:
        yield statement_edit("epsilon", x)
    for x in WRONG["domain"]:
        yield statement_edit("domain", x)
    for x in WRONG["rows"]:
        yield claim_edit("unspeakable", "multipliers", {"rows": x, "values": None})
    for x in WRONG["hex"]:
        yield claim_edit("unspeakable", "multipliers", {"rows": "0", "values": x})
        yield claim_edit("speakable", "state", {"k": 0, "p": x})
        yield claim_edit("speakable", "residual", {"k": 0, "p": x, "dtype": "F16"})
    for x in WRONG["hash"]:
        yield statement_edit("files", {"config.json": x})
        for key in ("sha256", "merkle"):
            tensors = of("unspeakable")["statement"]["tensors"]
            tensors["unembedding"][key] = x
            yield statement_edit("tensors", tensors)
    for x in WRONG["count"]:
        yield statement_edit("token", x)
        yield statement_edit("competitors", x)
    for key in ("bytes", "proof", "rows"):
        for x in WRONG[key]:
            bundle = json.loads(BUNDLES[0])
            bundle["tensors"]["unembedding"][key] = x
            yield bundle
    yield claim_edit("speakable", "state", {"k": (1 << 14) + 1, "p": "0"})
    yield claim_edit("unspeakable", "kind", "always")
    yield claim_edit("unspeakable", "verdict", "speakable")
    yield statement_edit("model", "x" * (strict_json.MAX_TEXT + 1))
    yield statement_edit("gain_offset", 2)
    yield statement_edit("norm", "LayerNorm")
    yield {**of("speakable"), "version": 0}
    yield {**of("speakable"), "version": 2}
    yield {**of("speakable"), "version": "1"}
    yield {**of("speakable"), "format": "verify-bundle"}
    yield {**json.loads(BUNDLES[0]), "format": "verify-certificate"}
    yield from (None, [], {}, "", 1, [of("speakable")])


def test_wrong_notation_is_not_valid_and_malformed() -> None:
    for root in wrongly_written():
        assert not valid(root), root
        with pytest.raises(MalformedError):
            read(strict_json.write(root))


# ---- what the schema cannot say: valid, and malformed all the same ----


def text_of(root: Any) -> bytes:
    return strict_json.write(root)


def with_p(p: str) -> bytes:
    return text_of(claim_edit("speakable", "state", {"k": 0, "p": p}))


def bundle_without(role: str) -> bytes:
    root = json.loads(BUNDLES[0])
    del root["tensors"][role]
    return text_of(root)


def replaced(old: bytes, new: bytes) -> Callable[[], bytes]:
    return lambda: CERTIFICATES[0].replace(old, new, 1)


UNSAID: dict[str, tuple[type[MalformedError], Callable[[], bytes]]] = {
    "the order of keys": (
        errors.NotCanonicalError,
        lambda: (json.dumps(dict(reversed(of("speakable").items())), indent=1) + "\n").encode(),
    ),
    "spaces between tokens": (errors.NotCanonicalError, replaced(b'": ', b'":  ')),
    "escapes of plain characters": (errors.NotCanonicalError, replaced(b'"readout"', b'"\\u0072eadout"')),
    "the last line feed": (errors.NotCanonicalError, lambda: CERTIFICATES[0].rstrip(b"\n")),
    "what follows the value": (errors.TrailingBytesError, lambda: CERTIFICATES[0] + b"\n"),
    "ASCII": (errors.NotJsonError, replaced(b'"test"', '"té"'.encode())),
    "a key twice": (errors.DuplicateKeyError, replaced(b' "version": 1', b' "version": 1,\n "version": 1')),
    "a number with a point": (errors.FloatNumberError, replaced(b'"version": 1', b'"version": 1.0')),
    "a number with an exponent": (errors.FloatNumberError, replaced(b'"token": 0', b'"token": 0e0')),
    "minus zero": (errors.NotationError, replaced(b'"gain_offset": 0', b'"gain_offset": -0')),
    "lowest terms": (
        errors.NotationError, lambda: text_of(claim_edit("unspeakable", "gap", "2/4"))
    ),
    "digits of an entry of a vector": (
        errors.OversizedError, lambda: with_p("1" * (strict_json.ENTRY_DIGITS + 1))
    ),
    "items of a list": (errors.OversizedError, lambda: with_p("0 " * strict_json.MAX_ITEMS + "0")),
    "objects and items in all": (
        errors.OversizedError,
        lambda: text_of({**of("speakable"), "provenance": {"tool": "," * (strict_json.MAX_CONTAINERS)}}),
    ),
    # In ECMAScript, whose expressions JSON Schema means, $ does not match before a last line feed.
    "a line feed at the end, to a validator whose $ matches before one": (
        errors.NotationError, lambda: text_of(statement_edit("epsilon", "0.5\n"))
    ),
    "the roles of a bundle are its statement's": (errors.MissingKeyError, lambda: bundle_without("bias")),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSAID)
def test_what_the_schema_cannot_say(what: str) -> None:
    error, make = UNSAID[what]
    data = make()
    assert data not in CERTIFICATES
    assert valid(data)
    with pytest.raises(error):
        read(data)

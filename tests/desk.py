"""Files for the tests of the standalone auditor, made by hand.

Nothing here is computed by the auditor itself or by `verify`: tensors are packed, hashed and put into trees
by the few lines below, and margins are those of the definitions in docs/soundness.md, in fractions.
"""

import hashlib
import json
import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

from standalone import AUDITOR, load_standalone

ROOT = Path(__file__).parents[1]
SOURCE = AUDITOR
DOC = (ROOT / "docs" / "certificates.md").read_text(encoding="utf-8")


audit: Any = load_standalone()


def pack(dtype: str, numbers: Any) -> bytes:
    if dtype == "BF16":
        return b"".join(struct.pack("<f", x)[2:] for x in numbers)
    code = {"F16": "e", "F32": "f", "F64": "d", "I32": "i"}[dtype]
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def H(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def split(n: int) -> int:
    s = 1
    while 2 * s < n:
        s *= 2
    return s


def tree(rows: list[bytes]) -> bytes:
    if len(rows) == 1:
        return H(b"\0" + rows[0])
    s = split(len(rows))
    return H(b"\1" + tree(rows[:s]) + tree(rows[s:]))


def proof(rows: list[bytes], needed: set[int], lo: int = 0) -> list[str]:
    if not any(lo <= j < lo + len(rows) for j in needed):
        return [tree(rows).hex()]
    if len(rows) == 1:
        return []
    s = split(len(rows))
    return proof(rows[:s], needed, lo) + proof(rows[s:], needed, lo + s)


class Model:
    """Tensors as nested lists of numbers; what a statement says about them; a safetensors file."""

    def __init__(self, rows: Any, dtype: str = "F16", vectors_dtype: str = "F32", **vectors: Any) -> None:
        self.rows, self.vectors = rows, vectors
        self.tensors: dict[str, tuple[str, tuple[int, ...], Any]] = {
            "unembedding": (dtype, (len(rows), len(rows[0])), [x for row in rows for x in row])
        }
        for role, numbers in vectors.items():
            self.tensors[role] = (vectors_dtype, (len(numbers),), numbers)

    def cut(self, role: str) -> list[bytes]:
        dtype, shape, numbers = self.tensors[role]
        data = pack(dtype, numbers)
        size = len(data) // shape[0]
        return [data[i : i + size] for i in range(0, len(data), size)]

    def stated(self, role: str, name: str | None = None) -> dict[str, Any]:
        dtype, shape, _ = self.tensors[role]
        head = " ".join([dtype, *map(str, shape)]).encode() + b"\n"
        return {
            "name": name or f"the.{role}",
            "dtype": dtype,
            "shape": list(shape),
            "sha256": hashlib.sha256(b"".join(self.cut(role))).hexdigest(),
            "merkle": H(b"\2" + head + tree(self.cut(role))).hex(),
        }

    def weights(self, path: Path, names: Any = None, roles: Any = None) -> str:
        return safetensors(
            path,
            {
                (names or {}).get(role, f"the.{role}"): (*self.tensors[role][:2], b"".join(self.cut(role)))
                for role in roles or self.tensors
            },
        )

    def statement(self, **changes: Any) -> dict[str, Any]:
        return {
            "model": "by hand",
            "revision": None,
            "tensors": {role: self.stated(role) for role in self.tensors},
            "norm": "rmsnorm",
            "gain_offset": 0,
            "epsilon": "0.00001",
            "epsilon_source": "by hand",
            "files": {},
            "token": 0,
            "text": None,
            "domain": "readout",
            "competitors": len(self.rows),
            "competitor_rule": "all",
        } | changes


def safetensors(path: Path, tensors: dict[str, tuple[str, Any, bytes]], header: Any = None) -> str:
    entries, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(entries).encode() if header is None else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, indent=1) + "\n"


def certificate(statement: Any, claim: Any) -> dict[str, Any]:
    return {
        "format": "verify-certificate",
        "version": 1,
        "statement": statement,
        "claim": claim,
        "provenance": {"tool": "hand"},
    }


def hexes(numbers: Any) -> str:
    return " ".join(f"{x:x}" for x in numbers)


def ratio(q: Any) -> str:
    q = Fraction(q)
    return f"{q.numerator:x}/{q.denominator:x}"


def unspeakable(rows: Any, values: Any, gap: Any = 0, kind: str = "unsettled", tie: Any = None) -> Any:
    return {
        "verdict": "unspeakable",
        "gap": ratio(gap),
        "kind": kind,
        "multipliers": {
            "rows": " ".join(map(str, rows)),
            "values": None if values is None else hexes(values),
        },
        "tie": tie,
    }


def state(k: int, p: Any) -> dict[str, Any]:
    return {"k": k, "p": hexes(p)}


def residual(dtype: str, k: int, p: Any) -> dict[str, Any]:
    return {"dtype": dtype, "k": k, "p": hexes(p)}


def speakable(margin: Any, z: Any = None, r: Any = None, ceiling: Any = None, at_most: Any = None) -> Any:
    return {
        "verdict": "speakable",
        "margin": ratio(margin),
        "state": z,
        "residual": r,
        "ceiling": ceiling,
        "at_most": at_most,
    }


def bundle(model: Model, data: Any, **changes: Any) -> dict[str, Any]:
    support = {int(j) for j in data["claim"]["multipliers"]["rows"].split(" ")}
    needed = sorted(support | {data["statement"]["token"]})
    tensors = {}
    for role in model.tensors:
        cut = model.cut(role)
        if role in ("gain", "shift"):
            tensors[role] = {"rows": None, "bytes": b"".join(cut).hex(), "proof": None}
        else:
            tensors[role] = {
                "rows": " ".join(map(str, needed)),
                "bytes": b"".join(cut[j] for j in needed).hex(),
                "proof": " ".join(proof(cut, set(needed))) or None,
            }
    whole = {"format": "verify-bundle", "version": 1, "certificate": data, "tensors": tensors}
    return whole | changes


class Desk:
    """Audits text or data beside the weights of a model, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def new(self, suffix: str) -> Path:
        self.made += 1
        return self.folder / f"{self.made}{suffix}"

    def file(self, data: Any) -> str:
        path = self.new(".json")
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            path.write_text(data if isinstance(data, str) else canonical(data), encoding="utf-8")
        return str(path)

    def audit(self, data: Any, model: Model | None = None, config: Any = None, **weights: Any) -> Any:
        files = [] if model is None else [model.weights(self.new(".safetensors"), **weights)]
        text = None if config is None else self.file(config)
        return audit.audit_file(self.file(data), files, text)

    def accepts(self, data: Any, model: Model | None = None, **rest: Any) -> Any:
        result = self.audit(data, model, **rest)
        assert (result.outcome, result.error) == ("accepted", None), result.reason
        return result

    def refutes(self, data: Any, model: Model | None = None, reason: str = "", **rest: Any) -> None:
        result = self.audit(data, model, **rest)
        assert result.outcome == "refuted", result
        assert reason in result.reason

    def unavailable(self, data: Any, model: Model | None = None, reason: str = "", **rest: Any) -> None:
        result = self.audit(data, model, **rest)
        assert result.outcome == "unavailable", result
        assert reason in result.reason


HAND = Model([[2, 0], [0, 2], [-2, -2], [0.25, 0.25]])  # the model of section 9


INSIDE = certificate(HAND.statement(token=3), unspeakable([0, 1, 2], [3, 3, 2], kind="never"))


class Truth:
    """Section 1 of docs/soundness.md, word for word, for one statement about a model."""

    def __init__(self, model: Model, st: Any) -> None:
        take = {role: [Fraction(x) for x in numbers] for role, (_, _, numbers) in model.tensors.items()}
        self.d, self.st, self.box = len(model.rows[0]), st, Fraction(0)
        self.w = [[Fraction(x) for x in row] for row in model.rows]
        self.gain = (
            [x + st["gain_offset"] for x in take["gain"]] if "gain" in take else [Fraction(1)] * self.d
        )
        self.shift = take.get("shift", [Fraction(0)] * self.d)
        self.bias = take.get("bias", [Fraction(0)] * len(self.w))
        if st["domain"] == "free":
            self.gain, self.shift = [Fraction(1)] * self.d, [Fraction(0)] * self.d
        if st["domain"] == "direction":
            self.shift, self.bias = [Fraction(0)] * self.d, [Fraction(0)] * len(self.w)
        self.centred = st["norm"] == "layernorm" and st["domain"] != "free"
        self.rivals = [j for j in range(st["competitors"]) if j != st["token"]]

    def centre(self, x: Any) -> list[Fraction]:
        mean = sum(x) / Fraction(self.d) if self.centred else 0
        return [y - mean for y in x]

    def logits(self, z: Any) -> list[Fraction]:
        h = [g * x + b for g, x, b in zip(self.gain, z, self.shift, strict=True)]
        return [sum(map(Fraction.__mul__, w, h)) + c for w, c in zip(self.w, self.bias, strict=True)]

    def margin(self, z: Any) -> Fraction:
        values = self.logits(z)
        return min((values[self.st["token"]] - values[j] for j in self.rivals), default=Fraction(0))

    def state(self, k: int, p: Any) -> list[Fraction]:
        """Section 3."""
        z = self.centre([Fraction(x, 2**k) for x in p])
        scaled = self.centred and self.st["domain"] in ("readout", "direction")
        return [self.d * x for x in z] if scaled else z

    def combination(self, rows: Any, values: Any) -> tuple[list[Fraction], Fraction]:
        """Pu and v: the slope and the height of the weighted sum of ℓ_t − ℓ_j."""

        def weighted(z: Any) -> Fraction:
            logits = self.logits(z)
            return sum(
                (x * (logits[self.st["token"]] - logits[j]) for j, x in zip(rows, values, strict=True)),
                Fraction(0),
            )

        zero = [Fraction(0)] * self.d
        v = weighted(zero)
        slopes = [weighted([Fraction(i == n) for n in range(self.d)]) - v for i in range(self.d)]
        return self.centre(slopes), v


DOMAINS = ("readout", "free", "direction", "box:1.5")


SPEAKABLE = certificate(HAND.statement(), speakable(2, state(11, [2864, -410]), residual("F16", 0, [1, 0])))


BUNDLE = bundle(HAND, INSIDE)


def edit(data: Any, path: str, new: Any) -> Any:
    """A copy with one field changed, or removed where the new value is `...`."""
    copy = json.loads(json.dumps(data))
    at, keys = copy, path.split("/")
    for key in keys[:-1]:
        at = at[key]
    if new is ...:
        del at[keys[-1]]
    else:
        at[keys[-1]] = new
    return copy


TEXT = canonical(INSIDE)


def wide_model() -> Model:
    r = random.Random(1)
    rows = [[r.randint(-9, 9) for _ in range(3)] for _ in range(11)]
    rows[7], rows[2], rows[9] = [2, 1, 0], [4, 2, 1], [0, 0, -1]
    return Model(rows, gain=[1, 0.5, 2], shift=[1, 0, -1], bias=[0] * 11)

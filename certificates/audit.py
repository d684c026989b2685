"""Audit certificate files about tokens of language models: a second checker, independent of `verify`.

Written from docs/certificates.md, whose steps are cited below ("step 9" is of section 4, "bundle 4" of
section 6), and from the theorems of docs/soundness.md. It shares no line with the folder `verify/`.

    python certificates/audit.py CERT... --weights model.safetensors [--weights ...] [--config config.json]

ACCEPTED means: for the function that the stated tensors, norm, epsilon and gain offset define, in exact real
arithmetic, the claim holds at every state of the domain (unspeakable), or at the given state (speakable). For
a certificate the tensors are those of the weight files, byte for byte; for a bundle any tensors with the
stated Merkle roots. What no file at hand confirms is printed as HYPOTHESIS above the verdict. Never checked:
that the norm can be fed every vector, and that only a scale or a soft-cap follows the logits. Trusted: this
file with its FAMILIES, Python, SHA-256, and that weight files do not change during the run. No floats occur.
"""

import argparse
import json
import math
import mmap
import os
import re
import struct
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from hashlib import sha256
from operator import mul
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

FILE_LIMIT, CONFIG_LIMIT, HEADER_LIMIT = 2**28, 2**24, 100_000_000
SOLVABLE_ROWS, SOLVABLE_BITS, RANKABLE, PRIME = 385, 2**18, 1024, 2**63 - 25  # step 11 names the prime
CONVERT = "convert to full multipliers first (verify convert CERT --multipliers full)"
# dtype: struct code, exponent bits, mantissa bits, exponent of the unit (Theorem 1)
DTYPES = {"F16": ("H", 5, 10, -24), "BF16": ("H", 8, 7, -133), "F32": ("I", 8, 23, -149)}
DTYPES["F64"] = ("Q", 11, 52, -1074)
NAMES = {1: "BOOL I8 U8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E5M2FNUZ F8_E4M3FNUZ", 2: "F16 BF16 I16 U16"}
NAMES |= {4: "F32 I32 U32", 8: "F64 C64 I64 U64"}
SIZES = {name: size for size, names in NAMES.items() for name in names.split()}
# Exit codes, the worst outcome first. Any other outcome is the name of an error of section 1: malformed.
EXIT = {"internal": 70, "refuted": 1, "malformed": 4, "unavailable": 5, "accepted": 0}


class Stop(Exception):  # noqa: N818 - an outcome, not always an error
    """The end of a check: refuted, unavailable or the name of an error of section 1, and the reason."""


def need(condition: bool, outcome: str, reason: str) -> None:
    """Stop unless the condition holds."""
    if not condition:
        raise Stop(outcome, reason)


def show(text: str) -> str:
    """Quote a string of a file for a terminal."""
    return ascii(text if len(text) <= 200 else text[:200] + "...")


# Section 2: each kind of object, its keys and the kinds of their values (? or null, - optional).
OBJECTS = {
    "certificate": "format:string version:count statement:statement claim:claim provenance:strings",
    "statement": "model:string revision:string? tensors:tensors norm:norm gain_offset:count epsilon:decimal "
        "epsilon_source:string files:digests token:count text:string? domain:domain competitors:count "
        "competitor_rule:rule",
    "tensors": "unembedding:tensor gain:tensor- shift:tensor- bias:tensor-",
    "tensor": "name:string dtype:dtype shape:shape sha256:digest merkle:digest",
    "speakable": "verdict:string margin:fraction state:state? residual:residual? ceiling:multipliers? "
        "at_most:fraction?",
    "unspeakable": "verdict:string gap:fraction kind:kind multipliers:multipliers tie:state?",
    "state": "k:k p:vector", "residual": "dtype:dtype k:k p:vector",
    "multipliers": "rows:rows values:values?", "part": "rows:rows? bytes:bytes proof:proof?",
    "bundle": "format:string version:count certificate:certificate tensors:parts",
    "parts": "unembedding:part gain:part- shift:part- bias:part-",
}  # fmt: skip
LISTS = {"vector": "coordinate", "values": "multiplier", "rows": "row", "proof": "digest"}
DIGITS = {"coordinate": 2**12, "multiplier": 2**18, "term": 2**15}
DECIMAL = r"(0|[1-9][0-9]{0,%d})(\.[0-9]{0,%d}[1-9])?"
RULES = {  # of strings: the error, and a regular expression
    "norm": ("value", "layernorm|rmsnorm|none"), "rule": ("value", "all|tokenizer"),
    "kind": ("value", "never|tie-only|unsettled"), "verdict": ("value", "speakable|unspeakable"),
    "dtype": ("value", "|".join(DTYPES)), "row": ("notation", "0|[1-9][0-9]{0,15}"),
    "domain": ("value", r"readout|free|direction|box:(?!0\Z)(?=.{1,36}\Z)" + DECIMAL % (17, 17)),
    "decimal": ("notation", DECIMAL % (199, 199)), "digest": ("notation", "[0-9a-f]{64}"),
    "bytes": ("notation", "(?:[0-9a-f]{2})*+"),
} | dict.fromkeys(DIGITS, ("notation", "0|-?[1-9a-f][0-9a-f]*"))  # fmt: skip


def load(raw: bytes, encoding: str, number: Callable[[str], Any] | None = None) -> tuple[Any, str]:
    """Parse strict JSON. Returns the value and what follows it."""
    decoder = json.JSONDecoder(
        object_pairs_hook=lambda x: y if len(y := dict(x)) == len(x) else need(False, "duplicate-key", "key"),
        parse_int=lambda x: int(x) if len(x) <= 20 else 10**20,  # beyond every count either way
        parse_float=number or (lambda x: need(False, "float", x[:40])),
        parse_constant=lambda x: need(False, "not-finite", x),
    )
    try:
        data, end = decoder.raw_decode(text := raw.decode(encoding).lstrip(" \t\r\n"))
    except (ValueError, RecursionError) as error:
        raise Stop("not-json", str(error)[:100]) from None
    return data, text[end:]


def value(kind: str, x: Any, at: str) -> Any:
    """Step 2: read a value of some kind."""
    if kind[-1] == "?":
        return None if x is None else value(kind[:-1], x, at)
    if kind in OBJECTS or kind in ("strings", "digests", "claim"):
        return an_object(kind, x, at)
    if kind == "shape":
        need(isinstance(x, list) and len(x) in (1, 2), "value", f"{at} is not one or two lengths")
        return tuple(value("count", n, at) for n in x)
    if kind in ("count", "k"):
        need(type(x) is int and 0 <= x <= 2**40, "value", f"{at} is no integer from 0 to 2^40")
        need(kind != "k" or x <= 2**14, "oversized", f"{at} is above 2^14")
        return x
    need(isinstance(x, str), "value", f"{at} is no string")
    if kind in LISTS:
        need(x.count(" ") < 2**20, "oversized", f"{at} has more than 2^20 items")
        return [value(LISTS[kind], item, at) for item in x.split(" ")]
    most = DIGITS.get(kind, FILE_LIMIT if kind == "bytes" else 65_536)
    need(len(x) - (kind in DIGITS and x[:1] == "-") <= most, "oversized", f"{at} is too long")
    error, pattern = RULES.get(kind, ("value", "(?s:.*)"))
    need(re.fullmatch(pattern, x) is not None, error, f"{at} is no {kind}")
    if kind == "fraction":
        terms = [value("term", term, at) for term in x.split("/")]
        need(len(terms) == 2 and terms[1] > 0 and math.gcd(*terms) == 1, "notation", f"{at} is no {kind}")
        return Fraction(*terms)
    return int(x, 16) if kind in DIGITS else int(x) if kind == "row" else x


def an_object(kind: str, x: Any, at: str) -> Any:
    """Step 2: read an object with exactly the keys of its kind."""
    need(isinstance(x, dict), "value", f"{at} is no object")
    if kind in ("strings", "digests"):
        return {value("string", key, at): value(kind[:-1], text, at) for key, text in x.items()}
    if kind == "claim":
        kind = value("verdict", x.get("verdict", "speakable"), at)
    if kind in ("certificate", "bundle"):
        need(x.get("format") == f"verify-{kind}", "wrong-format", f"{at} is no {kind}")
        need(x.get("version") == 1 and x["version"] is not True, "wrong-version", f"{at} is not version 1")
    kinds = dict(key.split(":") for key in OBJECTS[kind].split())
    missing = [key for key in kinds if key not in x and kinds[key][-1] != "-"]
    need(not missing, "missing-key", f"{at} lacks {missing}")
    need(x.keys() <= kinds.keys(), "unknown-key", f"{at} has {show(str(sorted(x.keys() - kinds.keys())))}")
    return SimpleNamespace(**{key: value(kinds[key].rstrip("-"), x[key], f"{at}.{key}") for key in x})


def read(raw: bytes) -> tuple[Any, Any, Any]:
    """Steps 1 to 3, and bundle 1. Returns the statement, the claim, and the rows in a bundle."""
    need(len(raw) <= FILE_LIMIT, "oversized", "the file has more than 2^28 bytes")
    need(sum(map(raw.count, (b",", b"[", b"{"))) <= 65_536, "oversized", "more than 65,536 of , [ {")
    data, rest = load(raw, "ascii")
    need(rest in ("", "\n"), "trailing-bytes", "something follows the JSON value")
    bundle = isinstance(data, dict) and data.get("format") == "verify-bundle"
    file = value("bundle" if bundle else "certificate", data, "file")
    certificate, parts = (file.certificate, vars(file.tensors)) if bundle else (file, None)
    st, claim = certificate.statement, certificate.claim
    if parts is not None:
        need(parts.keys() >= vars(st.tensors).keys(), "missing-key", "the bundle lacks a tensor")
        need(parts.keys() <= vars(st.tensors).keys(), "unknown-key", "the bundle has a tensor too many")
    need(st.gain_offset < 2, "value", "gain_offset is not 0 or 1")
    canonical = json.dumps(data, sort_keys=True, indent=1, ensure_ascii=True) + "\n"
    need(canonical.encode() == raw, "not-canonical", "a writer would have produced other bytes")
    return st, claim, parts


# Files, tensors and hashes: steps 4 to 6, bundle 2 to 4.
def open_regular(path: str) -> BinaryIO:
    """Open a regular file and nothing else; a FIFO must not block, not even one put there just now."""
    try:
        need(Path(path).is_file(), "unavailable", f"{show(path)}: no regular file, or none at all")
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        return os.fdopen(os.open(path, flags), "rb")
    except (OSError, ValueError) as error:
        raise Stop("unavailable", f"{show(path)}: {getattr(error, 'strerror', None) or error}") from None


def strict_object(raw: bytes, path: str, number: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """Parse a JSON object that is no certificate."""
    try:
        data, rest = load(raw, "utf-8", number)
    except Stop as stop:
        raise Stop("unavailable", f"{show(path)}: {': '.join(stop.args)}") from None
    need(isinstance(data, dict) and not rest.strip(" \t\r\n"), "unavailable", f"{show(path)}: no JSON object")
    return dict(data)


@cache
def decoding(dtype: str) -> Callable[[Iterable[int]], list[int]]:
    """Theorem 1: from bit patterns to integers times 2^unit. A KeyError is a NaN or an infinity."""
    code, exponent, mantissa, _ = DTYPES[dtype]
    mask, hidden, factor = (1 << mantissa) - 1, {}, {}
    for e in range((1 << exponent) - 1):
        for top, s in ((e, 1), (e + (1 << exponent), -1)):  # with the bit of the sign
            hidden[top], factor[top] = int(e > 0) << mantissa, s << max(e - 1, 0)

    def wide(row: Iterable[int]) -> list[int]:
        return [((b & mask) + hidden[b >> mantissa]) * factor[b >> mantissa] for b in row]

    table = {b: wide((b,))[0] for b in range(2**16) if b >> mantissa in factor and code == "H"}
    return (lambda row: [table[b] for b in row]) if table else wide


def pruned(lo: int, hi: int, rows: Sequence[int], leaves: Sequence[bytes], proof: Iterator[str]) -> bytes:
    """Section 6: the tree over rows lo to hi - 1 from the leaves of some rows and the proof."""
    at = bisect_left(rows, lo)
    if at == len(rows) or rows[at] >= hi:
        need((closed := next(proof, "")) != "", "refuted", "the proof is too short")
        return bytes.fromhex(closed)
    if hi - lo == 1:
        return leaves[at]
    mid = lo + (1 << ((hi - lo - 1).bit_length() - 1))
    left = pruned(lo, mid, rows, leaves, proof)
    return sha256(b"\1" + left + pruned(mid, hi, rows, leaves, proof)).digest()


@dataclass(frozen=True)
class Tensor:
    """A tensor, or the given rows of it; hashed at most once a run. Row j of a vector is its value j."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    given: Sequence[int] = ()  # in a bundle

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes."""
        return sha256(self.data).hexdigest()

    @cached_property
    def merkle(self) -> str:
        """Merkle root of a whole tensor."""
        return self.root(iter(()))

    @cached_property
    def flat(self) -> "Tensor":
        """How a logit bias counts that is stored as [1, V]: without the leading dimension (step 4)."""
        one_row = len(self.shape) == 2 and self.shape[0] == 1
        return Tensor(self.dtype, self.shape[1:], self.data) if one_row else self

    def zeros(self) -> bool:
        """Whether all values are zero, of either sign."""
        flat = Tensor(self.dtype, (len(self.data),), self.data)
        return self.dtype in DTYPES and not any(map(any, flat.rows(0, len(self.data))))

    def root(self, proof: Iterator[str]) -> str:
        """Merkle root from the rows and a proof of the others (section 2)."""
        n, data = self.shape[0], self.data
        size = len(data) // len(self.given or range(n))
        leaves = [sha256(b"\0" + data[at : at + size]).digest() for at in range(0, len(data), size)]
        text = " ".join([self.dtype, *map(str, self.shape)]) + "\n"
        tree = pruned(0, n, self.given or range(n), leaves, proof)
        return sha256(b"\2" + text.encode() + tree).hexdigest()

    def rows(self, lo: int, hi: int) -> Iterator[list[int]]:
        """Step 6: the rows stored at these places, as integers."""
        layout = struct.Struct(f"<{math.prod(self.shape[1:])}{DTYPES[self.dtype][0]}")
        data = self.data[lo * layout.size : hi * layout.size]
        try:
            yield from map(decoding(self.dtype), layout.iter_unpack(data))
        except KeyError:
            lost = "refuted" if self.given else "unavailable"
            raise Stop(lost, "a NaN or an infinity in a row that is needed") from None

    def row(self, j: int) -> list[int]:
        """Step 6: row j."""
        at = bisect_left(self.given, j) if self.given else j
        return next(self.rows(at, at + 1))

    def vector(self, unit: int) -> list[int]:
        """All values of a vector, times 2^-unit."""
        return [x << (DTYPES[self.dtype][3] - unit) for (x,) in self.rows(0, self.shape[0])]


def safetensors(path: str) -> dict[str, Tensor]:
    """Map a safetensors file and read its header strictly."""

    def good(condition: bool, reason: str) -> None:
        need(condition, "unavailable", f"{show(path)}: {reason}")

    with open_regular(path) as file:
        good(os.fstat(file.fileno()).st_size >= 8, "shorter than a header")
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = 8 + int.from_bytes(view[:8], "little")
    good(start <= min(HEADER_LIMIT + 8, len(view)), "the header is too long")
    found, spans = {}, []
    for name, entry in strict_object(bytes(view[8:start]), path).items():
        good(isinstance(entry, dict), f"{show(name)} is no object")
        if name == "__metadata__":
            good(all(isinstance(x, str) for x in entry.values()), "metadata that are no strings")
            continue
        good(entry.keys() == {"dtype", "shape", "data_offsets"}, f"{show(name)} has other keys")
        dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
        good(isinstance(dtype, str) and dtype in SIZES, f"{show(name)} has an unknown dtype")
        lists = isinstance(shape, list) and isinstance(span, list) and len(span) == 2
        good(lists and all(type(n) is int and n >= 0 for n in shape + span), f"{show(name)}: no counts")
        size = SIZES[dtype]
        for n in shape:
            size = min(size * n, 2**63)  # beyond any file; a long shape must not cost time
        good(span[1] - span[0] == size, f"{show(name)} is not as large as its dtype and shape")
        spans.append(span)
        found[name] = Tensor(dtype, tuple(shape), view[start + span[0] : start + span[1]])
    spans.sort()
    good([a for a, _ in spans] + [len(view) - start] == [0] + [b for _, b in spans], "a hole or an overlap")
    return found


def in_range(st: Any) -> None:
    """Step 5, and the rule `all` of step 4."""
    shapes = {role: stated.shape for role, stated in vars(st.tensors).items()}
    need(len(shapes["unembedding"]) == 2, "refuted", "the unembedding is no matrix")
    rows, d = shapes["unembedding"]
    need(rows >= 1 and d >= 1 + (st.norm == "layernorm"), "refuted", "the unembedding is too small")
    need(st.norm != "none" or st.epsilon == "0", "refuted", "epsilon is not 0 without norm")
    wanted = {"unembedding": (rows, d), "gain": (d,), "shift": (d,), "bias": (rows,)}
    need(all(shapes[role] == wanted[role] for role in shapes), "refuted", "a tensor has the wrong shape")
    few = rows if st.competitor_rule == "all" else 1
    need(few <= st.competitors <= rows, "refuted", "the number of competitors is out of range")
    need(st.token < rows, "refuted", "the token is no row of the unembedding")


def from_weights(st: Any, files: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Tensor]:
    """Step 4: the tensor of each role is the stated one. Names from a configuration bind."""
    need(len(files) > 0, "unavailable", "a certificate needs --weights")
    tensors, found = dict[str, Tensor](), dict[str, Tensor]()
    for path, known in files.items():
        files[path] = here = known or safetensors(path)
        need(not tensors.keys() & here, "unavailable", f"{show(path)}: a tensor occurs twice")
        tensors |= here
    for role in names.keys() - vars(st.tensors).keys():
        stored = [tensors[name] for name in names[role] if name in tensors]
        need(all(x.zeros() for x in stored), "refuted", f"the weights have a {role} that is not zero")
    for role, stated in vars(st.tensors).items():
        given = {name: x.flat for name, x in tensors.items()} if role == "bias" else tensors
        fits = [given[name] for name in names.get(role, [stated.name]) if name in given]
        if not names and not (fits and fits[0].sha256 == stated.sha256):
            alike = (x for x in given.values() if (x.dtype, x.shape) == (stated.dtype, stated.shape))
            fits = [x for x in alike if x.sha256 == stated.sha256] + fits
        need(len(fits) > 0, "unavailable", f"no tensor of the weights could be the {role}")
        unlike = len({(x.dtype, x.shape, x.sha256) for x in fits}) > 1
        need(not (names and unlike), "unavailable", f"different tensors that could be the {role}")
        for x in ("dtype", "shape", "sha256", "merkle"):
            need(getattr(fits[0], x) == getattr(stated, x), "refuted", f"the {role} has another {x}")
        found[role] = fits[0]
    return found


def from_bundle(st: Any, claim: Any, parts: dict[str, Any]) -> dict[str, Tensor]:
    """Bundle 2 to 4: the rows of each role belong to the stated Merkle root."""
    need(claim.verdict == "unspeakable" and claim.tie is None, "refuted", "not bundled: witness or tie")
    found, rows = {}, sorted({st.token, *claim.multipliers.rows})
    need(rows[-1] < st.tensors.unembedding.shape[0], "refuted", "a row beyond the unembedding")
    for role, part in parts.items():
        stated, whole = getattr(st.tensors, role), role in ("gain", "shift")
        given = range(stated.shape[0]) if whole else rows
        tensor = Tensor(stated.dtype, stated.shape, memoryview(bytes.fromhex(part.bytes)), given)
        right = len(tensor.data) == SIZES[stated.dtype] * math.prod(stated.shape[1:]) * len(given)
        right &= part.rows == (None if whole else rows) and not (whole and part.proof)
        need(right, "refuted", f"the {role} does not give exactly the rows needed")
        proof = iter(part.proof or ())
        need(tensor.root(proof) == stated.merkle, "refuted", f"the {role} has another merkle")
        need(next(proof, None) is None, "refuted", "the proof is too long")
        need(not whole or tensor.sha256 == stated.sha256, "refuted", f"the {role} has another sha256")
        found[role] = tensor
    return found


def dot(x: Iterable[int], y: Iterable[int]) -> int:
    """Inner product."""
    return sum(map(mul, x, y))


def sign(a: int, b: Fraction, q: Fraction) -> int:
    """Sign of a + b√q for q > 0, by comparing squares."""
    sa, sb = (a > 0) - (a < 0), (b > 0) - (b < 0)
    a2, b2 = a * a, b * b * q
    return (sa or sb) if sa * sb >= 0 else sa * ((a2 > b2) - (a2 < b2))


def exact_in(p: int, k: int, dtype: str) -> bool:
    """Theorem 1, converse: p / 2^k is a finite value of the dtype."""
    _, exponent, mantissa, unit = DTYPES[dtype]
    odd = abs(p) // ((p & -p) or 1)
    fits = odd.bit_length() <= mantissa + 1 and abs(p) < 1 << (k + (1 << (exponent - 1)))
    return fits and (p << -unit) % (1 << k) == 0


class Check:
    """Step 7 in integers times 2^unit: a_j = scale∘w_j, b_j = w_j·offset + c_j; then steps 8 to 15."""

    def __init__(self, st: Any, tensors: dict[str, Tensor]) -> None:
        self.token, self.competitors, self.epsilon = st.token, st.competitors, Fraction(st.epsilon)
        self.d: int = st.tensors.unembedding.shape[1]
        self.box = Fraction(st.domain[4:]) if st.domain[:4] == "box:" else None
        self.readout = st.domain == "readout"
        self.ball = st.norm != "none" and self.readout
        self.projects: bool = st.norm == "layernorm" and st.domain != "free"
        unused = {"free": ("gain", "shift"), "direction": ("shift", "bias")}.get(st.domain, ())
        used = {role: tensor for role, tensor in tensors.items() if role not in unused}
        self.w, self.bias = used["unembedding"], used.get("bias")
        low = min([0] + [DTYPES[x.dtype][3] for role, x in used.items() if role != "unembedding"])
        self.unit = DTYPES[self.w.dtype][3] + low  # Theorem 3
        self.scale, self.offset = [1 << -low] * self.d, [0] * self.d
        if "gain" in used:
            self.scale = [x + (st.gain_offset << -low) for x in used["gain"].vector(low)]
        if "shift" in used:
            self.offset = used["shift"].vector(low)
        self.own, self.own_constant = self.w.row(self.token), self.constant(self.token)

    def constant(self, j: int) -> int:
        """The logit bias c_j."""
        return self.bias.row(j)[0] << (DTYPES[self.bias.dtype][3] - self.unit) if self.bias else 0

    def difference(self, j: int) -> tuple[list[int], int]:
        """D_j and e_j."""
        gap = [x - y for x, y in zip(self.own, self.w.row(j), strict=True)]
        return list(map(mul, gap, self.scale)), dot(gap, self.offset) + self.own_constant - self.constant(j)

    def project(self, u: Sequence[int]) -> tuple[list[int], int]:
        """Return m·Pu and m."""
        total = sum(u)
        return ([self.d * x - total for x in u], self.d) if self.projects else (list(u), 1)

    def bounded(self, evidence: Any, bound: Fraction) -> tuple[list[int], int, int]:
        """Steps 8 to 10 (Theorem 6): no state has a margin above the bound. Returns m·Pu, m and v."""
        rows, values, u, v = evidence.rows, evidence.values, [0] * self.d, 0
        need(len(set(rows)) == len(rows), "refuted", "a row occurs twice in the support")
        need(max(rows) < self.competitors and self.token not in rows, "refuted", "a row is no competitor")
        values = self.solve(rows) if values is None else values
        need(len(values) == len(rows) and min(values) > 0, "refuted", "not one positive multiplier a row")
        need(max(map(int.bit_length, values)) * self.d <= 2**32, "refuted", "multipliers too long")
        for j, factor in zip(rows, values, strict=True):
            difference, e = self.difference(j)
            u, v = [x + factor * y for x, y in zip(u, difference, strict=True)], v + factor * e
        (pu, m), room = self.project(u), bound * sum(values) * 2**-self.unit - v
        need(room >= 0, "refuted", "the multipliers leave no room for the bound (R < 0)")
        ball = self.d * dot(pu, pu) <= (room * m) ** 2 if self.ball else not any(pu)
        fits = self.box * sum(map(abs, pu)) <= room * m if self.box else ball
        need(fits, "refuted", "the multipliers do not prove the bound")
        return pu, m, v

    def never(self, rows: list[int], pu: list[int], m: int, v: int) -> bool:
        """Step 11, the kind never (Theorem 7, cases 1 to 5)."""
        cancels = not any(pu)
        if self.ball and ((v * m) ** 2 > self.d * dot(pu, pu) if self.epsilon == 0 else not cancels):
            return True
        if self.box * sum(map(abs, pu)) + v * m < 0 if self.box else cancels and v < 0:
            return True
        if not cancels or v != 0 or any(self.difference(j)[1] for j in rows):
            return False
        need(self.d <= RANKABLE, "unavailable", f"no ranks in more than {RANKABLE} dimensions here")
        full = self.d - self.projects  # a rank modulo a prime is at most the rank over the rationals
        return len(eliminate((self.project(self.difference(j)[0])[0] for j in rows), full)[1]) == full

    def state(self, state: Any) -> tuple[list[int], int]:
        """Step 13: a state as integers and their common denominator, if it is in the domain."""
        need(len(state.p) == self.d, "refuted", "the state has the wrong length")
        (z, m), scale = self.project(state.p), 1 << state.k
        if self.ball:
            need(self.epsilon > 0, "refuted", "no state is accepted where epsilon is 0")
            need(dot(z, z) < self.d * scale**2, "refuted", "the state is outside the ball")
        if self.box:
            need(max(map(abs, state.p)) <= self.box * scale, "refuted", "the state is outside the box")
        return z, scale * m if self.box else scale

    def residual(self, r: Any) -> tuple[list[int], Fraction]:
        """Step 14: m·2^k·y, and q = m²·4^k·s, of a residual vector (Theorem 8)."""
        need(self.readout and len(r.p) == self.d, "refuted", "a residual vector of another length or domain")
        need(all(exact_in(p, r.k, r.dtype) for p in r.p), "refuted", f"an entry is not exact in {r.dtype}")
        (y, m), q = self.project(r.p), Fraction(4**r.k)
        if self.ball:
            q = Fraction(dot(y, y), self.d) + self.epsilon * m**2 * q
        need(q != 0, "refuted", "the norm is undefined at the residual vector")
        return y, q

    def leads(self, margin: Fraction, state: Any, residual: Any) -> None:
        """Steps 13 and 14 (Theorems 4, 5, 8): the token leads every competitor, in one pass over all rows.

        The state carries the margin if there is one; then the residual vector must lead by anything. The
        logits at z / n are (w_j·g + n·c_j) / n with g = scale∘z + n·offset (Theorem 3).
        """
        z, n = ([0] * self.d, 0) if state is None else self.state(state)
        y, q = ([0] * self.d, Fraction(0)) if residual is None else self.residual(residual)
        g = [a * x + n * b for a, x, b in zip(self.scale, z, self.offset, strict=True)]
        least, rest = margin * n * 2**-self.unit, Fraction(0) if n else margin * 2**-self.unit
        vectors = (g, list(map(mul, self.scale, y)), self.offset if q else [0] * self.d)
        plans = [(factor, [x // factor for x in v]) for v in vectors if (factor := math.gcd(*v) or 1)]
        lead, slope, height = (dot(self.own, v) for v in vectors)
        for j, w in enumerate(self.w.rows(0, self.competitors)):
            if j != self.token:
                at_z, at_y, at_offset = (f * sum(map(mul, w, v)) for f, v in plans)
                c = self.own_constant - self.constant(j)
                need(lead - at_z + n * c >= least, "refuted", f"row {j} is too near at the state")
                if q:
                    found = sign(slope - at_y, height - at_offset + c - rest, q)
                    need(found >= (rest == 0), "refuted", f"row {j} is too near at the residual vector")

    def prove(self, claim: Any) -> None:
        """Steps 8 to 15, of either verdict."""
        if claim.verdict == "speakable":
            others = self.competitors - (self.token < self.competitors)
            need(claim.margin > 0 and others > 0, "refuted", "no positive margin, or no competitor")
            whole = (claim.ceiling is None) == (claim.at_most is None)
            need(whole and bool(claim.state or claim.residual), "refuted", "no witness, or half a ceiling")
            self.leads(claim.margin, claim.state, claim.residual)
            if claim.ceiling is not None:
                self.bounded(claim.ceiling, claim.at_most)
            return
        agree = (claim.kind == "tie-only") == (claim.tie is not None)
        need(claim.gap >= 0 and agree, "refuted", "the gap is negative, or tie and kind do not agree")
        pu, m, v = self.bounded(claim.multipliers, -claim.gap)
        fits = claim.kind != "never" or self.never(claim.multipliers.rows, pu, m, v)
        need(fits, "refuted", "the kind never is not proved")
        if claim.tie is not None:
            need(any(self.state(claim.tie)[0]), "refuted", "the tie state is zero")
            self.leads(Fraction(0), claim.tie, None)

    def solve(self, rows: list[int]) -> list[int]:
        """Section 3, support-only: integers λ with P·Σ λ_j D_j = 0, by Dixon's p-adic lifting; checked."""
        need(len(rows) <= SOLVABLE_ROWS, "unavailable", CONVERT)
        differences, last = zip(*(self.difference(j) for j in rows), strict=True)
        columns = [list(column) for column in zip(*differences, strict=True)]
        if self.projects:  # Pu = 0 says that all u_i are equal
            columns = [[x - y for x, y in zip(column, columns[0], strict=True)] for column in columns[1:]]
        equations = [[x // (math.gcd(*column) or 1) for x in column] for column in (*columns, list(last))]
        chosen, pivots, inverse = eliminate(equations, len(rows) - 1)
        need(len(pivots) == len(rows) - 1, "refuted", "the support leaves more than one solution")
        (free,) = set(range(len(rows))) - set(pivots)
        bound = math.prod(math.isqrt(dot(x, x)) + 1 for x in chosen)  # Hadamard, for both parts of fractions
        need(2 * bound.bit_length() <= SOLVABLE_BITS, "unavailable", CONVERT)
        square = [[equation[column] for column in pivots] for equation in chosen]
        rest, answer, power = [-equation[free] for equation in chosen], [0] * len(pivots), 1
        while power <= 2 * bound**2:
            digits = [dot(line, rest) % PRIME for line in inverse]
            rest = [(r - dot(line, digits)) // PRIME for r, line in zip(rest, square, strict=True)]
            answer = [x + power * digit for x, digit in zip(answer, digits, strict=True)]
            power *= PRIME
        common = 1
        for x in answer:  # its denominator by Euclid; most are those of an earlier entry
            a, b, s, t = power, x * common % power, 0, 1
            while b > bound:
                a, b, s, t = b, a % b, t, s - a // b * t
            common *= abs(t)
        found = {c: (x * common + bound) % power - bound for c, x in zip(pivots, answer, strict=True)}
        solution = [found.get(column, common) for column in range(len(rows))]
        need(min(solution) > 0, "refuted", "the solution of the support is not of one sign")
        need(not any(dot(solution, x) for x in equations[:-1]), "refuted", "the support does not cancel")
        return solution


def minus(x: list[int], f: int, y: list[int]) -> list[int]:
    """Row operation modulo PRIME."""
    return [(a - f * b) % PRIME for a, b in zip(x, y, strict=True)]


def eliminate(rows: Iterable[list[int]], most: int) -> tuple[list[list[int]], list[int], list[list[int]]]:
    """Gauss-Jordan modulo PRIME on [row | identity]: independent rows, their pivots, the inverse on these."""
    chosen, pivots, lines = [], list[int](), list[list[int]]()
    for given in rows:
        if len(pivots) == most:
            break
        row = [x % PRIME for x in given] + [int(i == len(pivots)) for i in range(most)]
        for column, line in zip(pivots, lines, strict=True):
            row = minus(row, row[column], line)
        new = next((c for c in range(len(given)) if row[c]), None)
        if new is not None:
            row = minus([0] * len(row), -pow(row[new], -1, PRIME), row)
            lines = [*(minus(line, line[new], row) for line in lines), row]
            pivots.append(new)
            chosen.append(given)
    return chosen, pivots, [line[-most:] for line in lines]


# From the models' code in transformers. Types of config.json; their norm, key (or -) and default of epsilon,
# whether they are tied by default, and the offset of the gain; then names of their tensors: embedding, head,
# gain, shift, bias. x|y: x before y. [x]: with or without x. {last}: the last layer of the decoder. x?: where
# it is missing, or zeros, the role may be missing.
FAMILIES = {kind: (*facts.split(), names.split()) for kinds, facts, names in (
    ("llama mistral ministral qwen2 qwen2_moe qwen3 qwen3_moe granite", "rmsnorm rms_norm_eps 1e-6 untied 0",
     "[model.]embed_tokens.weight lm_head.weight [model.]norm.weight"),
    ("llama4_text ministral3 mixtral olmo2 olmo3 phi3", "rmsnorm rms_norm_eps 1e-5 untied 0",
     "[model.]embed_tokens.weight lm_head.weight [model.]norm.weight"),
    ("gemma gemma2 gemma3_text", "rmsnorm rms_norm_eps 1e-6 tied 1",
     "[model.]embed_tokens.weight lm_head.weight [model.]norm.weight"),
    ("olmo", "layernorm - 1e-5 untied 0", "[model.]embed_tokens.weight lm_head.weight"),
    ("cohere cohere2", "layernorm layer_norm_eps 1e-5 tied 0",
     "[model.]embed_tokens.weight lm_head.weight [model.]norm.weight"),
    ("stablelm", "layernorm layer_norm_eps 1e-5 untied 0",
     "[model.]embed_tokens.weight lm_head.weight [model.]norm.weight [model.]norm.bias"),
    ("starcoder2", "layernorm norm_epsilon 1e-5 tied 0",
     "[model.]embed_tokens.weight lm_head.weight [model.]norm.weight [model.]norm.bias"),
    ("phi", "layernorm layer_norm_eps 1e-5 untied 0", "[model.]embed_tokens.weight lm_head.weight "
     "[model.]final_layernorm.weight [model.]final_layernorm.bias lm_head.bias"),
    ("gpt2 gpt_bigcode gpt_neo", "layernorm layer_norm_epsilon 1e-5 tied 0", "[transformer.]wte.weight "
     "lm_head.weight [transformer.]ln_f.weight [transformer.]ln_f.bias"),
    ("gptj codegen", "layernorm layer_norm_epsilon 1e-5 untied 0", "[transformer.]wte.weight "
     "lm_head.weight [transformer.]ln_f.weight [transformer.]ln_f.bias lm_head.bias"),
    ("bloom falcon", "layernorm layer_norm_epsilon 1e-5 tied 0", "[transformer.]word_embeddings.weight "
     "lm_head.weight [transformer.]ln_f.weight [transformer.]ln_f.bias"),
    ("mpt", "layernorm layer_norm_epsilon 1e-5 tied 0",
     "[transformer.]wte.weight lm_head.weight [transformer.]norm_f.weight"),
    ("gpt_neox", "layernorm layer_norm_eps 1e-5 untied 0", "[gpt_neox.]embed_in.weight "
     "embed_out.weight|lm_head.weight [gpt_neox.]final_layer_norm.weight [gpt_neox.]final_layer_norm.bias"),
    ("opt", "layernorm - 1e-5 tied 0", "[model.]decoder.embed_tokens.weight lm_head.weight "
     "[model.]decoder.final_layer_norm.weight [model.]decoder.final_layer_norm.bias"),
    ("mamba", "rmsnorm layer_norm_epsilon 1e-5 tied 0",
     "[backbone.]embeddings.weight lm_head.weight [backbone.]norm_f.weight"),
    ("t5 mt5", "rmsnorm layer_norm_epsilon 1e-6 tied 0",
     "shared.weight|decoder.embed_tokens.weight lm_head.weight decoder.final_layer_norm.weight"),
    ("bart marian", "layernorm - 1e-5 tied 0", "[model.]decoder.embed_tokens.weight|[model.]shared.weight "
     "lm_head.weight [model.]decoder.layers.{last}.final_layer_norm.weight "
     "[model.]decoder.layers.{last}.final_layer_norm.bias final_logits_bias?"),
    ("whisper", "layernorm - 1e-5 tied 0", "[model.]decoder.embed_tokens.weight proj_out.weight "
     "[model.]decoder.layer_norm.weight [model.]decoder.layer_norm.bias"),
    ("bert", "layernorm layer_norm_eps 1e-12 tied 0",
     "[bert.]embeddings.word_embeddings.weight cls.predictions.decoder.weight "
     "cls.predictions.transform.LayerNorm.weight|cls.predictions.transform.LayerNorm.gamma "
     "cls.predictions.transform.LayerNorm.bias|cls.predictions.transform.LayerNorm.beta "
     "cls.predictions.bias|cls.predictions.decoder.bias"),
    ("roberta xlm-roberta camembert", "layernorm layer_norm_eps 1e-12 tied 0",
     "[roberta.]embeddings.word_embeddings.weight lm_head.decoder.weight lm_head.layer_norm.weight "
     "lm_head.layer_norm.bias lm_head.bias|lm_head.decoder.bias"),
    ("distilbert", "layernorm - 1e-12 tied 0", "[distilbert.]embeddings.word_embeddings.weight "
     "vocab_projector.weight vocab_layer_norm.weight vocab_layer_norm.bias vocab_projector.bias"),
    ("albert", "layernorm layer_norm_eps 1e-12 tied 0", "[albert.]embeddings.word_embeddings.weight "
     "predictions.decoder.weight predictions.LayerNorm.weight predictions.LayerNorm.bias "
     "predictions.bias|predictions.decoder.bias"),
    ("electra", "layernorm layer_norm_eps 1e-12 tied 0", "[electra.]embeddings.word_embeddings.weight "
     "generator_lm_head.weight generator_predictions.LayerNorm.weight "
     "generator_predictions.LayerNorm.bias generator_lm_head.bias"),
) for kind in kinds.split()}  # fmt: skip
# Options that would make the last step another one, with the values that do not, the default first.
PLAIN: dict[str, tuple[object, ...]] = {
    "quantization_config": (None,), "compression_config": (None,), "auto_map": (None,),
    "_remove_final_layer_norm": (False,),
    "do_layer_norm_before": (True,), "layer_norm_elementwise_affine": (True,), "normalize_before": (False,),
    "add_final_layer_norm": (False,), "norm_type": ("layer_norm", "layernorm", "low_precision_layernorm"),
}  # fmt: skip
HEADS = (  # classes with such a last step
    r"(?!Bart|Marian)\w+ForCausalLM|(Bert|Albert)ForPreTraining|MarianMTModel|"
    r"\w+(ForMaskedLM|ForConditionalGeneration|LMHeadModel|DoubleHeadsModel)"
)
NUMBER = "[-.0-9]{1,400}([eE][-+]?[0-9]{1,3})?"  # a huge exponent would cost time


def unusual(data: dict[str, Any]) -> str:
    """What in a configuration of a known type may make its last step another one; empty if nothing."""
    classes, wide = data.get("architectures"), data.get("word_embed_proj_dim")
    heads = classes if isinstance(classes, list) else []
    if classes is not None and not any(re.fullmatch(HEADS, str(x)) for x in heads):
        return "architectures"
    if wide is not None and wide != data.get("hidden_size"):
        return "word_embed_proj_dim"
    for key in ("logit_scale", "logits_scaling", "final_logit_softcapping"):
        scale = data.get(key)
        if scale is not None and (type(scale) not in (int, Fraction) or scale <= 0):
            return key
    return next((key for key, plain in PLAIN.items() if data.get(key, plain[0]) not in plain), "")


def configured(st: Any, path: str, notes: list[str]) -> dict[str, list[str]]:
    """Step 4: compare with a configuration. Returns the names each role may have; none for unknown types."""
    with open_regular(path) as file:
        raw = file.read(CONFIG_LIMIT + 1)
    need(len(raw) <= CONFIG_LIMIT, "unavailable", f"{show(path)}: too large")
    data = strict_object(raw, path, lambda x: Fraction(x if re.fullmatch(NUMBER, x) else ""))
    if st.files.get("config.json") not in (None, sha256(raw).hexdigest()):
        notes.append(f"{show(path)} is not the config.json that the statement names")
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        notes.append(f"{show(path)}: nothing is known about the model type {show(str(kind))}")
        return {}
    if option := unusual(data):
        notes.append(f"{show(path)}: nothing is known about a {kind} with this {option}")
        return {}
    norm, key, default, tie, offset, tensors = FAMILIES[kind]
    epsilon = data.get(key, Fraction(default)) if key != "-" else Fraction(default)
    tied = data.get("tie_word_embeddings", tie == "tied")
    layers = data.get("decoder_layers", 0) if "{last}" in "".join(tensors) else 1
    right = type(epsilon) in (int, Fraction) and type(tied) is bool and type(layers) is int and layers > 0
    reason = f"{show(path)}: {key}, tie_word_embeddings or decoder_layers has the wrong type or is missing"
    need(right, "unavailable", reason)
    roles = dict(zip(("unembedding", "head", "gain", "shift", "bias"), tensors, strict=False))
    lacking = [role for role, text in roles.items() if text[-1] == "?" and not hasattr(st.tensors, role)]
    both = (r"[][?]", r"\[.*?\]|\?")  # with and without the prefix in brackets
    names = {
        role: [re.sub(cut, "", x).replace("{last}", str(layers - 1)) for x in text.split("|") for cut in both]
        for role, text in roles.items()
    }
    names["unembedding"] = (names["unembedding"] if tied else []) + names.pop("head")
    if not tied:  # then the bias is that of the head's own module, where there are two
        own = [x for x in names.get("bias", []) if x.endswith("decoder.bias")]
        names |= {"bias": own} if own else {}
    found = (st.norm, Fraction(st.epsilon), st.gain_offset, sorted([*vars(st.tensors), *lacking]))
    wanted = (norm, epsilon, int(offset), sorted(names))
    for what, x, y in zip(("norm", "epsilon", "gain offset", "list of roles"), found, wanted, strict=True):
        need(x == y, "refuted", f"the {what} of a {kind} is {y} by {show(path)}")
    return names


def hypotheses(st: Any, names: dict[str, list[str]], *, bundle: bool) -> list[str]:
    """Section 5: what nothing at hand confirms."""
    found = [f"the model is {show(st.model)}, revision {st.revision and show(st.revision)}"]
    for role, x in vars(st.tensors).items():
        which = f"Merkle root {x.merkle}" if bundle else f"SHA-256 {x.sha256} (stated name {show(x.name)})"
        found += [f"the {role} of the model is the tensor with {which}"] if bundle or not names else []
    zero = names.keys() - vars(st.tensors).keys() if bundle else ()
    found += [f"the {role} of the model is zero" for role in zero]
    if not names:
        found += [f"the final norm is {st.norm}", f"the gain offset is {st.gain_offset}"]
        found += [f"epsilon is {st.epsilon} ({show(st.epsilon_source)})"]
    found += [] if st.text is None else [f"the text of token {st.token} is {show(st.text)}"]
    last = st.competitors - 1
    return found + ([f"the ids of the tokenizer are 0..{last}"] if st.competitor_rule == "tokenizer" else [])


def number(q: Fraction) -> str:
    """Write q ≥ 0 exactly in hex, and in decimal rounded down to six digits (or to 40 places)."""
    places = next((n for n in range(40) if q * 10**n >= 10**5), 40 if q else 0)
    text = str(min(q * 10**places // 1, 10**45)).rjust(places + 1, "0")
    text = f"{text[: len(text) - places]}.{text[len(text) - places :]}".rstrip(".")
    return f"{q.numerator:x}/{q.denominator:x} ({text})"


def proved(st: Any, claim: Any) -> str:
    """Say what was proved."""
    text = "" if st.text is None else " " + show(st.text)
    about = f"token {st.token}{text}, domain {st.domain}, ids 0..{st.competitors - 1}"
    if claim.verdict == "unspeakable":
        return f"UNSPEAKABLE ({claim.kind}), gap at least {number(claim.gap)} - {about}"
    most = "" if claim.at_most is None else f", nowhere above {number(claim.at_most).split()[0]}"
    return f"SPEAKABLE, margin at least {number(claim.margin)}{most} - {about}"


def audit_file(path: str, weights: Iterable[str], config: str | None = None) -> SimpleNamespace:
    """Audit one certificate or bundle. A dictionary of weight files keeps what was read of them."""
    files = weights if isinstance(weights, dict) else dict.fromkeys(weights)
    result = SimpleNamespace(path=path, outcome="accepted", verdict=None, error=None, reason="")
    result.hypotheses, result.notes = [], []
    try:
        with open_regular(path) as file:
            st, claim, parts = read(file.read(FILE_LIMIT + 1))
        names = {} if config is None else configured(st, config, result.notes)
        alone = parts is not None and not files
        result.hypotheses += hypotheses(st, names, bundle=alone)
        in_range(st)
        bound = {} if alone else from_weights(st, files, names)
        tensors = bound if parts is None else from_bundle(st, claim, parts)
        Check(st, tensors).prove(claim)
        result.verdict, result.reason = claim.verdict, proved(st, claim)
    except Stop as stop:
        result.outcome, result.reason = stop.args
        if result.outcome not in EXIT:
            result.outcome, result.error = "malformed", result.outcome
    except (MemoryError, OSError) as error:
        result.outcome, result.reason = "unavailable", ascii(error)
    except Exception as error:  # noqa: BLE001 - a defect is no verdict
        result.outcome, result.reason = "internal", f"a defect of this program: {error!a}"
    return result


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="audit.py", description="Audit certificates and bundles of verify.")
    parser.add_argument("certificates", nargs="+", metavar="CERT")
    parser.add_argument("--weights", action="append", default=[], help="safetensors; repeat for more shards")
    parser.add_argument("--config", help="config.json of the model")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    outcomes = ["accepted"]
    try:
        arguments = parser.parse_args(argv)
        weights = dict.fromkeys(arguments.weights)
        for path in arguments.certificates:
            outcomes.append((result := audit_file(path, weights, arguments.config)).outcome)
            name = path if path.isascii() and path.isprintable() else ascii(path)
            lines = [f"HYPOTHESIS {x}" for x in result.hypotheses] + [f"NOTE {x}" for x in result.notes]
            error = "" if result.error is None else f"[{result.error}] "
            lines += [f"{result.outcome.upper()} {name}: {error}{result.reason}"]
            sys.stdout.write("\n".join([json.dumps(vars(result))] if arguments.json else lines) + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        sys.stdout = sys.stderr  # or Python would try at exit to write the rest
        sys.stderr.write(f"UNAVAILABLE: cannot write: {error!a}\n")
        outcomes.append("unavailable")
    return next(code for outcome, code in EXIT.items() if outcome in outcomes)


if __name__ == "__main__":  # pragma: no cover
    sys.exit(main(sys.argv[1:]))

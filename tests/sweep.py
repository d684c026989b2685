"""Every single change to the accepted files of the corpus, put to both checkers and, if accepted, to a third.

    python tests/sweep.py [--share 1] [--texts 0.1] [--seed 1] [--processes 2]

A change is refused by both, or the changed file is itself true: the corpus's own checker (corpus/judge.py, in
plain fractions) proves it anew. Anything else is printed and ends in exit code 1. The table at the end is the
one in docs/attacks.md; CI runs a seeded share of it (tests/test_sweep.py).
"""

from __future__ import annotations

import argparse
import difflib
import json
import multiprocessing
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from corpus.judge import judge
from corpus.weights import MODELS
from standalone import CORPUS, INDEX, load_standalone, model_files

from verify.recheck import Auditor

# Values of another kind, put in the place of every value.
FOREIGN: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1 << 40,
    "",
    "0",
    "x",
    [],
    {},
    [0],
    {"p": "1", "k": 0},
)
WORDS = (
    ("speakable", "unspeakable"),
    ("never", "tie-only", "unsettled"),
    ("layernorm", "rmsnorm", "none"),
    ("F16", "BF16", "F32", "F64"),
    ("readout", "free", "direction", "box:1", "box:0.5", "box:2", "box:1000"),
    ("all", "tokenizer"),
)
DIGITS = "0123456789abcdef"
NUMBERS = ("p", "values", "rows", "margin", "gap", "at_most", "epsilon", "domain")
# Kinds of which there are many, most of them in names and hashes.
TEXTS = ("character of a text", "byte of the file")


# File, model, share of all changes, share of those in texts among them, seed.
Job = tuple[str, str, float, float, int]


def canonical(root: Any) -> bytes:
    return (json.dumps(root, sort_keys=True, indent=1) + "\n").encode()


def places(root: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below the top."""
    for key in root if isinstance(root, dict) else range(len(root)) if isinstance(root, list) else ():
        yield (*path, key)
        yield from places(root[key], (*path, key))


def at(root: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        root = root[key]
    return root


def others(value: Any) -> Iterator[tuple[str, Any]]:
    """What may stand in the place of one value: (kind of change, value)."""
    for x in FOREIGN:
        if type(x) is not type(value) or x != value:
            yield "field replaced", x
    if type(value) is int:
        for step in (-1, 1):
            yield "number +-1", value + step
        yield "field replaced", float(value)
    if isinstance(value, str):
        for group in WORDS:
            if value in group:
                yield from (("field replaced", word) for word in group if word != value)
        yield from lists(value)
        yield from characters(value)


def lists(text: str) -> Iterator[tuple[str, str]]:
    """A list or fraction with one of its numbers changed, dropped, repeated, or moved."""
    separator = "/" if "/" in text else " "
    words = text.split(separator)
    if not all(is_hex(w) for w in words):
        return
    for i, word in enumerate(words):
        changed = {f"{int(word, 16) + step:x}" for step in (-1, 1, -(1 << 20), 1 << 20)} | {
            f"{int(word, 16) * 2:x}",
            f"{-int(word, 16):x}",
            "0",
        }
        if word.isdigit():
            changed |= {str(int(word) + step) for step in (-1, 1)}
        for new in sorted(changed - {word}):
            yield "number +-1", separator.join([*words[:i], new, *words[i + 1 :]])
        yield "number dropped", separator.join([*words[:i], *words[i + 1 :]])
        yield "number repeated", separator.join([*words[: i + 1], word, *words[i + 1 :]])
        if i and words[i - 1] != word:
            yield "numbers swapped", separator.join([*words[: i - 1], word, words[i - 1], *words[i + 1 :]])


def is_hex(word: str) -> bool:
    return word.lstrip("-") != "" and all(c in DIGITS for c in word.lstrip("-"))


def characters(text: str) -> Iterator[tuple[str, str]]:
    """Every character replaced, dropped, doubled."""
    for i, c in enumerate(text):
        after = DIGITS[(DIGITS.index(c) + 1) % 16] if c in DIGITS else "0"
        for new in sorted({after, "-", " ", "", c + c, c.upper(), "_"} - {c}):
            yield "character of a text", text[:i] + new + text[i + 1 :]


def mutants(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(kind of change, file): every single change of one field, number or byte."""
    root = json.loads(data)
    for path in places(root):
        value = at(root, path)
        parent = json.loads(data)
        holder = at(parent, path[:-1])
        if isinstance(holder, dict):
            del holder[path[-1]]
            yield "key dropped", canonical(parent)
            holder[path[-1]] = value
            holder[f"{path[-1]}x"] = value
            yield "key added", canonical(parent)
            del holder[f"{path[-1]}x"]
        for kind, new in others(value):
            if kind == "character of a text" and path[-1] in NUMBERS:
                kind = "character of a number"
            holder[path[-1]] = new
            yield kind, canonical(parent)
    for i, byte in enumerate(data):
        for new in (byte ^ 1, byte ^ 0x20, byte | 0x80):
            if new != byte:
                yield "byte of the file", data[:i] + bytes([new]) + data[i + 1 :]


class Sweep:
    """Both checkers on changed files of one model."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model, self.standalone = model, load_standalone()
        self.auditor = Auditor(None if model == "-" else str(CORPUS / "models" / model))
        self.path = folder / f"{os.getpid()}.json"

    def outcome(self, data: bytes) -> tuple[str, str]:
        """(of verify, of the standalone auditor)."""
        first = self.auditor.audit_bytes(data, "mutant").outcome
        self.path.write_bytes(data)
        return first, self.standalone.audit_file(str(self.path), *model_files(self.model)).outcome

    def verdict(self, original: bytes, data: bytes) -> str:
        """refused, true, or what is wrong with what the checkers said."""
        first, second = self.outcome(data)
        if first != "accepted" and second != "accepted":
            return "refused"
        third, step = judge(data, MODELS.get(self.model))
        if (first, second, third) == ("accepted",) * 3:
            return "true" if claim(data) != claim(original) else "true, claim and evidence unchanged"
        if (first, second, third) == ("unavailable", "accepted", "accepted") and claim(data) == claim(
            original
        ):
            return "true, but described by hand so that verify does not find the weights"
        if (first, second) == ("refuted", "accepted") and step.startswith("tokenizer "):
            return "refused by verify, a hypothesis to the other (token text, tokenizer size)"
        return f"WRONG: verify {first}, standalone {second}, third {third}"


def claim(data: bytes) -> Any:
    """The claim, evidence and rows of a file."""
    root = json.loads(data)
    return root.get("claim"), root.get("certificate", {}).get("claim"), root.get("tensors")


def sweep_file(job: Job) -> tuple[str, Counter[tuple[str, str]], list[str]]:
    """Every change (or a share of them) of one file: counts by kind and verdict, and what went wrong."""
    name, model, share, texts, seed = job
    chance = random.Random(f"{seed} {name}")
    original = (CORPUS / name).read_bytes()
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(model, Path(folder))
        for kind, data in mutants(original):
            if data == original or chance.random() >= share * (texts if kind in TEXTS else 1):
                continue
            said = sweep.verdict(original, data)
            counts[kind, said.partition(":")[0]] += 1
            if said.startswith("WRONG"):
                wrong.append(f"{name}: {kind}: {said}\n{difference(original, data)}")
    return name, counts, wrong


def difference(original: bytes, data: bytes) -> str:
    """The lines that a change touched."""
    a, b = original.decode("latin-1").splitlines(), data.decode("latin-1").splitlines()
    return "\n".join(
        x[:300] for x in difflib.unified_diff(a, b, n=0, lineterm="") if x[:2] not in ("--", "++", "@@")
    )


def jobs(share: float, texts: float, seed: int) -> list[Job]:
    return [
        (case["file"], case["model"], share, texts, seed)
        for case in INDEX
        if case["outcome"] == "accepted" and not (CORPUS / case["file"]).is_symlink()
    ]


def table(counts: Counter[tuple[str, str]]) -> str:
    """Counts as a Markdown table: kinds of change down, verdicts across."""
    kinds = sorted({kind for kind, _ in counts})
    verdicts = sorted({verdict for _, verdict in counts})
    lines = ["| change | tried | " + " | ".join(verdicts) + " |", "|---" * (len(verdicts) + 2) + "|"]
    for kind in [*kinds, "all"]:
        row = [sum(n for (k, v), n in counts.items() if v == w and kind in (k, "all")) for w in verdicts]
        lines.append(f"| {kind} | {sum(row):,} | " + " | ".join(f"{n:,}" for n in row) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--share", type=float, default=1.0, help="share of the changes to try")
    parser.add_argument("--texts", type=float, default=0.1, help="share among those in texts and hashes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    failed = False
    todo = jobs(options.share, options.texts, options.seed)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for i, (name, found, wrong) in enumerate(pool.imap_unordered(sweep_file, todo), 1):
            counts += found
            failed = failed or bool(wrong)
            print(f"{i}/{len(todo)} {name}: {sum(found.values())} tried, {len(wrong)} wrong", file=sys.stderr)
            print("\n".join(wrong[:5]), file=sys.stderr, end="\n" if wrong else "")
    print(table(counts))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

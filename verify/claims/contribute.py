"""GLUE. A folder of decided claims, ready to be contributed: certificates, claims, a summary.

The certificates prove what they say by themselves. Wrong here = a page that misquotes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from verify.claims.claim import ANY_MODEL, FORMAT, HARD, OWN_VECTOR, VERSION, Claim, ClaimsFile
from verify.claims.judge import CONFIRMED, REFUTED, Result, shown
from verify.claims.report import counts, totals
from verify.errors import UsageError
from verify.figures import escape
from verify.files import domain_path, read_regular, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from verify.claims.compute import Computer
    from verify.claims.weights import Weights

PAGE, SUMS, CLAIMS, REPORT = "README.md", "SHA256SUMS", "claims", "outcomes.json"
# Universes of more tokens are scanned for the models they are about, and for no other.
_MANY = 1000


@dataclass
class Elsewhere:
    """The tokens of all claims in one model. verdicts: by token and domain. own: rows on top."""

    model: str
    verdicts: dict[tuple[int, str], str] = field(default_factory=dict)
    own: dict[int, str] = field(default_factory=dict)

    @property
    def undecided(self) -> int:
        """How many tokens were not decided in some domain."""
        return sum(words == "UNDECIDED" for words in self.verdicts.values())


def everywhere(
    claims: Iterable[Claim], names: Sequence[str], weights: Weights, computer: Computer
) -> list[Elsewhere]:
    """Decide every token of the claims, in each domain that they name, in each of these models.

    Raises ModelUnavailableError where one is not at hand, UsageError where it lacks a token.
    """
    asked: dict[tuple[int, str], Claim] = {}
    own: set[int] = set()
    for c in claims:
        if c.model == ANY_MODEL or len(c.members) > _MANY:
            continue
        if c.verdict == HARD or c.method is not None:
            own.update(c.members)
        else:
            asked.update(((t, c.domain.name), c) for t in c.members)
    out = []
    for name in names:
        model, found = weights.named(name), Elsewhere(name)
        rows = model.readout.vocabulary
        beyond = [t for t in (*own, *(t for t, _ in asked)) if t >= rows]
        if beyond:
            raise UsageError(f"{name} has rows 0..{rows - 1}, and a claim is about token {max(beyond)}")
        for (token, _), c in sorted(asked.items()):
            computer.tell(f"{name}: token {token} in {c.domain.name}")
            decision = computer.decide(model, c.competitors, token, c.domain)
            found.verdicts[token, c.domain.name] = decision.verdict
        for token, standing in computer.own_vectors(model, rows, "post", sorted(own)):
            hard = f"row {standing.nearest[0]}" + (" (level)" if standing.sign == 0 else "")
            found.own[token] = "itself" if standing.sign > 0 else hard
        out.append(found)
    return out


def write_folder(
    out: Path,
    results: Sequence[Result],
    others: Sequence[Elsewhere],
    computer: Computer,
    weights: Weights,
    report: str,
) -> list[Path]:
    """Write claims, summary, report and sums beside the certificates in `out`; the claims files written."""
    written = []
    taken: set[str] = set()
    for file in dict.fromkeys(r.file.path for r in results):
        some = [r for r in results if r.file.path == file]
        if file.name in taken:
            raise UsageError(f"two claims files are called {file.name}: give them different names")
        taken.add(file.name)
        path = out / CLAIMS / file.name
        claims = [_with_evidence(r, out, computer, weights) for r in some]
        write_atomically(path, toml_bytes(replace(some[0].file, claims=tuple(claims))))
        written.append(path)
    write_atomically(out / REPORT, report.encode() + b"\n")
    write_atomically(out / PAGE, _page(results, others).encode())
    sums = []
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p != out / SUMS):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sums.append(f"{digest}  {path.relative_to(out).as_posix()}\n")
    write_atomically(out / SUMS, "".join(sums).encode())
    return written


def _with_evidence(r: Result, out: Path, computer: Computer, weights: Weights) -> Claim:
    """The claim with the evidence that decided it, and its outcome as the expected one."""
    c, here = r.claim, out / CLAIMS
    old = []
    for name in c.evidence:
        source = r.file.path.parent / name
        if c.model == ANY_MODEL:  # small, and of no model: it comes along
            write_atomically(here / source.name, read_regular(source))
            old.append(source.name)
        else:
            old.append(_relative(source, here))
    if r.outcome not in (CONFIRMED, REFUTED):
        return replace(c, evidence=tuple(old))
    new: list[str] = []
    if c.model != ANY_MODEL and c.method is None and c.verdict != HARD:
        model = weights.model(c)
        ledger = domain_path(out, model.name, c.domain.name)
        ledger = ledger.with_name(f"{ledger.name}.ledger")
        found = [computer.paths.get((model.name, c.competitors, t, c.domain.name)) for t in c.members[:_MANY]]
        paths = [p for p in found if p is not None] or ([ledger] if ledger.is_dir() else [])
        new = [_relative(p, here) for p in paths]
    elif c.model == ANY_MODEL:
        new = old
    return replace(c, evidence=tuple(new), expect=r.outcome.lower())


def _relative(path: Path, start: Path) -> str:
    return os.path.relpath(path.resolve(), start.resolve()).replace(os.sep, "/")


def toml_bytes(file: ClaimsFile) -> bytes:
    """A claims file, its header comment kept; reading it gives the same claims."""
    lines = [
        *([file.header, ""] if file.header else []),
        f"format = {_string(FORMAT)}",
        f"version = {VERSION}",
        "",
    ]
    lines.append("[source]")
    lines += [f"{name} = {_string(value)}" for name, value in vars(file.source).items()]
    for u in file.universes.values():
        lines += ["", f"[universe.{_string(u.name)}]", f"what = {_string(u.what)}"]
        if u.rows != "every":
            lines.append(f"size = {u.size}")
        lines.append(f"rows = {_string(u.rows)}" if u.rows else f"tokens = {list(u.tokens)}")
    for c in file.claims:
        lines += ["", "[[claim]]", *(f"{name} = {_value(value)}" for name, value in _fields(c))]
    return ("\n".join(lines) + "\n").encode()


def _fields(c: Claim) -> list[tuple[str, Any]]:
    single = c.tokens is not None and len(c.tokens) == 1
    tokens: Any = "all" if c.tokens is None else c.tokens[0] if single else list(c.tokens)
    method = None
    if c.method is not None:
        m = c.method
        method = {"name": m.name, "argmax": m.argmax}
        if m.name != OWN_VECTOR:
            margin = "positive" if m.margin is None else _decimal(m.margin)
            method = {
                "name": m.name,
                "arithmetic": m.arithmetic,
                "margin": margin,
                "says": m.says,
                "argmax": m.argmax,
            }
    pairs = (
        ("id", c.id), ("model", c.model), ("revision", c.revision), ("fingerprint", c.fingerprint),
        ("domain", c.domain.name), ("competitors", None if c.competitors == "all" else c.competitors),
        ("universe", c.universe.name), ("token" if single else "tokens", tokens), ("text", c.text),
        ("verdict", c.verdict), ("sense", c.sense), ("count", c.count), ("method", method),
        ("reported", None if c.reported is None else vars(c.reported)),
        ("evidence", list(c.evidence) or None), ("expect", c.expect), ("note", c.note or None),
    )  # fmt: skip
    return [(name, value) for name, value in pairs if value is not None]


def _decimal(x: Any) -> str:
    """An exact decimal in the notation of margins."""
    from verify.kernel.statement import decimal_text

    return decimal_text(x)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _page(results: Sequence[Result], others: Sequence[Elsewhere]) -> str:
    lines = [
        "# Claims, decided",
        "",
        f"Written by `verify claims --recompute --out`: {totals(results)}.",
        "To check it all again, without a solver (`--model-dir NAME=PATH` says where weights lie):",
        "",
        "```sh",
        f"verify claims {CLAIMS}/*.toml --audit --allow-unchecked",
        "sha256sum -c " + SUMS,
        "```",
    ]
    for file in dict.fromkeys(r.file.path for r in results):
        some = [r for r in results if r.file.path == file]
        s = some[0].file.source
        lines += ["", f"## {escape(file.name)}", "", f"{escape(s.author)}: *{escape(s.title)}*, {s.date}."]
        lines += [", ".join(f"{n} {name}" for name, n in counts(some).items() if n) + ".", ""]
        lines += ["| claim | what is claimed | outcome | evidence |", "|---|---|---|---|"]
        for r in some:
            words = escape(" ".join((r.reason, *shown(r, 1))).strip())
            about = escape(f"{r.claim.words} - {r.claim.subject}")
            lines.append(f"| {escape(r.claim.id)} | {about} | {r.outcome} | {words} |")
    if others:
        lines += ["", "## Every token of the claims, in every model asked for", ""]
        domains = sorted({d for o in others for _, d in o.verdicts})
        heads = [f"{escape(o.model)}: {x}" for o in others for x in (*domains, "top at own vector")]
        lines += ["| token | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
        for token in sorted({t for o in others for t in (*o.own, *(t for t, _ in o.verdicts))}):
            cells = [
                x
                for o in others
                for x in (*(o.verdicts.get((token, d), "") for d in domains), o.own.get(token, ""))
            ]
            lines.append(f"| {token} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"

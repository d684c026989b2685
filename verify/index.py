"""GLUE. The index page of a folder of certificates, and its SHA256SUMS. Decides nothing.

Every certificate is proved before it is listed; wrong here = a page that misquotes a file beside it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from verify.errors import UsageError
from verify.figures import approximate, escape
from verify.files import certificate_files, write_atomically
from verify.kernel import Speakable, to_bytes
from verify.recheck import Auditor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verify.kernel import Proved, Statement

PAGE, SUMS = "README.md", "SHA256SUMS"


@dataclass(frozen=True)
class Entry:
    """One certificate, as the page tells of it."""

    path: str
    sha256: str
    token: int
    text: str | None
    domain: str
    words: str
    verdict: str


def write_index(folder: Path, model: str | None = None, advance: Callable[[], None] = lambda: None) -> int:
    """Prove every certificate below `folder` and write its README.md and SHA256SUMS; how many there are.

    All must be of one model, norm and set of competitors; hypotheses are listed on the page. Raises what the
    audit of a file raised, UsageError where there is no file or one that cannot be listed, OutputError.
    """
    auditor, entries, assumed = Auditor(model), [], set()
    statement: Statement | None = None
    for path in certificate_files([folder]):
        result = auditor.audit(path)
        if result.error is not None:
            raise type(result.error)(f"{path}: {result.error}")
        if result.proved is None or result.proved.from_rows:
            raise UsageError(f"{path} is a bundle; an index is of certificates")
        found = result.proved.certificate.statement
        if statement is not None and _subject(found) != _subject(statement):
            raise UsageError(
                f"{path} is about another model, norm or set of competitors than the files before it; "
                "index each by itself"
            )
        statement = found
        assumed.update(result.hypotheses)
        entries.append(_entry(folder, path, result.proved))
        advance()
    if statement is None:
        raise UsageError(f"{folder} holds no certificate")
    page = _page(statement, entries, sorted(assumed)).encode()
    sums = "".join(f"{e.sha256}  {e.path}\n" for e in entries)
    sums += f"{hashlib.sha256(page).hexdigest()}  {PAGE}\n"
    write_atomically(folder / PAGE, page)
    write_atomically(folder / SUMS, sums.encode())
    return len(entries)


def _subject(s: Statement) -> tuple[object, ...]:
    """What all statements of one page share."""
    norm = (s.norm, s.gain_offset, s.epsilon)
    return s.model, s.revision, dict(s.tensors), norm, s.competitors, s.competitor_rule


def _entry(folder: Path, path: Path, proved: Proved) -> Entry:
    relative = path.relative_to(folder).as_posix()
    if not relative.isprintable() or "\\" in relative:
        raise UsageError(f"{relative!a} cannot be listed: rename it in printable characters")
    s, claim = proved.certificate.statement, proved.certificate.claim
    if isinstance(claim, Speakable):
        words = f"SPEAKABLE {approximate(claim.margin):.3g}"
    else:
        words = f"UNSPEAKABLE, {claim.kind}" + (f" {approximate(claim.gap):.3g}" if claim.gap else "")
    digest = hashlib.sha256(to_bytes(proved.certificate)).hexdigest()  # the file's own bytes: it is canonical
    return Entry(relative, digest, s.token, s.text, s.domain.name, words, proved.verdict.upper())


def _page(s: Statement, entries: list[Entry], assumed: list[str]) -> str:
    order = ("readout", "free", "direction")
    domains = sorted({e.domain for e in entries}, key=lambda d: (order.index(d) if d in order else 9, d))
    tokens = sorted({e.token for e in entries})
    counts = Counter((e.domain, e.verdict) for e in entries)
    lines = [
        f"# Certificates: {escape(s.model)}",
        "",
        "Written by `verify index`. Every file below was proved from the weights before it was listed; check",
        "them yourself with `verify audit` or with the standalone auditor, and their bytes with",
        f"`sha256sum -c {SUMS}`. A verdict without its domain means nothing.",
        "",
        "| tensor | dtype | shape | SHA-256 | Merkle root |",
        "|---|---|---|---|---|",
        *(
            f"| {role}: {escape(t.name)} | {t.dtype} | {list(t.shape)} | `{t.sha256}` | `{t.merkle}` |"
            for role, t in s.tensors.items()
        ),
        "",
        f"{len(entries)} certificates of {len(tokens)} tokens, against the rows 0 to {s.competitors - 1}.",
        "Numbers are logits: the margin of a witness, or the gap that is proved at every state (0 where none",
        "is shown).",
        *(f"\n**Hypothesis** (no file at hand confirms it): {escape(x)}" for x in assumed),
        "",
        "| domain | speakable | unspeakable |",
        "|---|---|---|",
        *(f"| `{d}` | {counts[d, 'SPEAKABLE']} | {counts[d, 'UNSPEAKABLE']} |" for d in domains),
        "",
        "| token | text | " + " | ".join(f"`{d}`" for d in domains) + " |",
        "|---|---|" + "---|" * len(domains),
    ]
    cells: dict[tuple[int, str], list[str]] = {}
    texts = {}
    for e in entries:
        texts[e.token] = e.text
        cells.setdefault((e.token, e.domain), []).append(f"[{e.words}]({quote(e.path)})")
    for token in tokens:
        text = "" if texts[token] is None else escape(repr(texts[token]))
        row = [" ".join(cells.get((token, d), [])) for d in domains]
        lines.append(f"| {token} | {text} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"

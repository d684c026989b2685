"""GLUE. The index page of a folder of certificates, and its SHA256SUMS. Decides nothing.

Every certificate is proved before it is listed; wrong here = a page that misquotes a file beside it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from verify.errors import RefutedError, UsageError
from verify.figures import approximate
from verify.files import certificate_files, read_certificate, write_atomically
from verify.kernel import Speakable
from verify.recheck import Auditor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verify.kernel import Statement

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

    All must be of one model. Raises what the audit of a file raised, UsageError where there is no file or
    several models, OutputError.
    """
    auditor, entries, statement = Auditor(model), [], None
    for path in certificate_files([folder]):
        result = auditor.audit(path)
        if result.error is not None:
            raise type(result.error)(f"{path}: {result.error}")
        if result.proved is None or result.proved.from_rows:
            raise UsageError(f"{path} is a bundle; an index is of certificates")
        s = result.proved.certificate.statement
        if statement is not None and (s.model, s.tensors) != (statement.model, statement.tensors):
            raise RefutedError(
                f"{path} is about another model than the files before it; index each by itself"
            )
        statement = s
        claim = result.proved.certificate.claim
        if isinstance(claim, Speakable):
            words = f"SPEAKABLE {approximate(claim.margin):.3g}"
        else:
            words = f"UNSPEAKABLE, {claim.kind}" + (f" {approximate(claim.gap):.3g}" if claim.gap else "")
        digest = hashlib.sha256(read_certificate(path)).hexdigest()
        relative = path.relative_to(folder).as_posix()
        verdict = result.proved.verdict.upper()
        entries.append(Entry(relative, digest, s.token, s.text, s.domain.name, words, verdict))
        advance()
    if statement is None:
        raise UsageError(f"{folder} holds no certificate")
    page = _page(statement, entries).encode()
    sums = "".join(f"{e.sha256}  {e.path}\n" for e in entries)
    sums += f"{hashlib.sha256(page).hexdigest()}  {PAGE}\n"
    write_atomically(folder / PAGE, page)
    write_atomically(folder / SUMS, sums.encode())
    return len(entries)


def _page(s: Statement, entries: list[Entry]) -> str:
    order = ("readout", "free", "direction")
    domains = sorted({e.domain for e in entries}, key=lambda d: (order.index(d) if d in order else 9, d))
    tokens = sorted({e.token for e in entries})
    counts = Counter((e.domain, e.verdict) for e in entries)
    lines = [
        f"# Certificates: {_cell(s.model)}",
        "",
        "Written by `verify index`. Every file below was proved from the weights before it was listed; check",
        "them yourself with `verify audit` or with the standalone auditor, and their bytes with",
        f"`sha256sum -c {SUMS}`. A verdict without its domain means nothing.",
        "",
        "| tensor | dtype | shape | SHA-256 | Merkle root |",
        "|---|---|---|---|---|",
        *(
            f"| {role}: {_cell(t.name)} | {t.dtype} | {list(t.shape)} | `{t.sha256}` | `{t.merkle}` |"
            for role, t in s.tensors.items()
        ),
        "",
        f"{len(entries)} certificates of {len(tokens)} tokens. Numbers are logits: the margin of a witness,",
        "or the gap that is proved at every state (0 where none is shown).",
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
        text = "" if texts[token] is None else _cell(repr(texts[token]))
        row = [" ".join(cells.get((token, d), [])) for d in domains]
        lines.append(f"| {token} | {text} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text of a file, fit for a cell of a Markdown table."""
    safe = text if text.isprintable() else ascii(text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&~" else c for c in safe)

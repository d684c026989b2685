"""GLUE. A folder of decided claims, ready to be contributed: certificates, claims, a summary.

The certificates prove what they say by themselves. Wrong here = a page that misquotes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.claims.claim import ANY_MODEL, FORMAT, HARD, MANY, OWN_VECTOR, VERSION, Claim, ClaimsFile
from verify.claims.judge import CONFIRMED, REFUTED, Result, shown
from verify.claims.report import as_json, by_file, counts, totals, weights_lines
from verify.claims.weights import Identity
from verify.errors import ModelUnavailableError, NotAtHandError, UsageError, VerifyError
from verify.figures import escape
from verify.files import model_path, read_regular, require_writable, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from verify.claims.compute import Computer
    from verify.claims.weights import Weights
    from verify.kernel import Domain
    from verify.models import Model

PAGE, SUMS, CLAIMS, REPORT = "README.md", "SHA256SUMS", "claims", "outcomes.json"
_RESERVED = {name.lower() for name in (PAGE, SUMS, CLAIMS, REPORT)}
_TITLE = "# Claims, decided"


@dataclass(frozen=True)
class Questions:
    """What can be asked of any model, against all rows: verdicts by (token, domain), tops at own vectors.

    left: files and ids of the claims that ask something else, or of too many tokens.
    """

    verdicts: dict[tuple[int, str], Domain]
    own: tuple[int, ...]
    left: tuple[str, ...] = ()

    def require_rows(self, model: Model) -> None:
        """Raise UsageError if a token is beyond a model's rows."""
        rows = model.readout.vocabulary
        last = max((*self.own, *(t for t, _ in self.verdicts)), default=0)
        if last >= rows:
            raise UsageError(
                f"--also {model.name}: it has rows 0..{rows - 1}, and a claim is about token {last}"
            )


@dataclass
class Elsewhere:
    """The tokens of all claims in one model. verdicts: by token and domain. own: rows on top."""

    model: str
    weights: Identity
    verdicts: dict[tuple[int, str], str] = field(default_factory=dict)
    own: dict[int, str] = field(default_factory=dict)

    @property
    def undecided(self) -> int:
        """How many tokens were not decided in some domain."""
        return sum(words == "UNDECIDED" for words in self.verdicts.values())


def questions_of(files: Iterable[ClaimsFile]) -> Questions:
    """What the claims ask that is the same question in another model.

    Left out: more than 1,000 tokens, other competitors than all rows, floats, and hard to speak in the
    model's sense.
    """
    verdicts: dict[tuple[int, str], Domain] = {}
    own: set[int] = set()
    left: dict[str, None] = {}
    for name, c in ((file.path.name, c) for file in files for c in file.claims):
        if c.model == ANY_MODEL:
            continue
        elsewhere = c.competitors == "all" and len(c.members) <= MANY
        if elsewhere and (c.sense == "post" or (c.method is not None and c.method.name == OWN_VECTOR)):
            own.update(c.members)
        elif elsewhere and c.method is None and c.verdict != HARD:
            verdicts.update(((t, c.domain.name), c.domain) for t in c.members)
        else:
            left[f"{name}: {c.id}"] = None
    return Questions(dict(sorted(verdicts.items())), tuple(sorted(own)), tuple(left))


def everywhere(
    questions: Questions, names: Sequence[str], weights: Weights, computer: Computer
) -> list[Elsewhere]:
    """Every question in each of these models. Raises ModelUnavailableError, UsageError as `require_ready`."""
    out = []
    for name in names:
        model = weights.named(name)
        found = Elsewhere(name, weights.identity_of(name))
        for (token, domain), asked in questions.verdicts.items():
            computer.tell(f"{name}: token {token} in {domain}")
            found.verdicts[token, domain] = computer.decide(model, "all", token, asked).verdict
        rows = model.readout.vocabulary
        for token, standing in computer.own_vectors(model, rows, "post", questions.own):
            hard = f"row {standing.nearest[0]}" + (" (level)" if standing.sign == 0 else "")
            found.own[token] = "itself" if standing.sign > 0 else hard
        out.append(found)
    return out


def require_ready(
    out: Path, files: Sequence[ClaimsFile], questions: Questions, also: Sequence[str], weights: Weights
) -> None:
    """Raise, before anything is decided, what would make the work vain.

    UsageError where two files would be written under one name, an input would be written over, weights are
    other than a claim's, or a model of --also lacks a token; ModelUnavailableError where that is not at hand,
    or weights cannot be loaded; FieldValueError where a model lacks a claim's tokens; OutputError.
    """
    require_writable(out)
    folder = _real(out)
    taken: dict[str, Path] = {}
    for file in files:
        inputs = [file.path, *(file.path.parent / name for c in file.claims for name in c.evidence)]
        for path in inputs:
            if _real(path).is_relative_to(folder) or folder.is_relative_to(_real(path)):
                raise UsageError(
                    f"{path} lies in the folder of --out, or that in it, and could be written over: choose "
                    "another folder"
                )
        kept = [file.path.parent / name for c in file.claims if c.model == ANY_MODEL for name in c.evidence]
        for path in (file.path, *kept):
            if taken.setdefault(path.name, _real(path)) != _real(path):
                raise UsageError(f"two files are called {path.name}: give them different names")
    _require_no_reserved_name((*also, *(c.model for file in files for c in file.claims)))
    _require_ours(out, taken)
    for file in files:
        for c in file.claims:
            if c.model != ANY_MODEL:
                try:
                    weights.model(c)
                except NotAtHandError:
                    continue
                except VerifyError as error:
                    raise type(error)(f"{file.path}: {error}") from None
    for name in also:
        questions.require_rows(weights.named(name))


def _require_no_reserved_name(models: Iterable[str]) -> None:
    """Raise UsageError if a model's certificates would lie where the page and its like go."""
    for model in models:
        if model_path(Path(), model).name.lower() in _RESERVED:
            raise UsageError(f"--out: a model cannot be called {model!a} there, which names another file")


def _real(path: Path) -> Path:
    """Without links. One that loops or leads nowhere is told when it is read."""
    return Path(os.path.realpath(path))


def _require_ours(out: Path, names: Iterable[str]) -> None:
    """Raise UsageError if files lie where the page, its like and claims of these names go, and the page is
    none of ours. What an earlier run left is written anew.
    """
    places = (PAGE, REPORT, SUMS, *(f"{CLAIMS}/{name}" for name in names))
    there = [name for name in places if (out / name).exists()]
    try:
        ours = read_regular(out / PAGE).startswith(f"{_TITLE}\n".encode())
    except ModelUnavailableError:
        ours = False
    if there and not ours:
        raise UsageError(f"{out / there[0]} would be written over: choose another folder with --out")


def write_folder(
    out: Path,
    results: Sequence[Result],
    code: int,
    others: Sequence[Elsewhere],
    questions: Questions,
    evidence: Iterable[Path],
) -> None:
    """Write claims, summary, report and sums beside the certificates and ledgers in `out`.

    The page comes first: it says whose folder this is, to a run that goes on after an interruption.
    code: exit code of the results. evidence: those certificates and ledgers. What else lies in `out`, of
    earlier runs for example, is not listed in the sums.
    """
    written = {out / REPORT, out / PAGE}
    write_atomically(out / PAGE, _page(results, others, questions).encode())
    for file, some in by_file(results).items():
        path = out / CLAIMS / file.name
        claims = tuple(_with_evidence(r, out / CLAIMS, written) for r in some)
        write_atomically(path, toml_bytes(replace(some[0].file, claims=claims)))
        written.add(path)
    write_atomically(out / REPORT, as_json(results, code, f"{CLAIMS}/").encode() + b"\n")
    for path in evidence:
        written.update(path.rglob("*") if path.is_dir() else [path])
    sums = []
    for path in sorted(p for p in written if p.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sums.append(f"{digest}  {path.relative_to(out).as_posix()}\n")
    write_atomically(out / SUMS, "".join(sums).encode())


def _with_evidence(r: Result, here: Path, written: set[Path]) -> Claim:
    """The claim with the weights and the evidence that decided it, and its outcome as the expected one.

    Evidence that decided nothing in this run is left out, with a note: it lies outside the folder.
    written: the files that come along are added.
    """
    c = r.claim
    if c.model == ANY_MODEL:
        sources = [r.file.path.parent / name for name in c.evidence]
        for source in sources:  # small, and of no model: it comes along
            write_atomically(here / source.name, read_regular(source))
            written.add(here / source.name)
        evidence = tuple(source.name for source in sources)
    else:
        evidence = tuple(dict.fromkeys(_relative(f.source, here) for f in r.findings if f.source is not None))
    if c.evidence and not evidence:
        c = replace(c, note=_with(c.note, f"Left out: evidence not looked into, {', '.join(c.evidence)}."))
    if r.weights is not None:
        c = replace(c, fingerprint=r.weights.fingerprint)
        if r.weights.hypothesis:  # the fingerprint is in the claim; that it is this model's remains on trust
            told = f"HYPOTHESIS when this was decided: {r.weights.hypothesis}."
            c = replace(c, note=_with(c.note, told))
    expect = r.outcome.lower() if r.outcome in (CONFIRMED, REFUTED) else c.expect
    return replace(c, evidence=evidence, expect=expect)


def _with(note: str, told: str) -> str:
    return note if told in note else f"{note} {told}".strip()


def _relative(path: Path, start: Path) -> str:
    return os.path.relpath(_real(path), _real(start)).replace(os.sep, "/")


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
            method = {
                "name": m.name,
                "arithmetic": m.arithmetic,
                "margin": m.margin,
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


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _page(results: Sequence[Result], others: Sequence[Elsewhere], questions: Questions) -> str:
    files = " ".join(shlex.quote(f"{CLAIMS}/{file.name}") for file in by_file(results))
    lines = [
        _TITLE,
        "",
        f"Written by `verify claims --recompute --out`: {totals(results)}.",
        "To check it all again, without a solver (`--model-dir NAME=PATH` says where weights lie):",
        "",
        "```sh",
        f"verify claims {files} --audit --allow-unchecked",
        "sha256sum -c " + SUMS,
        "```",
    ]
    for file, some in by_file(results).items():
        s = some[0].file.source
        lines += ["", f"## {escape(file.name)}", "", f"{escape(s.author)}: *{escape(s.title)}*, {s.date}."]
        lines += [", ".join(f"{n} {name}" for name, n in counts(some).items() if n) + ".", ""]
        lines += ["| claim | what is claimed | outcome | evidence |", "|---|---|---|---|"]
        for r in some:
            words = escape("; ".join(filter(None, (r.reason, *shown(r, 1)))))
            about = escape(f"{r.claim.words} - {r.claim.subject}")
            lines.append(f"| {escape(r.claim.id)} | {about} | {r.outcome} | {words} |")
        lines += ["", *_weights((r.claim.model, r.weights) for r in some if r.weights is not None)]
    if others:
        lines += ["", "## Tokens of the claims in every model asked for, against all rows", ""]
        lines += [*_weights((o.model, o.weights) for o in others), ""]
        if questions.left:
            left = ", ".join(map(escape, questions.left))
            lines += [f"Not asked of them (other questions, or more than {MANY:,} tokens): {left}.", ""]
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


def _weights(used: Iterable[tuple[str, Identity]]) -> list[str]:
    """Models and their weights, each once."""
    return [
        f"- {escape(name)}: {escape('; '.join(weights_lines(weights)))}"
        for name, weights in dict.fromkeys(used)
    ]

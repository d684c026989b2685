"""GLUE. Outcomes of claims for people and for machines: text, JSON, JUnit, SARIF, GitHub. Decides nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from verify.claims.claim import MANY
from verify.claims.judge import (
    CONFIRMED,
    ERROR,
    OTHER,
    OUTCOMES,
    REFUTED,
    SAME,
    UNCHECKED,
    UNDECIDED,
    Result,
    shown,
)
from verify.figures import escape, plain
from verify.files import CLAIMS_REPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from verify.claims.judge import Finding
    from verify.claims.weights import Identity
    from verify.errors import VerifyError

_SARIF_KIND = {
    CONFIRMED: "pass",
    REFUTED: "pass",
    SAME: "informational",
    OTHER: "informational",
    UNDECIDED: "open",
    UNCHECKED: "notApplicable",
}
_JUNIT = {"unexpected": "failure", "error": "error", "undecided": "error", "unchecked": "skipped"}


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many of each outcome, in a fixed order."""
    found = Counter(r.outcome for r in results)
    return {name: found[name] for name in OUTCOMES}


def by_file(results: Iterable[Result]) -> dict[Path, list[Result]]:
    """The results of each file, in the order of files."""
    out: dict[Path, list[Result]] = {}
    for result in results:
        out.setdefault(result.file.path, []).append(result)
    return out


def weights_lines(weights: Identity | None) -> list[str]:
    """Which weights an outcome rests on, and what is taken on trust about them."""
    if weights is None:
        return []
    commit = f", commit {weights.revision}" if weights.revision else ""
    lines = [f"weights: fingerprint {weights.fingerprint}{commit}"]
    return [*lines, f"HYPOTHESIS: {plain(weights.hypothesis)}"] if weights.hypothesis else lines


def verdict_of(result: Result) -> str:
    """ok, unexpected, error, undecided or unchecked."""
    if result.outcome == ERROR:
        return "error"
    return {0: "ok", 1: "unexpected", 3: "undecided", 5: "unchecked"}[result.exit_code]


def headline(result: Result) -> str:
    """The outcome and the claim, in one line."""
    claim = result.claim
    expected = ""
    if verdict_of(result) == "unexpected":
        expected = f" (NOT AS EXPECTED: {claim.expect})"
    elif claim.expect not in ("confirmed", "open") and result.as_expected:
        expected = " (as expected)"
    return f"{result.outcome}{expected} {claim.id}: {plain(claim.words)} - {plain(claim.subject)}"


def text_lines(result: Result, most: int = 3) -> list[str]:
    """An outcome for people: headline, then what it rests on."""
    lines = [headline(result)]
    lines += [f"    {plain(line)}" for line in result.reason.splitlines()]
    lines += [f"    {plain(words)}" for words in shown(result, most)]
    reported = result.claim.reported
    if reported is not None:
        margin = f" at margin {reported.margin}" if reported.margin else ""
        words = f"the source reports {reported.method}{margin}, argmax {reported.argmax}"
        lines.append(f"    {plain(words)}")
    lines += [f"    {line}" for line in weights_lines(result.weights)]
    if result.claim.note:
        lines.append(f"    note: {plain(result.claim.note)}")
    return lines


def totals(results: Sequence[Result]) -> str:
    """One line at the end."""
    parts = [f"{n} {name}" for name, n in counts(results).items() if n]
    wrong = sum(verdict_of(r) == "unexpected" for r in results)
    return f"{len(results)} claims: {', '.join(parts)}; {wrong} not as expected"


def as_json(results: Sequence[Result], code: int, folder: str = "") -> str:
    """Everything, for scripts; of claims about more than MANY tokens, those that stand out.

    folder: stands before the names of files, in place of where they lie here.
    """
    return json.dumps(
        {
            "format": CLAIMS_REPORT,
            "version": 2,
            "exit_code": code,
            "counts": counts(results),
            "claims": [
                _json(r, f"{folder}{r.file.path.name}" if folder else str(r.file.path)) for r in results
            ],
        },
        indent=1,
    )


def _json(r: Result, file: str) -> dict[str, Any]:
    c = r.claim
    yes, no, rest = r.counts
    listed, others = _listed(r)
    return {
        "file": file,
        "line": c.line,
        "id": c.id,
        "claim": c.words,
        "model": c.model,
        "revision": c.revision,
        "domain": c.domain.name,
        "competitors": c.competitors,
        "universe": {"name": c.universe.name, "size": c.universe.size or None, "what": c.universe.what},
        "expect": c.expect,
        "note": c.note or None,
        "weights": None
        if r.weights is None
        else {"fingerprint": r.weights.fingerprint, "revision": r.weights.revision},
        "hypotheses": [r.weights.hypothesis] if r.weights is not None and r.weights.hypothesis else [],
        "outcome": r.outcome,
        "as_expected": r.as_expected,
        "reason": r.reason or None,
        "holds": yes,
        "fails": no,
        "unsettled": rest,
        "tokens": [{"token": f.token, "holds": f.holds, "evidence": f.words} for f in listed],
        "others": others,
    }


def _listed(r: Result) -> tuple[list[Finding], dict[str, Any] | None]:
    """The findings to list, and how many there are of the kind that is not: the most frequent of many."""
    if len(r.findings) <= MANY:
        return r.findings, None
    (holds, number), *_ = Counter(f.holds for f in r.findings).most_common(1)
    return [f for f in r.findings if f.holds is not holds], {"tokens": number, "holds": holds}


def as_junit(results: Sequence[Result]) -> str:
    """JUnit XML: not as expected is a failure, undecided an error as well, unchecked skipped."""
    totals_of = _junit_totals(results)
    root = ET.Element("testsuites", {"name": "verify claims", "tests": str(len(results)), **totals_of})
    for file, some in by_file(results).items():
        path = str(file)
        totals_of = _junit_totals(some)
        suite = ET.SubElement(root, "testsuite", {"name": _xml(path), "tests": str(len(some)), **totals_of})
        for r in some:
            case = ET.SubElement(
                suite,
                "testcase",
                name=r.claim.id,
                classname=_xml(path),
                file=_xml(path),
                line=str(r.claim.line),
            )
            told = _xml("\n".join(text_lines(r)))
            tag = _JUNIT.get(verdict_of(r))
            if tag is None:
                ET.SubElement(case, "system-out").text = told
            else:
                ET.SubElement(case, tag, message=_xml(headline(r)), type=r.outcome).text = told
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")


def _junit_totals(results: Sequence[Result]) -> dict[str, str]:
    tags = Counter(_JUNIT.get(verdict_of(r)) for r in results)
    return {"failures": str(tags["failure"]), "errors": str(tags["error"]), "skipped": str(tags["skipped"])}


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)


def as_sarif(results: Sequence[Result], version: str) -> str:
    """SARIF 2.1.0. Claims not as expected, and errors, are failures of level error; others have no level."""
    rules = [
        {
            "id": "unexpected",
            "shortDescription": {"text": "A claim's outcome is not the one its file expects."},
        },
        {
            "id": "error",
            "shortDescription": {"text": "A claim's evidence or weights are not what they should be."},
        },
        {"id": "undecided", "shortDescription": {"text": "A claim was neither confirmed nor refuted."}},
        {
            "id": "unchecked",
            "shortDescription": {"text": "A claim could not be checked: no weights at hand."},
        },
        {"id": "ok", "shortDescription": {"text": "A claim's outcome is the one its file expects."}},
    ]
    names = [rule["id"] for rule in rules]
    run = {
        "tool": {"driver": {"name": "verify claims", "version": version, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif(r, names) for r in results],
    }
    return json.dumps(
        {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]},
        indent=1,
    )


def _sarif(r: Result, names: list[Any]) -> dict[str, Any]:
    verdict = verdict_of(r)
    uri = _uri(r.file.path)
    found: dict[str, Any] = {
        "ruleId": verdict,
        "ruleIndex": names.index(verdict),
        "kind": "fail" if verdict in ("unexpected", "error") else _SARIF_KIND[r.outcome],
        "level": "error" if verdict in ("unexpected", "error") else "none",
        "message": {"text": "\n".join(text_lines(r))},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": r.claim.line}}}
        ],
        "partialFingerprints": {"claim": f"{uri}#{r.claim.id}"},
    }
    return found


def _uri(path: Path) -> str:
    """Relative to the working directory where it lies there, percent-encoded."""
    whole = path.absolute()
    try:
        return quote(whole.relative_to(Path.cwd()).as_posix())
    except ValueError:
        return whole.as_uri()


def github_annotations(results: Sequence[Result]) -> list[str]:
    """Workflow commands: errors for errors and claims not as expected, warnings for what was not settled."""
    levels = {"unexpected": "error", "error": "error", "undecided": "warning", "unchecked": "warning"}
    out, unchecked = [], 0
    for r in results:
        level = levels.get(verdict_of(r))
        if verdict_of(r) == "unchecked":
            unchecked += 1
        elif level is not None:
            out.append(
                annotation(level, "\n".join(text_lines(r)), str(r.file.path), r.claim.line, r.claim.id)
            )
    if unchecked:
        first = next(r for r in results if verdict_of(r) == "unchecked")
        message = f"{unchecked} of {len(results)} claims are UNCHECKED, which is no pass. The first: "
        message += f"{first.claim.id}: {first.reason}"
        out.append(annotation("warning", message, str(first.file.path), first.claim.line, "unchecked claims"))
    return out


def annotation(level: str, message: str, file: str | None = None, line: int = 1, title: str = "") -> str:
    """One workflow command, escaped."""
    place = "" if file is None else f"file={_property(file)},line={line},"
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} {place}title={_property(f'verify claims {title}'.strip())}::{escaped}"


def _property(text: str) -> str:
    for raw, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        text = text.replace(raw, code)
    return text


def markdown(results: Sequence[Result], most: int = 200) -> str:
    """The step summary: totals by file, then every claim that is not plainly as expected, then the rest."""
    order = ("unexpected", "error", "undecided", "unchecked", "ok")
    lines = ["## Claims", "", totals(results) + ".", ""]
    lines += ["| file | " + " | ".join(OUTCOMES) + " | not as expected |"]
    lines += ["|---|" + "---|" * (len(OUTCOMES) + 1)]
    for path, some in by_file(results).items():
        wrong = sum(verdict_of(r) == "unexpected" for r in some)
        lines.append(
            f"| {escape(str(path))} | " + " | ".join(map(str, counts(some).values())) + f" | {wrong} |"
        )
    lines += ["", "| outcome | claim | what is claimed | evidence |", "|---|---|---|---|"]
    ranked = sorted(results, key=lambda r: order.index(verdict_of(r)))
    for r in ranked[:most]:
        rest = "; ".join(x for x in (r.reason, *shown(r, 1), *weights_lines(r.weights)) if x)
        mark = " **not as expected**" if verdict_of(r) == "unexpected" else ""
        claim = escape(f"{r.claim.words} - {r.claim.subject}")
        lines.append(f"| {r.outcome}{mark} | {escape(r.claim.id)} | {claim} | {escape(rest)} |")
    if len(ranked) > most:
        lines.append(f"\nand {len(ranked) - most} more claims.")
    return "\n".join(lines) + "\n"


def error_annotation(error: VerifyError) -> str:
    """A claims file that could not be judged at all."""
    return annotation("error", str(error), title="cannot check")

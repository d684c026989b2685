"""GLUE. Saved evidence of a claim: found, held against the claim, audited. No solver is imported.

The verdicts are the kernel's. Wrong here = evidence for something else is taken for the claim's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verify.claims.claim import HARD
from verify.claims.inclusions import passes, related, shape_of
from verify.claims.weights import key_of
from verify.errors import FieldValueError, ModelUnavailableError, VerifyError
from verify.figures import approximate
from verify.files import certificate_files, read_regular
from verify.kernel import Bundle, Certificate, Speakable, prove, prove_bundle, read
from verify.kernel.readout import ROLES
from verify.recheck import Audit, derive_statement
from verify.scan.folder import LedgerFolder

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from verify.claims.claim import Claim, ClaimsFile
    from verify.claims.weights import Key
    from verify.kernel import Statement
    from verify.kernel.ledger import Row
    from verify.models import Model


@dataclass(frozen=True)
class Fact:
    """What proved evidence says of one token, in the domain of a claim.

    verdict: speakable, unspeakable, or None where none passes to the claim's question. words: the evidence
    and the inclusions used, for people. hard: in the post's sense, where a ledger says so. source: where
    the evidence lies, None for evidence in memory.
    """

    token: int
    verdict: str | None
    words: str
    hard: bool | None = None
    source: Path | None = None


@dataclass(frozen=True)
class _Saved:
    """A certificate or ledger named by a claim, not yet audited."""

    path: Path
    name: str
    statement: Statement
    certificate: Certificate | None
    data: bytes = b""


class Evidence:
    """Evidence of the claims of files; what is read or proved once is kept."""

    def __init__(self) -> None:
        self._read: dict[Path, Certificate | Bundle] = {}
        self._proved: dict[tuple[Path, Key], list[str]] = {}
        self._rows: dict[tuple[Path, Key], dict[int, Row]] = {}

    def saved(self, claim: Claim, file: ClaimsFile) -> list[_Saved]:
        """What the claim names, after checking that it can be about it. Raises a VerifyError if not."""
        found: list[_Saved] = []
        wanted = claim.members if isinstance(claim.members, range) else frozenset(claim.members)
        for name in claim.evidence:
            where = f"{file.path}: claim {claim.id!a}: evidence {name!a}"
            path = file.path.parent / name
            try:
                some = list(self._open(path, name, claim, wanted))
                for item in some:
                    _require_about(item, claim, wanted)
            except VerifyError as error:
                raise type(error)(f"{where}: {error}") from None
            found += some
        return found

    def facts(self, claim: Claim, saved: list[_Saved], model: Model, count: int) -> Iterator[Fact]:
        """What the saved evidence proves about the claim's tokens. count: its competitors.

        Raises a VerifyError where evidence does not hold.
        """
        for item in saved:
            try:
                if item.certificate is None:
                    yield from self._ledger_facts(claim, item, model, count)
                else:
                    yield self._certificate_fact(claim, item, item.certificate, model, count)
            except VerifyError as error:
                raise type(error)(f"claim {claim.id!a}: evidence {item.name!a}: {error}") from None

    def _open(self, path: Path, name: str, claim: Claim, wanted: Container[int]) -> Iterator[_Saved]:
        folder = LedgerFolder(path)
        if folder.complete:
            yield _Saved(path, name, folder.header().statement, None)
        elif path.is_dir():
            yield from self._of_folder(path, name, claim, wanted)
        elif not path.exists():
            raise ModelUnavailableError("there is no such file or folder")
        else:
            yield self._certificate(path, name)

    def _of_folder(self, path: Path, name: str, claim: Claim, wanted: Container[int]) -> Iterator[_Saved]:
        """Of a folder of certificates, those about this claim; all of them must be well-formed."""
        some = False
        for file in certificate_files([path]):
            inside = file.relative_to(path).as_posix()
            try:
                item = self._certificate(file, f"{name}/{inside}")
            except VerifyError as error:
                raise type(error)(f"{inside!a}: {error}") from None
            try:
                _require_about(item, claim, wanted)
            except FieldValueError:
                continue
            some = True
            yield item
        if not some:
            raise FieldValueError(
                "no certificate in this folder is about the claim's tokens, model and domain"
            )

    def _certificate(self, path: Path, name: str) -> _Saved:
        data = read_regular(path)
        found = self._read.get(path)
        if found is None:
            found = self._read[path] = read(data)
        certificate = found.certificate if isinstance(found, Bundle) else found
        return _Saved(
            path, name, certificate.statement, certificate, data if isinstance(found, Bundle) else b""
        )

    def _certificate_fact(
        self, claim: Claim, item: _Saved, certificate: Certificate, model: Model, count: int
    ) -> Fact:
        key = (item.path, key_of(model))
        if key not in self._proved:
            if item.data:
                prove_bundle(item.data)
            prove(certificate, model.readout)
            self._proved[key] = _derived(certificate.statement, model, item)
        hypotheses = "".join(f"; HYPOTHESIS {x}" for x in self._proved[key])
        found = certificate.claim
        if isinstance(found, Speakable):
            verdict, words = "speakable", f"a state with margin {approximate(found.margin):.6g}"
        else:
            gap = approximate(found.gap)
            verdict, words = "unspeakable", f"Farkas multipliers, gap {gap:.6g}, {found.kind}"
        return _passed(claim, item, certificate.statement.token, verdict, words + hypotheses, count)

    def _ledger_facts(self, claim: Claim, item: _Saved, model: Model, count: int) -> Iterator[Fact]:
        from verify.scan.check import check_ledger

        key = (item.path.resolve(), key_of(model))
        if key not in self._rows:
            folder = LedgerFolder(item.path)
            proved = check_ledger(folder, model)
            # The header that was proved names the files by their hashes, so these are the rows proved.
            rows = (row for block in folder.blocks(proved.header) for row in block)
            self._rows[key] = {row.token: row for row in rows}
        rows_by_token = self._rows[key]
        for token in claim.members:
            row = rows_by_token.get(token)
            if row is not None:
                yield ledger_fact(claim, item, row, count)


def ledger_fact(claim: Claim, item: _Saved, row: Row, count: int) -> Fact:
    """What a proved row of a ledger says of a claim."""
    verdicts = {"own": "speakable", "hard": "speakable", "tied": "unspeakable", "unspeakable": "unspeakable"}
    verdict = verdicts.get(row.cls)
    # Own vectors, and what beats them, are against the ledger's own competitors. Its column hard_model is not
    # used: it depends on the grid, which whoever made the ledger chose.
    hard = row.hard_post if item.statement.competitors == count else None
    if verdict is None:
        reason = f" ({row.reason})" if row.reason else ""
        return Fact(row.token, None, f"{item.name}: undecided there{reason}", hard)
    amount = "" if row.amount is None else f"{approximate(row.amount):.6g}"
    words = f"margin {amount}" if verdict == "speakable" else f"gap {amount}, {row.kind}"
    fact = _passed(claim, item, row.token, verdict, f"{row.cls}, {words}", count)
    return replace(fact, hard=hard)


def scanned(path: Path, name: str, statement: Statement) -> _Saved:
    """A ledger that was just made and proved."""
    return _Saved(path, name, statement, None)


def fingerprint_of(statement: Statement) -> str:
    """The fingerprint of the tensors that a statement names, as `Readout.fingerprint` makes it."""
    named = [(role, statement.tensors[role]) for role in ROLES if role in statement.tensors]
    text = "\n".join(f"{role} {t.dtype} {list(t.shape)} {t.sha256}" for role, t in named)
    return hashlib.sha256(text.encode()).hexdigest()


def _require_about(item: _Saved, claim: Claim, wanted: Container[int]) -> None:
    """Raise FieldValueError unless evidence may be about the claim: its model, a token, a related domain.

    Evidence made from a folder names no revision: it is bound to the weights by their hashes alone.
    """
    s = item.statement
    if s.model != claim.model:
        raise FieldValueError(f"it is about another model, {s.model!a}, the claim about {claim.model!a}")
    if claim.revision is not None and s.revision not in (None, claim.revision):
        raise FieldValueError(f"it is about revision {s.revision!a}, the claim about {claim.revision!a}")
    if claim.fingerprint is not None and fingerprint_of(s) != claim.fingerprint:
        raise FieldValueError("it is about other weights than the claim: the fingerprints differ")
    if item.certificate is not None and s.token not in wanted:
        about = (
            f"token {claim.members[0]}" if len(claim.members) == 1 else f"{len(claim.members)} other tokens"
        )
        raise FieldValueError(f"it is about token {s.token}, the claim about {about}")
    if claim.verdict == HARD:
        if item.certificate is not None:
            raise FieldValueError(
                "a certificate does not say whether its token is hard to speak; a ledger does"
            )
    elif not related(s.domain, claim.domain, shape_of(s)):
        raise FieldValueError(
            f"it is about the domain {s.domain.name}; nothing passes from there to {claim.domain.name}"
        )


def _passed(claim: Claim, item: _Saved, token: int, verdict: str, words: str, count: int) -> Fact:
    """A proved verdict, carried to the claim's domain and competitors where an inclusion allows it."""
    s = item.statement
    way = passes(verdict, (s.domain, s.competitors), (claim.domain, count), shape_of(s))
    if way is None:
        return Fact(
            token,
            None,
            f"{item.name}: {verdict} in {s.domain.name} against {s.competitors} rows, which does not pass to "
            f"{claim.domain.name} against {count}",
        )
    by = f"; by inclusion: {', '.join(way)}" if way else ""
    return Fact(token, verdict, f"{item.name}: {verdict} in {s.domain.name}, {words}{by}", source=item.path)


def _derived(statement: Statement, model: Model, item: _Saved) -> list[str]:
    """Derive anew what stands in no tensor; what cannot be is returned. RefutedError on a contradiction."""
    result = Audit(str(item.path), model=model)
    # Which commit the weights at hand are of is told with the outcome; evidence is bound to them by hashes.
    derive_statement(replace(statement, revision=model.revision), model, result)
    return result.hypotheses

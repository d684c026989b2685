"""GLUE. The outcome of a claim: CONFIRMED, REFUTED, UNDECIDED, or UNCHECKED where weights are not at hand;
ERROR where they, or the evidence, are not what they should be.

Only proved facts count, in the claim's own domain. What a solver answers in floats is no proof, and has
outcomes of its own: SAME ANSWER, OTHER ANSWER. Wrong here = an outcome that its evidence does not bear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from verify.claims.claim import HARD, MANY, Claim, ClaimsFile
from verify.claims.compute import Computer, on_sphere
from verify.claims.evidence import Evidence, Fact
from verify.claims.printed import check_proof
from verify.claims.weights import Identity, Weights
from verify.errors import (
    EXIT_REFUTED,
    EXIT_UNAVAILABLE,
    EXIT_UNDECIDED,
    FieldValueError,
    NotAtHandError,
    VerifyError,
)
from verify.figures import approximate
from verify.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from verify.claims.claim import Method
    from verify.kernel.check import Standing
    from verify.models import Model

CONFIRMED, REFUTED, UNDECIDED, UNCHECKED = "CONFIRMED", "REFUTED", "UNDECIDED", "UNCHECKED"
SAME, OTHER = "SAME ANSWER", "OTHER ANSWER"
ERROR = "ERROR"
OUTCOMES = (CONFIRMED, REFUTED, SAME, OTHER, UNDECIDED, UNCHECKED, ERROR)
# Ids of a group that are written out for people; a report in JSON has all of the smaller one.
_LISTED = 100
DEFAULT, AUDIT, RECOMPUTE = "default", "audit", "recompute"


@dataclass(frozen=True)
class Finding:
    """One token (None: all of them). holds: whether what is asserted of it is proved; None where not settled.

    source: where the evidence lies; None for the kernel's own work, and for evidence in memory.
    """

    token: int | None
    holds: bool | None
    words: str
    source: Path | None = None


@dataclass
class Result:
    """The outcome of one claim, with what it rests on. weights: None where it rests on none. error: the exit
    code of an ERROR, whose message is the reason.
    """

    file: ClaimsFile
    claim: Claim
    outcome: str
    findings: list[Finding] = field(default_factory=list)
    reason: str = ""
    weights: Identity | None = None
    error: int = 0

    @property
    def as_expected(self) -> bool:
        """Whether this is the outcome that the file expects; an UNCHECKED claim is never."""
        if self.claim.expect == "open":
            return self.outcome in (CONFIRMED, REFUTED, SAME, OTHER)
        return self.outcome == self.claim.expect.upper()

    @property
    def exit_code(self) -> int:
        """0, 1 where another outcome is expected, 3 undecided, 5 unchecked; an error's own."""
        if self.outcome == ERROR:
            return self.error
        if self.outcome == UNCHECKED:
            return EXIT_UNAVAILABLE
        if self.as_expected:
            return 0
        return EXIT_UNDECIDED if self.outcome == UNDECIDED else EXIT_REFUTED

    @property
    def counts(self) -> tuple[int, int, int]:
        """Tokens of which it holds, of which it does not, and the rest."""
        found = [f.holds for f in self.findings]
        return found.count(True), found.count(False), found.count(None)


def exit_code(results: Sequence[Result], *, allow_unchecked: bool = False) -> int:
    """That of the worst claim: 1 not as expected; then errors, with their own; 3 undecided; 5 unchecked,
    unless that is allowed.
    """
    errors = {r.error for r in results if r.outcome == ERROR}
    codes = {r.exit_code for r in results if not (allow_unchecked and r.outcome == UNCHECKED)} - {0}
    if EXIT_REFUTED in codes:
        return EXIT_REFUTED
    return min(errors or codes, default=0)


class Judge:
    """Judges claims. mode: "default" (saved evidence, then the weights), "audit" (no solver: saved evidence,
    and what the kernel finds by itself), "recompute" (everything anew, saved evidence left aside).
    """

    def __init__(self, weights: Weights, computer: Computer, mode: str = DEFAULT) -> None:
        self.weights, self.computer, self.mode = weights, computer, mode
        self.evidence = Evidence()

    def judge(self, file: ClaimsFile, claim: Claim) -> Result:
        """The outcome of one claim. Raises a VerifyError where file, evidence or folder is wrong."""
        try:
            return self._judge(file, claim)
        except VerifyError as error:
            prefix = "" if str(error).startswith(str(file.path)) else f"{file.path}: "
            raise type(error)(f"{prefix}{error}") from None

    def outcome(self, file: ClaimsFile, claim: Claim) -> Result:
        """The same, with ERROR in place of an error: the outcomes of other claims must not be lost."""
        try:
            return self.judge(file, claim)
        except VerifyError as error:
            return Result(file, claim, ERROR, reason=str(error), error=error.exit_code)
        except OSError as error:  # a path that is too long, a folder that may not be searched
            reason = f"{file.path}: claim {claim.id!a}: cannot read {error.filename!a}: {error.strerror}"
            return Result(file, claim, ERROR, reason=reason, error=EXIT_UNAVAILABLE)

    def _judge(self, file: ClaimsFile, claim: Claim) -> Result:
        method = claim.method
        if method is not None and method.margin is not None and not method.is_float:
            return self._printed_program(file, claim, method)
        saved = [] if self.mode == RECOMPUTE else self.evidence.saved(claim, file)
        try:
            model = self.weights.model(claim)
            count = self.weights.competitors(claim, model)
        except NotAtHandError as error:
            return Result(file, claim, UNCHECKED, reason=str(error))
        if method is not None and method.margin is not None:
            result = self._replay(file, claim, method, method.margin, model, count)
        elif method is not None or claim.verdict == HARD:
            facts = list(self.evidence.facts(claim, saved, model, count))
            result = _result(file, claim, self._own_vectors(claim, model, count, facts))
        else:
            facts = list(self.evidence.facts(claim, saved, model, count))
            result = _result(file, claim, self._verdicts(claim, model, facts))
        result.weights = self.weights.identity(claim, model)
        return result

    def _verdicts(self, claim: Claim, model: Model, facts: list[Fact]) -> list[Finding]:
        """Speakable or unspeakable: by saved evidence first, the rest decided anew unless only audited."""
        settled = {f.token: f for f in facts if f.verdict is not None}
        tried = {f.token: f for f in facts if f.verdict is None}
        twice = [f for f in facts if f.verdict is not None and f.verdict != settled[f.token].verdict]
        if twice:
            raise FieldValueError(f"claim {claim.id!a}: evidence of both verdicts for token {twice[0].token}")
        rest = [t for t in claim.members if t not in settled]
        if self.mode != AUDIT and rest:
            for fact in self.computer.facts(claim, model, rest):
                (settled if fact.verdict is not None else tried)[fact.token] = fact
        return [self._verdict(claim, t, settled.get(t), tried.get(t)) for t in claim.members]

    def _verdict(self, claim: Claim, token: int, fact: Fact | None, tried: Fact | None) -> Finding:
        if fact is not None:
            return Finding(token, fact.verdict == claim.verdict, fact.words, fact.source)
        if tried is not None:
            return Finding(token, None, tried.words)
        # With weights at hand this is no UNCHECKED: evidence that went missing must not pass as that.
        return Finding(token, None, "no saved evidence, and an audit decides nothing anew")

    def _own_vectors(self, claim: Claim, model: Model, count: int, saved: list[Fact]) -> list[Finding]:
        """Hard to speak, or the row on top at the own vector: exact, and without a solver."""
        sense = claim.sense or "post"
        if sense == "model" and on_sphere(model.readout):
            why = "with epsilon = 0 the norm's image is a sphere, and no rational multiple of an own vector "
            why += "need lie on it: not decided"
            return [Finding(t, None, why) for t in claim.members]
        findings = {}
        for fact in saved:
            if fact.hard is not None:
                words = f"{'' if fact.hard else 'not '}hard to speak; ledger: {fact.words}"
                findings[fact.token] = Finding(fact.token, fact.hard, words, fact.source)
        rest = [t for t in claim.members if t not in findings]
        rows = claim.method is not None or len(rest) <= MANY
        for token, standing in self.computer.own_vectors(model, count, sense, rest, rows=rows):
            findings[token] = _own_finding(claim, token, standing, rows=rows)
        return [findings[t] for t in claim.members]

    def _printed_program(self, file: ClaimsFile, claim: Claim, method: Method) -> Result:
        if not claim.evidence:
            raise FieldValueError(
                f"claim {claim.id!a}: its evidence, the proof about the program, is missing"
            )
        for name in claim.evidence:
            try:
                check_proof(read_regular(file.path.parent / name))
            except VerifyError as error:
                raise type(error)(f"claim {claim.id!a}: evidence {name!a}: {error}") from None
        names = ", ".join(PurePath(name).name for name in claim.evidence)
        words = (
            f"{names}: infeasible whatever the weights; multiplier 1 on the token's own row, which reads "
            "0 <= -margin (Theorem 13)"
        )
        holds = method.says == "infeasible"
        return Result(file, claim, CONFIRMED if holds else REFUTED, [Finding(None, holds, words)])

    def _replay(
        self, file: ClaimsFile, claim: Claim, method: Method, margin: str, model: Model, count: int
    ) -> Result:
        if self.mode != RECOMPUTE:
            reason = "what a solver says in floats is seen by running it again only: --recompute"
            return Result(file, claim, UNCHECKED, reason=reason)
        same, words = self.computer.replay(claim, method, margin, model, count)
        outcome = UNDECIDED if same is None else SAME if same else OTHER
        return Result(file, claim, outcome, [Finding(claim.members[0], None, words)])


def _own_finding(claim: Claim, token: int, standing: Standing, *, rows: bool) -> Finding:
    """What an exact standing at the own vector says of a claim. rows: whether it says which row is on top."""
    if not rows and standing.sign:
        words = f"at its own vector {'it' if standing.sign > 0 else 'another row'} is on top, exactly"
        return Finding(token, standing.sign < 0, words)
    top = (
        [token, *standing.nearest]
        if standing.sign == 0
        else [token]
        if standing.sign > 0
        else standing.nearest
    )
    listed = ", ".join(map(str, top[:5])) + (" and more" if len(top) > 5 else "")
    if standing.sign == 0:
        words = f"at its own vector the rows {listed} are level at the top, exactly"
    else:
        margin = approximate(abs(standing.margin))
        by = standing.nearest[0] if standing.sign > 0 else token
        words = f"at its own vector row {listed} is on top, exactly; row {by} is behind it"
        words += f" (by {margin:.4g} at that vector's length)" if claim.sense == "model" else ""
    wanted = claim.method.argmax if claim.method is not None else None
    return Finding(token, standing.sign <= 0 if wanted is None else wanted in top, words)


def _result(file: ClaimsFile, claim: Claim, findings: list[Finding]) -> Result:
    """All of the tokens, or exactly so many of them."""
    result = Result(file, claim, UNDECIDED, findings)
    yes, no, open_ = result.counts
    if claim.count is None:
        result.outcome = REFUTED if no else UNDECIDED if open_ else CONFIRMED
    elif yes > claim.count or yes + open_ < claim.count:
        result.outcome = REFUTED
    else:
        result.outcome = UNDECIDED if open_ else CONFIRMED
    if claim.count is not None:
        result.reason = f"{yes} proved so, {no} proved otherwise, {open_} not settled"
    return result


def _miscounted(result: Result) -> bool:
    """Whose number shows that a count is wrong: the tokens of which it holds, or those of which it does not.

    Where all are settled either does, and the smaller group is told.
    """
    yes, no, open_ = result.counts
    too_few = result.claim.count is not None and yes + open_ < result.claim.count
    if open_ or yes == no:
        return not too_few
    return yes < no


def _members(result: Result, counted: bool) -> str:
    """The whole group, by its ids: what refutes a count."""
    tokens = [f.token for f in result.findings if f.holds is counted]
    verdict = f"{'' if counted else 'not '}{result.claim.verdict}"
    if not tokens:
        some = "none" if counted else "every one"
        return f"proved {result.claim.verdict}: {some} of {len(result.findings)}"
    more = f" and {len(tokens) - _LISTED} more" if len(tokens) > _LISTED else ""
    listed = ", ".join(map(str, tokens[:_LISTED]))
    return f"proved {verdict}, {len(tokens)} of {len(result.findings)}: {listed}{more}"


def shown(result: Result, most: int = 3) -> Iterator[str]:
    """The findings that bear the outcome, first those that refute; a few of many."""
    if result.outcome == REFUTED and result.claim.count is None:
        chosen: Sequence[Finding] = [f for f in result.findings if f.holds is False]
    elif result.outcome in (UNDECIDED, UNCHECKED):
        chosen = [f for f in result.findings if f.holds is None]
    elif result.outcome == REFUTED:
        counted = _miscounted(result)
        yield _members(result, counted)
        chosen = [f for f in result.findings if f.holds is counted]
        chosen = chosen or [f for f in result.findings if f.holds is not None]
    elif result.claim.count is not None:
        chosen = [f for f in result.findings if f.holds]
    else:
        chosen = result.findings
    for finding in chosen[:most]:
        many = len(result.claim.members) > 1 and finding.token is not None
        yield (f"token {finding.token}: " if many else "") + finding.words
    if len(chosen) > most:
        yield f"and {len(chosen) - most} more tokens"

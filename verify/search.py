"""GLUE. The search for evidence on one token: proposers guess, the kernel checks, what holds is kept.

Wrong here costs time or an UNDECIDED, never a verdict: the final certificate is proved by the kernel.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.companion import with_companion
from verify.decision import MAXIMISED, Attempt, Decision
from verify.errors import MalformedError, RefutedError
from verify.kernel import (
    Certificate,
    Multipliers,
    Proved,
    Speakable,
    State,
    System,
    Unspeakable,
    from_bytes,
    prove,
    to_bytes,
)
from verify.kernel.check import Combination, check_never, check_tie, combine, residual_margin, state_margin
from verify.propose.multipliers import best_bound, exact_at_zero, rounded
from verify.propose.problem import Problem
from verify.propose.residual import residuals
from verify.propose.rounding import states, true_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verify.decide import Decider
    from verify.kernel.evidence import Claim
    from verify.propose.proposal import Proposal, Proposer

_NOT_A_WITNESS = "not a witness"


class Search:
    """One token in one domain: collects evidence until the verdict is as good as it gets."""

    def __init__(self, decider: Decider, system: System) -> None:
        self.decider, self.system = decider, system
        self.attempts: list[Attempt] = []
        self.notes: list[str] = []
        self.equal: tuple[int, ...] = ()
        self.speakable: Speakable | None = None
        self.unspeakable: Unspeakable | None = None
        self.derived_from = ""

    @property
    def bounded(self) -> bool:
        """Whether margins have a largest value: not on cones and not in R^d."""
        return self.system.region in ("ball", "box")

    def run(self) -> None:
        """Let the proposers guess until the verdict is as good as it gets."""
        view = self.decider.view(self.system.domain)
        problem = Problem(view, self.system.token, self.system.count, [])
        self.equal = self._equal_rows(problem)
        if self.equal:
            # Unspeakable for certain; what is left is whether the group itself can reach the top.
            self.unspeakable = Unspeakable(Fraction(0), "unsettled", Multipliers((self.equal[0],), (1,)))
            problem = Problem(view, self.system.token, self.system.count, list(self.equal))
        problem.system = self.system
        for proposer in self.decider.proposers:
            # Once multipliers prove it unspeakable, other proposers are not asked for the kind alone.
            if self._settled(problem) or (self.unspeakable is not None and not self.equal):
                return
            self._use(proposer, problem)

    def _settled(self, problem: Problem) -> bool:
        if problem.competitors().size == 0:
            self._tie(problem.own_direction() if np.any(problem.own_direction()) else np.ones(problem.n))
            return True
        if self.unspeakable is not None:
            return self.unspeakable.kind != "unsettled"
        return self.speakable is not None and (not self.bounded or self._maximised())

    def _maximised(self) -> bool:
        s = self.speakable
        return s is not None and s.at_most is not None and s.margin >= MAXIMISED * s.at_most

    def _equal_rows(self, problem: Problem) -> tuple[int, ...]:
        """Competitors whose inequality is 0 > 0: compared exactly, found by their float distance."""
        near = np.flatnonzero(problem.distances <= 1e-6 * (1.0 + float(np.linalg.norm(problem.a_t))))
        if self.system.domain.kind == "free" and near.size:
            near = near[np.abs(problem.view.rows[near] - problem.a_t).max(axis=1) == 0]
        near = near[near != self.system.token]
        return self.exactly_equal([int(j) for j in near])

    def exactly_equal(self, rows: list[int]) -> tuple[int, ...]:
        """Of these competitors, those whose inequality reads 0 > 0."""
        exact = self.system.differences(rows) if rows else []
        return tuple(x.row for x in exact if x.e == 0 and not any(self.system.project(x.D)))

    def _use(self, proposer: Proposer, problem: Problem) -> None:
        """Run one proposer; whatever it does, only checked evidence is kept."""
        try:
            for proposal in proposer.propose(problem):
                found = self._examine(problem, proposal)
                self.attempts.append(Attempt(proposer.name, proposal.claim, found, proposal.effort))
                if self._settled(problem):
                    return
        except Exception as error:  # noqa: BLE001 - a proposer may fail in any way; it is never believed
            self.attempts.append(Attempt(proposer.name, "nothing", f"failed: {error!r}"[:200], ""))

    def _examine(self, problem: Problem, proposal: Proposal) -> str:
        """Check a proposal exactly; keep what holds; say what was found."""
        found = []
        if proposal.state is not None:
            y = true_state(problem, proposal.state)
            if self.equal:
                found.append(self._tie(y))
            elif self.unspeakable is None:
                found.append(self._witness(problem, y, proposal.low))
        if proposal.exact_state is not None:
            found.append(self._exact_state(proposal.exact_state))
        if proposal.exact_multipliers is not None:
            found.append(self._exact_multipliers(proposal.exact_multipliers))
        if proposal.multipliers.size and np.isfinite(proposal.multipliers).all():
            found.append(self._bound(problem, proposal))
        return "; ".join(x for x in found if x) or "nothing to check"

    def _witness(self, problem: Problem, y: np.ndarray, low: float) -> str:
        """Round y to states of the domain and keep the first with nearly the float margin."""
        best: tuple[Fraction, State] | None = None
        if low <= 0 and problem.cone:
            return "no margin in its direction"
        if self.system.region == "sphere":
            return self._residual_only(problem, y)
        for state in states(self.system, y):
            margin = self.margin_or_none(state)
            if margin is None:
                continue
            if best is None or margin > best[0]:
                best = (margin, state)
            if margin > 0 and margin >= Fraction(95, 100) * Fraction(max(low, 0.0)):
                break
        if best is None:
            return "no state inside the domain"
        if best[0] <= 0:
            return f"margin of its direction {float(best[0]):.3g}: {_NOT_A_WITNESS}"
        if self.speakable is None or best[0] > self.speakable.margin:
            kept = self.speakable
            self.speakable = Speakable(
                best[0], best[1], None, kept.ceiling if kept else None, kept.at_most if kept else None
            )
        return f"witness, margin {float(best[0]):.4g}"

    def _exact_state(self, state: State) -> str:
        """A state handed over in integers: a witness, a tie, or nothing."""
        self.tie_state(state)
        margin = self.margin_or_none(state)
        if self.unspeakable is not None or margin is None or margin <= 0:
            return ""
        if self.speakable is None or margin > self.speakable.margin:
            self.speakable = replace(self.speakable or Speakable(margin, state), margin=margin, state=state)
        return f"witness, margin {float(margin):.4g}"

    def _exact_multipliers(self, multipliers: Multipliers) -> str:
        """Multipliers handed over in integers: a proof below zero, a ceiling above it."""
        bound = best_bound(self.system, combine(self.system, multipliers))
        if bound is None or (bound >= 0 and self.speakable is None):
            return ""
        if bound < 0:
            return self.keep_unspeakable(multipliers, -bound, never=True)
        s = self.speakable
        if s is not None and self.bounded and (s.at_most is None or bound < s.at_most):
            self.speakable = replace(s, ceiling=multipliers, at_most=bound)
        return f"margins are at most {float(bound):.4g}"

    def _residual_only(self, problem: Problem, y: np.ndarray) -> str:
        """epsilon = 0: the witness is a residual vector, evaluated through the norm itself."""
        for residual in residuals(self.system, problem, y):
            try:
                margin = residual_margin(self.system, residual)
            except RefutedError:
                continue
            if margin > 0 and (self.speakable is None or margin > self.speakable.margin):
                self.speakable = Speakable(margin, None, residual)
                return f"residual witness, margin {float(margin):.4g}"
        return "no residual vector on the sphere speaks it"

    def _tie(self, y: np.ndarray) -> str:
        """With equal rows: a state where the whole group leads settles the kind as tie-only."""
        if self.unspeakable is None or self.unspeakable.kind != "unsettled":
            return ""
        for state in states(self.system, y):
            self.tie_state(state)
            if self.unspeakable.kind == "tie-only":
                return "the group of equal rows leads together"
        return "its direction does not bring the group to the top"

    def _bound(self, problem: Problem, proposal: Proposal) -> str:
        """Round the multipliers: a bound below zero proves, one above zero is a ceiling."""
        if self.bounded or problem.homogeneous:
            high = Fraction(proposal.high) if np.isfinite(proposal.high) else Fraction(0)
            if high < 0:
                pair = rounded(self.system, problem, proposal, high * Fraction(9, 10)) or rounded(
                    self.system, problem, proposal, Fraction(0)
                )
                if pair and pair[1] < 0:
                    return self.keep_unspeakable(pair[0], -pair[1], never=True)
            elif self.speakable is not None and self.bounded:
                pair = rounded(self.system, problem, proposal, high * Fraction(5, 4))
                if pair and (self.speakable.at_most is None or pair[1] < self.speakable.at_most):
                    self.speakable = replace(self.speakable, ceiling=pair[0], at_most=pair[1])
                    return f"margins are at most {float(pair[1]):.4g}"
                return ""
        if self.speakable is not None or self.unspeakable is not None:
            return ""
        said = "multipliers do not hold exactly"
        for how, multipliers, c in exact_at_zero(self.system, problem, proposal):
            bound = best_bound(self.system, c)
            gap = -bound if bound is not None and bound < 0 else Fraction(0)
            never = self.is_never(c)
            if self.unspeakable is None or never:
                said = self.keep_unspeakable(multipliers, gap, never) + f" ({how})"
            if self.unspeakable is not None and self.unspeakable.kind == "never":
                break
        return said

    def keep_unspeakable(self, multipliers: Multipliers, gap: Fraction, never: bool) -> str:
        """Take these multipliers as the claim to be proved; says so in words."""
        self.unspeakable = Unspeakable(gap, "never" if never else "unsettled", multipliers)
        return f"multipliers on {len(multipliers.rows)} rows, gap {float(gap):.4g}"

    def is_never(self, c: Combination) -> bool:
        """Whether these sums exclude ties at every state but zero (Theorem 7)."""
        try:
            check_never(self.system, c)
        except RefutedError:
            return False
        return True

    def tie_state(self, state: State) -> None:
        """Settle the kind as tie-only if `state` is a tie (Theorem 5)."""
        if self.unspeakable is None or self.unspeakable.kind != "unsettled":
            return
        try:
            check_tie(self.system, state)
        except RefutedError:
            return
        self.unspeakable = replace(self.unspeakable, kind="tie-only", tie=state)

    def margin_or_none(self, state: State) -> Fraction | None:
        """The exact margin at `state`, None outside the domain."""
        try:
            return state_margin(self.system, state)[0]
        except RefutedError:
            return None

    def decision(self) -> Decision:
        """The proved answer, or UNDECIDED with the reason."""
        claim: Claim | None = self.unspeakable or self.speakable
        if isinstance(claim, Speakable) and self.system.domain.kind == "readout" and claim.residual is None:
            claim = with_companion(self, claim)
        proved, data, reason = None, b"", self.why_undecided()
        for candidate in self._forms(claim):
            provenance = {"tool": _tool(), "proposers": ", ".join(p.name for p in self.decider.proposers)}
            statement = self.decider.statement(self.system.token, self.system.domain)
            data = to_bytes(Certificate(statement, candidate, provenance))
            try:
                proved = prove(from_bytes(data), self.decider.model.readout)
                break
            except (RefutedError, MalformedError) as error:
                # Expected of a bare support alone, and of numbers beyond the format's limits.
                reason = f"the kernel refused the final certificate: {error}"
        attempts = self.attempts if self.equal else [_named(a, proved) for a in self.attempts]
        return Decision(
            model=self.decider.model,
            token=self.system.token,
            domain=self.system.domain,
            competitors=self.system.count,
            rule=self.decider.rule,
            proved=proved,
            certificate=data if proved else b"",
            attempts=attempts,
            reason="" if proved else reason,
            equal_rows=self.equal,
            derived_from=self.derived_from,
            notes=self.notes,
        )

    def _forms(self, claim: Claim | None) -> Iterator[Claim]:
        """The claim in the form to be stored: with the bare support first, where that is asked for."""
        if isinstance(claim, Unspeakable) and self.decider.stored == "support":
            yield replace(claim, multipliers=replace(claim.multipliers, values=None))
        if claim is not None:
            yield claim

    def why_undecided(self) -> str:
        """What was tried, for a person, where no claim was found."""
        tried = "; ".join(f"{a.proposer}: claimed {a.claimed}, {a.found}" for a in self.attempts)
        return f"no proposal passed the exact check. Tried: {tried or 'nothing'}"


def _named(attempt: Attempt, proved: Proved | None) -> Attempt:
    """Name a float claim that the exact verdict contradicts."""
    if proved is None:
        return attempt
    if attempt.claimed == "speakable" and (
        proved.verdict == "unspeakable" or _NOT_A_WITNESS in attempt.found
    ):
        return replace(attempt, fake="FAKE FEASIBLE")
    if attempt.claimed == "unspeakable" and proved.verdict == "speakable":
        return replace(attempt, fake="FAKE INFEASIBLE")
    return attempt


def _tool() -> str:
    from verify import __version__

    return f"unspeakable {__version__}"

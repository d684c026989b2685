"""GLUE. Decide one token: proposers guess, the kernel checks the bytes that will be saved.

Wrong here costs time or an UNDECIDED, never a verdict: every verdict is a `Proved` of the kernel.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from verify.errors import RefutedError, UsageError
from verify.kernel import (
    Certificate,
    Domain,
    Multipliers,
    Proved,
    Residual,
    Speakable,
    State,
    Statement,
    System,
    Unspeakable,
    from_bytes,
    parse_domain,
    prove,
    tensor_ids,
    to_bytes,
)
from verify.kernel.check import Combination, check_never, check_tie, combine, residual_margin, state_margin
from verify.propose import make_proposer
from verify.propose.interior import InteriorPoint
from verify.propose.multipliers import best_bound, exact_at_zero, rounded
from verify.propose.problem import FloatReadout, Problem
from verify.propose.residual import residuals
from verify.propose.rounding import states

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from verify.kernel.evidence import Claim
    from verify.models import Model
    from verify.propose.proposal import Proposal, Proposer

# A witness within this share of the certified ceiling counts as maximised.
MAXIMISED = Fraction(1, 2)
_RIVALS = 5
# |z|^2 / d from which the residual variance is at least 100 epsilon.
_REALISTIC_SHARE = 100 / 101
_NOT_A_WITNESS = "not a witness"


@dataclass(frozen=True)
class Attempt:
    """One float proposal against what the exact check of it found."""

    proposer: str
    claimed: str
    found: str
    effort: str
    fake: str = ""  # "FAKE FEASIBLE" or "FAKE INFEASIBLE" once the verdict is known


@dataclass
class Decision:
    """The answer for one token in one domain. `proved` is None exactly when it is UNDECIDED."""

    model: Model
    token: int
    domain: Domain
    competitors: int
    proved: Proved | None
    certificate: bytes
    attempts: list[Attempt]
    reason: str = ""
    equal_rows: tuple[int, ...] = ()
    seconds: float = 0.0
    derived_from: str = ""
    notes: list[str] = field(default_factory=list)
    rivals: tuple[int, ...] = ()  # nearest first; by float margins at the witness
    angle: float | None = None  # radians to the nearest face of the cone, in floats
    path: Path | None = None

    @property
    def maximised(self) -> bool:
        """Whether the witness is proved to have at least half of the best possible margin."""
        c = self.claim
        return isinstance(c, Speakable) and c.at_most is not None and c.margin >= MAXIMISED * c.at_most

    @property
    def verdict(self) -> str:
        """SPEAKABLE, UNSPEAKABLE or UNDECIDED."""
        return self.proved.verdict.upper() if self.proved else "UNDECIDED"

    @property
    def claim(self) -> Claim | None:
        """The proved claim with its evidence."""
        return self.proved.certificate.claim if self.proved else None


class Decider:
    """Decides tokens of one model; float copies of its matrix are kept between calls.

    competitors: "all" rows, or "tokenizer": ids below the tokenizer's size.
    proposer: "default" (all of them, best first) or the name of the only one to use.
    """

    def __init__(
        self, model: Model, competitors: str = "all", proposer: str = "default", solver: str | None = None
    ) -> None:
        self.model, self.rule = model, competitors
        self.count = competitor_count(model, competitors)
        self.proposers = make_proposer(proposer, solver)
        self._views: dict[str, FloatReadout] = {}
        # One BLAS thread: the matrices are small, and threads that wait for each other cost more.
        self._threads = ThreadpoolController()
        for tensor in model.readout.tensors.values():
            tensor.require_finite()

    def decide(self, token: int, domain: Domain, known: list[Decision] | None = None) -> Decision:
        """Decide `token` in `domain`, with `known` decisions of the same token in other domains.

        Their evidence is tried first where an inclusion between domains allows it.
        Raises UsageError when the token is out of range or has no competitors.
        """
        start = time.perf_counter()
        system = System(self.model.readout, domain, token, self.count)
        if all(j == token for j in range(min(self.count, 2))):
            raise UsageError("there are no competitors: with one row there is nothing to decide")
        run = _Run(self, system)
        with self._threads.limit(limits=1, user_api="blas"):
            for other in known or ():
                if run.inherit(other):
                    break
            else:
                run.search()
            decision = run.decision()
            self._describe(decision, system)
        decision.seconds = time.perf_counter() - start
        return decision

    def _describe(self, decision: Decision, system: System) -> None:
        """Nearest rivals at the witness, and on cones its angle to the nearest face (floats, for people)."""
        claim = decision.claim
        if not isinstance(claim, Speakable) or claim.state is None:
            return
        problem = Problem(self.view(system.domain), system.token, system.count, [])
        state = float_state(system, claim.state)
        margins = problem.margins(problem.coordinates(state))
        nearest = np.argsort(margins, kind="stable")[:_RIVALS]
        decision.rivals = tuple(int(j) for j in nearest if np.isfinite(margins[j]))
        if system.region == "cone" or (system.region == "space" and not problem.homogeneous):
            size = float(np.linalg.norm(state))
            finite = np.isfinite(margins) & (problem.distances > 0)
            sines = margins[finite] / (problem.distances[finite] * size)
            decision.angle = float(np.arcsin(np.clip(sines.min(initial=1.0), -1.0, 1.0)))

    def view(self, domain: Domain) -> FloatReadout:
        """The float copy of the rows for a domain; box domains share one with `readout`."""
        key = "readout" if domain.kind == "box" else domain.kind
        if key not in self._views:
            if len(self._views) > 1:
                self._views.pop(next(iter(self._views)))
            self._views[key] = FloatReadout(self.model.readout, parse_domain(key))
        view = self._views[key]
        return view.as_box(float(domain.bound)) if domain.kind == "box" else view

    def statement(self, token: int, domain: Domain) -> Statement:
        """What a certificate for this token says it is about."""
        model, readout = self.model, self.model.readout
        return Statement(
            model=model.name,
            revision=model.revision,
            tensors=tensor_ids(readout),
            norm=readout.norm,
            gain_offset=readout.gain_offset,
            epsilon=readout.epsilon,
            epsilon_source=readout.epsilon_source,
            files=dict(model.files),
            token=token,
            text=model.tokens.text(token),
            domain=domain,
            competitors=self.count,
            competitor_rule=self.rule,
        )


def competitor_count(model: Model, rule: str) -> int:
    """Number of competitor rows under a rule. Raises UsageError when the rule cannot be applied."""
    if rule == "all":
        return model.readout.vocabulary
    if rule != "tokenizer":
        raise UsageError(f"unknown competitors {rule!r}: use all or tokenizer")
    if model.tokens.size is None:
        raise UsageError(f"{model.name} has no tokenizer file: use --competitors all")
    return min(model.tokens.size, model.readout.vocabulary)


def float_state(system: System, state: State) -> np.ndarray:
    """z (h in `free`, Px in `box`) of a stored state, rounded."""
    scale = system.readout.d if system.region == "box" and system.projects else 1
    return np.array([float(Fraction(x, scale << state.k)) for x in system.project(list(state.p))])


class _Run:
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

    # -- the search ---------------------------------------------------------------------------------

    def search(self) -> None:
        view = self.decider.view(self.system.domain)
        problem = Problem(view, self.system.token, self.system.count, [])
        self.equal = self._equal_rows(problem)
        if self.equal:
            # Unspeakable for certain; what is left is whether the group itself can reach the top.
            self.unspeakable = Unspeakable(Fraction(0), "unsettled", Multipliers((self.equal[0],), (1,)))
            problem = Problem(view, self.system.token, self.system.count, list(self.equal))
        for proposer in self.decider.proposers:
            if self._settled(problem):
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
        if near.size == 0:
            return ()
        exact = self.system.differences([int(j) for j in near])
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
            y = self._true_state(problem, proposal.state)
            if self.equal:
                found.append(self._tie(y))
            elif self.unspeakable is None:
                found.append(self._witness(problem, y, proposal.low))
        if proposal.multipliers.size and np.isfinite(proposal.multipliers).all():
            found.append(self._bound(problem, proposal))
        return "; ".join(x for x in found if x) or "nothing to check"

    def _true_state(self, problem: Problem, y: np.ndarray) -> np.ndarray:
        """z, x or h from the proposer's y; for (h, tau) it is h / tau."""
        if not problem.homogeneous:
            return y
        h, tau = y[:-1], float(y[-1]) * problem.tau_scale
        size = float(np.linalg.norm(h)) or 1.0
        return h / max(tau, 1e-7 * size)

    def _witness(self, problem: Problem, y: np.ndarray, low: float) -> str:
        """Round y to states of the domain and keep the first with nearly the float margin."""
        best: tuple[Fraction, State] | None = None
        if low <= 0 and problem.cone:
            return "no margin in its direction"
        if self.system.region == "sphere":
            return self._residual_only(problem, y)
        for state in states(self.system, y):
            try:
                margin, _ = state_margin(self.system, state)
            except RefutedError:
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

    def _outward(self, problem: Problem) -> None:
        """Where the best witness needs near-constant residuals, look for one further out on its ray.

        One with half of the best margin replaces it; a smaller one is told of.
        """
        s = self.speakable
        if s is None or s.state is None or self.system.region != "ball":
            return
        z = float_state(self.system, s.state)
        d = self.system.readout.d
        share = float(z @ z) / d
        if share == 0 or share >= _REALISTIC_SHARE:
            return
        for scale in np.linspace(np.sqrt((1 - 2.0**-20) / share), 1.05, 24):
            low = float(problem.margins(problem.coordinates(scale * z)).min())
            if low <= 0 or scale * scale * share < _REALISTIC_SHARE:
                continue
            for state in states(self.system, scale * z):
                margin = self._margin_or_none(state)
                if margin is not None and margin >= Fraction(95, 100) * Fraction(low):
                    if s.at_most is not None and margin >= MAXIMISED * s.at_most:
                        self.speakable = replace(s, margin=margin, state=state)
                    else:
                        self.notes.append(
                            f"a state with |z|^2/d = {scale * scale * share:.4f} speaks it too, "
                            f"with a margin of {float(margin):.3g}"
                        )
                    return

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
            try:
                check_tie(self.system, state)
            except RefutedError:
                continue
            self.unspeakable = replace(self.unspeakable, kind="tie-only", tie=state)
            return "the group of equal rows leads together"
        return "its direction does not bring the group to the top"

    def _bound(self, problem: Problem, proposal: Proposal) -> str:
        """Round the multipliers: a bound below zero proves, one above zero is a ceiling."""
        if self.bounded or problem.homogeneous:
            high = Fraction(proposal.high) if np.isfinite(proposal.high) else Fraction(0)
            if high < 0:
                pair = rounded(self.system, proposal, high * Fraction(9, 10)) or rounded(
                    self.system, proposal, Fraction(0)
                )
                if pair and pair[1] < 0:
                    return self._keep_unspeakable(pair[0], -pair[1], never=True)
            elif self.speakable is not None and self.bounded:
                pair = rounded(self.system, proposal, high * Fraction(5, 4))
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
            never = self._is_never(c)
            if self.unspeakable is None or never:
                said = self._keep_unspeakable(multipliers, gap, never) + f" ({how})"
            if self.unspeakable is not None and self.unspeakable.kind == "never":
                break
        return said

    def _keep_unspeakable(self, multipliers: Multipliers, gap: Fraction, never: bool) -> str:
        self.unspeakable = Unspeakable(gap, "never" if never else "unsettled", multipliers)
        return f"multipliers on {len(multipliers.rows)} rows, gap {float(gap):.4g}"

    def _is_never(self, c: Combination) -> bool:
        try:
            check_never(self.system, c)
        except RefutedError:
            return False
        return True

    # -- evidence from other domains ----------------------------------------------------------------

    def inherit(self, other: Decision) -> bool:
        """Try the evidence of another domain here (theory of inclusions); the kernel checks it anew."""
        claim = other.claim
        if isinstance(claim, Unspeakable) and (other.domain.kind == "free" or other.equal_rows):
            c = combine(self.system, claim.multipliers)
            bound = best_bound(self.system, c)
            if bound is not None and bound <= 0:
                self.equal = other.equal_rows
                self._keep_unspeakable(claim.multipliers, -bound, self._is_never(c))
                for state in self._carried(other, claim.tie):
                    self._tie_state(state)
        elif isinstance(claim, Speakable):
            for state in self._carried(other, claim.state):
                margin = self._margin_or_none(state)
                if margin is not None and margin > 0:
                    self.speakable = Speakable(margin, state)
                    break
        if self.unspeakable is not None and self.unspeakable.kind == "unsettled":
            self.unspeakable = None
        inherited = self.unspeakable is not None or (self.speakable is not None and not self.bounded)
        if not inherited:
            self.speakable = None
        else:
            self.derived_from = other.domain.name
        return inherited

    def _tie_state(self, state: State) -> None:
        if self.unspeakable is None or self.unspeakable.kind != "unsettled":
            return
        try:
            check_tie(self.system, state)
        except RefutedError:
            return
        self.unspeakable = replace(self.unspeakable, kind="tie-only", tie=state)

    def _margin_or_none(self, state: State) -> Fraction | None:
        try:
            return state_margin(self.system, state)[0]
        except RefutedError:
            return None

    def _carried(self, other: Decision, state: State | None) -> Iterator[State]:
        """A state of another domain as states of this one: h = gain z + shift in `free`, scales on cones."""
        if state is None:
            return
        there = System(self.decider.model.readout, other.domain, self.system.token, self.system.count)
        if self.system.domain.kind == "free" and there.region in ("ball", "cone"):
            z = there.project(list(state.p))
            for power in (0, 8, 16, 24):
                g, _, unit = there.final_state([x << power for x in z], 1, -state.k)
                yield State(tuple(g), -unit)
        elif self.system.region == "cone" and there.region in ("ball", "cone"):
            yield state

    # -- the answer ---------------------------------------------------------------------------------

    def decision(self) -> Decision:
        claim: Claim | None = self.unspeakable or self.speakable
        if isinstance(claim, Speakable) and self.system.domain.kind == "readout" and claim.residual is None:
            claim = self._with_companion(claim)
        proved, data, reason = None, b"", ""
        if claim is not None:
            provenance = {"tool": _tool(), "proposers": ", ".join(p.name for p in self.decider.proposers)}
            statement = self.decider.statement(self.system.token, self.system.domain)
            data = to_bytes(Certificate(statement, claim, provenance))
            try:
                proved = prove(from_bytes(data), self.decider.model.readout)
            except RefutedError as error:  # never expected; a defect of ours must not become a verdict
                reason = f"the kernel refused the final certificate: {error}"
        else:
            reason = self._why_undecided()
        attempts = self.attempts if self.equal else [_named(a, proved) for a in self.attempts]
        return Decision(
            model=self.decider.model,
            token=self.system.token,
            domain=self.system.domain,
            competitors=self.system.count,
            proved=proved,
            certificate=data if proved else b"",
            attempts=attempts,
            reason=reason,
            equal_rows=self.equal,
            derived_from=self.derived_from,
            notes=self.notes,
        )

    def _with_companion(self, claim: Speakable) -> Speakable:
        """The claim with a residual-stream vector beside its state, where a search finds one."""
        view = self.decider.view(self.system.domain)
        problem = Problem(view, self.system.token, self.system.count, [])
        try:
            self._outward(problem)
            return self._with_residual(self.speakable or claim, problem)
        except Exception as error:  # noqa: BLE001 - a float search may fail in any way; the claim stands
            self.notes.append(f"the search for a residual-stream vector failed: {error!r}"[:200])
            return claim

    def _with_residual(self, claim: Speakable, problem: Problem) -> Speakable:
        """Add a residual-stream vector that speaks the token too, and say which dtype it needed."""
        z: np.ndarray | None
        if claim.state is None:
            return claim
        own = self.system.readout.unembedding.dtype
        z = float_state(self.system, claim.state)
        best = self._residual_near(problem, z)
        if best is None or best.dtype != own:
            # Farther from all faces there is more room for rounding, at a smaller margin.
            roomy = Problem(problem.view, problem.token, problem.count, [], by_distance=True)
            for proposal in InteriorPoint(0.5).propose(roomy):
                y = proposal.state
                z = None if y is None or proposal.low <= 0 else self._true_state(roomy, y)
                other = self._residual_near(problem, z)
                best = other if best is None or (other is not None and other.dtype == own) else best
                break
        if best is None:
            self.notes.append(
                "no residual-stream vector found in F16, BF16, F32 or F64 that speaks the token"
            )
            return claim
        if best.dtype != own:
            self.notes.append(f"no residual vector found in {own}; the one stored needs {best.dtype}")
        return replace(claim, residual=best)

    def _residual_near(self, problem: Problem, z: np.ndarray | None) -> Residual | None:
        """The first residual vector near z that speaks the token, in the narrowest dtype."""
        for residual in residuals(self.system, problem, z) if z is not None else ():
            with contextlib.suppress(RefutedError):
                residual_margin(self.system, residual)
                return residual
        return None

    def _why_undecided(self) -> str:
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

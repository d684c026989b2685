"""GLUE. Decide tokens of one model. Every verdict is a `Proved` of the kernel; see search.py."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from verify.decision import Attempt, Decision, float_state
from verify.errors import MalformedError, UsageError
from verify.inherit import inherit
from verify.kernel import Domain, Speakable, Statement, System, parse_domain, tensor_ids
from verify.kernel.statement import decimal_text
from verify.models import competitor_count
from verify.propose import make_proposer
from verify.propose.problem import FloatReadout, Problem
from verify.search import Search

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from verify.models import Model

__all__ = ["Attempt", "Decider", "Decision", "competitor_count"]

_RIVALS = 5


class Decider:
    """Decides tokens of one model; float copies of its matrix are kept between calls.

    competitors: "all" rows, or "tokenizer": ids below the tokenizer's size.
    proposer: "default" (all of them, best first) or the name of the only one to use.
    stored: "full" multipliers, or the "support" alone where it determines them (an auditor solves again).
    """

    def __init__(
        self,
        model: Model,
        competitors: str = "all",
        proposer: str = "default",
        solver: str | None = None,
        stored: str = "full",
    ) -> None:
        if stored not in ("full", "support"):
            raise UsageError(f"unknown form of multipliers {stored!r}: use full or support")
        self.stored = stored
        self.model, self.rule = model, competitors
        try:
            decimal_text(model.readout.epsilon)
        except MalformedError as error:
            raise UsageError(f"epsilon: {error}") from None
        self.count = competitor_count(model, competitors)
        self.proposers = make_proposer(proposer, solver)
        self._views: dict[str, FloatReadout] = {}
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
        run = Search(self, system)
        with self.one_thread():
            for other in known or ():
                if inherit(run, other):
                    break
            else:
                run.run()
            decision = run.decision()
            self._describe(decision, system)
        decision.seconds = time.perf_counter() - start
        return decision

    def one_thread(self) -> AbstractContextManager[Any]:
        """One BLAS thread: the matrices are small, and threads that wait for each other cost more."""
        return self._threads.limit(limits=1, user_api="blas")  # type: ignore[no-any-return]

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
            finite = np.isfinite(margins) & (problem.distances > 0) & (size > 0)
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

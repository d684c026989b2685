"""GLUE. Evidence carried from one domain to another along the inclusions of Theorem 10.

Only a way to save work: what is carried over is checked anew by the kernel, in its new domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.kernel import Speakable, State, System, Unspeakable
from verify.kernel.check import combine
from verify.propose.multipliers import best_bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verify.decision import Decision
    from verify.search import Search


def inherit(search: Search, other: Decision) -> bool:
    """Try the evidence of another domain here (theory of inclusions); the kernel checks it anew."""
    claim = other.claim
    if isinstance(claim, Unspeakable) and (other.domain.kind == "free" or other.equal_rows):
        c = combine(search.system, claim.multipliers)
        bound = best_bound(search.system, c)
        if bound is not None and bound <= 0:
            search.equal = search.exactly_equal(list(other.equal_rows))
            search.keep_unspeakable(claim.multipliers, -bound, search.is_never(c))
            for state in _carried(search, other, claim.tie):
                search.tie_state(state)
    elif isinstance(claim, Speakable):
        for state in _carried(search, other, claim.state):
            margin = search.margin_or_none(state)
            if margin is not None and margin > 0:
                search.speakable = Speakable(margin, state)
                break
    if search.unspeakable is not None and search.unspeakable.kind == "unsettled":
        search.unspeakable = None
    inherited = search.unspeakable is not None or (search.speakable is not None and not search.bounded)
    if not inherited:
        search.speakable = None
    else:
        search.derived_from = other.domain.name
    return inherited


def _carried(search: Search, other: Decision, state: State | None) -> Iterator[State]:
    """A state of another domain as states of this one: h = gain z + shift in `free`, scales on cones."""
    if state is None:
        return
    there = System(search.decider.model.readout, other.domain, search.system.token, search.system.count)
    if search.system.domain.kind == "free" and there.region in ("ball", "cone"):
        z = there.project(list(state.p))
        for power in (0, 8, 16, 24):
            g, _, unit = there.final_state([x << power for x in z], 1, -state.k)
            yield State(tuple(g), -unit)
    elif search.system.region == "cone" and there.region in ("ball", "cone"):
        yield state

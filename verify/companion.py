"""GLUE. Beside a `readout` witness: a residual-stream vector that speaks the token too.

And, where the best witness needs near-constant residuals, a look for one nearer the sphere. All of it
is optional: whatever fails here becomes a note, and the claim stands.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.decision import MAXIMISED, float_state
from verify.errors import RefutedError
from verify.kernel.check import REALISTIC_VARIANCE, realism_share, residual_margin
from verify.propose.interior import InteriorPoint
from verify.propose.problem import Problem
from verify.propose.residual import residuals
from verify.propose.rounding import states, true_state

if TYPE_CHECKING:
    from verify.kernel import Residual, Speakable
    from verify.search import Search

# |z|^2 / d from which the residual variance is at least 100 epsilon.
_REALISTIC_SHARE = REALISTIC_VARIANCE / (REALISTIC_VARIANCE + 1)


def with_companion(search: Search, claim: Speakable) -> Speakable:
    """The claim with a residual-stream vector beside its state, where a search finds one."""
    view = search.decider.view(search.system.domain)
    problem = Problem(view, search.system.token, search.system.count, [])
    try:
        _outward(search, problem)
        return _with_residual(search, search.speakable or claim, problem)
    except Exception as error:  # noqa: BLE001 - a float search may fail in any way; the claim stands
        search.notes.append(f"the search for a residual-stream vector failed: {error!r}"[:200])
        return claim


def _with_residual(search: Search, claim: Speakable, problem: Problem) -> Speakable:
    """Add a residual-stream vector that speaks the token too, and say which dtype it needed."""
    z: np.ndarray | None
    if claim.state is None:
        return claim
    own = search.system.readout.unembedding.dtype
    z = float_state(search.system, claim.state)
    best = _residual_near(search, problem, z)
    if best is None or best.dtype != own:
        # Farther from all faces there is more room for rounding, at a smaller margin.
        roomy = Problem(problem.view, problem.token, problem.count, [], by_distance=True)
        for proposal in InteriorPoint(0.5).propose(roomy):
            y = proposal.state
            z = None if y is None or proposal.low <= 0 else true_state(roomy, y)
            other = _residual_near(search, problem, z)
            best = other if best is None or (other is not None and other.dtype == own) else best
            break
    if best is None:
        search.notes.append("no residual-stream vector found in F16, BF16, F32 or F64 that speaks the token")
        return claim
    if best.dtype != own:
        search.notes.append(f"no residual vector found in {own}; the one stored needs {best.dtype}")
    return replace(claim, residual=best)


def _residual_near(search: Search, problem: Problem, z: np.ndarray | None) -> Residual | None:
    """The first residual vector near z that speaks the token, in the narrowest dtype."""
    for residual in residuals(search.system, problem, z) if z is not None else ():
        with contextlib.suppress(RefutedError):
            residual_margin(search.system, residual)
            return residual
    return None


def _outward(search: Search, problem: Problem) -> None:
    """Where the best witness needs near-constant residuals, look for one further out on its ray.

    One with half of the best margin replaces it; a smaller one is told of.
    """
    s = search.speakable
    if s is None or s.state is None or search.system.region != "ball":
        return
    z = float_state(search.system, s.state)
    d = search.system.readout.d
    share = float(z @ z) / d
    if share == 0 or share >= _REALISTIC_SHARE:
        return
    for scale in np.linspace(np.sqrt((1 - 2.0**-20) / share), 1.05, 24):
        low = float(problem.margins(problem.coordinates(scale * z)).min())
        if low <= 0 or scale * scale * share < _REALISTIC_SHARE:
            continue
        for state in states(search.system, scale * z):
            margin = search.margin_or_none(state)
            if margin is None or realism_share(search.system, state) < _REALISTIC_SHARE:
                continue
            if margin >= Fraction(95, 100) * Fraction(low):
                if margin >= s.margin or (s.at_most is not None and margin >= MAXIMISED * s.at_most):
                    search.speakable = replace(s, margin=margin, state=state)
                else:
                    search.notes.append(
                        f"a state with |z|^2/d = {scale * scale * share:.4f} speaks it too, "
                        f"with a margin of {float(margin):.3g}"
                    )
                return

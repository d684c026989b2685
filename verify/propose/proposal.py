"""PROPOSER. What a proposer hands over, and the interface all of them share. Nothing here is believed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from verify.kernel.evidence import Multipliers, State
    from verify.propose.problem import Problem

    Array = NDArray[np.float64]


def _no_rows() -> NDArray[np.intp]:
    return np.zeros(0, dtype=np.intp)


@dataclass
class Proposal:
    """A float guess at one token.

    state: y of `Problem` (n,), or None. rows, multipliers: competitors and their weights, for the
    differences as they are (not normalised). low, high: the float method's own bracket of the best
    margin, in logits. claim: what the float method says: speakable, unspeakable or unknown.
    effort: a line for people (rounds, steps, solver, status). exact_state, exact_multipliers: integers
    from a method that works at a higher precision than floats hold; taken as they are.
    """

    state: Array | None = None
    rows: NDArray[np.intp] = field(default_factory=_no_rows)
    multipliers: Array = field(default_factory=lambda: np.zeros(0))
    low: float = -np.inf
    high: float = np.inf
    claim: str = "unknown"
    effort: str = ""
    exact_state: State | None = None
    exact_multipliers: Multipliers | None = None


class Proposer(Protocol):
    """A float method. `propose` yields guesses, better ones later; the caller stops when satisfied."""

    name: str

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """Guesses for `problem`. May yield nothing; any exception counts as having failed."""
        ...

"""GLUE. The answer for one token in one domain, as it is handed to people and scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.kernel import Domain, Proved, Speakable, State, System

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel.evidence import Claim
    from verify.models import Model

# A witness within this share of the certified ceiling counts as maximised.
MAXIMISED = Fraction(1, 2)

OTHER_STATES = (
    "in free the states are the vectors that the unembedding reads: here those before gain and shift, which "
    "W_U and b_U hold, in the checkpoint those after them. Two questions, so the verdicts are not compared"
)


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
    rule: str
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
    checkpoint: Decision | None = None  # of a processed readout: the answer for the checkpoint's own

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
    def differs(self) -> bool | None:
        """Whether the checkpoint's own matrices have another verdict; None where they are not compared."""
        other = self.checkpoint
        return None if other is None or self.not_compared else self.verdict != other.verdict

    @property
    def not_compared(self) -> str:
        """Why the checkpoint's verdict is not compared with this one; empty where it is."""
        if self.domain.kind == "free":
            return OTHER_STATES
        decided = self.proved and self.checkpoint and self.checkpoint.proved
        return "" if decided else "one of the two is undecided"

    @property
    def claim(self) -> Claim | None:
        """The proved claim with its evidence."""
        return self.proved.certificate.claim if self.proved else None


def float_state(system: System, state: State) -> np.ndarray:
    """z (h in `free`, Px in `box`) of a stored state, rounded."""
    scale = system.readout.d if system.region == "box" and system.projects else 1
    return np.array([float(Fraction(x, scale << state.k)) for x in system.project(list(state.p))])

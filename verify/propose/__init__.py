"""PROPOSER. Float methods that guess witnesses and multipliers. May be wrong without harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.errors import UsageError

if TYPE_CHECKING:
    from verify.propose.proposal import Proposer

NAMES = ("interior", "nnls", "pulp", "precise")


def make_proposer(name: str = "default", solver: str | None = None) -> list[Proposer]:
    """The proposers to try, in order: all of them for "default", else the named one alone."""
    from verify.propose.interior import InteriorPoint
    from verify.propose.nnls import NonNegativeLeastSquares
    from verify.propose.precise import PreciseInterior
    from verify.propose.pulp_lp import PulpProgram

    every: list[Proposer] = [InteriorPoint(), NonNegativeLeastSquares(), PreciseInterior()]
    every.append(PulpProgram(solver))
    if name == "default":
        return every
    chosen = [p for p in every if p.name == name]
    if not chosen:
        raise UsageError(f"unknown proposer {name!r}: use {', '.join(NAMES)}")
    return chosen

"""PROPOSER. A linear program through PuLP: bounded maximum margin, so that duals always exist.

maximise s  with  G y + g >= weight s,  |y_i| <= bound, s <= 1 (a cone has no largest margin).
The solver's status is never read as a verdict; only its point and its duals are handed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verify.errors import UsageError
from verify.propose.working_set import Answer, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from verify.propose.problem import Constraints, Problem
    from verify.propose.proposal import Proposal


class PulpProgram:
    """Any LP solver that PuLP finds on this machine; HiGHS by default."""

    name = "pulp"

    def __init__(self, solver: str | None = None) -> None:
        """Raises UsageError at once if `solver` is named and not available."""
        self.solver = solver
        if solver is not None:
            find_solver(solver)

    def propose(self, problem: Problem) -> Iterator[Proposal]:
        """Guesses on growing working sets; the ball enters through tangent cuts."""
        bound = problem.view.bound if problem.view.kind == "box" else problem.radius
        solver = find_solver(self.solver)

        def method(c: Constraints, fixed: int) -> Answer:
            return _max_margin(c, fixed, bound, solver)

        yield from run(problem, method, f"{self.name} {solver.name}")


def find_solver(name: str | None) -> Any:
    """A quiet PuLP solver object. Raises UsageError if it is not available, naming those that are."""
    import pulp

    available = pulp.listSolvers(onlyAvailable=True)
    if name is None:
        name = "HiGHS" if "HiGHS" in available else (available[0] if available else "none")
    if name not in available:
        raise UsageError(f"PuLP finds no solver {name!r} here; available: {', '.join(available) or 'none'}")
    return pulp.getSolver(name, msg=False)


def _max_margin(c: Constraints, fixed: int, bound: float, solver: Any) -> Answer:
    import pulp

    m, n = c.G.shape
    program = pulp.LpProblem("max_margin", pulp.LpMaximize)
    y = [program.add_variable(f"y{i}", -bound, bound) for i in range(n)]
    # In units of logits; unbounded below, so the program is feasible whatever the rows are.
    s = program.add_variable("s", None, float(1.0 / c.weight[fixed:].min()))
    program += s
    constraints = []
    for i in range(m):
        terms = [*zip(y, c.G[i].tolist(), strict=True), (s, -float(c.weight[i]))]
        constraint = pulp.LpConstraint(
            pulp.LpAffineExpression(terms), pulp.LpConstraintGE, name=f"r{i}", rhs=-float(c.g[i])
        )
        program += constraint
        constraints.append(constraint)
    program.solve(solver)
    words = f"status {pulp.LpStatus[program.status]}"
    values = [v.varValue for v in y]
    if any(v is None for v in values):
        return Answer(None, None, "unknown", words)
    duals = np.array([abs(row.pi or 0.0) for row in constraints[fixed:]])
    margin = float(s.varValue or 0.0)
    claim = "speakable" if margin > 0 else "unspeakable"
    return Answer(np.array(values, dtype=float), duals, claim, f"{words}, margin {margin:.2e}")

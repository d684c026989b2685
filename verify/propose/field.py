"""PROPOSER. The float programs of the field, as their authors posed them, over all rows, through PuLP.

Nothing here is believed: an answer is what that method says, and `verify.compare` holds it against the
exact verdict. Three programs for a token t with rows w_j:

`post`                  (2023) maximise a_t.x over x in [-1, 1]^d with (a_j - a_t).x <= -margin for ALL
                        rows j, the token's own among them (there it reads 0 <= -margin, which is false).
                        a_j is the row as TransformerLens hands it out: folded with the norm's gain, centred
                        over the coordinates after a LayerNorm, minus the vocabulary's mean row (which moves
                        the objective, not the differences); shift and biases dropped. TransformerLens
                        rounds it to float32, here it is float64. Its second step is the argmax at x.
`post-without-own-row`  the same without that row.
`grivas`                (Grivas, Bogoychev, Lopez 2022) the largest ball in the token's region: maximise
                        r >= 1e-8 with (w_j - w_t).x + r |w_j - w_t| <= c_t - c_j for j != t, x in
                        [-100, 100]^d, rows as stored, logit bias kept, final norm ignored. Their code runs
                        Gurobi with a feasibility tolerance of 1e-9, after a cheaper search that is left out
                        here, and calls a token unargmaxable at any status but OPTIMAL, a time limit or an
                        exception included; here those two are "no answer". HiGHS is given the tolerance of
                        1e-9, other solvers keep their own, unless another is asked for.
"""

from __future__ import annotations

import gc
import re
import subprocess
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import UsageError
from verify.kernel.domain import DIRECTION, FREE
from verify.propose.problem import FloatReadout
from verify.propose.pulp_lp import find_solver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from verify.kernel.domain import Domain
    from verify.kernel.readout import Readout

    Array = NDArray[np.float64]

OWN_ROW, WITHOUT_OWN_ROW, GRIVAS = "post", "post-without-own-row", "grivas"
# Program -> the set of states it asks about: the post's constraints are a cone but for the margin.
DOMAIN_OF: dict[str, Domain] = {OWN_ROW: DIRECTION, WITHOUT_OWN_ROW: DIRECTION, GRIVAS: FREE}
PROGRAMS = tuple(DOMAIN_OF)
MARGIN = 1e-7

_POST_BOX, _GRIVAS_BOX = 1.0, 100.0
LEAST_RADIUS, _GRIVAS_TOLERANCE = 1e-8, 1e-9
_BLOCK = 1024
# Programs from here on are taken to pieces at once: they hold a gigabyte and more.
_LARGE = 10_000_000
# HiGHS does not take a smaller one, and says nothing when it is asked to.
_LEAST_TOLERANCE = 1e-10
# PuLP's names of CBC: the one that it brings along, and one that is installed.
_CBC = ("PULP_CBC_CMD", "COIN_CMD")
_CBC_VERSION = re.compile(rb"^Version: ([!-~]{1,40})", re.MULTILINE)
_CBC_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class FieldAnswer:
    """What one program said of one token. Not believed.

    rows: constraints handed to the solver. solver: its name in PuLP. seconds: PuLP's hand-over and the
    solver; build_seconds: writing the program. status: in the solver's words, as PuLP reports them.
    claim: `feasible`, `infeasible` or `no answer` (a time limit, an error, no usable status).
    direction: the solver's x, shape (d,), when feasible. argmax: the row on top at x among the
    competitors and the token, in float64, lowest id first; argmax_float32: the same with rows and x
    rounded to float32, which is the post's second step. objective: the token's logit at x above the
    vocabulary's mean (post), or the radius r (grivas).
    """

    program: str
    rows: int
    solver: str
    seconds: float
    build_seconds: float
    status: str
    claim: str
    direction: Array | None = None
    argmax: int | None = None
    objective: float | None = None
    argmax_float32: int | None = None


@dataclass(frozen=True, eq=False)
class _Posed:
    """One token's program in floats: rows a_j (V, d), offsets b_j (V,), the constraints' ids in order."""

    program: str
    rows: Array
    offsets: Array
    token: int
    ids: NDArray[np.intp]

    def constraints(self) -> Iterator[tuple[list[float], float]]:
        """Coefficients (of x, then of r for `grivas`) and right-hand side of each constraint.

        The post's programs get theirs, the margin, when they are asked.
        """
        for start in range(0, len(self.ids), _BLOCK):
            ids = self.ids[start : start + _BLOCK]
            D = self.rows[ids] - self.rows[self.token]
            right = np.zeros(len(ids))
            if self.program == GRIVAS:
                D = np.column_stack([D, np.linalg.norm(D, axis=1)])
                right = self.offsets[self.token] - self.offsets[ids]
            for coefficients, bound in zip(D, right.tolist(), strict=True):
                yield coefficients.tolist(), bound

    def argmax(self, x: Array, count: int, dtype: type = np.float64) -> int:
        """The row with the largest logit at x, in floats; the lowest id of a tie."""
        logits: NDArray[Any] = self.rows.astype(dtype, copy=False) @ x.astype(dtype) + self.offsets.astype(
            dtype
        )
        logits[[j for j in range(count, len(logits)) if j != self.token]] = -np.inf
        return int(np.argmax(logits))


def box_of(program: str) -> float:
    """The bound on |x_i| in a program."""
    return _GRIVAS_BOX if program == GRIVAS else _POST_BOX


def solve(
    program: str,
    readout: Readout,
    token: int,
    count: int,
    solver: str | None = None,
    time_limit: float | None = None,
    margin: float = MARGIN,
    tolerance: float | None = None,
) -> FieldAnswer:
    """Pose `program` (one of PROGRAMS) for `token` against rows 0..count-1 and ask the solver.

    solver: a name that PuLP knows; HiGHS if None. time_limit: seconds, for the solver alone.
    margin: in logits, of the post's programs. tolerance: how far the solver may violate a constraint;
    as the program was posed if None. About 100 bytes of memory for each coefficient.
    Raises UsageError on an unknown program, an unavailable solver (naming those that are), a tolerance
    that the solver is not known to take, a token or count out of range, and a token without competitors.
    """
    _require(program, readout, token, count)
    engine = find_engine(program, solver, time_limit, tolerance)
    return Written(program, readout, token, count).ask(engine, margin)


class Written:
    """One token's program in PuLP, written once and asked at any number of margins.

    view: what `field_rows` gives, for callers that ask about many tokens; made anew, and dropped while
    the solver runs, if None. Raises UsageError as `solve` does.
    """

    def __init__(
        self, program: str, readout: Readout, token: int, count: int, view: FloatReadout | None = None
    ) -> None:
        _require(program, readout, token, count)
        start = time.perf_counter()
        self._subject, self._view = (program, readout, token, count), view
        posed = self._posed()
        self._built, self._variables, self._constraints = _write(posed)
        self.rows = len(posed.ids)
        self._large = self.rows * readout.d >= _LARGE
        self._build_seconds = time.perf_counter() - start

    def _posed(self) -> _Posed:
        program, readout, token, count = self._subject
        return _pose(program, self._view or field_rows(program, readout), token, count)

    def ask(self, engine: Any, margin: float = MARGIN) -> FieldAnswer:
        """What a solver (from `find_engine`) says at this margin; `grivas` has none.

        The time of writing the program is told with the first answer alone.
        """
        program, readout, _, count = self._subject
        start = time.perf_counter()
        if program != GRIVAS:
            for constraint in self._constraints:
                constraint.changeRHS(-margin)
        for variable in self._variables:
            variable.varValue = None  # or a solver that fails would leave the last one's answer
        build_seconds = time.perf_counter() - start + self._build_seconds
        self._build_seconds = 0.0
        start = time.perf_counter()
        status, claim = _ask(self._built, engine)
        seconds = time.perf_counter() - start
        values = np.array([v.varValue for v in self._variables], dtype=np.float64)  # None becomes nan
        objective = float(self._built.objective.value()) if np.isfinite(values).all() else None
        self._built.solverModel = None
        if self._large:
            gc.collect()
        answer = (program, self.rows, engine.name, seconds, build_seconds)
        if claim != "feasible":
            return FieldAnswer(*answer, status, claim)
        if objective is None:
            return FieldAnswer(*answer, status + ", without values", "no answer")
        if program == GRIVAS and objective <= 0:
            return FieldAnswer(*answer, status + ", radius not above 0", "infeasible", objective=objective)
        x = values[: readout.d]
        posed = self._posed()
        in_float32 = posed.argmax(x, count, np.float32)
        return FieldAnswer(*answer, status, claim, x, posed.argmax(x, count), objective, in_float32)


def field_rows(program: str, readout: Readout) -> FloatReadout:
    """The rows as a program sees them, in floats. Raises UsageError on an unknown program."""
    if program not in DOMAIN_OF:
        raise UsageError(f"unknown program {program!r}: use one of {', '.join(PROGRAMS)}")
    view = FloatReadout(readout, DOMAIN_OF[program])
    if program != GRIVAS:
        view.rows -= view.centre
    return view


def _require(program: str, readout: Readout, token: int, count: int) -> None:
    if program not in DOMAIN_OF:
        raise UsageError(f"unknown program {program!r}: use one of {', '.join(PROGRAMS)}")
    if not (0 <= token < readout.vocabulary and 1 <= count <= readout.vocabulary):
        raise UsageError(f"token {token} or competitors 0..{count - 1} are out of {readout.vocabulary} rows")
    if count == 1 and token == 0:
        raise UsageError("the token has no competitors: there is no program to pose")


def _pulp() -> Any:
    """PuLP, imported when it is first needed."""
    import pulp

    return pulp


def _pose(program: str, view: FloatReadout, token: int, count: int) -> _Posed:
    ids = np.arange(count)
    if program != OWN_ROW:
        ids = ids[ids != token]
    return _Posed(program, view.rows, view.offsets, token, ids)


def _write(posed: _Posed) -> tuple[Any, list[Any], list[Any]]:
    """The PuLP program, its variables, x first, and its constraints.

    An expression made from pairs is the cheapest PuLP offers: 20 million coefficients in 8 s and 1.6 GB.
    """
    pulp = _pulp()
    built = pulp.LpProblem(posed.program.replace("-", "_"), pulp.LpMaximize)
    bound = box_of(posed.program)
    d = posed.rows.shape[1]
    # Padded with zeros, because PuLP orders the columns by name.
    variables = [built.add_variable(f"x{i:06d}", -bound, bound) for i in range(d)]
    if posed.program == GRIVAS:
        variables.append(built.add_variable("z_radius", LEAST_RADIUS, None))
        objective = [(variables[-1], 1.0)]
    else:
        objective = list(zip(variables, posed.rows[posed.token].tolist(), strict=True))
    built += pulp.LpAffineExpression(objective)
    constraints = []
    for coefficients, right in posed.constraints():
        constraint = pulp.LpAffineExpression(zip(variables, coefficients, strict=True)) <= right
        constraints.append(constraint)
        built += constraint
    return built, variables, constraints


def find_engine(
    program: str,
    solver: str | None = None,
    time_limit: float | None = None,
    tolerance: float | None = None,
) -> Any:
    """A quiet PuLP solver with the time limit in seconds and the tolerance on constraints.

    Raises UsageError if the solver is not available, or not known here to take the tolerance.
    """
    pulp = _pulp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        name = find_solver(solver).name
        options: dict[str, Any] = {}
        if name == "HiGHS" and tolerance is None and program == GRIVAS:
            tolerance = _GRIVAS_TOLERANCE
        if tolerance is not None:
            if not _LEAST_TOLERANCE <= tolerance <= 1:
                raise UsageError(f"a tolerance of {tolerance:g} is out of range: {_LEAST_TOLERANCE:g} to 1")
            if name == "HiGHS":
                options["primal_feasibility_tolerance"] = tolerance
            elif name in _CBC:
                options["options"] = [f"primalTolerance {tolerance!r}"]
            else:
                raise UsageError(f"how {name} takes a tolerance is not known here; leave it out")
        return pulp.getSolver(name, msg=False, timeLimit=time_limit, **options)


def solver_version(name: str) -> str:
    """The version of PuLP, and of the solver where it can be asked."""
    found = f"PuLP {_pulp().__version__}"
    if name == "HiGHS":
        import highspy

        found += f", HiGHS {highspy.Highs().version()}"
    if name in _CBC:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            version = _cbc_version(find_solver(name).path)
        found += f", CBC {version}" if version else ""
    return found


def _cbc_version(program: str) -> str | None:
    """What CBC's command says of itself; None if it does not, or does not end."""
    try:
        said = subprocess.run(  # noqa: S603 - the solver that PuLP runs anyway
            [program, "-quit"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CBC_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _CBC_VERSION.search(said.stdout)
    return found[1].decode("ascii") if found else None


def _ask(built: Any, engine: Any) -> tuple[str, str]:
    """The solver's status in words, and the claim that the method's author reads off it.

    PuLP reports a solver that ran out of time as status "Optimal"; only the status of the solution
    tells the two apart.
    """
    pulp = _pulp()
    begin = time.perf_counter()
    try:
        built.solve(engine)
    except Exception as error:  # noqa: BLE001 - whatever a solver raises, it gave no answer
        return f"error: {type(error).__name__}: {str(error)[:200]}", "no answer"
    status = str(pulp.LpStatus[built.status])
    if built.status == pulp.LpStatusOptimal and built.sol_status == pulp.LpSolutionOptimal:
        return status, "feasible"
    if built.status == pulp.LpStatusInfeasible:
        return status, "infeasible"
    words = f"PuLP: {status}, {pulp.LpSolution[built.sol_status]}"
    if _ran_out_of_time(built, engine, time.perf_counter() - begin):
        return f"not optimal: time limit of {engine.timeLimit:g} s reached ({words})", "no answer"
    return f"not optimal ({words})", "no answer"


def _ran_out_of_time(built: Any, engine: Any, seconds: float) -> bool:
    """Whether the limit ended it: by the solver's own word if it is at hand (HiGHS), else by the clock."""
    if engine.timeLimit is None:
        return False
    asked = getattr(built.solverModel, "getModelStatus", None)
    return bool(seconds >= engine.timeLimit if asked is None else asked().name == "kTimeLimit")

"""GLUE. Make everything in a table again that needs no solver, and refuse it where anything differs.

The question must be of this model's readout: tensors, norm, gain offset, epsilon. Made again for every row:
the row on top at the stored x and the exact margin there, the exact verdict in the program's domain, whether
the program has a solution as posed and without the token's own row, the judgement; that x has d coordinates
and leaves the program's box by no more than the solver's tolerance; and that the rows are those of the
question, each once. Not made again, because a solver or floats made them: status and claim, x itself, both
argmaxes in floats (float32: the published second step), the seconds.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from verify.errors import RefutedError
from verify.kernel import tensor_ids
from verify.replay.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.models import Model
    from verify.posed import Claims
    from verify.replay.table import Question, Row

# What a solver may leave the box by where the table names no tolerance: the largest default of those known.
_DEFAULT_TOLERANCE = 1e-6


def check(
    model: Model,
    question: Question,
    rows: list[Row],
    claims: Claims,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
    every: int = 1,
) -> int:
    """The number of rows made again. Raises RefutedError, naming the row, at the first that differs.

    every: of so many tokens the rows of one alone are made again; that all rows are there, is always
    looked at.
    """
    _require_question(model, question)
    if [row.key for row in rows] != list(question.keys()):
        raise RefutedError("the rows are not those of the question, each once and in order")
    tokens = list(dict.fromkeys(row.token for row in rows))
    chosen, done = set(tokens[::every]), 0
    total = sum(row.token in chosen for row in rows)
    judge = Judge(model.readout, question, claims)
    for row in rows:
        if row.token in chosen:
            _check_row(model, question, row, judge)
            done += 1
            tell(done, total)
    return done


def _require_question(model: Model, question: Question) -> None:
    found = {role: x.sha256 for role, x in tensor_ids(model.readout).items()}
    if found != question.tensors:
        raise RefutedError(f"the table is of other weights than {model.name}")
    for what, said, value in (
        ("norm", question.norm, model.readout.norm),
        ("gain offset", question.gain_offset, model.readout.gain_offset),
        ("epsilon", Fraction(question.epsilon), model.readout.epsilon),
    ):
        if said != value:
            raise RefutedError(f"{what}: the table says {said}, {model.name} has {value}")
    if not 1 <= question.competitors <= model.readout.vocabulary:
        raise RefutedError(f"{question.competitors} competitors of {model.readout.vocabulary} rows")


def _check_row(model: Model, question: Question, row: Row, judge: Judge) -> None:
    name = f"token {row.token}, tolerance {row.tolerance}, margin {row.margin}"
    if not 0 <= row.token < model.readout.vocabulary:
        raise RefutedError(f"{name}: the model has ids 0 to {model.readout.vocabulary - 1}")
    if (row.x is None) != (row.claim != "feasible"):
        raise RefutedError(f"{name}: {row.claim} with{'out' if row.x is None else ''} an x")
    if row.x is not None:
        if len(row.x) != model.readout.d:
            raise RefutedError(f"{name}: x has {len(row.x)} coordinates, the model {model.readout.d}")
        room = Fraction(question.box) + Fraction(row.tolerance or _DEFAULT_TOLERANCE)
        if any(abs(Fraction(v)) > room for v in row.x):
            raise RefutedError(f"{name}: x lies outside |x_i| <= {question.box:g}, beyond the tolerance")
    found = judge(row.token, row.margin, row.claim, row.x)
    for what, value in vars(found).items():
        if getattr(row, what) != value:
            raise RefutedError(f"{name}: {what} is {value}, not {getattr(row, what)}")

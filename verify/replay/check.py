"""GLUE. Make everything in a table again that needs no solver, and refuse it where anything differs.

Made again for every row: the row on top at the stored x and the exact margin there, the exact verdict in
the program's domain, the judgement; and that the rows are those of the question, each once. Not made
again: what the solver said, the argmax in floats, the seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.compare import exact_standing, judge_claim
from verify.errors import RefutedError
from verify.kernel import tensor_ids
from verify.propose.field import DOMAIN_OF
from verify.replay.grid import WORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.models import Model
    from verify.replay.grid import Exact, Standings
    from verify.replay.table import Question, Row


def check(
    model: Model,
    question: Question,
    rows: list[Row],
    exact: Exact,
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
    standings: Standings = {}
    token_of = None
    for row in rows:
        if row.token not in chosen:
            continue
        if row.token != token_of:
            token_of, standings = row.token, {}
        _check_row(model, question, row, exact, standings)
        done += 1
        tell(done, total)
    return done


def _require_question(model: Model, question: Question) -> None:
    found = {role: x.sha256 for role, x in tensor_ids(model.readout).items()}
    if found != question.tensors:
        raise RefutedError(f"the table is of other weights than {model.name}")
    if question.program not in DOMAIN_OF or DOMAIN_OF[question.program].name != question.domain:
        raise RefutedError(f"{question.program!r} is no program that asks about {question.domain!r}")
    if not 1 <= question.competitors <= model.readout.vocabulary:
        raise RefutedError(f"{question.competitors} competitors of {model.readout.vocabulary} rows")


def _check_row(model: Model, question: Question, row: Row, exact: Exact, standings: Standings) -> None:
    name = f"token {row.token}, tolerance {row.tolerance}, margin {row.margin}"
    margin = top = None
    if (row.x is None) != (row.claim != "feasible"):
        raise RefutedError(f"{name}: {row.claim} with{'out' if row.x is None else ''} an x")
    if row.x is not None:
        if len(row.x) != model.readout.d:
            raise RefutedError(f"{name}: x has {len(row.x)} coordinates, the model {model.readout.d}")
        if row.x not in standings:
            standings[row.x] = exact_standing(
                model.readout, question.states, row.token, question.competitors, row.x
            )
        margin, top = standings[row.x]
    if (row.exact_margin, row.exact_argmax) != (margin, top):
        raise RefutedError(f"{name}: at x row {top} is on top; the row or the exact margin stored differs")
    proved = exact(row.token, question.states)
    if row.verdict != WORD[proved]:
        raise RefutedError(f"{name}: the exact verdict is {WORD[proved]}, not {row.verdict}")
    judgement = judge_claim(question.program, row.claim, proved, margin)
    if row.judgement != judgement:
        raise RefutedError(f"{name}: {judgement}, not {row.judgement}")

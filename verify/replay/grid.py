"""GLUE. Ask one program over a grid, or go on where an earlier run stopped. Decides nothing itself."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from verify.errors import MalformedError, RefutedError, UsageError
from verify.files import domain_path, read_regular
from verify.kernel import tensor_ids
from verify.kernel.statement import decimal_text
from verify.propose.field import (
    DOMAIN_OF,
    GRIVAS,
    LEAST_RADIUS,
    Written,
    field_rows,
    find_engine,
    solver_version,
)
from verify.replay.judge import Judge
from verify.replay.table import Question, Row, Table, token_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from verify.kernel import Claim, Domain
    from verify.models import Model
    from verify.posed import Claims

# Claims that are kept: a run and a check ask about one token after another, and multipliers can be long.
_KEPT = 64


def question_for(
    model: Model,
    program: str,
    tokens: str,
    margins: Sequence[float],
    tolerances: Sequence[float | None],
    solver: str | None = None,
    competitors: str = "all",
    time_limit: float | None = None,
) -> Question:
    """The question of a run. Raises UsageError (program, solver, tolerance, tokens, margins, epsilon)."""
    from verify.decide import competitor_count

    if tokens == "all":
        tokens = f"0-{model.readout.vocabulary - 1}"
    if any(t >= model.readout.vocabulary for t in token_ids(tokens)):
        raise UsageError(f"tokens {tokens[:40]!r}: the model has ids 0 to {model.readout.vocabulary - 1}")
    if program not in DOMAIN_OF:
        raise UsageError(f"unknown program {program!r}: use one of {', '.join(DOMAIN_OF)}")
    if not margins or not tolerances or not all(0 < m < 1 for m in margins):
        raise UsageError("give at least one margin between 0 and 1, and one tolerance")
    if len(set(margins)) != len(margins) or len(set(tolerances)) != len(tolerances):
        raise UsageError("a margin or a tolerance stands twice")
    try:
        epsilon = decimal_text(model.readout.epsilon)
    except MalformedError as error:
        raise UsageError(f"epsilon: {error}") from None
    names = {find_engine(program, solver, time_limit, t).name for t in tolerances}
    return Question(
        model=model.name,
        revision=model.revision,
        tensors={role: x.sha256 for role, x in tensor_ids(model.readout).items()},
        norm=model.readout.norm,
        gain_offset=model.readout.gain_offset,
        epsilon=epsilon,
        competitors=competitor_count(model, competitors),
        program=program,
        domain=DOMAIN_OF[program].name,
        solver=(name := names.pop()),
        version=solver_version(name),
        tokens=tokens,
        tolerances=tuple(tolerances),
        margins=(LEAST_RADIUS,) if program == GRIVAS else tuple(margins),
        time_limit=time_limit,
    )


def decided_claims(model: Model, competitors: str = "all") -> Claims:
    """Claims by `Decider`, each token and domain decided once."""
    from verify.decide import Decider

    decider = Decider(model, competitors)
    return lru_cache(_KEPT)(lambda token, domain: decider.decide(token, domain).claim)


def rule_of(model: Model, question: Question) -> str:
    """The rule that gives the question's competitors. RefutedError if none does."""
    from verify.decide import competitor_count

    if question.competitors == competitor_count(model, "all"):
        return "all"
    if model.tokens.size is not None and question.competitors == competitor_count(model, "tokenizer"):
        return "tokenizer"
    raise RefutedError(f"no rule gives {question.competitors} competitors in {model.name}")


def stored_claims(model: Model, folder: Path, otherwise: Claims) -> Claims:
    """Claims by the certificates in `folder`/model/domain, each proved of the model's weights first.

    Where there is none for a token, domain and competitors, `otherwise` is asked. Raises RefutedError or
    MalformedError where a certificate does not hold.
    """
    from verify.kernel import from_bytes, prove

    @lru_cache(_KEPT)
    def claim(token: int, domain: Domain) -> Claim | None:
        path = domain_path(folder, model.name, domain.name) / f"{token}.json"
        if path.is_file():
            proved = prove(from_bytes(read_regular(path)), model.readout)
            s = proved.certificate.statement
            if (s.token, s.domain, s.competitors) == (token, domain, model.readout.vocabulary):
                return proved.certificate.claim
        return otherwise(token, domain)

    return claim


def run(
    model: Model,
    question: Question,
    table: Table,
    claims: Claims,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """Every row of `question`: those in `table`, and the others as the solver answers.

    tell(done, total) counts rows. Raises UsageError if the table belongs to another question, OutputError.
    """
    rows = table.resume(question)
    keys = list(question.keys())
    tell(len(rows), len(keys))
    if table.complete:
        return rows
    view = field_rows(question.program, model.readout)
    engines = {
        t: find_engine(question.program, question.solver, question.time_limit, t) for t in question.tolerances
    }
    judge = Judge(model.readout, question, claims)
    written: Written | None = None
    token_of: int | None = None
    with table.appender(question, rows) as add:
        for token, tolerance, margin in keys[len(rows) :]:
            if token != token_of or written is None:
                written = None  # the last program goes before the next is made
                written = Written(question.program, model.readout, token, question.competitors, view)
                token_of = token
            answer = written.ask(engines[tolerance], margin)
            x = None if answer.direction is None else tuple(answer.direction.tolist())
            row = Row(
                token=token,
                tolerance=tolerance,
                margin=margin,
                status=answer.status,
                claim=answer.claim,
                argmax=answer.argmax,
                argmax_float32=answer.argmax_float32,
                **vars(judge(token, margin, answer.claim, x)),
                seconds=round(answer.build_seconds + answer.seconds, 4),
                x=x,
            )
            add.add(row)
            rows.append(row)
            tell(len(rows), len(keys))
    table.finish(question, rows)
    return rows

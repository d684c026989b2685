"""GLUE. Ask one program over a grid, or go on where an earlier run stopped. Decides nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verify.compare import exact_standing, judge_claim
from verify.errors import RefutedError, UsageError
from verify.files import domain_path, read_regular
from verify.kernel import tensor_ids
from verify.propose.field import (
    DOMAIN_OF,
    GRIVAS,
    LEAST_RADIUS,
    Written,
    field_rows,
    find_engine,
    solver_version,
)
from verify.replay.table import Question, Row, Table, token_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction
    from pathlib import Path
    from typing import Any

    from verify.kernel import Domain, Readout
    from verify.models import Model
    from verify.propose.field import FieldAnswer

    # The proved verdict of a token in a domain: True speakable, False unspeakable, None undecided.
    Exact = Callable[[int, Domain], bool | None]
    # A point -> its exact margin and the row on top there.
    Standings = dict[tuple[float, ...], tuple[Fraction, int]]

WORD = {True: "speakable", False: "unspeakable", None: "undecided"}


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
    """The question of a run. Raises UsageError (program, solver, tolerance, tokens, margins)."""
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
    names = {find_engine(program, solver, time_limit, t).name for t in tolerances}
    return Question(
        model=model.name,
        revision=model.revision,
        tensors={role: x.sha256 for role, x in tensor_ids(model.readout).items()},
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


def exact_verdicts(model: Model, competitors: str = "all") -> Exact:
    """Verdicts by `Decider`, each token and domain decided once."""
    from verify.decide import Decider

    decider = Decider(model, competitors)
    known: dict[tuple[int, str], bool | None] = {}

    def exact(token: int, domain: Domain) -> bool | None:
        key = token, domain.name
        if key not in known:
            decision = decider.decide(token, domain)
            known[key] = None if decision.proved is None else decision.verdict == "SPEAKABLE"
        return known[key]

    return exact


def rule_of(model: Model, question: Question) -> str:
    """The rule that gives the question's competitors. RefutedError if none does."""
    from verify.decide import competitor_count

    if question.competitors == competitor_count(model, "all"):
        return "all"
    if model.tokens.size is not None and question.competitors == competitor_count(model, "tokenizer"):
        return "tokenizer"
    raise RefutedError(f"no rule gives {question.competitors} competitors in {model.name}")


def stored_verdicts(model: Model, folder: Path, otherwise: Exact) -> Exact:
    """Verdicts by the certificates in `folder`/model/domain, each proved of the model's weights first.

    Where there is none for a token, domain and competitors, `otherwise` is asked. Raises RefutedError or
    MalformedError where a certificate does not hold.
    """
    from verify.kernel import from_bytes, prove

    def exact(token: int, domain: Domain) -> bool | None:
        path = domain_path(folder, model.name, domain.name) / f"{token}.json"
        if path.is_file():
            proved = prove(from_bytes(read_regular(path)), model.readout)
            s = proved.certificate.statement
            if (s.token, s.domain, s.competitors) == (token, domain, model.readout.vocabulary):
                return proved.verdict == "speakable"
        return otherwise(token, domain)

    return exact


def run(
    model: Model,
    question: Question,
    table: Table,
    exact: Exact,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """Every row of `question`: those in `table`, and the others as the solver answers.

    tell(done, total) counts rows. Raises UsageError if the table belongs to another question, OutputError.
    """
    rows = table.resume(question)
    keys = list(question.keys())
    if [row.key for row in rows] != keys[: len(rows)]:
        raise UsageError(f"{table.unfinished}: its rows are not in the order of the question; remove it")
    tell(len(rows), len(keys))
    if table.complete:
        return rows
    view = field_rows(question.program, model.readout)
    engines = {
        t: find_engine(question.program, question.solver, question.time_limit, t) for t in question.tolerances
    }
    written: Written | None = None
    token_of: int | None = None
    standings: Standings = {}
    with table.appender(question, rows) as add:
        for token, tolerance, margin in keys[len(rows) :]:
            if token != token_of or written is None:
                written = None  # the last program goes before the next is made
                written = Written(question.program, model.readout, token, question.competitors, view)
                token_of, standings = token, {}
            answer = written.ask(engines[tolerance], margin)
            row = _row(answer, model.readout, question, (token, tolerance, margin), exact, standings)
            add.add(row)
            rows.append(row)
            tell(len(rows), len(keys))
    table.finish(question, rows)
    return rows


def _row(
    answer: FieldAnswer,
    readout: Readout,
    question: Question,
    key: tuple[int, float | None, float],
    exact: Exact,
    standings: Standings,
) -> Row:
    """`standings`: what was found at the points of this token, which margins often share."""
    token, tolerance, margin = key
    x: tuple[float, ...] | None = None
    at: tuple[Any, Any] = (None, None)
    if answer.direction is not None:
        x = tuple(answer.direction.tolist())
        if x not in standings:
            standings[x] = exact_standing(readout, question.states, token, question.competitors, x)
        at = standings[x]
    proved = exact(token, question.states)
    return Row(
        token=token,
        tolerance=tolerance,
        margin=margin,
        status=answer.status,
        claim=answer.claim,
        argmax=answer.argmax,
        argmax_float32=answer.argmax_float32,
        exact_argmax=at[1],
        exact_margin=at[0],
        verdict=WORD[proved],
        judgement=judge_claim(question.program, answer.claim, proved, at[0]),
        seconds=round(answer.build_seconds + answer.seconds, 4),
        x=x,
    )

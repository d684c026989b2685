"""GLUE. What one process of a scan does: own directions of many tokens at once, a search for the rest."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from verify.decide import Decider
from verify.decision import float_state
from verify.errors import RefutedError, UsageError
from verify.kernel import Multipliers, Speakable, Unspeakable, parse_domain
from verify.kernel.ledger import Row, reason_text
from verify.kernel.ledger_rows import OwnStates, Views, heaviest
from verify.kernel.solve import determines, in_full
from verify.models import load_again
from verify.propose.reflection import Reflections, reflect
from verify.propose.rounding import states
from verify.scan.product import multiplier
from verify.search import Search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verify.kernel import State, System
    from verify.kernel.check import Margins, Standing
    from verify.models import Source
    from verify.propose.problem import FloatReadout

# Multipliers of more bits in all are stored as the bare support, where that determines them.
_LONG = 1 << 16


@dataclass(frozen=True)
class Question:
    """What is scanned; small, so that it can be sent to any process. fingerprint: of the readout."""

    model: Source | None
    fingerprint: str
    domain: str
    competitors: str
    grid: int
    proposer: str = "default"
    device: str = "cpu"


class Worker:
    """Settles tokens of one question; keeps the float copies of the matrix."""

    def __init__(self, question: Question, decider: Decider | None = None) -> None:
        if decider is None:
            if question.model is None:
                raise UsageError("a model made in memory cannot be loaded again")
            decider = Decider(load_again(question.model), question.competitors, question.proposer)
        self.decider, self.readout = decider, decider.model.readout
        if self.readout.fingerprint != question.fingerprint:
            raise UsageError(f"{decider.model.name} holds other weights for a worker than for the scan")
        self.reflections, self.reflects = Reflections(), question.proposer == "default"
        if self.reflects:
            decider.proposers.insert(0, self.reflections)
        domain, multiply = parse_domain(question.domain), multiplier(question.device)
        self.views = Views(self.readout, domain, decider.count, question.grid, multiply)

    def own(self, tokens: list[int]) -> tuple[list[Row], list[Row]]:
        """(rows that their own direction or an equal row settles, undecided rows of the others)."""
        matrix = dict(zip(tokens, self.readout.unembedding.integers(tokens), strict=True))
        here, model = self.views.own["here"], self.views.own["model"]
        rows = [
            Row(t, "undecided", False, False, scale(here, matrix[t]), scale(model, matrix[t])) for t in tokens
        ]
        found = self.views.at_own_states(rows, matrix, [True] * len(rows))
        settled: list[Row] = []
        rest: list[Row] = []
        for row, a, b, c in zip(rows, *found, strict=True):
            flagged = replace(row, hard_model=b.sign <= 0, hard_post=c.sign <= 0)
            done = self._settle(flagged, a, matrix[row.token])
            (settled if done.cls != "undecided" else rest).append(done)
        return settled, rest

    def _settle(self, row: Row, own: Standing, matrix_row: list[int]) -> Row:
        if own.sign > 0:
            realism = self.views.realism(self.views.own["here"].state_of(matrix_row, row.scale))
            return replace(row, cls="own", own=True, amount=own.margin, rival=own.nearest[0], realism=realism)
        if own.sign == 0 and row.scale:
            # A tie at the top; with an equal row it is for ever.
            system = self.views.system.of(row.token)
            for x in system.differences(own.nearest):
                if not x.e and not any(system.project(x.D)):
                    return replace(
                        row,
                        cls="tied",
                        kind="tie-only",
                        own=True,
                        amount=own.margin,
                        rival=x.row,
                        multipliers=Multipliers((x.row,), (1,)),
                    )
        return row

    def reflect(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        """(rows that reflections settle, the others as they are); cones only."""
        if not rows or self.views.system.region not in ("cone", "space"):
            return [], rows
        view = self.decider.view(self.views.domain)
        if np.ptp(view.offsets) > 0:
            return [], rows
        found = reflect(view, np.array([row.token for row in rows]), partial(self._logits, view))
        # Coarse grids first, as long as rounding costs more than a twentieth of the margin.
        waiting = [
            (row, x[1], states(self.views.system, x[0]))
            for row, x in zip(rows, found, strict=True)
            if x is not None
        ]
        settled: dict[int, Row] = {}
        while waiting:
            tried = [(row, low, more, state) for row, low, more in waiting if (state := next(more, None))]
            tokens, at = [row.token for row, *_ in tried], [state for *_, state in tried]
            standings = self.views.margins["here"].at(tokens, at, [True] * len(tried))
            waiting = []
            for (row, low, more, state), standing in zip(tried, standings, strict=True):
                if standing.margin >= Fraction(95, 100) * Fraction(low):
                    settled[row.token] = self._hard(row, Speakable(standing.margin, state), standing)
                    self.reflections.remember(row.token, float_state(self.views.system, state))
                else:
                    waiting.append((row, low, more))
        return list(settled.values()), [row for row in rows if row.token not in settled]

    def _logits(self, view: FloatReadout, y: NDArray[np.float64]) -> NDArray[np.floating]:
        """Of all competitors at states y (k, d), at the precision of the filter's copy of the matrix."""
        batch = self.views.margins["here"].batch
        g = np.zeros((len(y), batch.rows.shape[1]))
        g[:, : y.shape[1]] = y if view.gain is None else y * view.gain
        # Of huge rows these overflow. They only propose: a state that infinite or undefined logits lead to
        # is settled by the exact margin there, or not at all.
        with np.errstate(over="ignore", invalid="ignore"):
            return batch.multiply(g.astype(batch.dtype), batch.rows)[:, : batch.count]

    def search(self, row: Row) -> Row:
        """Search for evidence on a token that its own direction does not settle. Every number in the row was
        computed by the kernel, which checks the row as a whole at the end of the scan.
        """
        run = _Search(self.decider, self.views.system.of(row.token), self.views.margins["here"])
        with self.decider.one_thread():
            run.run()
        found = self._row_of(row, run)
        if found.witness is not None:
            self.reflections.remember(row.token, float_state(run.system, found.witness))
        return self._short(found)

    def _short(self, row: Row) -> Row:
        """Long multipliers as the bare support, where that determines them."""
        m = row.multipliers
        if m is None or sum(x.bit_length() for x in m.values or ()) <= _LONG:
            return row
        unique = determines(self.views.system.of(row.token), m.rows)
        return replace(row, multipliers=replace(m, values=None)) if unique else row

    def _row_of(self, row: Row, run: Search) -> Row:
        claim = run.unspeakable or run.speakable
        if isinstance(claim, Speakable) and claim.state is not None:
            standing = self.views.margins["here"].at([row.token], [claim.state], [True])[0]
            return self._hard(row, claim, standing)
        if isinstance(claim, Unspeakable):
            rival = run.equal[0] if run.equal else heaviest(in_full(run.system, claim.multipliers))
            return replace(
                row,
                cls="tied" if run.equal else "unspeakable",
                kind=claim.kind,
                amount=claim.gap,
                rival=rival,
                witness=claim.tie,
                multipliers=claim.multipliers,
            )
        return replace(row, reason=reason_text(run.why_undecided()))

    def _hard(self, row: Row, claim: Speakable, standing: Standing) -> Row:
        """The row of a token spoken at another state than its own, which is `standing`."""
        return replace(
            row,
            cls="hard",
            witness=claim.state,
            amount=standing.margin,
            rival=standing.nearest[0],
            realism=None if claim.state is None else self.views.realism(claim.state),
            ceiling=claim.ceiling,
            at_most=claim.at_most,
        )


class _Search(Search):
    """A search that computes margins with the float copy of the rows that a worker keeps anyway."""

    def __init__(self, decider: Decider, system: System, margins: Margins) -> None:
        super().__init__(decider, system)
        self.margins = margins

    def margin_or_none(self, state: State) -> Fraction | None:
        try:
            return self.margins.at([self.system.token], [state], [True])[0].margin
        except RefutedError:
            return None


def scale(own: OwnStates, matrix_row: list[int]) -> int:
    """The m of the rule (Theorem 16); the kernel checks that it is."""
    a, b, n = own.room(own.direction(matrix_row))
    return 0 if a == 0 else b // a if n == 1 else isqrt(b // a)


def own_and_reflected(here: Worker, tokens: list[int]) -> tuple[list[Row], list[Row]]:
    """(rows that products of all tokens at once settle, undecided rows of the others)."""
    settled, rest = here.own(tokens)
    reflected, rest = here.reflect(rest) if here.reflects else ([], rest)
    return settled + reflected, rest


_workers: dict[Question, Worker] = {}
# Workers of a cluster may run tasks in several threads; the float copies are for one at a time.
_one_at_a_time = threading.Lock()


def worker(question: Question) -> Worker:
    """This process's worker for a question, made once."""
    if question not in _workers:
        _workers.clear()
        _workers[question] = Worker(question)
    return _workers[question]


def own_task(question: Question, tokens: list[int]) -> tuple[list[Row], list[Row]]:
    """`own_and_reflected` in whatever process this runs."""
    with _one_at_a_time:
        return own_and_reflected(worker(question), tokens)


def search_task(question: Question, row: Row) -> Row:
    """`Worker.search` in whatever process this runs."""
    with _one_at_a_time:
        return worker(question).search(row)

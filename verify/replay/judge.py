"""GLUE. What is exactly so of an answer: made once when it comes, and again by every check of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify.compare import POSED_WORD, VERDICT_WORD, exact_standing, facts_of, judge, speakable
from verify.posed import Posed

if TYPE_CHECKING:
    from fractions import Fraction

    from verify.kernel import Readout
    from verify.posed import Claims
    from verify.replay.table import Question


@dataclass(frozen=True)
class Exactly:
    """The exact columns of a row, as in `Row`."""

    exact_argmax: int | None
    exact_margin: Fraction | None
    verdict: str
    posed: str
    without_own_row: str
    judgement: str


class Judge:
    """Judges the answers to one question. claims: of the kernel, in the program's domain."""

    def __init__(self, readout: Readout, question: Question, claims: Claims) -> None:
        self._readout, self._question, self._claims = readout, question, claims
        self._posed = Posed(readout, question.competitors, claims)
        self._token: int | None = None
        self._standings: dict[tuple[float, ...], tuple[Fraction, int]] = {}

    def __call__(self, token: int, margin: float, claim: str, x: tuple[float, ...] | None) -> Exactly:
        """What is so of the claim, made with the point x, of this token at this margin.

        Raises VerifyError where exact facts contradict each other.
        """
        question = self._question
        proved = speakable(self._claims(token, question.states))
        found, top = (None, None) if x is None else self._standing(token, x)
        facts = facts_of(self._posed, question.program, token, margin, proved, found, x)
        return Exactly(
            exact_argmax=top,
            exact_margin=found,
            verdict=VERDICT_WORD[proved],
            posed=POSED_WORD[facts.posed],
            without_own_row=POSED_WORD[facts.without_own_row],
            judgement=judge(claim, facts),
        )

    def _standing(self, token: int, x: tuple[float, ...]) -> tuple[Fraction, int]:
        """Margin and row on top; margins and tolerances of one token often share a point."""
        if token != self._token:
            self._token, self._standings = token, {}
        if x not in self._standings:
            self._standings[x] = exact_standing(
                self._readout, self._question.states, token, self._question.competitors, x
            )
        return self._standings[x]

"""GLUE. What a claims file says, as plain data. docs/claims.md; nothing here is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel import Domain

FORMAT = "verify-claims"
VERSION = 1
HARD = "hard to speak"
VERDICTS = ("speakable", "unspeakable", HARD)
SENSES = ("post", "model")
EXPECTATIONS = ("confirmed", "refuted", "undecided", "open")
# What can be expected of a method's answer in floats, which is no proof.
ANSWERS = ("same answer", "other answer", "open")
# The model of a claim that is about every model there is.
ANY_MODEL = "any"
OWN_VECTOR, POST_LP = "own-vector", "post-lp"
METHODS = (OWN_VECTOR, POST_LP)
# Every margin above 0.
POSITIVE = "positive"
# Universes of more tokens are scanned as a whole for the models they are about, and for no other.
MANY = 1000


@dataclass(frozen=True)
class Source:
    """Who claims it, and where."""

    title: str
    author: str
    date: str
    address: str


@dataclass(frozen=True)
class Universe:
    """The tokens that a claim is drawn from, counted.

    rows: "" for the tokens listed; "all" for all rows 0..size-1 of the model; "every" for every token of any
    model, which has no size.
    """

    name: str
    what: str
    size: int
    tokens: tuple[int, ...]
    rows: str = ""

    def __contains__(self, token: int) -> bool:
        return self.rows == "every" or token in (self.members if self.rows else self._set)

    @property
    def members(self) -> range | tuple[int, ...]:
        """The tokens, in order."""
        return range(self.size) if self.rows == "all" else self.tokens

    @cached_property
    def _set(self) -> frozenset[int]:
        return frozenset(self.tokens)


@dataclass(frozen=True)
class Method:
    """What a method is claimed to say. margin: a decimal as it is written, or "positive"; says: feasible or
    infeasible.

    `own-vector`: the row on top where the state is the token's own vector. `post-lp`: the linear program
    printed in the 2023 post, at a margin; in exact arithmetic, or as its solver answers in floats.
    """

    name: str
    arithmetic: str = "exact"
    margin: str | None = None
    says: str | None = None
    argmax: int | None = None

    @property
    def is_float(self) -> bool:
        """Whether the claim is about a solver's answer in floats."""
        return self.arithmetic == "float"


@dataclass(frozen=True)
class Reported:
    """What the source prints beside its verdict: held against the verdict, and not checked otherwise."""

    method: str
    argmax: int
    margin: str | None = None


@dataclass(frozen=True)
class Claim:
    """One claim. tokens: those it is about; None for its whole universe. line: its place in the file."""

    id: str
    model: str
    revision: str | None
    fingerprint: str | None
    domain: Domain
    competitors: str
    universe: Universe
    tokens: tuple[int, ...] | None
    text: str | None = None
    verdict: str | None = None
    sense: str | None = None
    count: int | None = None
    method: Method | None = None
    reported: Reported | None = None
    evidence: tuple[str, ...] = ()
    expect: str = "confirmed"
    note: str = ""
    line: int = 1

    @property
    def members(self) -> range | tuple[int, ...]:
        """The tokens it is about."""
        return self.universe.members if self.tokens is None else self.tokens

    @property
    def form(self) -> tuple[str, ...]:
        """Claims of one universe, model, domain and form make one table."""
        if self.method is not None:
            m = self.method
            margin = m.margin if m.margin in (None, POSITIVE) else str(Fraction(m.margin))
            return ("method", m.name, m.arithmetic, str(margin))
        return (HARD, self.sense or "") if self.verdict == HARD else ("verdict",)

    @property
    def subject(self) -> str:
        """Model, revision and domain, for people."""
        if self.model == ANY_MODEL:
            return "every model"
        revision = f"@{self.revision}" if self.revision else ""
        rows = "all rows" if self.competitors == "all" else "the tokenizer's ids"
        return f"{self.model}{revision}, domain {self.domain.name}, against {rows}"

    @property
    def words(self) -> str:
        """What is asserted, in one sentence without the model."""
        who = self._who()
        if self.method is not None:
            return f"{who}: {self._method_words(self.method)}"
        verdict = self.verdict or ""
        if self.sense is not None:
            verdict += f" (in the {'post' if self.sense == 'post' else 'model'}'s sense)"
        if self.count is not None:
            return f"exactly {self.count} of {who}: {verdict}"
        return f"{who}: {verdict}"

    def _who(self) -> str:
        if self.universe.rows == "every":
            return "every token"
        if self.tokens is None:
            return f"all {self.universe.size} tokens of {self.universe.name!r}"
        if len(self.tokens) > 1:
            return f"{len(self.tokens)} tokens of {self.universe.name!r}"
        text = "" if self.text is None else f" {self.text!r}"
        return f"token {self.tokens[0]}{text}"

    @staticmethod
    def _method_words(m: Method) -> str:
        if m.name == OWN_VECTOR:
            return f"the row on top at its own vector is {m.argmax}"
        margin = "every positive margin" if m.margin == POSITIVE else f"margin {m.margin}"
        how = "exactly" if m.arithmetic == "exact" else "by its solver, in floats"
        argmax = "" if m.argmax is None else f", with row {m.argmax} on top at the solver's direction"
        return f"the post's printed program at {margin} is {m.says}, {how}{argmax}"


@dataclass(frozen=True)
class ClaimsFile:
    """A whole file. header: the comment it begins with."""

    path: Path
    source: Source
    universes: dict[str, Universe]
    claims: tuple[Claim, ...]
    header: str = field(default="", compare=False)

"""GLUE. Claims decided from the weights: tokens by `Decider`, vocabularies by a scan, own vectors exactly.

Evidence is kept in memory, or saved below a folder. Solvers are imported only where a token is decided.
"""

from __future__ import annotations

import tempfile
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

from verify.claims.evidence import Fact, ledger_fact, scanned
from verify.claims.weights import competitor_count, key_of
from verify.figures import approximate
from verify.files import certificate_path, write_atomically
from verify.kernel import DIRECTION, READOUT, Speakable, State, System
from verify.kernel.check import Margins
from verify.kernel.filter import BatchFilter
from verify.kernel.ledger_rows import OwnStates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from verify.claims.claim import Claim, Method
    from verify.decide import Decider, Decision
    from verify.kernel import Domain, Readout
    from verify.kernel.check import Standing
    from verify.models import Model

    Key = tuple[str, str | None]

# Universes of more tokens are scanned as a whole.
_MANY = 1000
# Tokens of one matrix product.
_BLOCK = 256
# An own state is at least 2**16 steps of its grid long.
_GRID_BITS = 17


class Computer:
    """Decides tokens of models; keeps decisions, so that nothing is decided twice.

    out: a folder for certificates and ledgers; None keeps them in memory, ledgers in a temporary folder.
    """

    def __init__(self, out: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> None:
        self.out, self.tell = out, tell
        self.decisions: dict[tuple[Key, str, int, str], Decision] = {}
        self.paths: dict[tuple[str, str, int, str], Path] = {}
        self._decider: tuple[Key, str, Decider] | None = None
        self._tops: dict[tuple[Key, str, int], _OwnVectors] = {}

    def facts(self, claim: Claim, model: Model, tokens: Sequence[int]) -> Iterator[Fact]:
        """Decide these tokens in the claim's domain."""
        if len(tokens) > _MANY:
            yield from self._scan(claim, model)
            return
        for token in tokens:
            self.tell(f"{claim.id}: token {token} in {claim.domain.name} ({model.name})")
            yield self._fact(self.decide(model, claim.competitors, token, claim.domain))

    def decide(self, model: Model, rule: str, token: int, domain: Domain) -> Decision:
        """One decision, saved below `out`."""
        key = (key_of(model), rule, token, domain.name)
        if key not in self.decisions:
            known = [d for (m, r, t, _), d in self.decisions.items() if (m, r, t) == key[:3]]
            decision = self._decider_of(model, rule).decide(token, domain, known)
            if self.out is not None and decision.proved is not None:
                path = certificate_path(self.out, decision.proved.certificate.statement)
                write_atomically(path, decision.certificate)
                decision.path = path
                self.paths[model.name, rule, token, domain.name] = path
            self.decisions[key] = decision
        return self.decisions[key]

    def own_vectors(
        self, model: Model, count: int, sense: str, tokens: Sequence[int]
    ) -> Iterator[tuple[int, Standing]]:
        """How tokens stand at their own vectors, exactly.

        In the post's sense folded, centred, without biases; in the model's in `readout`, biases and all.
        """
        key = (key_of(model), sense, count)
        if key not in self._tops:
            self._tops.clear()
            self._tops[key] = _OwnVectors(model.readout, DIRECTION if sense == "post" else READOUT, count)
        for start in range(0, len(tokens), _BLOCK):
            some = tokens[start : start + _BLOCK]
            yield from zip(some, self._tops[key].standings(some), strict=True)

    def replay(self, claim: Claim, method: Method, model: Model) -> tuple[bool | None, str]:
        """Run the printed program in floats: True if it says what is claimed, else None."""
        from verify.propose.field import OWN_ROW, solve

        (token,) = claim.members
        self.tell(f"{claim.id}: the printed program over all rows")
        count = competitor_count(claim, model)
        answer = solve(OWN_ROW, model.readout, token, count, margin=float(method.margin or 0))
        same = answer.claim == method.says and method.argmax in (None, answer.argmax)
        top = "" if answer.argmax is None else f", row {answer.argmax} on top at its direction"
        words = f"run again in floats, {answer.solver} says {answer.claim}{top}; not exact, and no proof"
        return (True if same else None), words

    def _decider_of(self, model: Model, rule: str) -> Decider:
        from verify.decide import Decider

        if self._decider is None or self._decider[:2] != (key_of(model), rule):
            self._decider = None  # its float copies go before the next are made
            self._decider = (key_of(model), rule, Decider(model, rule))
        return self._decider[2]

    @staticmethod
    def _fact(decision: Decision) -> Fact:
        where = str(decision.path) if decision.path else "decided here"
        claim = decision.claim
        if claim is None:
            return Fact(decision.token, None, f"undecided: {decision.reason}")
        if isinstance(claim, Speakable):
            words = f"speakable, a state with margin {approximate(claim.margin):.6g}"
            return Fact(decision.token, "speakable", f"{where}: {words}")
        words = f"unspeakable, Farkas multipliers, gap {approximate(claim.gap):.6g}, {claim.kind}"
        return Fact(decision.token, "unspeakable", f"{where}: {words}")

    def _scan(self, claim: Claim, model: Model) -> Iterator[Fact]:
        from verify.scan.run import scan

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) if self.out is None else self.out
            self.tell(f"{claim.id}: a scan of {model.name} in {claim.domain.name}")
            done = scan(model, claim.domain.name, out, competitors=claim.competitors)
            header = done.proved.header
            item = scanned(done.folder.path, header.statement)
            wanted = set(claim.members)
            rows = [row for block in done.folder.blocks(header) for row in block if row.token in wanted]
        for row in rows:
            yield ledger_fact(claim, item, row, header.statement.competitors)


class _OwnVectors:
    """Tokens at their own vectors in one domain."""

    def __init__(self, readout: Readout, domain: Domain, count: int) -> None:
        system = System(readout, domain, 0, count)
        bias = readout.bias if system.biased else None
        self.readout, self.system = readout, system
        self.margins = Margins(system, BatchFilter(readout.unembedding, bias, count))
        self.sums = readout.unembedding.column_sums()

    def standings(self, tokens: Sequence[int]) -> list[Standing]:
        states = [self._state(row) for row in self.readout.unembedding.integers(list(tokens))]
        return self.margins.at(tokens, states, [True] * len(tokens))

    def _state(self, row: list[int]) -> State:
        """The own vector; in `readout` its largest multiple inside the ball, by the rule of Theorem 16."""
        direction = self.system.own_direction(row, self.sums)
        if self.system.region == "cone":
            return State(tuple(direction), 0)
        bits = sum(x * x for x in self.system.project(direction)).bit_length() // 2 + _GRID_BITS
        own = OwnStates(self.system, self.sums, bits)
        a, b, _ = own.room(direction)
        return own.state(direction, isqrt(b // a) if a else 0)

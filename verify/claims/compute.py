"""GLUE. Claims decided from the weights: tokens by `Decider`, vocabularies by a scan, own vectors exactly.

Evidence is kept in memory, or saved below a folder. Solvers are imported only where a token is decided.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

from verify.claims.claim import MANY
from verify.claims.evidence import Fact, ledger_fact, scanned
from verify.claims.weights import key_of
from verify.errors import VerifyError
from verify.figures import approximate
from verify.files import certificate_path, read_regular, write_atomically
from verify.kernel import DIRECTION, READOUT, Speakable, State, System, from_bytes, prove
from verify.kernel.check import Margins
from verify.kernel.filter import BatchFilter
from verify.kernel.ledger_rows import OwnStates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from verify.claims.claim import Claim, Method
    from verify.claims.weights import Key
    from verify.decide import Decider, Decision
    from verify.kernel import Domain, Readout
    from verify.kernel.check import Standing
    from verify.models import Model

# Tokens of one matrix product.
_BLOCK = 256
# The grid of own states in `readout` is chosen for each token: so many bits finer than its direction is long.
_GRID_BITS = 17


class Computer:
    """Decides tokens of models; keeps decisions, so that nothing is decided twice.

    out: a folder for certificates and ledgers; None keeps them in memory, ledgers in a temporary folder. A
    certificate of the very same statement that lies there already is proved again, and nothing is searched.
    evidence: the certificates and ledgers of this run in `out`. Words name them from there.
    """

    def __init__(self, out: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> None:
        self.out, self.tell = out, tell
        self.evidence: set[Path] = set()
        self._decisions: dict[tuple[Key, str, int], dict[str, Decision]] = {}
        self._decider: tuple[Key, str, Decider] | None = None
        self._tops: dict[tuple[Key, str, int], _OwnVectors] = {}

    def facts(self, claim: Claim, model: Model, tokens: Sequence[int]) -> Iterator[Fact]:
        """Decide these tokens in the claim's domain."""
        if len(tokens) > MANY and not on_sphere(model.readout):
            yield from self._scan(claim, model)
            return
        for token in tokens:
            self.tell(f"{claim.id}: token {token} in {claim.domain.name} ({model.name})")
            yield self._fact(self.decide(model, claim.competitors, token, claim.domain))

    def decide(self, model: Model, rule: str, token: int, domain: Domain) -> Decision:
        """One decision, saved below `out`."""
        known = self._decisions.setdefault((key_of(model), rule, token), {})
        if domain.name not in known:
            decider = self._decider_of(model, rule)
            decision = self._kept(decider, token, domain)
            if decision is None:
                decision = decider.decide(token, domain, list(known.values()))
                if self.out is not None and decision.proved is not None:
                    decision.path = certificate_path(self.out, decision.proved.certificate.statement)
                    write_atomically(decision.path, decision.certificate)
            if decision.path is not None:
                self.evidence.add(decision.path)
            known[domain.name] = decision
        return known[domain.name]

    def _kept(self, decider: Decider, token: int, domain: Domain) -> Decision | None:
        """The decision that an earlier run left in `out`, proved again; None if there is none that holds."""
        from verify.decision import Decision

        if self.out is None:
            return None
        statement = decider.statement(token, domain)
        path = certificate_path(self.out, statement)
        if not path.exists():
            return None
        with contextlib.suppress(VerifyError):  # what does not hold is decided anew, and written over
            data = read_regular(path)
            certificate = from_bytes(data)
            if certificate.statement == statement:
                proved = prove(certificate, decider.model.readout)
                about = (decider.model, token, domain, decider.count, decider.rule)
                return Decision(*about, proved, data, attempts=[], path=path)
        return None

    def own_vectors(
        self, model: Model, count: int, sense: str, tokens: Sequence[int], *, rows: bool = True
    ) -> Iterator[tuple[int, Standing]]:
        """How tokens stand at their own vectors, exactly; without `rows` only whether they are on top.

        In the post's sense folded, centred, without biases; in the model's in `readout`, biases and all,
        where epsilon must not be 0.
        """
        key = (key_of(model), sense, count)
        if key not in self._tops:
            self._tops.clear()
            self._tops[key] = _OwnVectors(model.readout, DIRECTION if sense == "post" else READOUT, count)
        for start in range(0, len(tokens), _BLOCK):
            some = tokens[start : start + _BLOCK]
            yield from zip(some, self._tops[key].standings(some, rows=rows), strict=True)

    def replay(
        self, claim: Claim, method: Method, margin: str, model: Model, count: int
    ) -> tuple[bool | None, str]:
        """Run the printed program in floats: whether it says what is claimed; None if it says nothing."""
        from verify.propose.field import OWN_ROW, solve

        (token,) = claim.members
        self.tell(f"{claim.id}: the printed program over all rows")
        answer = solve(OWN_ROW, model.readout, token, count, margin=float(margin))
        top = "" if answer.argmax is None else f", row {answer.argmax} on top at its direction"
        words = f"run again in floats, {answer.solver} says {answer.claim}{top}; not exact, and no proof"
        if answer.claim not in ("feasible", "infeasible"):
            return None, f"{words} ({answer.status})"
        return answer.claim == method.says and method.argmax in (None, answer.argmax), words

    def _decider_of(self, model: Model, rule: str) -> Decider:
        from verify.decide import Decider

        if self._decider is None or self._decider[:2] != (key_of(model), rule):
            self._decider = None  # its float copies go before the next are made
            self._decider = (key_of(model), rule, Decider(model, rule))
        return self._decider[2]

    def _fact(self, decision: Decision) -> Fact:
        where = self._place(decision.path)
        claim = decision.claim
        if claim is None:
            return Fact(decision.token, None, f"undecided: {decision.reason}")
        if isinstance(claim, Speakable):
            words = f"speakable, a state with margin {approximate(claim.margin):.6g}"
            return Fact(decision.token, "speakable", f"{where}: {words}", source=decision.path)
        words = f"unspeakable, Farkas multipliers, gap {approximate(claim.gap):.6g}, {claim.kind}"
        return Fact(decision.token, "unspeakable", f"{where}: {words}", source=decision.path)

    def _place(self, path: Path | None) -> str:
        """Where in `out` evidence lies, for people."""
        return "decided here" if self.out is None or path is None else path.relative_to(self.out).as_posix()

    def _scan(self, claim: Claim, model: Model) -> Iterator[Fact]:
        from verify.scan.run import scan

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) if self.out is None else self.out
            # Certificates tell revisions and competitors apart by themselves, ledgers by the folder alone.
            parts = [(model.revision or "")[:12], claim.competitors.replace("all", "")]
            out = out.joinpath(*filter(None, parts))
            self.tell(f"{claim.id}: a scan of {model.name} in {claim.domain.name}")
            done = scan(model, claim.domain.name, out, competitors=claim.competitors)
            header, path = done.proved.header, done.folder.path
            if self.out is not None:
                self.evidence.add(path)
            name = self._place(path) if self.out is not None else "decided here, by a scan"
            item = scanned(path, name, header.statement)
            wanted = set(claim.members)
            rows = [row for block in done.folder.blocks(header) for row in block if row.token in wanted]
        for row in rows:
            fact = ledger_fact(claim, item, row, header.statement.competitors)
            yield fact if self.out is not None else replace(fact, source=None)


def on_sphere(readout: Readout) -> bool:
    """Whether the norm's image is a sphere (epsilon = 0): no ledger is kept, and own states lie outside."""
    return readout.norm != "none" and readout.epsilon == 0


class _OwnVectors:
    """Tokens at their own vectors in one domain."""

    def __init__(self, readout: Readout, domain: Domain, count: int) -> None:
        system = System(readout, domain, 0, count)
        bias = readout.bias if system.biased else None
        self.readout, self.system = readout, system
        self.margins = Margins(system, BatchFilter(readout.unembedding, bias, count))
        self.sums = readout.unembedding.column_sums()

    def standings(self, tokens: Sequence[int], *, rows: bool) -> list[Standing]:
        states = [self._state(row) for row in self.readout.unembedding.integers(list(tokens))]
        return self.margins.at(tokens, states, [rows] * len(tokens))

    def _state(self, row: list[int]) -> State:
        """The own vector; in `readout` the largest multiple of it with |z|^2 <= 1023/1024 d on a grid.

        As Theorem 16 has it, but that the grid is the token's own and follows from the weights alone, while
        a ledger's is chosen by whoever makes it. Where biases decide by a hair, the two may differ.
        """
        direction = self.system.own_direction(row, self.sums)
        if self.system.region == "cone":
            return State(tuple(direction), 0)
        bits = sum(x * x for x in self.system.project(direction)).bit_length() // 2 + _GRID_BITS
        own = OwnStates(self.system, self.sums, bits)
        a, b, _ = own.room(direction)
        return own.state(direction, isqrt(b // a) if a else 0)

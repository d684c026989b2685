"""Our search beside the field's methods on twelve tokens. Run `python benchmarks/peers.py --help`.

Each method is asked once for each token and held against the exact verdict in its own domain. A claim is
right if it names that verdict; a feasible claim is also judged by the exact margin of its own state,
in a column of its own. One thread each. The clock starts with the model loaded and the libraries
imported, and stops with the claim:

`verify`            Decider.decide with its exact checks and the certificate on disk, in one process for all
                    tokens, float copies ready. `verify, first use`: the same as the first and only decision
                    of a fresh process, float copies included.
the field's         a fresh process for each token, killed at the limit: a missing answer. Writing the
                    program counts, building the float copy too. post, post-without-own-row, grivas:
                    verify/propose/field.py, with HiGHS.
`reflection`        the search that Grivas et al. 2022 run before their linear program: from the token's own
                    row, reflect across the boundary with the row now on top, at most 100 times; rows
                    ready in float32, as their code has them, and in float64. Not found: no answer, they go
                    on to the program. The lowest id of a tie is on top for it, which is a fake feasible here.
`nnls`              scipy.optimize.nnls on all rows: the point of the hull of D_j nearest to 0. A residual
                    up to 1e-9 means unspeakable, else the residual is the direction.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from verify.compare import exact_margin
from verify.decide import Decider
from verify.files import write_atomically
from verify.kernel import DIRECTION, FREE
from verify.models import load_model
from verify.propose.field import DOMAIN_OF, GRIVAS, OWN_ROW, PROGRAMS, WITHOUT_OWN_ROW, solve
from verify.propose.problem import FloatReadout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from verify.kernel import Domain
    from verify.models import Model

MODEL = "whisper-tiny.en"
# easy: of the 50,363 tokens on top at their own direction (folded row minus the mean row), in order of id,
#       those at 1/5, 2/5, 3/5 and 4/5.
# thin: hard to speak, never trained, speakable in `direction`: ' externalTo', on which the README opens, and
#       the three least margins in certificates/whisper-tiny.en (3.3e-6 to 3.4e-6 logits).
# tied: of the first four groups of equal rows, the lowest and the highest id by turns.
CLASSES = {
    "easy": (10233, 20493, 30826, 41286),
    "thin": (30208, 183, 181, 213),
    "tied": (177, 50272, 195, 50274),
}
TOKENS = tuple(t for tokens in CLASSES.values() for t in tokens)
WARM_UP = 1000

WARM, COLD, NNLS = "verify", "verify, first use", "nnls"
REFLECTION, REFLECTION_64 = "reflection", "reflection, float64"
# Cheap ones first. (method, domain)
WORK: tuple[tuple[str, Domain], ...] = (
    (WARM, DIRECTION),
    (WARM, FREE),
    (COLD, DIRECTION),
    (COLD, FREE),
    (REFLECTION, FREE),
    (REFLECTION_64, FREE),
    *((p, DOMAIN_OF[p]) for p in (WITHOUT_OWN_ROW, OWN_ROW, GRIVAS)),
    (NNLS, DIRECTION),
)
METHODS = tuple(dict.fromkeys(method for method, _ in WORK))

_REFLECTIONS, _BOX = 100, 100.0
_RESIDUAL = 1e-9
_LOADING, _AFTER = 300.0, 30.0  # seconds: to be ready; to judge the state after the clock has stopped


@dataclass
class Answer:
    """What one method said of one token, in `domain`.

    limit, seconds: wall clock. claim: `speakable`, `unspeakable`, or empty: missing. detail: the method's
    own words. margin: exact l_t - l_j, least over j, at the method's own state, then rounded; None without
    a state. top: the row on top there in float64, by the post's programs and `grivas` only.
    """

    method: str
    domain: str
    token: int
    limit: float
    seconds: float
    claim: str
    detail: str = ""
    margin: float | None = None
    top: int | None = None


@click.command()
@click.option("--limit", default=300.0, show_default=True, help="Seconds a token and method.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Keep answers; go on there.")
@click.option("--markdown", is_flag=True, help="Print the tables of what is answered, run nothing.")
@click.option("--methods", default=",".join(m for m in METHODS if "," not in m), show_default=True)
@click.option("--tokens", default=",".join(map(str, TOKENS)), show_default=True)
@click.option("--again", is_flag=True, help="Ask the named methods and tokens anew.")
def main(limit: float, out: Path | None, markdown: bool, methods: str, tokens: str, again: bool) -> None:
    """Run what is not yet answered in --out, then print the tables.

    `verify` and `reflection` stand for both of their rows.
    """
    kept = [Answer(**a) for a in json.loads(out.read_text())] if out and out.exists() else []
    if not markdown:
        for name in ("OMP", "OPENBLAS", "MKL"):
            os.environ[f"{name}_NUM_THREADS"] = "1"
        wanted = methods.split(",")
        asked = [int(t) for t in tokens.split(",")]
        if again:
            kept = [a for a in kept if a.token not in asked or a.method.split(",")[0] not in wanted]
        for answer in _answers(kept, limit, wanted, asked):
            kept = [a for a in kept if _key(a) != _key(answer)] + [answer]
            if out:
                write_atomically(out, json.dumps([asdict(a) for a in kept], indent=0).encode())
            click.echo(f"{time.strftime('%H:%M:%S')} {answer}", err=True)
    click.echo(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread a method\n")
    for line in [*_summary(kept), "", *_by_token(kept)]:
        click.echo(line)


def _key(a: Answer) -> tuple[str, str, int]:
    return a.method, a.domain, a.token


def _answers(kept: list[Answer], limit: float, wanted: list[str], asked: list[int]) -> Iterator[Answer]:
    """The answers not yet there, as they come; a missing one is asked for again under a longer limit."""
    done = {_key(a) for a in kept if a.claim or a.limit >= limit}
    for method, domain in WORK:
        if method.split(",")[0] not in wanted:
            continue
        todo = [t for t in asked if (method, domain.name, t) not in done]
        for tokens in [todo] if method == WARM else [[t] for t in todo]:
            if tokens:
                yield from _in_a_process(method, domain, tokens, limit)


def _in_a_process(method: str, domain: Domain, tokens: list[int], limit: float) -> Iterator[Answer]:
    """One process for these tokens, killed at the first that takes longer than the limit."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_work, args=(theirs, method, domain, tokens))
    child.start()
    theirs.close()
    try:
        if not ours.poll(_LOADING) or ours.recv() != "ready":
            raise click.ClickException(f"{method}: not ready in {_LOADING:.0f} s")
        for token in tokens:
            missing = Answer(method, domain.name, token, limit, limit, "", "over the limit")
            # The child's own clock counts: a claim found in time is not lost while it is judged.
            if not ours.poll(limit + _AFTER):
                yield missing
                return
            answer = Answer(method, domain.name, token, limit, **ours.recv())
            yield answer if answer.seconds <= limit else missing
    except EOFError:
        child.join()
        raise click.ClickException(f"{method}: its process ended with {child.exitcode}") from None
    finally:
        child.kill()
        child.join()


def _work(pipe: Connection, method: str, domain: Domain, tokens: list[int]) -> None:
    """In the child: load and import, say so, then one dictionary a token."""
    model = load_model(MODEL)
    if method in (WARM, COLD):
        deciders = [Decider(model)] if method == WARM else []
        for decider in deciders:
            decider.decide(WARM_UP, domain)
        pipe.send("ready")
        for token in tokens:
            pipe.send(_ours(model, deciders, domain, token))
        return
    (token,) = tokens
    if method in PROGRAMS:
        import pulp  # noqa: F401 - imported before the clock starts

        pipe.send("ready")
        pipe.send(_program(method, model, token))
    elif method in (REFLECTION, REFLECTION_64):
        rows = FloatReadout(model.readout, FREE).rows
        if method == REFLECTION:
            rows = rows.astype(np.float32)
        pipe.send("ready")
        pipe.send(_reflection(model, rows, token))
    else:
        import scipy.optimize  # noqa: F401 - imported before the clock starts

        pipe.send("ready")
        pipe.send(_nnls(model, token))


def _ours(model: Model, deciders: list[Decider], domain: Domain, token: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        decider = deciders[0] if deciders else Decider(model)
        decision = decider.decide(token, domain)
        write_atomically(Path(folder) / "certificate.json", decision.certificate)
        seconds = time.perf_counter() - start
    claim = "" if decision.proved is None else decision.verdict.lower()
    margin = getattr(decision.claim, "margin", None)
    detail = "; ".join(f"{a.proposer}: {a.found}" for a in decision.attempts) or decision.reason
    return {
        "seconds": seconds,
        "claim": claim,
        "detail": detail,
        "margin": None if margin is None else float(margin),
    }


def _program(program: str, model: Model, token: int) -> dict[str, Any]:
    answer = solve(program, model.readout, token, model.readout.vocabulary)
    claim = {"feasible": "speakable", "infeasible": "unspeakable"}.get(answer.claim, "")
    return {
        "seconds": answer.build_seconds + answer.seconds,
        "claim": claim,
        "detail": answer.status,
        "margin": _margin(model, DOMAIN_OF[program], token, answer.direction),
        "top": answer.argmax,
    }


def _reflection(model: Model, W: Any, token: int) -> dict[str, Any]:
    """x becomes x - 2 (n.x) n, with n the unit vector along w_t - w_j and j the row on top at x."""
    start = time.perf_counter()
    x, steps, detail = W[token].copy(), 0, ""
    while (j := int(np.argmax(W @ x))) != token:
        n = W[token] - W[j]
        length = np.linalg.norm(n)
        if steps == _REFLECTIONS or length == 0:
            detail = f", row {j} is equal" if length == 0 else ", gives up"
            break
        n /= length
        x -= 2 * (n @ x) * n
        steps += 1
    if not detail and np.abs(x).max() > _BOX:
        detail = ", outside the box"
    seconds = time.perf_counter() - start
    found = None if detail else x.astype(np.float64)
    return {
        "seconds": seconds,
        "claim": "" if detail else "speakable",
        "detail": f"{steps} reflections{detail}",
        "margin": _margin(model, FREE, token, found),
    }


def _nnls(model: Model, token: int) -> dict[str, Any]:
    """Minimise |sum_j lambda_j D_j|^2 + (1 - sum_j lambda_j)^2 over lambda >= 0, D_j = a_t - a_j."""
    from scipy.optimize import nnls

    start = time.perf_counter()
    rows = FloatReadout(model.readout, DIRECTION).rows
    D = np.delete(rows[token] - rows, token, axis=0)
    A = np.vstack([D.T, np.ones(len(D))])
    b = np.append(np.zeros(rows.shape[1]), 1.0)
    try:
        multipliers, residual = nnls(A, b)
    except RuntimeError as error:  # its limit of iterations
        return {"seconds": time.perf_counter() - start, "claim": "", "detail": str(error)}
    direction = None if residual <= _RESIDUAL else A[:-1] @ multipliers
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "claim": "unspeakable" if direction is None else "speakable",
        "detail": f"residual {residual:.2g}, {np.count_nonzero(multipliers)} rows",
        "margin": _margin(model, DIRECTION, token, direction),
    }


def _margin(model: Model, domain: Domain, token: int, state: Any) -> float | None:
    """The exact margin of a float state, after the clock has stopped."""
    if state is None:
        return None
    return float(exact_margin(model.readout, domain, token, model.readout.vocabulary, state.tolist()))


def _judge(a: Answer, exact: dict[tuple[str, int], str]) -> str:
    """The claim against the exact verdict in the same domain."""
    verdict = exact.get((a.domain, a.token), "")
    if not a.claim:
        return "missing"
    if not verdict:
        return "not comparable"
    if a.claim == verdict:
        return "right"
    return "FAKE FEASIBLE" if a.claim == "speakable" else "FAKE INFEASIBLE"


def _exact(kept: list[Answer]) -> dict[tuple[str, int], str]:
    return {(a.domain, a.token): a.claim for a in kept if a.method == WARM}


def _summary(kept: list[Answer]) -> Iterator[str]:
    """One row a method: medians of what it answered, judgements, and ratios where it was right."""
    exact = _exact(kept)
    seconds = {_key(a): a.seconds for a in kept}
    yield (
        "| method | domain | easy s | thin s | tied s | all s | right | fake feasible | fake infeasible "
        "| missing | own state fails | times ours | times ours, first use |"
    )
    yield "|" + "---|" * 13
    complete: list[tuple[float, str]] = []
    for method, domain in WORK:
        mine = [a for a in kept if a.method == method and a.domain == domain.name]
        if not mine:
            continue
        spent = [
            _median([a.seconds for a in mine if a.claim and a.token in tokens])
            for tokens in (*CLASSES.values(), TOKENS)
        ]
        judged = {id(a): _judge(a, exact) for a in mine}
        words = list(judged.values())
        right = [a for a in mine if judged[id(a)] == "right"]
        fails = sum(a.claim == "speakable" and a.margin is not None and a.margin <= 0 for a in mine)
        ratios = [
            _ratio([(a.seconds, seconds.get((other, a.domain, a.token))) for a in right])
            for other in (WARM, COLD)
        ]
        counts = [words.count(w) for w in ("right", "FAKE FEASIBLE", "FAKE INFEASIBLE", "missing")]
        cells = [method, domain.name, *spent, *counts, fails, *ratios]
        yield f"| {' | '.join(map(str, cells))} |"
        if method not in (WARM, COLD) and counts[0] == len(TOKENS):
            complete.append(
                (statistics.median(a.seconds for a in right), f"{method}, {ratios[0]} times ours")
            )
    yield ""
    fastest = min(complete)[1] if complete else "none"
    yield f"Fastest of the field's methods with {len(TOKENS)} right answers: {fastest}."


def _by_token(kept: list[Answer]) -> Iterator[str]:
    """One row a token: seconds and judgement; where a feasible claim's own state is not on top, that too."""
    exact = _exact(kept)
    by_key = {_key(a): a for a in kept}
    yield "| class | token | " + " | ".join(f"{m} ({d.name})" for m, d in WORK) + " |"
    yield "|" + "---|" * (len(WORK) + 2)
    for name, tokens in CLASSES.items():
        for token in tokens:
            found = [by_key.get((m, d.name, token)) for m, d in WORK]
            cells = [_cell(a, exact) if a else "" for a in found]
            yield f"| {name} | {token} | {' | '.join(cells)} |"


def _cell(a: Answer, exact: dict[tuple[str, int], str]) -> str:
    if a.method in (WARM, COLD):
        margin = f" {a.margin:.2g}" if a.margin is not None else ""
        return f"{a.claim or 'undecided'}{margin}, {_digits(a.seconds)} s"
    judged = _judge(a, exact)
    if judged == "missing":
        return f"missing ({a.detail})"
    extra = f", margin {a.margin:.2g}" if a.margin is not None else ""
    if a.top not in (None, a.token):
        extra += f", row {a.top} on top"
    return f"{judged}: {a.claim}{extra}, {_digits(a.seconds)} s"


def _median(values: list[float]) -> str:
    return _digits(statistics.median(values)) if values else ""


def _ratio(pairs: list[tuple[float, float | None]]) -> str:
    """Median over median, on the pairs that are complete."""
    both = [(theirs, ours) for theirs, ours in pairs if ours]
    if not both:
        return ""
    return _digits(statistics.median(t for t, _ in both) / statistics.median(o for _, o in both))


def _digits(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.1 else f"{x:.3f}"


if __name__ == "__main__":
    main()

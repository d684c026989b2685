"""Measures what docs/performance.md reports. Run `python benchmarks/bench.py --help`.

Every figure is taken in a fresh process on this machine; the post's program runs in the same call, so
that ratios compare like with like. Nothing here is a test and nothing asserts a time.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
TOKENS = (30208, 173, 177, 124, 30212, 30897, 39752)
SMALL = (("tinygpt-slm-05", (0, 2, 3)), ("tinygpt-slm-12", (0, 2, 3)))
TEN = (
    ("whisper-tiny.en", (100, 177, 30208, 30897)),
    ("tinygpt-slm-05", (0, 2, 3)),
    ("tinygpt-slm-12", (0,)),
    ("stories260K", (0,)),
    ("rxnmapper-albert", (300,)),
)


@click.group()
def main() -> None:
    """Benchmarks of verify. Small models are looked for in $VERIFY_TEST_MODELS."""
    click.echo(f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores", err=True)


@main.command()
def tokens() -> None:
    """Cold start to saved certificate, then its audit: seconds, peak memory, bytes."""
    click.echo("| model | token | domain | verdict | margin or gap | s | MB | cert. bytes | audit s | MB |")
    click.echo("|---|---|---|---|---|---|---|---|---|---|")
    jobs = [("whisper-tiny.en", t, d) for t in TOKENS for d in ("readout", "free", "direction")]
    folder = os.environ.get("VERIFY_TEST_MODELS")
    for name, ids in SMALL if folder else ():
        jobs += [(str(Path(str(folder)) / name), t, d) for t in ids for d in ("readout", "direction")]
    for model, token, domain in jobs:
        click.echo(_token_row(model, token, domain))


def _token_row(model: str, token: int, domain: str) -> str:
    with tempfile.TemporaryDirectory() as out:
        arguments = ["token", str(token), "--model", model, "--domain", domain, "--out", out, "--json"]
        seconds, megabytes, text = _run([sys.executable, "-m", "verify", *arguments])
        data = json.loads(text)
        size = Path(data["certificate"]).stat().st_size if data["certificate"] else 0
        audit = [sys.executable, "-m", "verify", "audit", str(data["certificate"]), "--model", model]
        audit_seconds, audit_megabytes, _ = _run(audit)
    number = data["margin"] or data["gap"] or {"approx": float("nan")}
    kind = f" ({data['kind']})" if data["kind"] else ""
    return (
        f"| {Path(model).name} | {token} | {domain} | {data['verdict']}{kind} | {number['approx']:.3g} "
        f"| {seconds:.1f} | {megabytes:.0f} | {size} | {audit_seconds:.2f} | {audit_megabytes:.0f} |"
    )


@main.command()
@click.option("--limit", default=120, show_default=True, help="Seconds a token.")
def proposers(limit: int) -> None:
    """Each proposer alone on ten named tokens in `readout`."""
    folder = Path(os.environ["VERIFY_TEST_MODELS"])
    click.echo("| model | token | " + " | ".join(p for p in ("interior", "nnls", "pulp")) + " |")
    click.echo("|---|---|---|---|---|")
    for name, ids in TEN:
        model = name if name == "whisper-tiny.en" else str(folder / name)
        for token in ids:
            cells = [_proposer_cell(model, token, p, limit) for p in ("interior", "nnls", "pulp")]
            click.echo(f"| {name} | {token} | " + " | ".join(cells) + " |")


def _proposer_cell(model: str, token: int, proposer: str, limit: int) -> str:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "verify", "token", str(token), "--model", model, "--out", out]
        try:
            _, _, text = _run([*command, "--proposer", proposer, "--json"], limit)
        except subprocess.TimeoutExpired:
            return f"no answer in {limit} s"
    data = json.loads(text)
    number = data["margin"] or data["gap"]
    value = f" {number['approx']:.2g}" if number else ""
    best = "" if data["maximised"] is not False else ", not maximised"
    return f"{data['verdict']}{value}{best}, {data['seconds']:.1f} s"


@main.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--each", default=2, show_default=True, help="Tokens of each planted class.")
def generated(seed: int, each: int) -> None:
    """The GPT-2-shaped instance (50,257 x 768): planted tokens in `direction`, with their audits."""
    from instances import gpt2_shaped  # type: ignore[import-not-found] # beside this file

    from verify.decide import Decider
    from verify.kernel import DIRECTION, from_bytes, prove

    model, planted = gpt2_shaped(seed)
    start = time.perf_counter()
    decider = Decider(model)
    decider.view(DIRECTION)
    click.echo(f"float copy and finiteness check: {time.perf_counter() - start:.1f} s", err=True)
    click.echo("| class | token | verdict | margin | rows | bits | s | cert. MB | audit s |")
    click.echo("|---|---|---|---|---|---|---|---|---|")
    for name in ("easy", "outside", "equal", "inside", "central"):
        for token in getattr(planted, name)[:each]:
            decision = decider.decide(token, DIRECTION)
            start = time.perf_counter()
            if decision.proved:
                prove(from_bytes(decision.certificate), model.readout)
            audit = time.perf_counter() - start
            click.echo(_generated_row(name, decision, audit))


def _generated_row(name: str, decision: Any, audit: float) -> str:
    multipliers = getattr(decision.claim, "multipliers", None)
    rows = len(multipliers.rows) if multipliers else ""
    bits = max(v.bit_length() for v in multipliers.values) if multipliers else ""
    margin = getattr(decision.claim, "margin", None)
    shown = f"{float(margin):.3g}" if margin is not None else ""
    kind = getattr(decision.claim, "kind", "")
    return (
        f"| {name} | {decision.token} | {decision.verdict} {kind} | {shown} | {rows} | {bits} "
        f"| {decision.seconds:.1f} | {len(decision.certificate) / 1e6:.3f} | {audit:.2f} |"
    )


@main.command()
@click.option("--token", default=30208, show_default=True)
@click.option("--time-limit", default=None, type=float)
def peers(token: int, time_limit: float | None) -> None:
    """One token: cold `verify token` beside the field's programs over all rows; seconds and ratios."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "verify", "token", str(token), "--out", out, "--json"]
        seconds, megabytes, _ = _run(command)
        limit = ["--time-limit", str(time_limit)] if time_limit else []
        _, peak, text = _run([*command, "--domain", "all", "--compare", *limit])
    click.echo("| method | rows | s | MB | claim | exact | judgement | times ours |")
    click.echo("|---|---|---|---|---|---|---|---|")
    click.echo(
        f"| verify, cold start to saved certificate | all | {seconds:.1f} | {megabytes:.0f} | | | | 1 |"
    )
    for line in text.splitlines():
        row = json.loads(line).get("compare")
        if row:
            spent = row["seconds"] + row["build_seconds"]
            click.echo(
                f"| {row['program']} ({row['solver']}) | {row['rows']} | {spent:.1f} | {peak:.0f} (all) "
                f"| {row['claim']} | {row['exact_verdict']} | {row['judgement']} | {spent / seconds:.0f} |"
            )


@main.command()
@click.option("--large/--no-large", default=True, help="Also one token of the 50,257 x 768 instance.")
def evidence(large: bool) -> None:
    """Published certificates under both auditors, and the sizes of the other stored forms."""
    published = HERE.parent / "certificates"
    model = HERE.parent / "verify" / "models" / "bundled-models" / "whisper-tiny.en"
    flags = ["--weights", str(model / "model.safetensors"), "--config", str(model / "config.json")]
    standalone = [sys.executable, str(published / "audit.py")]
    verify = [sys.executable, "-m", "verify"]
    click.echo("| certificate | form | bytes | verify audit s | MB | standalone s | MB |")
    click.echo("|---|---|---|---|---|---|---|")
    for name, form in (
        ("readout/30208", "state, residual vector, ceiling"),
        ("direction/30208", "state"),
        ("box-1/30208", "box form"),
        ("readout/177", "equal row, tie state"),
    ):
        path = str(published / "whisper-tiny.en" / f"{name}.json")
        _evidence_row(name, form, path, [*verify, "audit", path], [*standalone, path, *flags])
    with tempfile.TemporaryDirectory() as folder:
        for name in ("box-1/30208", "readout/177"):
            path = str(published / "whisper-tiny.en" / f"{name}.json")
            packed = str(Path(folder) / "bundle.json")
            _run([*verify, "bundle", path, "-o", packed])
            _evidence_row(name, "bundle", packed, [*verify, "audit", packed], [*standalone, packed])
    if large:
        _large_forms()


def _evidence_row(name: str, form: str, path: str, verify: list[str], standalone: list[str]) -> None:
    cells = [
        f"{value:.{places}f}"
        for c in (verify, standalone)
        for value, places in zip(_run(c)[:2], (1, 0), strict=True)
    ]
    click.echo(f"| {name} | {form} | {Path(path).stat().st_size} | " + " | ".join(cells) + " |")


def _large_forms() -> None:
    from instances import gpt2_shaped

    from verify.decide import Decider
    from verify.forms import bundled, converted
    from verify.kernel import DIRECTION, from_bytes, prove, prove_bundle

    model, planted = gpt2_shaped(0)
    token = planted.inside[0]
    decision = Decider(model).decide(token, DIRECTION)
    if decision.proved is None:
        raise click.ClickException(f"token {token} is undecided: {decision.reason}")
    full, readout = decision.certificate, model.readout
    small = converted(decision.proved, readout, "support")
    checks: list[tuple[str, bytes, Any]] = [
        ("full", full, lambda data: prove(from_bytes(data), readout)),
        ("support alone", small, lambda data: prove(from_bytes(data), readout)),
        ("bundle of full", bundled(decision.proved, readout)[0], prove_bundle),
        ("bundle of the support", bundled(prove(from_bytes(small), readout), readout)[0], prove_bundle),
    ]
    click.echo(
        "\n| 50,257 x 768, token inside | bytes | check s (in process, hashed before) |\n|---|---|---|"
    )
    for form, data, check in checks:
        start = time.perf_counter()
        check(data)
        click.echo(f"| {form} | {len(data)} | {time.perf_counter() - start:.1f} |")


def _run(command: list[str], limit: float | None = None) -> tuple[float, float, str]:
    """Seconds, peak MB and stdout of a child process; subprocess.TimeoutExpired past the limit."""
    with tempfile.TemporaryFile("w+") as stdout:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL)
        timer = threading.Timer(limit or 1e6, child.kill)
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        timer.cancel()
        if os.WIFSIGNALED(status):
            raise subprocess.TimeoutExpired(command, limit or 0)
        stdout.seek(0)
        return seconds, usage.ru_maxrss / 1024, stdout.read()


if __name__ == "__main__":
    main()

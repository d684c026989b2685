"""How the time a token grows with V and d, on generated instances. Run `python benchmarks/growth.py --help`.

Nothing here is a test and nothing asserts a time. Each size is measured in a fresh process with one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from verify.kernel.ledger import Row

DOMAIN = "readout"
WIDTHS, AT_ROWS = (128, 256, 512, 1024), 25_000
ROWS, AT_WIDTH = (12_500, 25_000, 50_000, 100_000), 256
# What is timed, and how many tokens of each.
STEPS = {
    "own directions": 1024,
    "reflections": 64,
    "search, cone": 8,
    "search, ball": 8,
    "check, own": 1024,
    "check, hard": 8,
    "bare product": 1024,
}


@click.group()
def main() -> None:
    """Growth of a scan's time with the size of the matrix."""


@main.command()
@click.option("--out", default="growth.json", show_default=True, help="Results; sizes in it are not redone.")
@click.option("--plot", default=None, help="Draw them into this file, .svg or .png (needs matplotlib).")
@click.option("--seed", default=0, show_default=True)
def run(out: str, plot: str | None, seed: int) -> None:
    """Measure four sizes of V and of d; print seconds a token and fitted exponents."""
    path = Path(out)
    done: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    sizes = sorted({*((v, AT_WIDTH) for v in ROWS), *((AT_ROWS, d) for d in WIDTHS)})
    for V, d in sizes:
        if f"{V}x{d}" not in done:
            command = [sys.executable, __file__, "one", str(V), str(d), "--seed", str(seed)]
            env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            found = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
            done[f"{V}x{d}"] = json.loads(found.splitlines()[-1])
            path.write_text(json.dumps(done, indent=1))
            click.echo(f"{V} x {d}: {found.splitlines()[-1]}", err=True)
    click.echo("| V | d | " + " | ".join(f"{s}, ms" for s in STEPS) + " |")
    click.echo("|---|---|" + "---|" * len(STEPS))
    for V, d in sizes:
        cells = [f"{1e3 * done[f'{V}x{d}'][step]:.3g}" for step in STEPS]
        click.echo(f"| {V} | {d} | " + " | ".join(cells) + " |")
    for name, chosen in (("V", [(v, AT_WIDTH) for v in ROWS]), ("d", [(AT_ROWS, d) for d in WIDTHS])):
        cells = [f"{_exponent(done, chosen, step, name):.2f}" for step in STEPS]
        click.echo(f"| exponent in {name} | | " + " | ".join(cells) + " |")
    if plot is not None:
        _draw(done, Path(plot))


@main.command()
@click.argument("rows", type=int)
@click.argument("width", type=int)
@click.option("--seed", default=0)
def one(rows: int, width: int, seed: int) -> None:
    """One size in this process; the last line is JSON, seconds a token."""
    from instances import gpt2_shaped  # type: ignore[import-not-found] # beside this file

    from verify.decide import Decider
    from verify.kernel import parse_domain
    from verify.scan.run import grid_of
    from verify.scan.worker import Question, Worker

    model, planted = gpt2_shaped(seed, rows, width)
    unusual = {*planted.central, *planted.inside, *planted.outside, *planted.equal}
    shuffled = [int(t) for t in np.random.default_rng(seed).permutation(rows) if int(t) not in unusual]

    out: dict[str, float] = {}

    def timed(step: str, work: Callable[[], object], tokens: int) -> None:
        start = time.perf_counter()
        work()
        out[step] = (time.perf_counter() - start) / tokens

    decider = Decider(model)
    grid = grid_of(decider, parse_domain(DOMAIN))
    question = Question(None, model.readout.fingerprint, DOMAIN, "all", grid)
    on_ball = Worker(question, decider)
    many = shuffled[: STEPS["own directions"]]
    on_ball.own(many[:64])
    settled, _ = on_ball.own(many)
    timed("own directions", lambda: on_ball.own(many), len(many))
    timed("check, own", lambda: on_ball.views.check(settled), len(settled))
    # Corners of the clusters, which their own direction does not settle.
    hard = []
    for i in range(0, len(shuffled), 512):
        hard += on_ball.own(shuffled[i : i + 512])[1]
        if len(hard) >= STEPS["reflections"]:
            break
    few = hard[1 : 1 + STEPS["search, ball"]]
    on_ball.search(hard[0])
    found: list[Row] = []
    timed("search, ball", lambda: found.extend(on_ball.search(row) for row in few), len(few))
    timed("check, hard", lambda: on_ball.views.check(found), len(found))
    # On the cone: side by side, and a few by the interior method, which reflections spare the rest.
    on_cone = Worker(
        replace(question, domain="direction", proposer="interior"), Decider(model, proposer="interior")
    )
    corners = on_cone.own([row.token for row in hard])[1][: STEPS["reflections"]]
    on_cone.reflect(corners)
    timed("reflections", lambda: on_cone.reflect(corners), len(corners))
    few = corners[1 : 1 + STEPS["search, cone"]]
    on_cone.search(corners[0])
    timed("search, cone", lambda: [on_cone.search(row) for row in few], len(few))
    A = on_ball.decider.view(on_ball.views.domain).rows.astype(np.float32)
    timed("bare product", lambda: A[: len(many)] @ A.T, len(many))
    click.echo(json.dumps(out))


def _exponent(done: dict[str, dict[str, float]], sizes: list[tuple[int, int]], step: str, name: str) -> float:
    """The slope of log time over log size, by least squares."""
    x = np.log([V if name == "V" else d for V, d in sizes])
    y = np.log([done[f"{V}x{d}"][step] for V, d in sizes])
    return float(np.polyfit(x, y, 1)[0])


def _draw(done: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    panels = (
        (axes[0], "V", [(v, AT_WIDTH) for v in ROWS], f"rows V (d = {AT_WIDTH})"),
        (axes[1], "d", [(AT_ROWS, d) for d in WIDTHS], f"width d (V = {AT_ROWS})"),
    )
    for axis, name, sizes, label in panels:
        for step in STEPS:
            x = [V if name == "V" else d for V, d in sizes]
            y = [1e3 * done[f"{V}x{d}"][step] for V, d in sizes]
            exponent = _exponent(done, sizes, step, name)
            axis.loglog(x, y, marker="o", label=f"{step}: {name}^{exponent:.2f}")
        axis.set_xlabel(label)
        axis.set_xticks(x, [str(v) for v in x])
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("milliseconds a token, one thread")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()

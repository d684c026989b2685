"""Scans of whole vocabularies against the bare matrix product. Run `python benchmarks/scans.py --help`.

Nothing here is a test and nothing asserts a time.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from verify.kernel import READOUT
from verify.models import Model, load_model
from verify.propose.problem import FloatReadout
from verify.scan.check import check_ledger
from verify.scan.run import scan


@click.group()
def main() -> None:
    """Benchmarks of `verify scan`."""


@main.command()
@click.option("--model", default="whisper-tiny.en", show_default=True, help="Name or folder.")
@click.option("--domains", default="readout,direction,free", show_default=True, help="Separated by commas.")
@click.option("--tokens", default=None, type=int, help="The first so many. [all]")
def whole(model: str, domains: str, tokens: int | None) -> None:
    """Scan and audit, seconds, megabytes, and multiples of the bare V x V x d product in float32."""
    loaded = load_model(model)
    last = (tokens or loaded.readout.vocabulary) - 1
    floor = product_seconds(loaded, last + 1)
    click.echo(f"{os.cpu_count()} cores; bare product {floor:.1f} s")
    click.echo("| domain | classes | scan s | of the floor | audit s | ledger MB | peak MB |")
    click.echo("|---|---|---|---|---|---|---|")
    for domain in domains.split(","):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            done = scan(model, domain, Path(out), tokens=(0, last))
            seconds = time.perf_counter() - start
            start = time.perf_counter()
            check_ledger(done.folder, loaded)
            audit = time.perf_counter() - start
            size = sum(p.stat().st_size for p in done.folder.path.iterdir()) / 1e6
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            peak += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            classes = ", ".join(f"{n} {name}" for name, n in done.proved.counts.items())
            cells = (domain, classes, f"{seconds:.0f}", f"{seconds / floor:.0f}", f"{audit:.0f}")
            click.echo(f"| {' | '.join(cells)} | {size:.1f} | {peak / 1e3:.0f} |")


def product_seconds(model: Model, rows: int) -> float:
    """The product of `rows` states with all rows, in blocks, float32, all threads."""
    A = FloatReadout(model.readout, READOUT).rows.astype(np.float32)
    start = time.perf_counter()
    for i in range(0, rows, 512):
        A[i : min(i + 512, rows)] @ A.T
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""Scans of whole vocabularies against the bare matrix product. Run `python benchmarks/scans.py --help`.

Nothing here is a test and nothing asserts a time.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from safetensors.numpy import save_file

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
@click.option("--out", default=None, help="Keep the ledgers in this folder.")
def whole(model: str, domains: str, tokens: int | None, out: str | None) -> None:
    """Scan and audit, seconds, megabytes, and multiples of the bare V x V x d product in float32."""
    _heading(model)
    for domain in domains.split(","):
        _measure(model, domain, tokens, out)


@main.command()
@click.option("--rows", default=50_257, show_default=True, help="V.")
@click.option("--width", default=768, show_default=True, help="d.")
@click.option("--domain", default="direction", show_default=True)
@click.option("--tokens", default=None, type=int, help="The first so many. [all]")
def generated(rows: int, width: int, domain: str, tokens: int | None) -> None:
    """The same of an instance shaped like GPT-2, with planted clusters (instances.py)."""
    from instances import gpt2_shaped  # type: ignore[import-not-found] # beside this file

    with tempfile.TemporaryDirectory() as folder:
        save_as_gpt2(gpt2_shaped(0, rows, width)[0], Path(folder))
        _heading(folder)
        _measure(folder, domain, tokens, None)


def _heading(model: str) -> None:
    click.echo(f"{os.cpu_count()} cores, {Path(model).name}")
    click.echo("| domain | classes | bare product s | scan s | of it | audit s | ledger MB | peak MB |")
    click.echo("|---|---|---|---|---|---|---|---|")


def _measure(model: str, domain: str, tokens: int | None, kept: str | None) -> None:
    loaded = load_model(model)
    last = (tokens or loaded.readout.vocabulary) - 1
    floor = product_seconds(loaded, last + 1)
    phases: dict[str, float] = {}

    def tell(what: str, done: int, total: int) -> None:  # noqa: ARG001 - the signature of a listener
        phases.setdefault(what, time.perf_counter())

    with tempfile.TemporaryDirectory() as temporary:
        start = time.perf_counter()
        done = scan(model, domain, Path(kept or temporary), tokens=(0, last), tell=tell)
        end = time.perf_counter()
        seconds = end - start
        begun = [*phases.values(), end]
        spent = [f"{b - a:.0f}" for a, b in pairwise(begun)]
        start = time.perf_counter()
        check_ledger(done.folder, loaded)
        audit = time.perf_counter() - start
        size = sum(p.stat().st_size for p in done.folder.path.iterdir()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (os.cpu_count() or 1)
    classes = ", ".join(f"{n} {name}" for name, n in sorted(done.proved.counts.items()))
    cells = (
        domain,
        classes,
        f"{floor:.1f}",
        f"{seconds:.0f} ({' + '.join(spent)})",
        f"{seconds / floor:.1f}",
        f"{audit:.0f}",
    )
    click.echo(f"| {' | '.join(cells)} | {size:.1f} | {peak / 1e3:.0f} |")


def save_as_gpt2(model: Model, folder: Path) -> None:
    """A generated readout as a checkpoint that any process can load."""
    tensors = {t.name: t.raw.view("<f4") for t in model.readout.tensors.values()}
    save_file(tensors, str(folder / "model.safetensors"))
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": model.readout.d,
        "vocab_size": model.readout.vocabulary,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))


def product_seconds(model: Model, rows: int) -> float:
    """The product of `rows` states with all rows, in blocks, float32, all threads."""
    A = FloatReadout(model.readout, READOUT).rows.astype(np.float32)
    start = time.perf_counter()
    for i in range(0, rows, 512):
        A[i : min(i + 512, rows)] @ A.T
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

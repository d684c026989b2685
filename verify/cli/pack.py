"""GLUE. `verify pack`: the readout of a model alone, as one file that stands for the model (not in `say`)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verify.cli.options import at_revision, by_hand, by_hand_options, hub_options, readout_option

if TYPE_CHECKING:
    from verify.models import Model


@click.command(
    "pack",
    epilog="\b\nExamples:\n"
    "  verify pack whisper-tiny.en -o whisper.pack.safetensors\n"
    "  verify token 30208 --model whisper.pack.safetensors\n"
    "  verify audit verify-certificates/whisper-tiny.en/ --model whisper.pack.safetensors\n"
    "  verify pack gpt2 --readout transformer-lens -o tl.safetensors\n"
    "  verify pack ./my-model --readout-file readout.toml -o mine.safetensors    described by hand",
)
@click.argument("model", callback=at_revision)
@hub_options
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write: NAME.safetensors."
)
@readout_option
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@by_hand_options
def command(model: str, out: Path, readout: str, force: bool, **described: Any) -> int:
    """Write the readout of MODEL (bundled name, folder, file, or hub name) to one file.

    It holds the readout's tensors bit for bit, the tokenizer, where all of it came from, and the hashes:
    for machines without a network, or to go with a paper. Certificates made from it and from the model are
    the same. The bytes are the same every time. A readout that is described by hand stays marked as such:
    verdicts from the pack say so, and audits list it as a hypothesis.
    """
    from verify.api import pack

    loaded = pack(model, out, force=force, readout=readout, overrides=by_hand(described))
    V, d = loaded.readout.unembedding.shape
    click.echo(f"{out}  {megabytes(out.stat().st_size)}: {V} rows of {d}{_beside(loaded)}")
    click.echo(f"Use it as a model: verify token 0 --model {shlex.quote(str(out))}")
    return 0


def _beside(model: Model) -> str:
    """How large its weights are; of a hub model only parts may be here."""
    if model.revision is not None:
        return ""
    return f"; the weights take {megabytes(sum(path.stat().st_size for path in model.weights))}"


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB"

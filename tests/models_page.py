"""Writes docs/models.md from the architecture table and the record of a conformance run.

python tests/models_page.py measures every case anew, writes the record (tests/conformance.tsv) and the page.
"""

from __future__ import annotations

import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from conformance import CASES, TOLERANCE, run

from verify.models.architectures import ARCHITECTURES, Architecture

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
RECORD = Path(__file__).parent / "conformance.tsv"
FLOOR = 1e-6

HEAD = """# Supported models

Written by `python tests/models_page.py`; do not edit.

`verify` knows the last step of a model by the `model_type` of its config.json. Each entry of the table
(`verify/models/architectures.py`) was compared with the model code of `transformers` {version}: a tiny
random model is built with odd gains, biases and epsilon, saved, and loaded as any other model; the vector
that enters its final norm is caught, the readout is evaluated on it in float64 (which agrees with 200 bits
to 1e-13), and its logits must agree with the model's own (float32) to {tolerance:.0e} of the largest one.
Some of the vectors are first shrunk until epsilon counts. Each comparison is repeated with readouts that have
one mistake (gain, shift or bias dropped, gain and shift swapped, another offset, norm, epsilon or matrix),
and must then fail.
`tests/test_conformance.py` does all this; a type without a passed comparison is not in this list. The class
of `llama4` cannot be run on text alone in this version, so its language model is run.

- Positive scales and soft-caps of the whole logit change no argmax: they are named and left out, so margins
  are before them. One that is not positive, or a scale beside a logit bias, is refused.
- *outer set*: the norm (or the matrix) is fed a restricted set of vectors, so UNSPEAKABLE carries over to the
  model and SPEAKABLE need not.
- *tied*: what an absent `tie_word_embeddings` means. A tied model whose two matrices are both stored and
  differ is refused, and so is an untied one that lacks its own.
- *untied, ... must be there*: the other name of the logit bias reaches the logits through tying alone.
- Texts of tokens come from tokenizer.json, vocab.json or vocab.txt, else from tokens.json (a list of one text
  a row). Where config.json says that the decoder has a vocabulary of its own, they come from
  target_vocab.json alone.
- `{{last}}` is the number of the last layer, counted from 0; *gain stored less 1*: the gain is the stored
  value plus 1.
- Refused as well: another head than the classes named, the model's own code (except where a line says
  otherwise), quantised checkpoints, tensors of several dtypes, other weights than the usual file
  (`transformers_weights`), options and tensors that no entry models (OPT with a projection after a final
  norm, for example). What is refused can be [described by hand](#described-by-hand).

| model_type | classes | norm | epsilon | tied | largest relative difference |
|---|---|---|---|---|---|
"""

BY_HAND = """
## Described by hand

A model of another type is refused with the list of its tensors, and can be described in flags of `verify
token`, `verify scan` and `verify pack`, or in a file. Other commands (`verify claims`, `verify replay`, ...)
take the pack that `verify pack` makes of it; `verify audit` and `verify say` take the description from the
certificate:

```sh
verify token 1 --model ./my-model --unembedding out.weight --norm rmsnorm --norm-gain final.scale \\
             --epsilon 1e-6
verify token 1 --model ./my-model --readout-file readout.toml
verify pack ./my-model --readout-file readout.toml -o my-model.safetensors
verify claims claims.toml --model-dir my-model=my-model.safetensors
```

```toml
# readout.toml: the last step of my-model. Only unembedding and norm are needed; without a norm, no epsilon.
unembedding = "out.weight"   # one row a token
norm = "rmsnorm"             # layernorm, rmsnorm or none
norm_gain = "final.scale"
# norm_shift = "final.offset"
# logit_bias = "out.bias"
# gain_offset = 1            # where the checkpoint stores the gain less 1, as Gemma does
epsilon = 1e-6               # read exactly; 0, or from 1e-200 to below 1e200
```

Flags and file exclude each other. Nothing but `verify say` compares a description with the model's own code,
and every audit lists it as a hypothesis: a pack keeps that its readout was described, and certificates made
from it are those made from the described model. A model whose config.json names a known type is audited as
that type, where that folder is given. Other weights that config.json names are refused here too, and a
vocabulary of the decoder's own is heeded. A pack and a GGUF file say themselves what their readout is, and
take no description.
"""


@dataclass(frozen=True)
class Record:
    """What a run measured: the version of transformers, and a bound of the difference for each case."""

    version: str
    bounds: dict[str, float]


def bound(difference: float) -> float:
    """The difference rounded up to a power of ten, at least FLOOR."""
    return max(FLOOR, float(f"1e{math.ceil(math.log10(difference))}")) if difference else FLOOR


def read_record() -> Record:
    """The record that lies beside this file."""
    first, *lines = RECORD.read_text().splitlines()
    return Record(first.split()[-1], {name: float(x) for name, x in (line.split("\t") for line in lines)})


def measure() -> Record:
    """Run every case; one that does not agree is an error."""
    import transformers

    bounds = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            difference = run(case, Path(folder)).difference()
        if not difference < TOLERANCE:
            raise ValueError(f"{case.name}: differs by {difference:.1e}")
        bounds[case.name] = bound(difference)
    return Record(transformers.__version__, bounds)


def page(record: Record) -> str:
    """The text of docs/models.md."""
    text = HEAD.format(version=record.version, tolerance=TOLERANCE)
    lines = [_line(model_type, record) for model_type in sorted(ARCHITECTURES)]
    text += "\n".join(lines)
    text += "\n\n## Tensors, and what follows the readout\n"
    for model_type in sorted(ARCHITECTURES):
        text += "\n" + _section(model_type, record)
    return text + BY_HAND


def _line(model_type: str, record: Record) -> str:
    entries = ARCHITECTURES[model_type]
    first = entries[0]
    names = [case.name for case in CASES if case.model_type == model_type]
    worst = max(record.bounds[name] for name in names)
    cells = (
        f"[{model_type}](#{model_type})",
        ", ".join(f"`{name}`" for name in first.classes),
        " or ".join(dict.fromkeys(map(_norm, entries))),
        " or ".join(dict.fromkeys(_epsilon(entry) for entry in entries if entry.norm != "none")),
        "yes" if first.tied_default else "no",
        f"≤ {worst:.0e} ({len(names)} {'model' if len(names) == 1 else 'models'})",
    )
    return f"| {' | '.join(cells)} |"


def _norm(entry: Architecture) -> str:
    words = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm", "none": "none"}[entry.norm]
    if entry.norm != "none" and not entry.gain:
        words += " without gain and shift"
    elif entry.norm == "layernorm" and not entry.shift:
        words += " without shift"
    if entry.gain_offset:
        words += ", gain stored less 1"
    return words + (" of the last layer" if entry.layers else "")


def _epsilon(entry: Architecture) -> str:
    keys = " or ".join(f"`{key}`" for key in entry.epsilon_keys)
    return f"{keys}, else {entry.epsilon_default}" if keys else entry.epsilon_default


def _section(model_type: str, record: Record) -> str:
    text = f"### {model_type}\n\n"
    entries = ARCHITECTURES[model_type]
    if len(entries) > 1:
        text += "The first of these that holds counts.\n\n"
    for entry in entries:
        if len(entries) > 1:
            text += f"Where {_where(entry)}:\n\n"
        text += "".join(f"- {key}: {value}\n" for key, value in _facts(entry).items() if value) + "\n"
    variants = [
        f"{case.variant} ≤ {record.bounds[case.name]:.0e}" for case in CASES if case.model_type == model_type
    ]
    return text + f"Compared: {', '.join(variants)}.\n"


def _where(entry: Architecture) -> str:
    def values(allowed: tuple[object, ...]) -> str:
        return " or ".join("absent" if x is None else str(x).lower() for x in allowed)

    inside = f"{entry.text}." if entry.text else ""
    words = [f"`{inside}{key}` is {values(allowed)}" for key, allowed in entry.must_be.items()]
    width = entry.width[0]
    if width == "hidden_size" and "do_layer_norm_before" in entry.must_be:
        words.append(f"`word_embed_proj_dim` is `{width}` or absent")
    return ", ".join(words)


def _facts(entry: Architecture) -> dict[str, str]:
    def names(found: tuple[str, ...]) -> str:
        return " or ".join(f"`{name}`" for name in found)

    more = " (zeros where it is not stored)" if entry.bias_may_lack else ""
    more += f"; untied, `{entry.untied_bias}` must be there" if entry.untied_bias else ""
    return {
        "norm": _norm(entry),
        "matrix when tied": names(entry.embedding),
        "matrix when untied": names(entry.head),
        "epsilon": _epsilon(entry),
        "gain": names(entry.gain),
        "shift": names(entry.shift),
        "logit bias": names(entry.bias) + more if entry.bias else "",
        "described in": f"`{entry.text}` of config.json" if entry.text else "",
        "shape": f"{names(entry.rows)} × {names(entry.width)}",
        "after the readout": entry.after,
        "own code accepted": f"`{entry.own_code}`, with a note" if entry.own_code else "",
        "notes": "; ".join(entry.notes),
    }


def main() -> None:
    """Measure, then write the record and the page."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    record = measure()
    lines = [f"# transformers {record.version}", *(f"{name}\t{x:.0e}" for name, x in record.bounds.items())]
    RECORD.write_text("\n".join(lines) + "\n")
    PAGE.write_text(page(record))
    sys.stdout.write(f"{len(record.bounds)} models of {len(ARCHITECTURES)} types agree\n")


if __name__ == "__main__":
    main()

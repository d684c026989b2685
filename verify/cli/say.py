"""GLUE. `verify say`: put the witness of a certificate into the real model and see which token it says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verify.cli.options import stated_model_option
from verify.errors import EXIT_DECIDED, EXIT_REFUTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verify.spoken import Replay, Spoken


@click.command(
    "say",
    epilog="\b\nExamples:\n"
    "  verify say verify-certificates/gpt2/readout/30208.json\n"
    "  verify say 30208.json --model ./my-checkpoint --dtype float32\n"
    "  verify say verify-certificates/whisper-tiny.en/readout/30208.json --partial\n"
    "\b\nExit codes: 0 the model says the token, 1 it says another (or the certificate is refuted), 2 usage\n"
    "(as of an UNSPEAKABLE one), 4 malformed, 5 the model or its code is not at hand.",
)
@click.argument("certificate", type=click.Path(path_type=Path), metavar="CERT")
@stated_model_option
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    help="Run the model in auto (the checkpoint's), float32, float16, bfloat16 or float64.",
)
@click.option(
    "--partial", is_flag=True, help="The checkpoint may lack what comes before the final norm. [refused]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(certificate: Path, model: str | None, dtype: str, partial: bool, as_json: bool) -> int:
    """Put the witness of a SPEAKABLE certificate into the model itself: which token does it say?

    The certificate is audited first. Then transformers runs the model on two tokens, with the witness in
    place of what its final norm reads; a state that no norm puts out (domain free) goes where the unembedding
    reads. Norm and head are the model's own, in its own dtype. Where it says another token, it is told what
    lost it.
    """
    from verify.api import say

    spoken = say(certificate, model, dtype=dtype, partial=partial)
    if as_json:
        click.echo(json.dumps(_object(spoken)))
    else:
        for label, text in _lines(spoken):
            click.echo(f"{label:<20} {text}".rstrip())
    return EXIT_DECIDED if spoken.said else EXIT_REFUTED


def _lines(spoken: Spoken) -> Iterator[tuple[str, str]]:
    from verify.figures import approximate
    from verify.render import claim_text, model_text

    s, tokens = spoken.certificate.statement, spoken.model.tokens
    for line in spoken.hypotheses:
        yield "HYPOTHESIS", line
    yield "token", f"{s.token} {tokens.display(s.token)}"
    yield "model", f"{model_text(spoken.model)}, {spoken.class_name} in {spoken.dtype}"
    yield "certificate", f"accepted: {claim_text(spoken.certificate)}, domain {s.domain.name}"
    for r in spoken.replays:
        yield "", ""
        yield "put in", f"{r.vector.source}, where {r.module} ({r.vector.place}) reads"
        yield "held by the model", _held(r)
        word = (
            "the token" if r.argmax == s.token and r.margin != 0 else "a tie" if r.margin == 0 else "another"
        )
        word += "" if r.misread is None else ", by another norm than the certificate's"
        yield "the model says", f"{r.argmax} {tokens.display(r.argmax)}: {word}"
        yield "margin in floats", f"{r.margin:.6g} over {r.rival} {tokens.display(r.rival)}"
        exact = "none" if r.put.margin is None else f"{approximate(r.put.margin):.6g}"
        exact += ", of the vector as the model holds it"
        if r.after and r.expected is not None:
            exact += f"; {r.expected:.6g} after the model's own step, {r.after}"
        yield "margin exactly", exact
        if r.why:
            yield "why", r.why
    for line in spoken.notes:
        yield "note", line


def _held(r: Replay) -> str:
    if r.rounding == 0:
        return "exactly"
    return f"entries rounded by up to {r.rounding:.3g}, the largest is {r.length:.3g}"


def _object(spoken: Spoken) -> dict[str, Any]:
    from verify.figures import fraction_json
    from verify.kernel import Speakable

    certificate, tokens = spoken.certificate, spoken.model.tokens
    s, claim = certificate.statement, certificate.claim
    return {
        "said": spoken.said,
        "token": s.token,
        "text": s.text,
        "model": spoken.model.name,
        "revision": spoken.model.revision,
        "domain": s.domain.name,
        "class": spoken.class_name,
        "dtype": spoken.dtype,
        "margin_proved": fraction_json(claim.margin) if isinstance(claim, Speakable) else None,
        "replays": [_replay_object(r, tokens) for r in spoken.replays],
        "hypotheses": spoken.hypotheses,
        "notes": spoken.notes,
    }


def _replay_object(r: Replay, tokens: Any) -> dict[str, Any]:
    from verify.figures import fraction_json

    leads = (("exact_margin_given", r.given), ("exact_margin_held", r.put), ("exact_margin_at_head", r.read))
    return {
        "witness": r.vector.source,
        "place": r.vector.place,
        "module": r.module,
        "said": r.said,
        "argmax": r.argmax,
        "argmax_text": tokens.text(r.argmax),
        "rival": r.rival,
        "float_margin": _finite(r.margin),
        "expected_margin": None if r.expected is None else _finite(r.expected),
        "after_readout": r.after or None,
        "float_spacing": _finite(r.spacing),
        "rounding": _finite(r.rounding),
        "largest_entry": _finite(r.length),
        "misread": r.misread,
        **{key: None if x.margin is None else fraction_json(x.margin) for key, x in leads},
        "why": r.why or None,
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else None

"""GLUE. A certificate of SPEAKABLE replayed through the model's own code: does the model say the token?

No verdict rests on this. What is called exact is found by the kernel; the rest is what floats did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import ModelUnavailableError, UsageError
from verify.figures import approximate, statement_text
from verify.kernel import Speakable, System
from verify.kernel.filter import as_float64
from verify.kernel.tensor import unit_exponent
from verify.models.in_place import After, head_input_at
from verify.models.transformer_lens import is_processed
from verify.models.transformers_model import DTYPES, TransformersModel
from verify.recheck import Auditor
from verify.witness import HEAD, NORM, Lead, Vector, lead, misread, vectors

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel import Certificate, Readout, Statement
    from verify.models import Model
    from verify.models.transformers_model import Passage

_STORED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_OVERFLOW = Lead(False, None, "it is not finite")


@dataclass(frozen=True)
class Replay:
    """One witness, put into the model.

    vector, module: what was put in, and the module that read it. rounding: the largest change of an entry in
    the dtype that stood there; length: the largest entry.
    given, put, read: how the token stands in exact arithmetic at the vector, at the vector as rounded, and at
    what the model then multiplied with the unembedding; before what `after` names, the step that the model
    takes after the readout (empty if none). expected: what this step makes of the margin of `put`, to compare
    with `margin`; None where there is none, or the step is not known.
    argmax: the lowest id with the largest logit; rival: with the largest but the token's own; both among the
    competitors and the token. margin: the token's logit less the rival's. spacing: of neighbouring numbers of
    the model's dtype there. error: how far rounding alone can have moved `margin`, whatever the order of
    summation. The last three in logits.
    misread: how far what the unembedding read is from the readout's gain * N(r) + shift, as a share of its
    length, where that is more than rounding. why: what lost the token, in words; empty where it is said.
    """

    vector: Vector
    module: str
    rounding: float
    length: float
    given: Lead
    put: Lead
    read: Lead
    after: str
    expected: float | None
    argmax: int
    rival: int
    margin: float
    spacing: float
    error: float
    misread: float | None
    why: str = ""

    @property
    def said(self) -> bool:
        """Whether the token's logit is larger than every other, by a norm that is the readout's."""
        return math.isfinite(self.margin) and self.margin > 0 and self.misread is None


@dataclass(frozen=True)
class Spoken:
    """What the model says at every witness of an accepted certificate.

    class_name: of transformers. dtype: of its unembedding as it ran.
    hypotheses, notes: of the audit, and of the run.
    """

    certificate: Certificate
    model: Model
    class_name: str
    dtype: str
    replays: list[Replay]
    hypotheses: list[str]
    notes: list[str]

    @property
    def said(self) -> bool:
        """Whether the model says the token at one of the witnesses."""
        return any(replay.said for replay in self.replays)


def say(path: Path, model: str | None, dtype: str, *, partial: bool) -> Spoken:
    """Audit a certificate and put its witnesses into the model; see `verify.say`, whose errors it raises."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype[:40]!r} is not one of {', '.join(DTYPES)}")
    audit = Auditor(model).audit(path)
    if audit.error is not None:
        raise audit.error
    if audit.proved is None or audit.bundle is not None or audit.model is None:
        raise UsageError(f"{path} is a bundle, so UNSPEAKABLE: there is no state to put into a model")
    certificate = audit.proved.certificate
    s, claim = certificate.statement, certificate.claim
    if not isinstance(claim, Speakable):
        raise UsageError(
            f"{path} is accepted, and says UNSPEAKABLE ({claim.kind}) of {statement_text(s)}: no state "
            "speaks the token, so there is none to put into the model"
        )
    if is_processed(s):
        raise UsageError(
            f"{path} is accepted, and is about the matrices that TransformerLens makes of a checkpoint: no "
            "model of transformers holds them, so there is none to put the state into"
        )
    runner = TransformersModel(audit.model, dtype, partial=partial)
    system = System(audit.model.readout, s.domain, s.token, s.competitors)
    try:
        replays = [_replay(runner, system, vector) for vector in vectors(system, claim)]
    except (OverflowError, ZeroDivisionError):
        raise UsageError(
            f"{path} is accepted; its witness has numbers beyond the range of 64-bit floats, which no model "
            "can be given"
        ) from None
    notes = [*audit.notes, *_notes(runner, audit.model, s)]
    notes += [
        f"{r.module}: the model's norm is not the readout's, by {r.misread:.3g} of what the unembedding reads"
        for r in replays
        if r.misread is not None
    ]
    return Spoken(certificate, audit.model, runner.name, runner.dtype, replays, audit.hypotheses, notes)


def _replay(runner: TransformersModel, system: System, vector: Vector) -> Replay:
    module = runner.modules.head if vector.place == HEAD else runner.modules.norm
    if module is None:
        raise ModelUnavailableError(f"{runner.name}: its final norm was not found")
    passage = runner.put(vector.values, module)
    argmax, rival, margin = _compare(passage.logits, system.token)
    given, put, read = (
        lead(system, values, place) if all(map(math.isfinite, values)) else _OVERFLOW
        for values, place in (
            (vector.values, vector.place),
            (passage.put_in, vector.place),
            (passage.head_input, HEAD),
        )
    )
    after = runner.after
    if after is not None and after.before_head and vector.place == HEAD:
        after = After()
    top = max(abs(passage.logits[system.token]), abs(passage.logits[rival]))
    found = Replay(
        vector=vector,
        module=module,
        rounding=max(abs(a - b) for a, b in zip(vector.values, passage.put_in, strict=True)),
        length=max(map(abs, vector.values)),
        given=given,
        put=put,
        read=read,
        after="" if after is None else after.words,
        expected=None
        if after is None or put.margin is None
        else _made_of(after, put.margin, system, passage.put_in, vector.place),
        argmax=argmax,
        rival=rival,
        margin=margin,
        spacing=runner.epsilon * 2.0 ** (math.frexp(top)[1] - 1) if math.isfinite(top) else math.inf,
        error=_error(system.readout, (system.token, rival), passage.head_input, runner.epsilon),
        # Many norms compute in float32 whatever the model's dtype.
        misread=misread(system.readout, passage.put_in, passage.head_input, max(runner.epsilon, 2.0**-23))
        if vector.place == NORM and put is not _OVERFLOW and read is not _OVERFLOW
        else None,
    )
    return found if found.said else _explained(found, system, passage, runner.dtype)


def _made_of(after: After, margin: Fraction, system: System, values: list[float], place: str) -> float:
    """What the model's step after the readout makes of a margin at a vector, in floats."""
    if after.cap is None:
        return approximate(margin * Fraction(after.scale))
    readout, row, h = system.readout, (system.token, system.token + 1), np.array([values])
    if place == NORM:
        h = head_input_at(readout, h)
    logit = float(h[0] @ as_float64(readout.unembedding, *row)[0])
    if readout.bias is not None:
        logit += float(as_float64(readout.bias, *row)[0])
    # tanh a - tanh b = tanh(a - b) (1 - tanh a tanh b): nothing cancels where the margin is small.
    share, top = approximate(margin / Fraction(after.cap)), logit / after.cap
    return after.cap * math.tanh(share) * (1 - math.tanh(top) * math.tanh(top - share))


def _compare(logits: list[float], token: int) -> tuple[int, int, float]:
    """(argmax, rival, margin) among all rows, whatever the certificate leaves out."""
    values = np.array(logits)
    values[token] = -np.inf
    rival = int(np.argmax(values))
    margin = logits[token] - float(values[rival])
    first = min(token, rival) if margin == 0 else token if margin > 0 else rival
    return first, rival, margin


def _error(readout: Readout, rows: tuple[int, int], h: list[float], epsilon: float) -> float:
    """Twice the error bound of a logit at h, computed in any order, for the larger of two rows."""
    unit = Fraction(2) ** unit_exponent(readout.unembedding.dtype)
    sizes = [
        sum(abs(float(w * unit) * x) for w, x in zip(row, h, strict=True))
        for row in readout.unembedding.integers(rows)
    ]
    if readout.bias is not None:
        step = Fraction(2) ** unit_exponent(readout.bias.dtype)
        sizes = [x + abs(float(c * step)) for x, (c,) in zip(sizes, readout.bias.integers(rows), strict=True)]
    return 2 * (readout.d + 2) * epsilon * max(sizes)


def _explained(r: Replay, system: System, passage: Passage, dtype: str) -> Replay:
    """The replay with the first step that lost the token."""
    smallest, largest = passage.reach
    held = max(map(abs, passage.put_in))
    if r.given.there and not r.put.there and not smallest <= held <= largest:
        why = (
            f"the vector is not representable in {passage.put_dtype}: its largest entry is {r.length:.3g}, "
            f"and that dtype holds numbers to full precision from {smallest:.3g} to {largest:.3g}; another "
            "--dtype may hold it"
        )
    elif not math.isfinite(r.margin):
        why = f"the model's numbers overflow in {dtype}, or are suppressed"
    elif r.misread is not None:
        why = (
            f"not rounding: what the unembedding reads is off by {r.misread:.3g} of its length from what the "
            "readout of the certificate makes of the vector; the model has another norm than it says"
        )
    elif r.rival >= system.count and r.read.there:
        why = (
            f"the certificate compares ids below {system.count} only, the tokenizer's; row {r.rival} is not "
            "among them"
        )
    elif not r.given.there:
        why = f"in exact arithmetic, too, the model does not say it there ({r.given.words}): "
        why += (
            "the domain direction drops the biases, which the model adds"
            if system.domain.kind == "direction"
            else "writing the witness in 64-bit floats is more rounding than its margin bears"
        )
    elif not r.put.there:
        why = (
            f"rounding: the model's dtype changes entries of the vector by up to {r.rounding:.3g} (the "
            f"largest entry is {r.length:.3g}), and at the rounded vector, in exact arithmetic, {r.put.words}"
        )
    elif not r.read.there:
        why = (
            f"rounding: at the vector as the model holds it {r.put.words}, but the norm rounds its output, "
            f"and at what the unembedding then reads, in exact arithmetic, {r.read.words}"
        )
    elif (r.read.margin or 0) > r.error:
        why = (
            f"not rounding of the product: at what the unembedding reads {r.read.words} in exact arithmetic, "
            f"and rounding moves that by {r.error:.3g} at most. Weights that run in another dtype than they "
            "are stored in, or a step after the unembedding (a soft-cap, suppressed tokens), make the "
            "difference"
        )
    else:
        why = (
            f"resolution: at what the unembedding reads {r.read.words} in exact arithmetic, but {dtype} "
            f"logits of this size lie {r.spacing:.3g} apart, and the product rounds"
        )
    if r.margin == 0:
        why = f"the logits of {system.token} and {r.rival} are equal; {why}"
    return replace(r, why=why)


def _notes(runner: TransformersModel, model: Model, s: Statement) -> list[str]:
    notes = []
    stored = _STORED[model.readout.unembedding.dtype]
    if runner.dtype != stored:
        notes.append(
            f"the model ran in {runner.dtype}, its unembedding is stored in {stored}: what it computes with "
            "are not all the numbers that the certificate is about"
            if _narrower(runner.dtype, stored)
            else f"the model ran in {runner.dtype}, which holds the stored {stored} numbers exactly"
        )
    if runner.random:
        notes.append(
            f"{len(runner.random)} tensors that the checkpoint lacks were filled with random numbers; the "
            "logits were seen not to depend on what they compute"
        )
    if runner.after is None:
        notes.append(
            "what the model does after the unembedding is not known here: a scale or soft-cap would act on "
            "its margins in floats, and not on the exact ones"
        )
    if s.competitor_rule == "tokenizer":
        notes.append(
            f"the certificate compares ids below {s.competitors} only; the model's argmax is over all rows"
        )
    return notes


def _narrower(dtype: str, stored: str) -> bool:
    """Whether some number of `stored` is none of `dtype`."""
    wider = {"float16": ("float32", "float64"), "bfloat16": ("float32", "float64"), "float32": ("float64",)}
    return dtype not in wider.get(stored, ())

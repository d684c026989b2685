"""GLUE. The library's verbs, the same as the command line's. Decides nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from verify.errors import UsageError
from verify.files import certificate_path, read_regular, require_writable, write_atomically
from verify.kernel import Certificate, Domain, parse_domain, read
from verify.models import Model, load_model
from verify.recheck import Audit, Auditor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verify.decide import Decision
    from verify.models import ReadoutOverrides
    from verify.spoken import Spoken

__all__ = ["ALL_DOMAINS", "audit", "decide_all", "load_model", "pack", "say", "show", "token"]

# In this order evidence passes from one to the next where an inclusion allows it.
ALL_DOMAINS = ("readout", "free", "direction", "box:1")


def token(
    token: int | str,
    model: str | Model = "whisper-tiny.en",
    domain: str = "readout",
    *,
    competitors: str = "all",
    proposer: str = "default",
    solver: str | None = None,
    multipliers: str = "full",
    out: str | Path | None = None,
    readout: str = "checkpoint",
) -> list[Decision]:
    """Decide whether `token` (an id, or its text) can be the unique argmax; one Decision a domain.

    domain: readout, free, direction, box:B, or all. competitors: all rows, or those of the tokenizer.
    multipliers: store them "full" (large, checked by multiplication alone) or the "support" alone (small).
    out: a folder for the certificates; None keeps them in memory (`Decision.certificate`).
    readout: of a model by name, see `load_model`; with "transformer-lens" each Decision has the one for the
    checkpoint's own matrices beside it (`Decision.checkpoint`).
    Raises UsageError (token, domain, options), ModelUnavailableError, OutputError.
    """
    if isinstance(model, str):
        loaded = load_model(model, readout=readout)
    elif readout == "checkpoint":
        loaded = model
    else:
        raise UsageError("readout goes with a model's name; a Model has its readout")
    return list(decide_all([token], loaded, domain, competitors, proposer, solver, multipliers, out))


def decide_all(
    tokens: Sequence[int | str],
    model: Model,
    domain: str = "readout",
    competitors: str = "all",
    proposer: str = "default",
    solver: str | None = None,
    multipliers: str = "full",
    out: str | Path | None = None,
) -> Iterator[Decision]:
    """`tokens` in their order, one Decision at a time as it is made; certificates are saved before they are
    yielded. All tokens are looked up before the first is decided. Of a processed readout the checkpoint's own
    is decided too, without a certificate.
    """
    from verify.decide import Decider

    domains: list[Domain] = [parse_domain(d) for d in (ALL_DOMAINS if domain == "all" else (domain,))]
    chosen = [model.tokens.find(str(token)) for token in tokens]
    if out == "":
        raise UsageError("the folder for certificates has no name: use --out DIR, . for this folder")
    folder = None if out is None else Path(out)
    if folder is not None:
        require_writable(folder)
    decider = Decider(model, competitors, proposer, solver, multipliers)
    beside = Decider(model.checkpoint, competitors, proposer, solver) if model.checkpoint else None
    for token in chosen:
        known: list[Decision] = []
        known_beside: list[Decision] = []
        for each in domains:
            decision = decider.decide(token, each, known)
            if folder is not None and decision.proved is not None:
                path = certificate_path(folder, decision.proved.certificate.statement)
                write_atomically(path, decision.certificate)
                decision.path = path
            known.append(decision)
            if beside is not None:
                decision.checkpoint = beside.decide(token, each, known_beside)
                known_beside.append(decision.checkpoint)
            yield decision


def pack(
    model: str | Model,
    path: str | Path,
    *,
    force: bool = False,
    readout: str = "checkpoint",
    overrides: ReadoutOverrides | None = None,
) -> Model:
    """Write the readout of a model (its name, or a Model) to one file, whole or not at all.

    The file stands for that model wherever the readout suffices, that is everywhere but in `say`; its name
    ends in .safetensors. readout, overrides: of a model by name, as in `load_model`; that a readout was
    described by hand stays in the pack. The model that was packed. Raises UsageError (another ending, a file
    that is there and no `force`, a model that is a pack), ModelUnavailableError, OutputError.
    """
    from verify.models.packed import named_so, pack_bytes

    path = Path(path)
    if not named_so(path):
        raise UsageError(
            f"{path} must end in .safetensors to be known as a pack; try {path}.pack.safetensors"
        )
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; choose another name, or overwrite it with --force")
    if isinstance(model, str):
        model = load_model(model, overrides=overrides, readout=readout)
    elif readout != "checkpoint" or overrides is not None:
        raise UsageError("readout and overrides go with a model's name; a Model has its readout")
    write_atomically(path, pack_bytes(model))
    return model


def audit(path: str | Path, model: str | None = None) -> Audit:
    """Check one certificate against the weights of its model (or of `model`), or a bundle by itself.

    Imports no solver.

    The result's `proved` is None, and `error` says why, when it is not accepted.
    """
    return Auditor(model).audit(Path(path))


def say(path: str | Path, model: str | None = None, *, dtype: str = "auto", partial: bool = False) -> Spoken:
    """Put the witness of a SPEAKABLE certificate into the model itself, run by `transformers`.

    model: a folder, bundled or hub name that holds the whole model, instead of the one named inside.
    dtype: auto (the checkpoint's), float32, float16, bfloat16 or float64. partial: the checkpoint may lack
    what comes before the final norm. `Spoken.said` is whether the model's argmax is the token, at any
    witness. Raises RefutedError or MalformedError if the certificate is not accepted, UsageError if it is
    UNSPEAKABLE, ModelUnavailableError if the model or its code is not at hand.
    """
    from verify.spoken import say as replayed

    return replayed(Path(path), model, dtype, partial=partial)


def show(path: str | Path) -> str:
    """A certificate or bundle as text for a person; nothing is checked but the format.

    Raises MalformedError, and ModelUnavailableError if it cannot be read.
    """
    from verify.render import certificate_text

    found = read(read_regular(Path(path)))
    if isinstance(found, Certificate):
        return certificate_text(found)
    rows = len(found.parts["unembedding"].rows or ())
    return f"Bundle     with {rows} rows of the unembedding\n{certificate_text(found.certificate)}"

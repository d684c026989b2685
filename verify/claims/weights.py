"""STATEMENT. The weights that a claim is about: bundled, where --model-dir says, or in the hub's cache.

Wrong here = a claim is checked on another model than it names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verify.claims.claim import ANY_MODEL
from verify.errors import (
    FieldValueError,
    ModelUnavailableError,
    NotAtHandError,
    UsageError,
    VerifyError,
)
from verify.models import competitor_count, load_model, load_named, packed
from verify.models.bundled import BUNDLED
from verify.models.hub import split_hub_name
from verify.models.transformer_lens import is_processed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from verify.claims.claim import Claim
    from verify.models import Model

    Key = tuple[object, ...]

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Loaded models that are kept: their tensors are mapped, their float copies are not here.
_MOST_MODELS = 4


@dataclass(frozen=True)
class Identity:
    """Which weights an outcome rests on.

    fingerprint: of their tensors. revision: the commit of the hub's snapshot, None for other places.
    hypothesis: what is taken on trust about them, or "".
    """

    fingerprint: str
    revision: str | None
    hypothesis: str


class Weights:
    """Models by the names that claims use. folders: name -> folder, pack or GGUF file, for those elsewhere.

    A name is never a path: a folder of the working directory that is called like a hub model is not that.
    fetch: only what a message proposes. Whether the hub is asked is its client's setting.
    """

    def __init__(self, folders: Mapping[str, Path] | None = None, *, fetch: bool = True) -> None:
        self.folders, self.fetch = dict(folders or {}), fetch
        for name in self.folders:
            if name == ANY_MODEL:
                raise UsageError(
                    f"--model-dir {name}: claims on every model look at no weights; leave it out"
                )
            if name in BUNDLED:
                raise UsageError(f"--model-dir {name}: this model comes with this program; leave it out")
        self._loaded: dict[tuple[str, str | None], Model] = {}
        self._failed: dict[tuple[str, str | None], VerifyError] = {}
        # What a folder or file goes by itself: in words, and its revision.
        self._own: dict[str, tuple[str, str | None]] = {}

    def require_used(self, names: Iterable[str]) -> None:
        """Raise UsageError if a place was given for a model that no claim is about."""
        unused = set(self.folders) - set(names)
        if unused:
            raise UsageError(f"--model-dir {min(unused)!a}: no claim is about a model of this name")

    def model(self, claim: Claim) -> Model:
        """The model of a claim, after checking that the claim can be about it.

        Raises NotAtHandError where its weights are not at hand, another ModelUnavailableError where they are
        and cannot be loaded, UsageError where they are other weights than the claim's, FieldValueError where
        the claim names tokens that it has not.
        """
        model = self.named(claim.model, claim.revision)
        found = model.revision
        if claim.model in self.folders:
            # What it goes by itself may speak against the claim, but cannot speak for it.
            found = self._own[claim.model][1] or claim.revision
        if claim.revision not in (None, found):
            raise UsageError(
                f"claim {claim.id!a}: the weights at hand for {claim.model!a} are of revision "
                f"{found!a}, the claim is about {claim.revision!a}"
            )
        if claim.fingerprint is not None and model.readout.fingerprint != claim.fingerprint:
            raise UsageError(
                f"claim {claim.id!a}: the weights at hand for {claim.model!a} are not those of the claim: "
                f"their fingerprint is {model.readout.fingerprint}, the claim says {claim.fingerprint}"
            )
        _require_tokens(claim, model)
        return model

    def identity(self, claim: Claim, model: Model) -> Identity:
        """What to tell about the weights of a claim.

        A folder does not say which model it holds, --model-dir does: a hypothesis. A claim's fingerprint
        names the tensors, and leaves what the folder's other files say. What a pack says is its maker's word.
        """
        name = f"{claim.model}@{claim.revision}" if claim.revision else claim.model
        return self._identity(model, claim.model, name, known=claim.fingerprint is not None)

    def identity_of(self, name: str) -> Identity:
        """The same of a model by its name alone."""
        return self._identity(self.named(name), name, name, known=False)

    def _identity(self, model: Model, key: str, name: str, *, known: bool) -> Identity:
        """known: whether a fingerprint says which tensors are meant."""
        hypothesis = ""
        if key in self.folders:
            path, notes = self.folders[key], ""
            place = "folder" if path.is_dir() else "pack" if packed.named_so(path) else "GGUF file"
            if place != "folder":
                own, _ = self._own[key]
                place += f" (it calls itself {own})" if own != name else ""
                notes = "".join(f"; {note}" for note in model.readout.notes)
            hypothesis = f"this {place} is {name}{notes}"
            if known:
                hypothesis = f"norm, epsilon and tokenizer of {name} are those of this {place}{notes}"
        return Identity(model.readout.fingerprint, model.revision, hypothesis)

    def competitors(self, claim: Claim, model: Model) -> int:
        """Number of competitor rows. NotAtHandError where the claim counts those of an absent tokenizer."""
        if claim.competitors == "tokenizer" and model.tokens.size is None:
            raise NotAtHandError(f"{model.name} has no tokenizer file here, and the claim counts its ids")
        return competitor_count(model, claim.competitors)

    def named(self, name: str, revision: str | None = None) -> Model:
        """The model of a name. Raises NotAtHandError, another ModelUnavailableError, UsageError: remembered,
        and asked once.
        """
        key = (name, revision)
        if key in self._failed:
            raise self._failed[key]
        if key not in self._loaded:
            if len(self._loaded) >= _MOST_MODELS:
                self._loaded.pop(next(iter(self._loaded)))
            try:
                self._loaded[key] = self._load(name, revision)
            except VerifyError as error:
                self._failed[key] = error
                raise
        return self._loaded[key]

    def _load(self, name: str, revision: str | None) -> Model:
        if name in BUNDLED:
            return load_named(name)
        if name in self.folders:
            return self._load_given(name)
        if split_hub_name(name) is None:
            raise NotAtHandError(
                f"the weights of {name} are not at hand: it is neither a bundled model nor a name of the "
                "hub; say where its folder, pack or .gguf file lies by --model-dir"
            )
        try:
            model = load_named(f"{name}@{revision}" if revision else name)
        except NotAtHandError as error:
            reason = str(error)
            if not self.fetch and "in the local cache" in reason:
                reason = "neither bundled nor complete in the hub's cache; give "
                reason += f"--model-dir {name}=PATH, or --fetch"
            raise NotAtHandError(f"the weights of {name} are not at hand: {reason}") from error
        except ModelUnavailableError as error:
            raise ModelUnavailableError(f"the weights of {name} cannot be loaded: {error}") from error
        if model.name != name:
            raise UsageError(
                f"model {name[:100]!a} loads {model.name!a}: write that name, and a commit as the claim's "
                "revision"
            )
        return model

    def _load_given(self, name: str) -> Model:
        """What lies where --model-dir says, under the claims' name. What it says of itself must fit."""
        path = self.folders[name]
        try:
            # From here a relative path is no bundled name.
            model = load_model(str(path.absolute()))
        except ModelUnavailableError as error:  # what was named is no case of weights that are not at hand
            raise ModelUnavailableError(f"--model-dir {name!a}: {error}") from error
        own = f"{model.name}@{model.revision}" if model.revision else model.name
        self._own[name] = own, model.revision or _commit_in(path, model.name)
        # Of a folder that was packed only its last part is known, so that says nothing against another name.
        if model.name != name and (model.revision is not None or is_processed(model.readout)):
            raise UsageError(
                f"--model-dir {name!a}: {path.name} says that it is {own!a}, another model; give the pack of "
                f"{name!a} itself (verify pack MODEL -o FILE), or its folder"
            )
        return replace(model, name=name, revision=None)


def _commit_in(path: Path, name: str) -> str | None:
    """The commit that a snapshot in the hub's cache is called by, or a file's folder there."""
    last = path.resolve().name if path.is_dir() else path.absolute().parent.name
    return next((x for x in (name, last) if _COMMIT.fullmatch(x)), None)


def key_of(model: Model) -> Key:
    """What tells models apart: name, tensors, and whatever else is read from files.

    Not the model's address in memory, which is used again.
    """
    r = model.readout
    files = sorted(model.files.items())
    return (model.name, model.revision, r.fingerprint, r.norm, r.gain_offset, r.epsilon, *files)


def _require_tokens(claim: Claim, model: Model) -> None:
    rows = model.readout.vocabulary
    if claim.universe.rows == "all" and claim.universe.size != rows:
        raise FieldValueError(
            f"claim {claim.id!a}: universe {claim.universe.name!r} has {claim.universe.size} tokens, "
            f"{claim.model} has {rows} rows"
        )
    last = max(claim.members)
    if last >= rows:
        raise FieldValueError(
            f"claim {claim.id!a}: token {last} is outside the vocabulary: "
            f"{claim.model} has rows 0..{rows - 1}"
        )
    for row in (x.argmax for x in (claim.method, claim.reported) if x is not None):
        if row is not None and row >= rows:
            raise FieldValueError(f"claim {claim.id!a}: row {row} is outside the vocabulary")
    if claim.text is not None and model.tokens.size is not None:
        found = model.tokens.text(claim.members[0])
        if found != claim.text:
            raise FieldValueError(
                f"claim {claim.id!a}: token {claim.members[0]} is {found!r} here, "
                f"the claim says {claim.text!r}"
            )

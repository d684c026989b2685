"""STATEMENT. The weights that a claim is about: bundled, in a folder that was named, or in the hub's cache.

Wrong here = a claim is checked on another model than it names.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from verify.errors import FieldValueError, ModelUnavailableError, UsageError
from verify.models import load_model
from verify.models.bundled import BUNDLED
from verify.models.hub import split_hub_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from verify.claims.claim import Claim
    from verify.models import Model

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Loaded models that are kept: their tensors are mapped, their float copies are not here.
_MOST_MODELS = 4


class Weights:
    """Models by the names that claims use. folders: name -> folder, for those that lie elsewhere.

    fetch: whether the hub may be asked; where it is not, the caller has put its client offline.
    """

    def __init__(self, folders: Mapping[str, Path] | None = None, *, fetch: bool = True) -> None:
        self.folders, self.fetch = dict(folders or {}), fetch
        self._loaded: dict[tuple[str, str | None], Model | ModelUnavailableError] = {}

    def require_used(self, names: Iterable[str]) -> None:
        """Raise UsageError if a folder was given for a model that no claim is about."""
        unused = set(self.folders) - set(names)
        if unused:
            raise UsageError(f"--model-dir {min(unused)}: no claim is about a model of this name")

    def model(self, claim: Claim) -> Model:
        """The model of a claim, after checking that the claim can be about it.

        Raises ModelUnavailableError where its weights are not at hand, UsageError where they are other
        weights than the claim's, FieldValueError where the claim names tokens that it has not.
        """
        model = self.named(claim.model, claim.revision)
        if claim.revision is not None and model.revision != claim.revision:
            raise UsageError(
                f"claim {claim.id!a}: the weights at hand for {claim.model!a} are of revision "
                f"{model.revision!a}, the claim is about {claim.revision!a}"
            )
        if claim.fingerprint is not None and model.readout.fingerprint != claim.fingerprint:
            raise UsageError(
                f"claim {claim.id!a}: the weights at hand for {claim.model!a} are not those of the claim: "
                f"their fingerprint is {model.readout.fingerprint}, the claim says {claim.fingerprint}"
            )
        _require_tokens(claim, model)
        return model

    def named(self, name: str, revision: str | None = None) -> Model:
        """The model of a name. Raises ModelUnavailableError; that is remembered too, and asked once."""
        key = (name, revision)
        if key not in self._loaded:
            if len(self._loaded) >= _MOST_MODELS:
                self._loaded.pop(next(iter(self._loaded)))
            try:
                self._loaded[key] = self._load(name, revision)
            except ModelUnavailableError as error:
                self._loaded[key] = error
        found = self._loaded[key]
        if isinstance(found, ModelUnavailableError):
            raise found
        return found

    def _load(self, name: str, revision: str | None) -> Model:
        if name in self.folders:
            folder = self.folders[name]
            # A folder does not say which model it holds: that is what --model-dir NAME=PATH says.
            commit = folder.resolve().name if _COMMIT.fullmatch(folder.resolve().name) else revision
            return replace(load_model(str(folder)), name=name, revision=commit)
        if name in BUNDLED:
            return load_model(name)
        if split_hub_name(name) is None:
            raise ModelUnavailableError(f"{name[:100]!a} is no bundled model: name its folder by --model-dir")
        try:
            return load_model(f"{name}@{revision}" if revision else name)
        except ModelUnavailableError as error:
            if not self.fetch and "not in the local cache" in str(error):
                raise ModelUnavailableError(
                    f"not bundled and not in the hub's local cache; give --model-dir {name}=PATH, or --fetch"
                ) from None
            raise


def key_of(model: Model) -> tuple[str, str | None]:
    """What tells models of one `Weights` apart; not their address in memory, which is used again."""
    return model.name, model.revision


def competitor_count(claim: Claim, model: Model) -> int:
    """Number of competitor rows under the claim's rule."""
    if claim.competitors == "all":
        return model.readout.vocabulary
    if model.tokens.size is None:
        raise ModelUnavailableError(f"{model.name} has no tokenizer file, and the claim counts its ids")
    return min(model.tokens.size, model.readout.vocabulary)


def _require_tokens(claim: Claim, model: Model) -> None:
    rows = model.readout.vocabulary
    if claim.universe.rows == "all" and claim.universe.size != rows:
        raise FieldValueError(
            f"claim {claim.id!a}: universe {claim.universe.name!r} has {claim.universe.size} tokens, "
            f"{claim.model} has {rows} rows"
        )
    for token in claim.members:
        if token >= rows:
            raise FieldValueError(
                f"claim {claim.id!a}: token {token} is outside the vocabulary: "
                f"{claim.model} has rows 0..{rows - 1}"
            )
    for row in (x for x in (claim.method, claim.reported) if x is not None and x.argmax is not None):
        if row.argmax is not None and row.argmax >= rows:
            raise FieldValueError(f"claim {claim.id!a}: row {row.argmax} is outside the vocabulary")
    if claim.text is not None and model.tokens.size is not None:
        found = model.tokens.text(claim.members[0])
        if found != claim.text:
            raise FieldValueError(
                f"claim {claim.id!a}: token {claim.members[0]} is {found!r} here, "
                f"the claim says {claim.text!r}"
            )

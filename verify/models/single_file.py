"""STATEMENT. What a model in one file (GGUF, or a pack) says about itself. Wrong = a claim about another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel.readout import Readout
    from verify.models.vocabularies import VocabularyFiles


@dataclass(frozen=True, eq=False)
class SingleFile:
    """name, revision, readout and files as in `Model`; vocabulary: None where ids have no texts."""

    name: str
    revision: str | None
    readout: Readout
    vocabulary: VocabularyFiles | None
    files: dict[str, str]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size, in hex. ModelUnavailableError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path.name}: {error.strerror or error}") from error

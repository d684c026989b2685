"""STATEMENT. The models that come with this package, by name. Wrong here = a claim about another model."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from verify.errors import ModelUnavailableError

BUNDLED = ("whisper-tiny.en",)


def bundled_folder(name: str) -> Path | None:
    """The folder of a bundled model, or None if `name` is not one.

    Raises ModelUnavailableError if the installation lacks the folder.
    """
    if name not in BUNDLED:
        return None
    folder = Path(str(resources.files("verify.models"))) / "bundled-models" / name
    if not folder.is_dir():
        raise ModelUnavailableError(
            f"the bundled model {name} is missing from this installation; reinstall it"
        )
    return folder

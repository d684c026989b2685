"""STATEMENT. The models that come with this package, by name. Wrong here = a claim about another model."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from verify.errors import ModelUnavailableError

BUNDLED = ("whisper-tiny.en",)
# How much of a name must be the same: whisper-tiny is near whisper-tiny.en, whisper-small.en is not.
_NEAR = 0.8


def did_you_mean(name: str) -> str:
    """A hint, in brackets, where `name` is nearly that of a bundled model; else nothing."""
    names = {bundled.lower(): bundled for bundled in BUNDLED}
    near = difflib.get_close_matches(name[:100].lower(), names, n=1, cutoff=_NEAR)
    return f" (did you mean {names[near[0]]}?)" if near else ""


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

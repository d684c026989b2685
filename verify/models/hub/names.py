"""STATEMENT. Hub names: "org/name" or "name", with "@revision" where one is meant.

Wrong here = another model or revision than the one that was asked for.
"""

from __future__ import annotations

import re
from pathlib import Path

from verify.errors import UsageError
from verify.models.bundled import BUNDLED

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(
    rf"(?P<repository>{_PART}(?:/{_PART})?)(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{{0,99}}))?"
)


def split_hub_name(text: str) -> tuple[str, str | None] | None:
    """("org/name", revision or None) of "org/name[@revision]"; None if it cannot be a hub name."""
    match = _NAME.fullmatch(text)
    if match is None or ".." in text or "--" in text:
        return None
    return match["repository"], match["revision"]


def at_revision(text: str, revision: str) -> str:
    """The hub name `text` at `revision`.

    Raises UsageError where `text` is no hub name, already names another revision, or `revision` is none.
    """
    split = split_hub_name(text)
    if split is None:
        raise UsageError(f"--revision goes with a hub name (org/name), not with {text[:100]!a}")
    if text in BUNDLED or Path(text).exists():
        raise UsageError(f"--revision goes with a hub name; {text!a} is on this machine")
    repository, named = split
    if named not in (None, revision):
        raise UsageError(f"--model names revision {named!a}, --revision {revision[:100]!a}: give one of them")
    together = f"{repository}@{revision}"
    if split_hub_name(together) != (repository, revision):
        raise UsageError(f"--revision {revision[:100]!a} is no branch, tag or commit")
    return together

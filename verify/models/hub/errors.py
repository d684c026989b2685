"""GLUE. One line for whatever goes wrong between here and the hub. Holds no token and no signed address."""

from __future__ import annotations

import os
import re

from verify.models.bundled import did_you_mean

_QUERY = re.compile(r"\?[^\s'\"<>]*")
# The client's variables for offline mode.
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRANSPORT = ("TransportError", "ConnectionError", "OfflineModeIsEnabled")


def is_a(error: BaseException, *names: str) -> bool:
    """By name, since the client's versions keep their errors, and its transport, in different places."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def is_transport(error: BaseException) -> bool:
    """Whether the network, not the hub, is to blame."""
    return is_a(error, *_TRANSPORT)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that `error` is about."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def explain(repository: str, revision: str | None, error: BaseException) -> str:
    """What went wrong, and what to do."""
    name = f"{repository}@{revision}" if revision else repository
    if is_a(error, "GatedRepoError"):
        return (
            f"{name} is gated: accept its terms, log in (`hf auth login`, or --token-env), or pass a folder"
        )
    if is_a(error, "RevisionNotFoundError"):
        return f"{repository} has no revision {revision!r}"
    if is_a(error, "RepositoryNotFoundError"):
        return (
            f"no model {name!r}{did_you_mean(repository)}: not bundled, no such folder, not on the hub "
            "(or private: `hf auth login`, or --token-env)"
        )
    if is_a(error, "IncompleteSnapshotError"):
        reason = f"{name} is only partly in the local cache, the rest out of reach"
        return f"{reason}; {reconnect()}, or pass a folder"
    if is_a(error, "LocalEntryNotFoundError") or is_transport(error):
        unreached = "" if is_a(error, "OfflineModeIsEnabled") else ", and the hub cannot be reached"
        absent = f"{name!r}{did_you_mean(repository)} is not bundled, not a folder, not in the local cache"
        elsewhere = f"run `hf download {repository}` where there is a network, or pass a folder"
        return f"{absent}{unreached}; {reconnect()}, {elsewhere}"
    if status_of(error) == 401:
        return f"the hub does not accept the token for {name}: `hf auth login`, --token-env, or pass a folder"
    if status_of(error) == 429:
        return f"the hub answers {name} with too many requests (429); wait, or log in (`hf auth login`)"
    return f"cannot get {name} from the hub ({_first_line(error)}); try again, or pass a folder"


def reconnect() -> str:
    """What to do where the hub is out of reach: offline mode is a choice that can be forgotten."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return "connect"
    names = [name for name in _OFFLINE if os.environ.get(name)] or _OFFLINE[:1]
    return f"offline mode is on: unset {' and '.join(names)}"


def _first_line(error: BaseException) -> str:
    """Type and message, without what may hold a secret: queries of addresses, headers."""
    first = (str(error).strip().splitlines() or [""])[0]
    first = "" if "bearer" in first.lower() else _QUERY.sub("?...", first)[:160]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

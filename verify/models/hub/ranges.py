"""STATEMENT. Bytes of a remote file over HTTP, by huggingface_hub's session, its addresses and its headers.

Wrong here = other bytes under a tensor's name. So an answer that is not exactly the bytes asked for, of the
file whose size and ETag were announced, is an error; a dropped connection is taken up where it broke.
The session sends its authorisation to the hub alone, not to the hosts that the hub redirects to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from verify.models.hub.errors import is_transport, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# So often in a row without a byte; the wait doubles from the first second to the longest.
_ATTEMPTS = 5
_LONGEST_WAIT_S = 8.0
_LONGEST_ASKED_WAIT_S = 60.0
_T = TypeVar("_T")


class ChangedError(Exception):
    """The server's file is not the one that was announced."""


class NoRangesError(Exception):
    """The server sends whole files only."""


class BrokenOffError(Exception):
    """The answer ended before its last byte."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of one commit, as the hub announced it."""

    repository: str
    commit: str
    name: str
    size: int
    etag: str


def announce(repository: str, commit: str, name: str) -> RemoteFile:
    """Size and ETag of a file. Raises the client's errors; ChangedError for an answer without them."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name, revision=commit)
    found = patiently(lambda: get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT))
    if found.commit_hash != commit or found.etag is None or found.size is None:
        raise ChangedError(f"the hub announces {name} without commit, ETag or size, or at another commit")
    return RemoteFile(repository, commit, name, found.size, found.etag)


def stream(file: RemoteFile, begin: int, end: int) -> Iterator[bytes]:
    """Exactly the bytes [begin, end) of a file, in pieces.

    A server that ignores Range is read from the file's start where begin is 0, and left at `end`.
    Raises ChangedError, NoRangesError, and the client's errors once retries are used up.
    """
    position, failures = begin, 0
    while position < end:
        try:
            for piece in _answer(file, position, end):
                position += len(piece)
                failures = 0
                yield piece
            if position < end:
                raise BrokenOffError(f"{file.name}: the connection broke off at byte {position}")
        except Exception as error:
            failures += 1
            if failures >= _ATTEMPTS or not (is_transport(error) or isinstance(error, BrokenOffError)):
                raise
            time.sleep(_pause(failures))


def _answer(file: RemoteFile, begin: int, end: int) -> Iterator[bytes]:
    """One answer's bytes, at most up to `end`."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    headers = build_hf_headers(library_name="unspeakable") | {
        "Range": f"bytes={begin}-{end - 1}",
        "Accept-Encoding": "identity",
    }
    with http_stream_backoff(
        "GET",
        hf_hub_url(file.repository, file.name, revision=file.commit),
        headers=headers,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        retry_on_exceptions=(),  # `stream` goes on where it broke; here are the retries on 429 and 5xx
        max_retries=_ATTEMPTS,
    ) as response:
        hf_raise_for_status(response)
        _check(response, file, begin, end)
        left = end - begin
        for piece in response.iter_raw():
            if len(piece) > left and response.status_code == 206:
                raise ChangedError(f"{file.name}: the server sends more bytes than it says")
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return


def _check(response: Any, file: RemoteFile, begin: int, end: int) -> None:
    """Refuse every answer but the announced file's bytes [begin, end), or all of it where begin is 0."""
    etag = _etag(response)
    if etag != file.etag:
        raise ChangedError(f"{file.name}: announced with ETag {file.etag[:80]!a}, sent with {etag!a}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ChangedError(f"{file.name}: the server sends it encoded, though asked not to")
    length = response.headers.get("Content-Length")
    if response.status_code == 206:
        expected, said = f"bytes {begin}-{end - 1}/{file.size}", response.headers.get("Content-Range")
        if said != expected:
            raise ChangedError(f"{file.name}: asked for {expected!a}, the server sends {str(said)[:80]!a}")
        wanted = end - begin
    elif response.status_code == 200:
        if begin:
            raise NoRangesError
        wanted = file.size
    else:
        raise ChangedError(f"{file.name}: the server answers a range with status {response.status_code}")
    if length is not None and length != str(wanted):
        raise ChangedError(f"{file.name}: {wanted} bytes expected, the server sends {length[:20]}")


def _etag(response: Any) -> str | None:
    """The ETag of the file behind an answer, as the client reads it: the hub's word before a redirect's."""
    chain = [*response.history, response]
    for header in ("X-Linked-Etag", "ETag"):
        for each in chain:
            value = each.headers.get(header)
            if value is not None:
                return str(value).removeprefix("W/").strip('"')
    return None


def patiently(call: Callable[[], _T], attempts: int = _ATTEMPTS) -> _T:
    """The result of a call, repeated where the hub is overloaded: 429 and 5xx."""
    for failures in range(1, attempts):
        try:
            return call()
        except Exception as error:
            status = status_of(error)
            if status is None or not (status == 429 or 500 <= status < 600):
                raise
            asked = str(getattr(error, "response").headers.get("Retry-After", ""))  # noqa: B009 - any client's
            patience = min(float(asked), _LONGEST_ASKED_WAIT_S) if asked.isdecimal() else _pause(failures)
            time.sleep(patience)
    return call()


def _pause(failures: int) -> float:
    return min(_LONGEST_WAIT_S, 2.0 ** (failures - 1))

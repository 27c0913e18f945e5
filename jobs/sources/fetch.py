"""Feeds and transcripts over HTTP: bounded in time and size, and every failure in one sentence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from earshot.errors import EarshotError, InvalidArgument, NotFound, PermissionDenied, Unavailable

from .files import MAX_FEED_BYTES

_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
_TOTAL_S: Final = 300.0
_STATUS_ERRORS: Final[dict[int, type[EarshotError]]] = {
    401: PermissionDenied,
    403: PermissionDenied,
    404: NotFound,
    410: NotFound,
}


def is_url(source: object) -> bool:
    """Whether a source is fetched over HTTP rather than read from disk."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def public_name(url: str) -> str:
    """The address without user name and password, for errors and origins."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b""))
    except httpx.InvalidURL as error:
        raise InvalidArgument(f"{url!r} is not a valid URL: {error}", field="sources") from error


@contextmanager
def http_client() -> Iterator[httpx.Client]:
    """A client with our time limits that follows redirects; safe to share between threads."""
    with httpx.Client(
        timeout=_TIMEOUT, follow_redirects=True, headers={"user-agent": "earshot (podcast search)"}
    ) as client:
        yield client


def fetch(client: httpx.Client, url: str, *, limit: int = MAX_FEED_BYTES) -> tuple[bytes, str]:
    """The body at `url`, unpacked, and the address it came from after redirects.

    Raises:
        NotFound, PermissionDenied, InvalidArgument, Unavailable: by HTTP status, which is named.
        InvalidArgument: the body is larger than `limit` bytes, or the URL is not valid.
        Unavailable: no connection, or no complete answer in time.
    """
    name = public_name(url)
    deadline = time.monotonic() + _TOTAL_S
    try:
        with client.stream("GET", url) as response:
            if response.is_error:
                raise _status_error(name, response)
            body = bytearray()
            for chunk in response.iter_bytes(65536):
                body += chunk
                if len(body) > limit:
                    raise InvalidArgument(f"{name} is larger than {limit // 2**20} MiB, the limit for a feed")
                if time.monotonic() > deadline:
                    raise Unavailable(f"{name} did not answer completely within {_TOTAL_S:.0f} s")
            return bytes(body), str(response.url)
    except httpx.TimeoutException as error:
        raise Unavailable(f"{name} did not answer in time") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"{name} cannot be fetched: {error or type(error).__name__}") from error


def _status_error(name: str, response: httpx.Response) -> EarshotError:
    status = response.status_code
    error = _STATUS_ERRORS.get(status, Unavailable if status >= 500 or status == 429 else InvalidArgument)
    return error(f"{name} answered HTTP {status} {response.reason_phrase}".rstrip())

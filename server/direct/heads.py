"""What a request's head says, as ASGI has it; for HTTP/1.1 and HTTP/2 alike."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from email.utils import formatdate
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from ..hot.asgi import Scope
from ..hot.framing import Headers
from ..hot.whole import Route, WholeSearches
from ..limits import MAX_HEADER_BYTES
from ..telemetry import REQUEST_ID

__all__ = ["Head", "head_of", "http_date"]

_ASGI = {"version": "3.0", "spec_version": "2.4"}
_FIT_FOR_AN_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# Unique across processes by the first part, within one by the second.
_PROCESS = secrets.token_hex(8).encode()
_NUMBERS = itertools.count(1)


class Head:
    """What a request's head says. Clients send the same one again and again, so what it means is kept.

    Args:
        scope: ASGI's.
        problem: Why it is refused; None where it is not.

    Attributes:
        length: The `content-length` that it announces; None without, −1 where that is no number.
        wants_continue: Its body comes once it is asked for.
    """

    __slots__ = ("_has_route", "_request_id", "_route", "_scope", "length", "problem", "wants_continue")

    def __init__(self, scope: Scope, problem: str | None = None) -> None:
        headers: Headers = scope["headers"]
        self.problem = problem
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            self.problem = f"the headers have more than {MAX_HEADER_BYTES} bytes"
        self.length: int | None = None
        self.wants_continue = False
        self._request_id = b""
        for name, value in headers:
            if name == b"content-length":
                self.length = int(value) if value.isdigit() else -1
            elif name == b"expect":
                self.wants_continue = value.lower() == b"100-continue"
            elif name == REQUEST_ID and _FIT_FOR_AN_ID.fullmatch(value):
                self._request_id = value
        if not self._request_id:
            scope = {**scope, "headers": [header for header in headers if header[0] != REQUEST_ID]}
        self._scope = scope
        self._route: Route | None = None
        self._has_route = False

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body."""
        return bool(self._scope["method"] == "HEAD")

    @property
    def headers(self) -> Headers:
        """Without an id of ours."""
        headers: Headers = self._scope["headers"]
        return headers

    def route(self, whole: WholeSearches) -> Route | None:
        """What of a request with this head may go without a task; None where nothing does."""
        if not self._has_route:
            self._route, self._has_route = whole.route(self._scope), True
        return self._route

    def request_id(self) -> bytes:
        """Of one request: the client's own where a log may hold it, else a new one."""
        return self._request_id or b"%s-%x" % (_PROCESS, next(_NUMBERS))

    def scope(self, request_id: bytes) -> Scope:
        """Of one request."""
        if self._request_id:
            return dict(self._scope)
        return {**self._scope, "headers": [*self._scope["headers"], (REQUEST_ID, request_id)]}


def head_of(method: str, target: bytes, headers: Headers, *, scheme: str, version: str) -> Head:
    """A request's head, which may have a problem.

    Args:
        method: As GET.
        target: Path and query as they came.
        headers: Names in lower case, without those of HTTP/2 that begin with a colon.
        scheme: http or https.
        version: Of HTTP, as 1.1.
    """
    path, _, query = target.partition(b"?")
    problem = None
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        decoded, problem = "/", "the path is not percent-encoded UTF-8"
    scope: Scope = {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method,
        "scheme": scheme,
        "path": decoded,
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
        "extensions": {"http.response.trailers": {}} if version == "2" else {},
    }
    return Head(scope, problem)


def http_date() -> bytes:
    """The time, as a Date header has it; RFC 9110, section 5.6.7."""
    return _date(int(time.time()))


@lru_cache(1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()

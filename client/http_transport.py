"""HTTP, blocking and asyncio: proto JSON to the paths that the protos' `google.api.http` options declare."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

import httpx
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from earshot.errors import DeadlineExceeded, EarshotError, Internal, Unavailable, from_code

from .access import Access

__all__ = ["AsyncHttpTransport", "HttpTransport", "http_request", "parse_reply"]

NO_TOKEN = Access()

PROBES = {False: "/healthz", True: "/readyz"}

# The proto of these is Google's and has `operations/**`; ours lie beneath their index, as those of most APIs.
_OPERATION = "/v1/{name=indexes/*/operations/*}"
OPERATIONS = {
    "google.longrunning.Operations.ListOperations": ("get", "/v1/{name=indexes/*}/operations", ""),
    "google.longrunning.Operations.GetOperation": ("get", _OPERATION, ""),
    "google.longrunning.Operations.DeleteOperation": ("delete", _OPERATION, ""),
    "google.longrunning.Operations.CancelOperation": ("post", f"{_OPERATION}:cancel", "*"),
    "google.longrunning.Operations.WaitOperation": ("post", f"{_OPERATION}:wait", "*"),
}

# For answers that are not Earshot's own, a proxy's for instance; source: gRPC's "HTTP to gRPC Status
# Code Mapping", so that both transports say the same.
FOREIGN_STATUS = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes to httpx: verb, path, query parameters and JSON body, if any."""

    method: str
    url: str
    params: dict[str, Any] | None = None
    json: dict[str, Any] | None = None


class HttpTransport:
    """Connections to `base_url`, kept open between calls."""

    def __init__(self, base_url: str, access: Access = NO_TOKEN) -> None:
        self._client = httpx.Client(base_url=base_url, headers=access.headers(), verify=_verify(access))

    def call(self, method: MethodDescriptor, request: Message, timeout: float | None) -> Message:
        """The answer to `request`, within `timeout` seconds."""
        return parse_reply(method, *self._exchange(http_request(method, request), timeout))

    def probe(self, timeout: float | None, *, ready: bool) -> bool:
        """Whether `/healthz` or `/readyz` says yes."""
        try:
            return self._exchange(Outgoing("GET", PROBES[ready]), timeout)[0] == httpx.codes.OK
        except EarshotError:
            return False

    def page(self, path: str, timeout: float | None) -> bytes:
        """A page about the server, such as `/metrics`. Raises as `call`."""
        status, content, _ = self._exchange(Outgoing("GET", path), timeout)
        if status != httpx.codes.OK:
            raise _error(status, content)
        return content

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def _exchange(self, outgoing: Outgoing, timeout: float | None) -> tuple[int, bytes, str | None]:
        left = _Remaining(timeout)
        with (
            _translated(),
            self._client.stream(**_arguments(outgoing, timeout), extensions={"timeout": left}) as response,
        ):
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                left.check()
            return response.status_code, bytes(content), response.headers.get("retry-after")


class AsyncHttpTransport:
    """The same for asyncio."""

    def __init__(self, base_url: str, access: Access = NO_TOKEN) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=access.headers(),
            verify=_verify(access),
            timeout=None,  # noqa: S113  # `_exchange` has the deadline
        )

    async def call(self, method: MethodDescriptor, request: Message, timeout: float | None) -> Message:
        """The answer to `request`, within `timeout` seconds."""
        return parse_reply(method, *await self._exchange(http_request(method, request), timeout))

    async def probe(self, timeout: float | None, *, ready: bool) -> bool:
        """Whether `/healthz` or `/readyz` says yes."""
        try:
            return (await self._exchange(Outgoing("GET", PROBES[ready]), timeout))[0] == httpx.codes.OK
        except EarshotError:
            return False

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def _exchange(self, outgoing: Outgoing, timeout: float | None) -> tuple[int, bytes, str | None]:
        with _translated():
            async with asyncio.timeout(timeout):
                response = await self._client.request(**_arguments(outgoing, timeout))
        return response.status_code, response.content, response.headers.get("retry-after")


class _Remaining(dict[str, float | None]):
    """A deadline in httpx's `timeout` extension, which holds one number a phase (connect, read, ...).

    The transport below asks for it at the start of each phase and is told what is left by then.
    """

    def __init__(self, seconds: float | None) -> None:
        super().__init__(dict.fromkeys(("connect", "read", "write", "pool"), seconds))
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def get(self, key: str, default: Any = None) -> Any:
        return default if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)

    def check(self) -> None:
        """Raises DeadlineExceeded when nothing is left: a body that drips renews the phase's time."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise DeadlineExceeded("the answer was still coming in")


def http_request(method: MethodDescriptor, request: Message) -> Outgoing:
    """`request` as HTTP, by the method's `google.api.http` option: path, then body or query parameters."""
    verb, template, body = _rule(method)
    fields = json_format.MessageToDict(request)

    def segment(match: re.Match[str]) -> str:
        place, message = fields, cast("Any", request.DESCRIPTOR)
        *outer, last = match["name"].split(".")
        for name in outer:
            place = place[message.fields_by_name[name].json_name]
            message = message.fields_by_name[name].message_type
        return quote(place.pop(message.fields_by_name[last].json_name))

    path = re.sub(r"\{(?P<name>[\w.]+)=[^}]*\}", segment, template)
    if body == "*":
        return Outgoing(verb.upper(), path, json=fields)
    if body:
        content = fields.pop(request.DESCRIPTOR.fields_by_name[body].json_name, {})
        return Outgoing(verb.upper(), path, params=fields, json=content)
    return Outgoing(verb.upper(), path, params=fields)


def _rule(method: MethodDescriptor) -> tuple[str, str, str]:
    """Verb, path and body of a method."""
    if method.full_name in OPERATIONS:
        return OPERATIONS[method.full_name]
    rule = next(
        value for option, value in method.GetOptions().ListFields() if option.full_name == "google.api.http"
    )
    verb = rule.WhichOneof("pattern")
    return verb, getattr(rule, verb), rule.body


def parse_reply(
    method: MethodDescriptor, status: int, content: bytes, retry_after: str | None = None
) -> Message:
    """The response message in `content`; raises the error that it tells of instead.

    `retry_after` is the header of that name, in seconds.
    """
    if status != httpx.codes.OK:
        error = _error(status, content)
        if error.retry_after is None and retry_after is not None and retry_after.isdecimal():
            error.retry_after = float(retry_after)
        raise error
    try:
        # Fields that a newer server adds are ignored, as gRPC does.
        return json_format.Parse(content, GetMessageClass(method.output_type)(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise Internal(f"the answer is not a {method.output_type.full_name}: {_excerpt(content)}") from error


def _error(status: int, content: bytes) -> EarshotError:
    try:
        error = json.loads(content)["error"]
        return from_code(error["status"], error["message"], retry_after=_retry_delay(error))
    except (ValueError, KeyError, TypeError, AttributeError):
        code = FOREIGN_STATUS.get(status, "INTERNAL")
        return from_code(code, f"HTTP status {status}: {_excerpt(content)}")


def _retry_delay(error: dict[str, Any]) -> float | None:
    """Seconds from a `google.rpc.RetryInfo`, finer than the whole ones of the header."""
    for detail in error.get("details", ()):
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay"))):
            return float(match[1])
    return None


def _excerpt(content: bytes) -> str:
    text = " ".join(content[:200].decode(errors="replace").split())
    return text or "no content"


def _arguments(outgoing: Outgoing, timeout: float | None) -> dict[str, Any]:
    # gRPC's own header, so that the server does not work for an answer that nobody waits for.
    deadline = {} if timeout is None else {"grpc-timeout": f"{min(math.ceil(1e3 * timeout), 99_999_999)}m"}
    return {
        "headers": deadline,
        "method": outgoing.method,
        "url": outgoing.url,
        "params": outgoing.params,
        "json": outgoing.json,
    }


def _verify(access: Access) -> ssl.SSLContext | bool:
    return True if access.tls is None else access.tls.context()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turns what httpx raises into the errors of gRPC for the same events."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise DeadlineExceeded(_reason(error)) from error
    except httpx.TransportError as error:
        raise Unavailable(_reason(error)) from error
    except httpx.HTTPError as error:
        raise Internal(f"the answer cannot be read: {error}") from error


def _reason(error: BaseException) -> str:
    # The layers below httpx wrap what the system said ("Connection refused") in less telling words.
    while below := error.__cause__ or error.__context__:
        error = below
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if (
        isinstance(error, OSError)
        and not isinstance(error, ssl.SSLError)
        and error.errno is not None
        and error.errno > 0
    ):
        return os.strerror(error.errno)
    return str(error) or type(error).__name__

"""What the HTTP routes share: a request's body as a type, and the way to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import msgspec
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from earshot.errors import Cancelled, InvalidArgument

from .auth import current
from .json_codec import decode

__all__ = ["Reply", "read_body"]

T = TypeVar("T")

Reply: TypeAlias = Callable[[Callable[[], msgspec.Struct]], Awaitable[Response]]
"""Runs a call off the event loop and answers with what it returns."""


async def read_body(request: Request, kind: type[T], max_bytes: int) -> T:
    """The body as `kind`.

    Raises InvalidArgument where it is larger than `max_bytes` or not of that form, and Cancelled where the
    client left before it was whole.
    """
    received = bytearray()
    try:
        async for chunk in request.stream():
            received += chunk
            if len(received) > max_bytes:
                raise InvalidArgument(
                    f"body: more than {max_bytes} bytes; the limit is the setting max_message_bytes",
                    field="body",
                )
    except ClientDisconnect:
        raise Cancelled("the client left before its request was whole") from None
    decoded = decode(bytes(received), kind)
    current().check_request(decoded)
    return decoded

"""JSON in and out of the service's own types, with errors that name the field and the value."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from earshot.errors import EarshotError, InvalidArgument, row_of

__all__ = ["decode", "encode", "error_body"]

T = TypeVar("T")

encode = msgspec.json.Encoder().encode

_PATH = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>\$[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([A-Za-z_0-9]+)|\[(\d+)\]")
_SNAKE = re.compile(r"_([a-z0-9])")


def decode(body: bytes, kind: type[T]) -> T:
    """`body` as `kind`; lowerCamelCase and snake_case names and numbers in strings, as in Google's mapping.

    Raises InvalidArgument naming the field, the value and what would be right.
    """
    try:
        try:
            return msgspec.json.decode(body, type=kind, strict=False)
        except msgspec.ValidationError:  # said as soon as it is seen, whatever follows
            raw = _camel_keys(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the body is not JSON: {error}") from error
    try:
        return msgspec.convert(raw, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(_explain(str(error), raw)) from error


def error_body(error: EarshotError) -> bytes:
    """The one shape of an error, that of Google's APIs."""
    content: dict[str, Any] = {"code": row_of(error).http, "status": error.code, "message": error.message}
    if error.field is not None:
        content["field"] = error.field
    if error.retry_after is not None:
        delay = f"{error.retry_after:.3f}s"
        content["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    return encode({"error": content})


def _camel_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            _SNAKE.sub(lambda match: match[1].upper(), key): _camel_keys(item) for key, item in value.items()
        }
    return [_camel_keys(item) for item in value] if isinstance(value, list) else value


def _explain(message: str, raw: Any) -> str:
    match = _PATH.fullmatch(message)
    if match is None or match["path"] is None:
        return message[0].lower() + message[1:]
    value = raw
    for key, position in _STEP.findall(match["path"]):
        value = value[key] if key else value[int(position)]
    shown = repr(value)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    name = match["path"].removeprefix("$").removeprefix(".") or "body"
    return f"{name} is {shown}: {match['what'][0].lower()}{match['what'][1:]}"

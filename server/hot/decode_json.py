"""Vector queries straight from JSON: all but the vector is read once for all requests that share it.

As in `decode`, every other form, and whatever is wrong, is left to the ordinary way, here `json_codec`.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec
import numpy as np

from .. import messages
from ..json_codec import decode
from .decode import Around, Vectors

__all__ = ["options_of_json", "split_json"]

# In a string the quotes would stand behind backslashes, so this is a member's name.
_VECTOR = re.compile(rb'"(?:float32":\s*(")|values":\s*\[)')
_NUMBERS = msgspec.json.Decoder(list[float])
_PROBE = np.array([0.5, 0.25], "<f4")
_PROBES = base64.b64encode(_PROBE.tobytes()), b"0.5,0.25"


def split_json(name: str, body: bytes) -> tuple[Around, Vectors] | None:
    """What stands around the first vector of a search of the index `name`, and that vector; or None."""
    match = _VECTOR.search(body)
    if match is None:
        return None
    start, is_packed = match.end(), match.lastindex is not None
    # A vector has no such byte within, and where this is none, what is cut off here is none either.
    end = body.find(b'"' if is_packed else b"]", start)
    if end < 0:
        return None
    inner = body[start:end]
    try:
        if is_packed:
            data = binascii.a2b_base64(inner, strict_mode=True)
        else:
            with np.errstate(over="ignore"):  # becomes infinite, which the index names
                data = np.asarray(_NUMBERS.decode(b"[%b]" % inner), "<f4").tobytes()
    except (ValueError, binascii.Error, msgspec.DecodeError):
        return None
    return (name.encode(), body[:start], body[end:]), Vectors(data, 1)


def options_of_json(name: bytes, before: bytes, after: bytes) -> messages.SearchRequest | None:
    """The request without its vector; None where it is not that vector that is asked for.

    Raises InvalidArgument where it is not a request.
    """
    form = int(before.endswith(b"["))
    request = decode(before + _PROBES[form] + after, messages.SearchRequest)
    # What a second member of the same name, or another query, would override must not be taken for it.
    vector = messages.Vector(values=_PROBE.tolist()) if form else messages.Vector(float32=_PROBE.tobytes())
    if request.vector != vector:
        return None
    return msgspec.structs.replace(request, index=name.decode(), vector=None)

"""How large anything on the wire may be that is not a setting, and the check of what we send ourselves."""

from __future__ import annotations

from earshot.errors import ResourceExhausted

__all__ = ["MAX_HEADER_BYTES", "checked_size"]

# Names and values together, for either face. A token and a trace take a few hundred bytes.
MAX_HEADER_BYTES = 16 << 10


def checked_size(answer: bytes, limit: int) -> bytes:
    """`answer`. Raises ResourceExhausted where it is larger than the setting `max_answer_bytes`."""
    if len(answer) > limit:
        raise ResourceExhausted(
            f"the answer has {len(answer)} bytes; the limit, max_answer_bytes, is {limit}: ask for fewer "
            "neighbors or queries at a time, or for less of each"
        )
    return answer

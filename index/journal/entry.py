"""What a journal holds: a datapoint put, parts of one patched, or one removed.

Structs, for a call may bring a thousand: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from ..distance import Floats
from ..filters import Restrict

__all__ = ["UNSET", "Entry", "Patch", "Put", "Remove"]


class Put(Struct, frozen=True, eq=False, gc=False):
    """A datapoint whole, in place of whatever had its id; `vector` is as the user gave it, [dimension]."""

    id: str
    vector: Floats
    crowding_tag: str | None = None
    metadata: Mapping[str, Any] | None = None
    restricts: tuple[Restrict, ...] = ()


class Patch(Struct, frozen=True, eq=False, gc=False):
    """Parts of a datapoint that exists; what is UNSET stays as it is."""

    id: str
    vector: Floats | UnsetType = UNSET
    crowding_tag: str | UnsetType | None = UNSET
    metadata: Mapping[str, Any] | UnsetType | None = UNSET
    restricts: tuple[Restrict, ...] | UnsetType = UNSET


class Remove(Struct, frozen=True, gc=False):
    """No datapoint has this id any more."""

    id: str


Entry = Put | Patch | Remove

"""What an update must be before it is written down."""

from __future__ import annotations

from collections.abc import Iterable

from ..filters import Collected, Restrict, Where
from ..filters.where import canonical

__all__ = ["checked_restricts"]


def checked_restricts(restricts: Iterable[Restrict]) -> Where:
    """The restricts of one datapoint in their canonical form.

    Raises:
        InvalidArgument: One has an op, or two are numbers of one namespace.
    """
    found = canonical(restricts)
    collected = Collected(1)
    for restrict in found:
        collected.add(0, restrict)
    return found

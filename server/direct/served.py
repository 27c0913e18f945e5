"""What every connection of a listener serves, and how long it may take to ask."""

from __future__ import annotations

from typing import NamedTuple

from ..hot.asgi import Application
from ..hot.whole import WholeSearches

__all__ = ["HEAD_SECONDS", "Served"]

HEAD_SECONDS = 10.0
"""From a head's first byte to its last."""


class Served(NamedTuple):
    """The application, for each request; what answers some of them without it; and `http` or `https`."""

    app: Application
    whole: WholeSearches | None = None
    scheme: str = "http"

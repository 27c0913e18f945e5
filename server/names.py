"""Resource names, as Google's API guide has them: `indexes/podcasts/versions/v000001`."""

from __future__ import annotations

import re

from earshot.errors import InvalidArgument

__all__ = ["index_id", "index_name", "operation_id", "operation_name", "version_id", "version_name"]

PREFIX = "indexes/"

_OPERATION = re.compile(r"indexes/(?P<index>[a-z][a-z0-9-]*)/operations/(?P<operation>[0-9A-Za-z-]+)")


def index_id(name: str, *, field: str = "index") -> str:
    """`podcasts` from `indexes/podcasts` or `podcasts`. Raises InvalidArgument for an empty name."""
    short = name.removeprefix(PREFIX)
    if not short or "/" in short:
        raise InvalidArgument(
            f"{field} {name!r} is not the name of an index: write 'indexes/podcasts' or 'podcasts'",
            field=field,
        )
    return short


def index_name(index: str) -> str:
    """`indexes/podcasts` from `podcasts`."""
    return PREFIX + index


def version_name(index: str, version: str) -> str:
    """`indexes/podcasts/versions/v000001`, or an empty string where there is no version."""
    return f"{PREFIX}{index}/versions/{version}" if version else ""


def version_id(name: str) -> str:
    """`v000001` from itself or from a full name; whether there is one is the store's to say."""
    return name.rpartition("/")[2]


def operation_name(index: str, operation: str) -> str:
    """`indexes/podcasts/operations/20260131T120000-3f9a`."""
    return f"{PREFIX}{index}/operations/{operation}"


def operation_id(name: str) -> tuple[str, str]:
    """The index and the operation of such a name. Raises InvalidArgument."""
    match = _OPERATION.fullmatch(name)
    if match is None:
        raise InvalidArgument(
            f"name {name!r} is not that of an operation: 'indexes/podcasts/operations/…' is what a rebuild "
            "answers with",
            field="name",
        )
    return match["index"], match["operation"]

"""Resource names, as Google's API guide has them: `indexes/podcasts/versions/v000001`."""

from __future__ import annotations

from earshot.errors import InvalidArgument

__all__ = ["index_id", "index_name", "version_name"]

PREFIX = "indexes/"


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

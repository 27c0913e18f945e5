"""Which sources a caller may have the server read: nothing but what the operator named.

A server sits where its callers do not: in a network with other services, beside files that are none of
theirs. So nothing is allowed by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from earshot.errors import PermissionDenied

__all__ = ["check_allowed"]

_PORTS = {"http": 80, "https": 443}


def check_allowed(sources: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises PermissionDenied naming the first source that lies beneath none of `allowed`.

    Folders and files are compared after links were followed, addresses by scheme, host, port and whole
    segments of the path.
    """
    for source in sources:
        if not any(_is_beneath(source, each) for each in allowed):
            raise PermissionDenied(
                f"source {source!r} may not be read by the server: its operator allows what lies beneath "
                f"the setting rebuild_sources, which is {', '.join(allowed) or 'empty'}",
                field="sources",
            )


def _is_beneath(source: str, allowed: str) -> bool:
    if _is_address(source) != _is_address(allowed):
        return False
    if not _is_address(source):
        return Path(source).resolve().is_relative_to(Path(allowed).resolve())
    try:
        asked, root = urlsplit(source), urlsplit(allowed)
        return _server(asked) == _server(root) and _is_path_beneath(asked.path, root.path)
    except ValueError:  # a port that is no number, a host in broken brackets
        return False


def _is_address(source: str) -> bool:
    return "://" in source


def _server(url: SplitResult) -> tuple[str, str, int | None, str]:
    credentials = url.netloc.rpartition("@")[0]
    return url.scheme, url.hostname or "", url.port or _PORTS.get(url.scheme), credentials


def _is_path_beneath(path: str, root: str) -> bool:
    segments = unquote(path).split("/")
    wanted = unquote(root).rstrip("/").split("/")
    return ".." not in segments and "\\" not in unquote(path) and segments[: len(wanted)] == wanted

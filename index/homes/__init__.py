"""Where indexes live: a folder of this machine, or any address that fsspec knows, such as `s3://bucket/prefix`.

A home keeps names, versions and the pointer to the current one; what is in a version is the store's business.
"""

from __future__ import annotations

import os
from pathlib import Path

from .base import Home
from .folder import FolderHome

__all__ = ["Home", "home_of"]

_FOLDER_SCHEMES = ("file://", "local://")


def home_of(location: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None) -> Home:
    """The home at a path, or at an address with `://` in it.

    Args:
        location: `data`, `file:///srv/earshot`, `s3://bucket/prefix`, `memory://data`, …
        cache_dir: Where versions of a far home are kept while they are open; None for the user's cache.

    Raises:
        InvalidArgument: An address of a kind that fsspec does not know.
        FailedPrecondition: A package for such addresses is not installed.
    """
    text = os.fspath(location)
    for scheme in _FOLDER_SCHEMES:
        if text.startswith(scheme):
            return FolderHome(Path(text.removeprefix(scheme)))
    if "://" not in text:
        return FolderHome(Path(text))
    from .remote import RemoteHome  # its libraries are loaded only where they are needed

    return RemoteHome(text, cache_dir)

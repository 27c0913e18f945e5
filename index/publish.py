"""A version comes to be in one step, or not at all.

It is written under a temporary name, forced to disk, read back, renamed, and only then made current.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earshot.errors import DataLoss

from .files import explained, replace_text, sync, sync_tree
from .index import Index
from .manifest import now

CURRENT = "CURRENT"
VERSIONS = "versions"
_TEMPORARY = ".tmp-"
_NAME = re.compile(r"v(\d{6,})")


def version_names(folder: Path) -> list[str]:
    """The versions in an index's folder, oldest first, whole or not."""
    versions = folder / VERSIONS
    if not versions.is_dir():
        return []
    names = [path.name for path in versions.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(names, key=lambda name: int(name[1:]))


def publish(folder: Path, index: Index, manifest: Mapping[str, Any]) -> str:
    """Write `index` as the next version and make it current. The caller holds the writer's lock.

    Args:
        folder: The index's folder.
        index: What to write.
        manifest: Fields of the manifest that the index does not know.

    Returns:
        The version's name.

    Raises:
        ResourceExhausted, PermissionDenied: The disk is full or not writable. What was current still is.
        DataLoss: What was written does not read back.
    """
    versions = folder / VERSIONS
    names = version_names(folder)
    version = f"v{int(names[-1][1:]) + 1 if names else 1:06d}"
    temporary = versions / f"{_TEMPORARY}{version}"
    with explained(versions):
        versions.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        try:
            index.save(temporary, index=folder.name, version=version, created=now(), **manifest)
            sync_tree(temporary)
            _read_back(temporary)
            temporary.rename(versions / version)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(versions)
        sync(folder)
        replace_text(folder / CURRENT, version + "\n")
    return version


def remove_leftovers(folder: Path) -> None:
    """Remove what a writer that died left behind. The caller holds the writer's lock, so none is alive."""
    for path in (folder / VERSIONS).glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path)


def _read_back(folder: Path) -> None:
    """Open the files just written and ask them for their own first datapoint."""
    written = Index.open(folder, verify=False)  # the checksums were taken a moment ago
    first = written.search_ids(written.sample_ids(1), 1, target_recall=1.0)
    if not np.isfinite(first.distances).all():
        raise DataLoss(f"{folder} does not answer after it was written")

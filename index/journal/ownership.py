"""Who may write to a journal: the process that holds the lock, which dies with it."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from earshot.errors import Aborted

from ..files import explained

__all__ = ["owner_lock"]


def owner_lock(path: Path, index: str, patience: float = 0) -> FileLock:
    """The lock, held; another owner is given `patience` seconds.

    Raises:
        Aborted: Another process, or this one, holds it.
        PermissionDenied: The folder cannot be written.
        NotFound: There is no such folder.
    """
    lock = FileLock(path, timeout=patience, thread_local=False)
    with explained(path):
        try:
            lock.acquire()
        except Timeout:
            raise Aborted(
                f"the journal of index {index} is in use by process {_holder(path)}: one server writes "
                "to it, and several need one in PostgreSQL"
            ) from None
        path.write_text(str(os.getpid()))
    return lock


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"

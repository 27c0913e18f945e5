"""Who may write to a journal: whoever holds the lock, which dies with its process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from earshot.errors import Aborted

from ..files import explained

__all__ = ["OwnerLock", "owner_lock"]

_PAUSE = 0.05


class OwnerLock(Protocol):
    """A lock that is held until it is released."""

    @property
    def is_locked(self) -> bool:
        """Whether it still is."""

    def release(self) -> None:
        """Let go of it."""


def owner_lock(path: Path, index: str, patience: float = 0, *, shared: bool = False) -> OwnerLock:
    """The lock, held; another owner is given `patience` seconds.

    Args:
        path: The lock's file, made where there is none.
        index: For messages.
        patience: Seconds.
        shared: Others that say so may hold it as well, and nobody else.

    Raises:
        Aborted: Another process, or this one, holds it.
        PermissionDenied: The folder cannot be written.
        NotFound: There is no such folder.
    """
    with explained(path):
        try:
            lock = _together(path, patience) if shared else _alone(path, patience)
        except Timeout:
            raise Aborted(
                f"the journal of index {index} is in use by process {_holder(path)}: one server writes "
                "to it, and several need one in PostgreSQL"
            ) from None
        path.write_text(str(os.getpid()))
    return lock


def _alone(path: Path, patience: float) -> OwnerLock:
    lock = FileLock(path, timeout=patience, thread_local=False)
    lock.acquire()
    return lock


def _together(path: Path, patience: float) -> OwnerLock:
    give_up = time.monotonic() + patience
    while True:
        lock = _Shared(path)
        if lock.is_locked:
            return lock
        if time.monotonic() >= give_up:
            raise Timeout(str(path))
        time.sleep(_PAUSE)


class _Shared:
    """What `FileLock` does by flock, but LOCK_SH, which keeps those out that want it alone."""

    def __init__(self, path: Path) -> None:
        import fcntl  # where there is none there are no workers either

        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.is_locked = True
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()

    def release(self) -> None:
        self.is_locked = False
        os.close(self._file)


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"

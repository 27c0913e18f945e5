"""One writer at a time, across threads and processes, by a lock that dies with the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from earshot.errors import Aborted

from ..files import explained


@contextmanager
def writer_lock(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock file at `path`; the same thread may enter again.

    Args:
        path: A file in a folder that exists. It stays, and holds the last writer's process id.
        timeout: Seconds to wait for another writer.

    Raises:
        Aborted: Another writer holds it still; the message names its process.
        PermissionDenied: The folder cannot be written.
    """
    lock = FileLock(path, is_singleton=True)
    with explained(path):
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            holder = _text(path) or "unknown"
            raise Aborted(
                f"another rebuild of {path.parent.name} is running (process {holder}); try again later"
            ) from None
    try:
        with explained(path):
            path.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

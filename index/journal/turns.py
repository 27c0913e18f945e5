"""Several processes of one machine write to a journal in a file: in turns, and each tells how far it came."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import explained

__all__ = ["Turns"]

_BYTES = 8


class Turns:
    """Whose turn it is, by a lock that dies with its process, and the last number, in memory that all see.

    Args:
        path: A file of its own, made where there is none.

    Raises:
        PermissionDenied, ResourceExhausted: It cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        with explained(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if os.fstat(self._file).st_size < _BYTES:
                    os.ftruncate(self._file, _BYTES)
                self._words = memoryview(mmap.mmap(self._file, _BYTES)).cast("q")
            except BaseException:
                os.close(self._file)
                raise

    @property
    def reached(self) -> int:
        """The last entry that a caller may have been told of; whoever writes sets it in its turn.

        Eight aligned bytes are read and written at once.
        """
        return self._words[0]

    @reached.setter
    def reached(self, last: int) -> None:
        self._words[0] = last

    @property
    def is_gone(self) -> bool:
        """Whether the file was deleted: others may have a new one."""
        return os.fstat(self._file).st_nlink == 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else's, in this process or another, until the end of the block."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Take no more turns. `reached` can be read on: who does may not know yet."""
        os.close(self._file)

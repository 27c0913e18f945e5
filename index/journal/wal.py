"""Damage in the middle of SQLite's write-ahead log, which SQLite itself would pass over in silence.

SQLite's recovery ends at the first frame whose checksum is wrong and forgets what follows. After a crash that
is right: only the last commit can be torn, for the one before it was forced to disk first. Two commits beyond
the end mean that something was lost which had been on disk. Frames are described in SQLite's "WAL-mode file
format".
"""

from __future__ import annotations

import mmap
import sqlite3
from pathlib import Path
from struct import unpack_from

from earshot.errors import DataLoss

__all__ = ["check_wal"]

_HEADER, _FRAME_HEADER = 32, 24


def check_wal(path: Path, connection: sqlite3.Connection) -> None:
    """Compare what the log holds with what SQLite took from it, and checkpoint that.

    Args:
        path: The database.
        connection: To it; the only one that writes.

    Raises:
        DataLoss: Commits were lost.
    """
    wal = path.with_name(f"{path.name}-wal")
    commits = _commits(wal)
    _, taken, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    beyond = [frame for frame in commits if frame > max(taken, 0)]
    if len(beyond) > 1:
        raise DataLoss(
            f"{wal} is damaged at frame {max(taken, 0) + 1}: {len(beyond)} commits after it cannot be read; "
            "restore it from a backup"
        )


def _commits(wal: Path) -> list[int]:
    """The numbers, from 1, of the frames that end a commit of the log's present generation."""
    try:
        with wal.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if len(content) < _HEADER:
                return []
            (page_size,) = unpack_from(">I", content, 8)
            salts = content[16:24]
            step = _FRAME_HEADER + page_size
            ends = []
            for number, start in enumerate(range(_HEADER, len(content) - _FRAME_HEADER + 1, step), 1):
                (pages,) = unpack_from(">I", content, start + 4)
                if pages and content[start + 8 : start + 16] == salts:
                    ends.append(number)
            return ends
    except (FileNotFoundError, ValueError):  # none, or an empty one
        return []

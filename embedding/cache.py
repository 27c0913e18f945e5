"""Vectors that outlive the run, so that a text is embedded once per model, and a killed run resumes.

A cache: losing it costs time only. What is damaged is set aside and begun anew.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import sqlite3
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from filelock import FileLock

from earshot.errors import Aborted, EarshotError, FailedPrecondition, ResourceExhausted

from .base import Advance, Embedder, Vectors, check_texts

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_WRITE_EVERY = 256  # texts; what a killed run loses at most
_LOOK_UP = 500  # texts a statement; older SQLite takes 999 parameters
_BUSY_SECONDS = 60.0
_APPLICATION_ID = 0x45617201  # "Ear" and the format's number: tells our files from other programs' databases

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS vectors (
  model BLOB NOT NULL, content BLOB NOT NULL, checksum INTEGER NOT NULL, vector BLOB NOT NULL,
  PRIMARY KEY (model, content)
);
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""
_ADVICE: dict[int, tuple[type[EarshotError], str]] = {
    sqlite3.SQLITE_FULL: (ResourceExhausted, "free some space or name another cache folder"),
    sqlite3.SQLITE_BUSY: (Aborted, "another process has been writing to it for a minute; try again"),
}
_OTHER_ADVICE = (FailedPrecondition, "make it writable or name another cache folder")


class EmbeddingCache:
    """A SQLite file of float32 vectors keyed by model digest and sha256 of the exact text.

    Safe between threads and between processes. Use as a context manager, or `close` it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; its folder is made if missing.

        A file that is damaged or not ours is moved to `<name>.damaged-<time>` with one warning. Raises
        `FailedPrecondition` where the file cannot be opened for writing, `ResourceExhausted` on a full disk.
        """
        self.path = path
        self._lock = threading.Lock()
        self._connection = self._open()

    def get_many(self, digest: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors, each of shape (dimensions,), of those of `texts` that the cache holds, by text."""
        model = bytes.fromhex(digest)
        wanted = {_content(text): text for text in texts}
        found: dict[str, Vectors] = {}
        for contents in _batches(list(wanted), _LOOK_UP):
            marks = ",".join("?" * len(contents))
            query = f"SELECT content, checksum, vector FROM vectors WHERE model = ? AND content IN ({marks})"  # noqa: S608
            select = partial(_fetch, query, (model, *contents))
            for content, checksum, vector in self._run(select):
                if zlib.crc32(vector) == checksum:
                    found[wanted[content]] = np.frombuffer(vector, np.float32)
        return found

    def put_many(self, digest: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep one row of `vectors`, shape (len(texts), dimensions), a text; all or none."""
        model = bytes.fromhex(digest)
        blobs = [vector.tobytes() for vector in np.asarray(vectors, np.float32)]
        rows = [
            (model, _content(text), zlib.crc32(blob), blob) for text, blob in zip(texts, blobs, strict=True)
        ]

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)

        self._run(insert)

    def close(self) -> None:
        """Close the file. Closing twice does nothing."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock:
            try:
                try:
                    return action(self._connection)
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._connection.close()
                    self._connection = self._open(suspect=True)
                    return action(self._connection)
            except sqlite3.DatabaseError as error:
                raise self._explained(error) from error

    def _open(self, *, suspect: bool = False) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One process at a time looks at a file that may have to be moved aside.
            with FileLock(self.path.with_name(f"{self.path.name}.lock")):
                try:
                    return _connect(self.path, suspect=suspect)
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._set_aside(error)
                    return _connect(self.path)
        except (OSError, sqlite3.DatabaseError) as error:
            raise self._explained(error) from error

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        _log.warning("the embedding cache %s is damaged (%s); moved to %s", self.path, error, aside.name)
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _explained(self, error: OSError | sqlite3.DatabaseError) -> EarshotError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            code = sqlite3.SQLITE_FULL
        kind, advice = _ADVICE.get(code, _OTHER_ADVICE)
        return kind(f"cannot use the embedding cache {self.path} ({error}); {advice}", field="cache")


def embed_cached(
    embedder: Embedder, texts: Sequence[str], cache: EmbeddingCache, *, progress: Advance | None = None
) -> Vectors:
    """As `embedder.embed(texts)`, but each distinct text that the cache holds is read instead.

    What is embedded is kept every few hundred texts. `progress` counts `texts`, repeated ones included.
    Raises what `Embedder.embed` and `EmbeddingCache` raise.
    """
    check_texts(texts)
    report = progress or (lambda _: None)
    repeats = Counter(texts)
    vectors = cache.get_many(embedder.digest, list(repeats))
    report(sum(repeats[text] for text in vectors))
    missing = [text for text in repeats if text not in vectors]
    for batch in _batches(missing, _WRITE_EVERY):
        fresh = embedder.embed(batch)
        cache.put_many(embedder.digest, batch, fresh)
        vectors.update(zip(batch, fresh, strict=True))
        report(sum(repeats[text] for text in batch))
    out = np.empty((len(texts), embedder.dimensions), np.float32)
    for row, text in enumerate(texts):
        out[row] = vectors[text]
    return out


def _connect(path: Path, *, suspect: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if owner != _APPLICATION_ID and tables:
            raise FailedPrecondition(
                f"{path} is another program's database; name another cache file", field="cache"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            connection.executescript(_SCHEMA)
        if suspect and connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            damage = sqlite3.DatabaseError("the integrity check fails")
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
    except BaseException:
        connection.close()
        raise
    return connection


def _fetch(query: str, parameters: tuple[bytes, ...], connection: sqlite3.Connection) -> list[Any]:
    return connection.execute(query, parameters).fetchall()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # What the sqlite3 module raises by itself, for a closed connection say, carries no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _content(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))

"""Copies of far versions on this machine, so that files can be mapped.

A copy is fetched under a temporary name, compared with its checksums, and renamed; the two used last stay.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from earshot.errors import DataLoss

from ..files import explained
from ..manifest import SUCCESS, check_files, read_manifest
from .base import sorted_versions

KEPT = 2
_LOCK = ".lock"
_FETCHED = ".fetched-"  # removed by the next process that fetches
_WRITTEN = ".written-"  # removed by the next that writes


class VersionCache:
    """The copies of one index's versions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(
        self, version: str, success: bytes, fetch: Callable[[Path], None], *, verify: bool, anew: bool
    ) -> Iterator[Path]:
        """A whole copy of a version, which no other process removes until the context ends.

        Args:
            version: Its name.
            success: The content of its `_SUCCESS`, which tells it from an earlier version of that name.
            fetch: Fills an empty folder.
            verify: Compare a copy's checksums, else its sizes alone.
            anew: Fetch although there is a copy.

        Raises:
            DataLoss: What was fetched is not whole either.
        """
        path = self._folder / version
        with self._locked():
            if anew or not _is_copy(path, success, verify):
                with _filled(self._folder / f"{_FETCHED}{version}", fetch) as temporary:
                    check_files(read_manifest(temporary), temporary, checksums=True)
                    self._keep(temporary, version)
            now = time.time_ns()  # the clock that `touch` reads ticks only every few milliseconds
            os.utime(path, ns=(now, now))
            self._evict(version)
            yield path

    def add(self, version: str, write: Callable[[Path], None], send: Callable[[Path], None]) -> None:
        """Write a version, `send` it from here, and keep it as a copy. There is one such writer an index."""
        with explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"{_WRITTEN}*"):
            shutil.rmtree(left, ignore_errors=True)
        with _filled(self._folder / f"{_WRITTEN}{version}", write) as temporary:
            send(temporary)
            with self._locked():
                self._keep(temporary, version)
                self._evict(version)

    def remove(self, version: str | None = None) -> None:
        """One copy, or all; open files stay readable."""
        shutil.rmtree(self._folder if version is None else self._folder / version, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / _LOCK, is_singleton=True)
            lock.acquire()
        try:
            for left in self._folder.glob(f"{_FETCHED}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            lock.release()

    def _keep(self, temporary: Path, version: str) -> None:
        shutil.rmtree(self._folder / version, ignore_errors=True)
        temporary.rename(self._folder / version)

    def _evict(self, used: str) -> None:
        names = sorted_versions([path.name for path in self._folder.iterdir()])
        others = sorted(
            (self._folder / name for name in names if name != used), key=lambda path: path.stat().st_mtime_ns
        )
        for path in others[: len(others) - (KEPT - 1)] if len(others) >= KEPT else []:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _filled(folder: Path, fill: Callable[[Path], None]) -> Iterator[Path]:
    """A new folder, filled; gone at the end, unless it was renamed."""
    try:
        with explained(folder):
            folder.mkdir()
            fill(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_copy(path: Path, success: bytes, verify: bool) -> bool:
    try:
        if (path / SUCCESS).read_bytes() != success:
            return False
        check_files(read_manifest(path), path, checksums=verify)
    except (OSError, DataLoss):
        return False
    return True

"""A folder of this machine: what is new comes by rename, after it was forced to disk."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

from earshot.errors import AlreadyExists

from ..files import explained, replace_bytes, sync, sync_tree
from ..manifest import SUCCESS, Manifest, check_files, read_manifest, sizes_of
from . import lock
from .base import CONFIG, CURRENT, INDEXES, LOCK, VERSIONS, changed_meanwhile, sorted_versions

_TEMPORARY = ".tmp-"
_DELETED = ".deleted-"


class FolderHome:
    """See `Home`. The folder is made when the first index is created."""

    poll_seconds: ClassVar[float] = 0.5

    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self._root = folder / INDEXES

    def indexes(self) -> list[str]:
        """See `Home`."""
        return [path.parent.name for path in self._root.glob(f"*/{CONFIG}")] if self._root.is_dir() else []

    def config(self, index: str) -> bytes | None:
        """See `Home`."""
        return _read(self._root / index / CONFIG)

    def create(self, index: str, config: bytes) -> None:
        """See `Home`."""
        folder = self._root / index
        if (folder / CONFIG).exists():
            raise AlreadyExists(f"there is an index {index} already", field="index")
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                if (folder / CONFIG).exists():  # of two at once, the second sees the first one's here
                    raise AlreadyExists(f"there is an index {index} already", field="index")
                replace_bytes(folder / CONFIG, config)
            sync(self._root)

    def replace_config(self, index: str, content: bytes, expected: bytes) -> None:
        """See `Home`."""
        folder = self._root / index
        with explained(folder), _alone(folder):
            if _read(folder / CONFIG) != expected:
                raise changed_meanwhile(index)
            replace_bytes(folder / CONFIG, content)

    def delete(self, index: str) -> None:
        """See `Home`."""
        # Away in one step: what was left of it must not come back with a new index of its name.
        gone = self._root / f"{_DELETED}{index}-{uuid.uuid4().hex[:8]}"
        with explained(self._root):
            (self._root / index).rename(gone)
            sync(self._root)
            for folder in self._root.glob(f"{_DELETED}*"):  # those of writers that died as well
                shutil.rmtree(folder, ignore_errors=folder != gone)

    def lock(self, index: str, timeout: float) -> AbstractContextManager[None]:
        """See `Home`."""
        return lock.writer_lock(self._root / index / LOCK, timeout=timeout)

    def versions(self, index: str) -> list[str]:
        """See `Home`."""
        folder = self._root / index / VERSIONS
        return sorted_versions([path.name for path in folder.iterdir()]) if folder.is_dir() else []

    def current(self, index: str) -> str | None:
        """See `Home`."""
        content = _read(self._root / index / CURRENT)
        return None if content is None else content.decode(errors="replace").strip()

    def set_current(self, index: str, version: str) -> None:
        """See `Home`."""
        path = self._root / index / CURRENT
        with explained(path):
            replace_bytes(path, f"{version}\n".encode())

    def where(self, index: str, version: str | None = None) -> str:
        """See `Home`."""
        folder = self._root / index
        return str(folder if version is None else folder / VERSIONS / version)

    def manifest(self, index: str, version: str) -> Manifest:
        """See `Home`."""
        return read_manifest(self._root / index / VERSIONS / version)

    def sizes(self, index: str, version: str) -> Mapping[str, int]:
        """See `Home`."""
        return sizes_of(self._root / index / VERSIONS / version)

    @contextmanager
    def open(self, index: str, version: str, *, verify: bool = True, anew: bool = False) -> Iterator[Path]:
        """See `Home`."""
        del anew
        folder = self._root / index / VERSIONS / version
        check_files(read_manifest(folder), folder, checksums=verify)
        yield folder

    def add(self, index: str, version: str, write: Callable[[Path], None]) -> None:
        """See `Home`."""
        versions = self._root / index / VERSIONS
        temporary = versions / f"{_TEMPORARY}{version}"
        with explained(versions):
            versions.mkdir(parents=True, exist_ok=True)
            self.remove_leftovers(index)
            try:
                write(temporary)
                sync_tree(temporary)
                temporary.rename(versions / version)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync(versions)
            sync(versions.parent)

    def remove(self, index: str, version: str) -> None:
        """See `Home`."""
        folder = self._root / index / VERSIONS / version
        with explained(folder):
            (folder / SUCCESS).unlink(missing_ok=True)
            shutil.rmtree(folder)

    def remove_leftovers(self, index: str) -> None:
        """See `Home`."""
        folder = self._root / index / VERSIONS
        with explained(folder):
            for path in folder.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """For the moment of changing a config; the lock is on the folder itself and needs no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None

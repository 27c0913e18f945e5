"""An address that fsspec knows, such as `s3://bucket/prefix`: the same names as in a folder, as objects.

A version's manifest is written first and only if there is none, which claims its number; `_SUCCESS` comes
last.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import platformdirs
import xxhash

from earshot.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    EarshotError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)

from ..files import explanation
from ..manifest import (
    MANIFEST,
    SUCCESS,
    Manifest,
    check_sizes,
    decode_manifest,
    never_finished,
    read_manifest,
)
from .base import CONFIG, CURRENT, INDEXES, LOCK, VERSIONS, changed_meanwhile, sorted_versions
from .cache import VersionCache
from .conditional import Changed, conditional, write_own
from .lease import Lease

_EXTRAS = {"s3": "earshot[s3]", "s3a": "earshot[s3]"}
_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


log = logging.getLogger(__name__)


class _Held:
    """A lease in use: by which thread, how many times over, and CURRENT's tag when it was taken."""

    def __init__(self, lease: Lease, thread: int, tag: Any) -> None:
        self.lease, self.thread, self.tag, self.depth = lease, thread, tag, 0


class RemoteHome:
    """See `Home`."""

    poll_seconds: ClassVar[float] = 10.0

    def __init__(self, url: str, cache_dir: str | os.PathLike[str] | None) -> None:
        self.location = url.rstrip("/")
        self._filesystem, path = _filesystem(url)
        self._root = f"{path.rstrip('/')}/{INDEXES}"
        self._conditional = conditional(self._filesystem)
        caches = Path(cache_dir) if cache_dir is not None else Path(platformdirs.user_cache_dir("earshot"))
        self._cache = caches / "versions" / xxhash.xxh3_64_hexdigest(self.location.encode())
        self._held: dict[str, _Held] = {}

    def indexes(self) -> list[str]:
        """See `Home`."""
        return self._names(self._root)

    def config(self, index: str) -> bytes | None:
        """See `Home`."""
        return self._read(self._path(index, CONFIG))

    def create(self, index: str, config: bytes) -> None:
        """See `Home`."""
        with self._reached():
            try:
                self._conditional.write(self._path(index, CONFIG), config, None)
            except Changed:
                raise AlreadyExists(f"there is an index {index} already", field="index") from None
            except FileNotFoundError as error:
                raise NotFound(f"{self.location} cannot be written: {error}", field="data_dir") from error

    def replace_config(self, index: str, content: bytes, expected: bytes) -> None:
        """See `Home`."""
        path = self._path(index, CONFIG)
        with self._reached():
            found = self._conditional.read(path)
            try:
                if found is None or found[0] != expected:
                    raise Changed
                write_own(self._conditional, path, content, found[1])
            except Changed:
                raise changed_meanwhile(index) from None

    def delete(self, index: str) -> None:
        """See `Home`."""
        with self._reached():
            self._held[index].lease.forget()
            self._remove(self._path(index, CONFIG))
            self._remove(self._path(index))
        VersionCache(self._cache / index).remove()

    @contextmanager
    def lock(self, index: str, timeout: float) -> Iterator[None]:
        """A lease; see `Lease` for what it promises."""
        held = self._enter(index, timeout)
        try:
            yield
        finally:
            held.depth -= 1
            if not held.depth:
                del self._held[index]
                try:
                    with self._reached():
                        held.lease.release()
                except EarshotError as error:  # the work is done; the lease runs out by itself
                    log.warning("the lock of index %s was not given back: %s", index, error.message)

    def versions(self, index: str) -> list[str]:
        """See `Home`."""
        return sorted_versions(self._names(self._path(index, VERSIONS)))

    def current(self, index: str) -> str | None:
        """See `Home`."""
        content = self._read(self._path(index, CURRENT))
        return None if content is None else content.decode(errors="replace").strip()

    def set_current(self, index: str, version: str) -> None:
        """See `Home`."""
        held, path = self._held[index], self._path(index, CURRENT)
        with self._reached():
            held.lease.check()
            try:
                held.tag = write_own(self._conditional, path, f"{version}\n".encode(), held.tag)
            except Changed:
                raise Aborted(
                    f"{self.where(index)}/{CURRENT} was changed by another writer; "
                    f"{version} was not made current"
                ) from None

    def where(self, index: str, version: str | None = None) -> str:
        """See `Home`."""
        folder = f"{self.location}/{INDEXES}/{index}"
        return folder if version is None else f"{folder}/{VERSIONS}/{version}"

    def manifest(self, index: str, version: str) -> Manifest:
        """See `Home`."""
        success = self._read(self._path(index, VERSIONS, version, SUCCESS))
        encoded = self._read(self._path(index, VERSIONS, version, MANIFEST))
        return decode_manifest(success, encoded, self.where(index, version))

    def sizes(self, index: str, version: str) -> Mapping[str, int]:
        """See `Home`."""
        folder = self._path(index, VERSIONS, version)
        with self._reached():
            found = self._filesystem.find(folder, detail=True)
        return {name.split(f"{folder}/", 1)[1]: entry["size"] for name, entry in found.items()}

    @contextmanager
    def open(self, index: str, version: str, *, verify: bool = True, anew: bool = False) -> Iterator[Path]:
        """See `Home`."""
        success = self._read(self._path(index, VERSIONS, version, SUCCESS))

        def fetch(folder: Path) -> None:
            self._fetch(index, version, folder)

        if success is None:
            raise never_finished(self.where(index, version))
        cache = VersionCache(self._cache / index)
        with cache.hold(version, success, fetch, verify=verify, anew=anew) as folder:
            yield folder

    def add(self, index: str, version: str, write: Callable[[Path], None]) -> None:
        """See `Home`."""

        def send(folder: Path) -> None:
            self._send(index, version, folder)

        VersionCache(self._cache / index).add(version, write, send)

    def remove(self, index: str, version: str) -> None:
        """See `Home`."""
        folder = self._path(index, VERSIONS, version)
        with self._reached():
            self._held[index].lease.check()
            self._remove(f"{folder}/{SUCCESS}")
            self._remove(folder)
        VersionCache(self._cache / index).remove(version)

    def remove_leftovers(self, index: str) -> None:
        """Nothing is hidden here: what a dead writer left is a version that is not whole."""

    def _send(self, index: str, version: str, folder: Path) -> None:
        """Manifest, files, `_SUCCESS`, in this order."""
        target, lease = self._path(index, VERSIONS, version), self._held[index].lease
        manifest, where = read_manifest(folder), self.where(index, version)
        with self._reached():
            lease.check()
            try:
                manifest_bytes = (folder / MANIFEST).read_bytes()
                write_own(self._conditional, f"{target}/{MANIFEST}", manifest_bytes, None)
            except Changed:
                raise Aborted(f"{where} was begun by another writer; try again") from None
            here = [str(folder / name) for name in manifest.files]
            self._filesystem.put(here, [f"{target}/{name}" for name in manifest.files])
            check_sizes(manifest, self.sizes(index, version), where)
            lease.check()
            self._filesystem.pipe_file(f"{target}/{SUCCESS}", (folder / SUCCESS).read_bytes())

    def _fetch(self, index: str, version: str, folder: Path) -> None:
        manifest = self.manifest(index, version)
        where, source = self.where(index, version), self._path(index, VERSIONS, version)
        check_sizes(manifest, self.sizes(index, version), where)
        names = [*manifest.files, MANIFEST, SUCCESS]
        here = [folder / name for name in names]
        for path in here:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._reached():
            self._filesystem.get([f"{source}/{name}" for name in names], [str(path) for path in here])

    def _enter(self, index: str, timeout: float) -> _Held:
        thread = threading.get_ident()
        held = self._held.get(index)
        if held is None or held.thread != thread:
            lease = Lease(self._conditional, self._path(index, LOCK), index)
            with self._reached():
                lease.acquire(timeout)
                found = self._conditional.read(self._path(index, CURRENT))
            held = self._held[index] = _Held(lease, thread, found and found[1])
        held.depth += 1
        return held

    def _names(self, folder: str) -> list[str]:
        with self._reached():
            try:
                found = self._filesystem.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def _read(self, path: str) -> bytes | None:
        with self._reached():
            found = self._conditional.read(path)
        return None if found is None else found[0]

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):  # nothing is left of it
            self._filesystem.rm(path, recursive=True)

    def _path(self, index: str, *parts: str) -> str:
        return "/".join((self._root, index, *parts))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """What libraries of far file systems raise becomes one of ours."""
        try:
            yield
        except EarshotError:
            raise
        except OSError as error:
            here = explanation(error, self._cache)
            if here is not None and (error.errno in _DISK_IS_FULL or error.filename is not None):
                raise here from error
            if isinstance(error, PermissionError):
                raise PermissionDenied(f"{self.location} refuses: {error}; check the credentials") from error
            if isinstance(error, FileNotFoundError):
                raise DataLoss(f"{self.location}: {error}") from error
            raise Unavailable(f"{self.location} cannot be reached: {error}") from error
        except Exception as error:
            raise Unavailable(
                f"{self.location} cannot be reached: {type(error).__name__}: {error}"
            ) from error


def _filesystem(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        advice = f"pip install '{extra}'" if extra else str(error)
        raise FailedPrecondition(f"{url} needs a package that is not installed: {advice}") from error
    except ValueError as error:
        raise InvalidArgument(f"data_dir is {url}: {error}", field="data_dir") from error
    return filesystem, str(path)

"""Indexes on disk: `<data>/indexes/<name>/` with its versions, of which one is current.

What has no `_SUCCESS`, or whose checksums differ, is never opened; what was current stays so until the end.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from earshot.errors import (
    AlreadyExists,
    DataLoss,
    EarshotError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)

from . import lock, publish
from .diff import VersionDiff, diff
from .files import explained, replace_text, sync
from .index import Index
from .manifest import MANIFEST, SUCCESS, Manifest, check_files, read_manifest
from .tuning import Recall

_CONFIG = "config.json"
_LOCK = "writer.lock"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class VersionInfo(msgspec.Struct, frozen=True):
    """One version as it is listed; `problem` says why it cannot be served, and then the rest is empty.

    Listing compares sizes, not checksums: `Store.verify` does the whole of it.
    """

    version: str
    is_current: bool
    created: str = ""
    count: int = 0
    bytes: int = 0
    recall: Recall | None = None
    engine: str = ""
    problem: str | None = None


class Verification(msgspec.Struct, frozen=True):
    """What `Store.verify` found in order; `recall` at k = 10 of the default operating point, measured now."""

    version: str
    files: int
    bytes: int
    count: int
    recall: Recall


class Store:
    """A data folder. It is made when the first index is created."""

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self.data_dir = Path(data_dir)
        self._root = self.data_dir / "indexes"

    def indexes(self) -> list[str]:
        """The names of the indexes, sorted."""
        if not self._root.is_dir():
            return []
        return sorted(
            path.parent.name for path in self._root.glob(f"*/{_CONFIG}") if _is_name(path.parent.name)
        )

    def create(self, name: str, config: Mapping[str, Any] | None = None) -> None:
        """Make an index without versions; `config` is kept as `config.json`.

        Raises:
            InvalidArgument: Not a name: a lower-case letter, then up to 62 letters, digits and hyphens.
            AlreadyExists: There is one.
            PermissionDenied, ResourceExhausted: It cannot be written.
        """
        if not _is_name(name):
            raise InvalidArgument(
                f"index is {name!r}; a name is a lower-case letter, then up to 62 of a-z, 0-9 and -",
                field="index",
            )
        folder = self._root / name
        if (folder / _CONFIG).exists():
            raise AlreadyExists(f"there is an index {name} already", field="index")
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / _CONFIG, _json(dict(config or {})))
            sync(self._root)

    def config(self, name: str) -> dict[str, Any]:
        """What the index was created with.

        Raises:
            NotFound: No such index.
            DataLoss: `config.json` is not JSON.
        """
        path = self._folder(name) / _CONFIG
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise DataLoss(f"{path} is not JSON: {error}") from error

    def delete(self, name: str) -> None:
        """Remove an index with all its versions. Processes that have it open keep what they have."""
        folder = self._folder(name)
        with self.writer_lock(name), explained(folder):
            (folder / _CONFIG).unlink()  # from here on it is no index, however far the rest comes
            shutil.rmtree(folder)

    def versions(self, name: str) -> list[VersionInfo]:
        """All versions, oldest first, the broken ones too."""
        folder, current = self._folder(name), self._current(name)
        return [
            _info(folder / publish.VERSIONS / version, is_current=version == current)
            for version in publish.version_names(folder)
        ]

    def current(self, name: str) -> str:
        """The serving version.

        Raises:
            NotFound: No such index.
            FailedPrecondition: Nothing has been published yet.
        """
        current = self._current(name)
        if current is None:
            raise FailedPrecondition(f"index {name} has no version yet; rebuild it first", field="index")
        return current

    def open(self, name: str, version: str | None = None, *, verify: bool = True) -> Index:
        """A version, the current one by default; see `Index.open`.

        Raises:
            NotFound: No such index or version.
            FailedPrecondition: Nothing has been published yet.
            DataLoss: The version is not whole; the message names the file.
        """
        return Index.open(self._version_folder(name, version), verify=verify)

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """A version's manifest alone; raises as `open` does."""
        return read_manifest(self._version_folder(name, version))

    def publish(self, name: str, index: Index, *, manifest_extra: Mapping[str, Any] | None = None) -> str:
        """Write `index` as the next version and make it current; returns the version's name.

        Args:
            name: The index, which exists.
            index: What to publish.
            manifest_extra: Fields of the manifest: config, model, source, sequence_number.

        Raises:
            Aborted: Another writer is at work.
            ResourceExhausted, PermissionDenied: It cannot be written; what was current still is.
        """
        extra = {"config": self.config(name), **(manifest_extra or {})}
        unknown = set(extra) - {"config", "model", "source", "sequence_number"}
        if unknown:
            raise InvalidArgument(
                f"manifest_extra has unknown fields {sorted(unknown)}", field="manifest_extra"
            )
        with self.writer_lock(name):
            return publish.publish(self._folder(name), index, extra)

    def rollback(self, name: str, version: str | None = None) -> str:
        """Make an earlier version current, the newest whole one before the current by default.

        The version is verified first. Returns its name.

        Raises:
            NotFound: No such version.
            FailedPrecondition: There is none to go back to.
            DataLoss: The version is not whole.
        """
        with self.writer_lock(name):
            current = self.current(name)
            if version is None:
                version = next(
                    (
                        info.version
                        for info in reversed(self.versions(name))
                        if info.problem is None and int(info.version[1:]) < int(current[1:])
                    ),
                    None,
                )
                if version is None:
                    raise FailedPrecondition(f"index {name} has no whole version before {current}")
            folder = self._version_folder(name, version)
            check_files(read_manifest(folder), folder, checksums=True)
            with explained(folder):
                replace_text(self._folder(name) / publish.CURRENT, version + "\n")
        return version

    def prune(self, name: str, keep: int = 3) -> list[str]:
        """Remove all but the newest `keep` whole versions and the current one; returns what was removed.

        Broken versions and what a dead writer left go too. A live writer is waited for by nobody: its
        lock makes this raise Aborted.
        """
        if keep < 1:
            raise InvalidArgument(f"keep is {keep}; it must be at least 1", field="keep")
        folder = self._folder(name)
        with self.writer_lock(name), explained(folder):
            publish.remove_leftovers(folder)
            infos = self.versions(name)
            newest = [info.version for info in infos if info.problem is None][-keep:]
            removed = [info.version for info in infos if not info.is_current and info.version not in newest]
            for version in removed:
                path = folder / publish.VERSIONS / version
                (path / SUCCESS).unlink(missing_ok=True)  # half removed, it is not to be opened
                shutil.rmtree(path)
        return removed

    def verify(self, name: str, version: str | None = None) -> Verification:
        """Check every file's size and checksum, that the parts fit each other, and a sample's recall.

        Raises:
            NotFound: No such index or version.
            DataLoss: Something is wrong; the message names it.
        """
        index = self.open(name, version, verify=True)
        if len(index) != index.manifest.count:
            raise DataLoss(
                f"the index holds {len(index)} datapoints; its manifest says {index.manifest.count}"
            )
        manifest = index.manifest
        return Verification(
            manifest.version, len(manifest.files), manifest.bytes, len(index), index.sample_recall()
        )

    def diff(self, name: str, before: str, after: str) -> VersionDiff:
        """What is different in version `after`; raises as `open` does."""
        return diff(self.open(name, before), self.open(name, after))

    @contextmanager
    def writer_lock(self, name: str, *, timeout: float = 0) -> Iterator[None]:
        """Be the only writer of an index; a crashed process does not hold it.

        Raises:
            NotFound: No such index.
            Aborted: Another writer is at work and was not done within `timeout` seconds.
        """
        with lock.writer_lock(self._folder(name) / _LOCK, timeout=timeout):
            yield

    def _folder(self, name: str) -> Path:
        if _is_name(name) and (self._root / name / _CONFIG).exists():
            return self._root / name
        known = self.indexes()
        near = difflib.get_close_matches(str(name), known, n=3) or known[:10]
        hint = f"there is {', '.join(near)}" if near else f"there is none in {self.data_dir} yet"
        raise NotFound(f"there is no index {name!r}; {hint}", field="index")

    def _current(self, name: str) -> str | None:
        path = self._folder(name) / publish.CURRENT
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            return None

    def _version_folder(self, name: str, version: str | None) -> Path:
        folder = self._folder(name)
        wanted = self.current(name) if version is None else version
        if wanted not in publish.version_names(folder):
            if version is None:
                raise DataLoss(f"{folder / publish.CURRENT} names {wanted!r}, which is not there")
            known = ", ".join(publish.version_names(folder)) or "none"
            raise NotFound(f"index {name} has no version {version!r}; it has {known}", field="version")
        return folder / publish.VERSIONS / wanted


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n"


def _info(folder: Path, *, is_current: bool) -> VersionInfo:
    try:
        manifest = read_manifest(folder)
        check_files(manifest, folder, checksums=False)
    except EarshotError as error:
        return VersionInfo(folder.name, is_current, problem=error.message)
    return VersionInfo(
        version=folder.name,
        is_current=is_current,
        created=manifest.created,
        count=manifest.count,
        bytes=manifest.bytes + (folder / MANIFEST).stat().st_size,
        recall=manifest.tuning.chosen.recall,
        engine=manifest.engine.name,
    )

"""Indexes and their versions, of which one is current: `<location>/indexes/<name>/versions/v000007`.

What has no `_SUCCESS`, or whose checksums differ, is never opened; what was current stays so until the end.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash

from earshot.errors import Aborted, DataLoss, FailedPrecondition, InvalidArgument, NotFound

from .config import FIXED, IndexConfig, checked_config
from .diff import VersionDiff, diff
from .homes import home_of
from .homes.base import CONFIG, CURRENT, next_version
from .homes.folder import FolderHome
from .index import Index
from .journal import JOURNAL_FILE
from .journal.snapshot import restore
from .manifest import MANIFEST, Manifest, check_sizes, now
from .tuning import Recall

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
    """A data folder, or its like at an address that fsspec knows. It is made when the first index is created.

    Args:
        location: A path, or an address such as `s3://bucket/prefix`.
        cache_dir: Where copies of versions are kept while they are in use, if `location` is an address;
            None for the user's cache folder.

    Raises:
        InvalidArgument: An address of a kind that fsspec does not know.
        FailedPrecondition: A package for such addresses is not installed.
    """

    def __init__(
        self, location: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
    ) -> None:
        self._home = home_of(location, cache_dir)

    @property
    def location(self) -> str:
        """The data folder, or the address."""
        return self._home.location

    @property
    def poll_seconds(self) -> float:
        """How often to look for a new version, where nobody says: a far home charges for each look."""
        return self._home.poll_seconds

    def indexes(self) -> list[str]:
        """The names of the indexes, sorted."""
        return sorted(
            name for name in self._home.indexes() if _is_name(name) and self._home.config(name) is not None
        )

    def create(self, name: str, config: Mapping[str, Any] | IndexConfig | None = None) -> None:
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
        self._home.create(name, _encoded(config or {}))

    def config(self, name: str) -> dict[str, Any]:
        """What the index was created with.

        Raises:
            NotFound: No such index.
            DataLoss: `config.json` is not JSON.
        """
        try:
            return msgspec.json.decode(self._config(name), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise DataLoss(f"{self._home.where(name)}/{CONFIG} is not JSON: {error}") from error

    def asked(self, name: str) -> IndexConfig:
        """The same in the terms that every job knows; keys that it does not know are passed over.

        Raises:
            NotFound: No such index.
            DataLoss: `config.json` is not JSON, or a value has the wrong type.
        """
        return self._decoded(name, self._config(name))

    def reconfigure(self, name: str, changes: Mapping[str, Any], *, etag: str | None = None) -> IndexConfig:
        """Change some fields of an `IndexConfig`; None unsays one. Keys that are none of its stay.

        Args:
            name: The index.
            changes: New values by field.
            etag: What `etag` said when the caller looked; None changes it in any case.

        Raises:
            NotFound: No such index.
            InvalidArgument: An unknown field or a value that cannot be.
            FailedPrecondition: A field that is fixed once it was said.
            Aborted: The index is not what the caller saw, or another writer changed the config meanwhile.
        """
        before = self._config(name)
        self._check_etag(name, etag)
        old = self._decoded(name, before)
        checked_config(changes)
        for field in FIXED:
            said = getattr(old, field)
            if said is not None and field in changes and changes[field] != said:
                raise FailedPrecondition(
                    f"{field} of index {name} is {said!r} and fixed: create another index", field=field
                )
        merged = {**msgspec.json.decode(before), **changes}
        after = {key: value for key, value in merged.items() if value is not None}
        self._home.replace_config(name, _encoded(after), before)
        return checked_config({key: after.get(key) for key in IndexConfig.__struct_fields__})

    def etag(self, name: str) -> str:
        """Changes with the config and with the version that is current. Raises NotFound."""
        current = self._home.current(name) or ""
        return xxhash.xxh3_64_hexdigest(self._config(name) + current.encode())

    def delete(self, name: str, *, etag: str | None = None) -> None:
        """Remove an index with all its versions. Processes that have it open keep what they have.

        Raises:
            NotFound: No such index.
            Aborted: Another writer is at work, or the index is not what `etag` said of it.
        """
        with self.writer_lock(name):
            self._check_etag(name, etag)
            self._home.delete(name)

    def journal_file(self, name: str) -> Path | None:
        """Where the index's journal lies, or will; None at an address, where no database can."""
        return Path(self._home.where(name)) / JOURNAL_FILE if isinstance(self._home, FolderHome) else None

    def oldest_sequence(self, name: str) -> int:
        """The least sequence number of the whole versions: what the journal must go on from for any of them.

        Raises:
            NotFound: No such index.
        """
        whole = [info.version for info in self.versions(name) if info.problem is None]
        return min((self.manifest(name, version).sequence_number for version in whole), default=0)

    @contextmanager
    def folder(self, name: str, version: str) -> Iterator[Path]:
        """A folder of this machine with a version's files, checked; raises as `open`."""
        with self._home.open(name, self._version(name, version)) as folder:
            yield folder

    def adopt(
        self,
        name: str,
        config: bytes,
        version: str,
        write: Callable[[Path], None] | None,
        journal: Path | None,
    ) -> None:
        """Make an index of a backup's parts; what fails leaves none behind.

        Args:
            name: Not there yet.
            config: `config.json`.
            version: The current one's name; "" for none.
            write: Fills a folder with that version.
            journal: A snapshot of its journal, to lie beside the versions.

        Raises:
            AlreadyExists: There is such an index.
            DataLoss: A part is damaged.
            ResourceExhausted, PermissionDenied: It cannot be written.
        """
        if not _is_name(name):
            raise InvalidArgument(f"index is {name!r}, which is no name", field="index")
        self._home.create(name, config)
        try:
            with self.writer_lock(name):
                target = self.journal_file(name)
                if journal is not None and target is not None:
                    restore(journal, target, name)
                if write is not None:
                    self._home.add(name, version, write)
                    self._home.set_current(name, version)
        except BaseException:
            self.delete(name)
            raise

    def versions(self, name: str) -> list[VersionInfo]:
        """All versions, oldest first, the broken ones too."""
        current = self._current(name)
        return [self._info(name, version, current) for version in self._home.versions(name)]

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
            Unavailable: The store's address cannot be reached.
        """
        with self._home.open(name, self._version(name, version), verify=verify) as folder:
            return Index.open(folder, verify=False)

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """A version's manifest alone; raises as `open` does."""
        return self._home.manifest(name, self._version(name, version))

    def publish(
        self,
        name: str,
        index: Index,
        *,
        manifest_extra: Mapping[str, Any] | None = None,
        files: Mapping[str, Callable[[Path], None]] | None = None,
    ) -> str:
        """Write `index` as the next version and make it current; returns the version's name.

        Args:
            name: The index, which exists.
            index: What to publish.
            manifest_extra: Fields of the manifest: config, model, source, sequence_number.
            files: As in `Index.save`.

        Raises:
            Aborted: Another writer is at work.
            ResourceExhausted, PermissionDenied, Unavailable: It cannot be written; what was current still is.
            DataLoss: What was written does not read back.
        """
        extra = {"config": self.config(name), **(manifest_extra or {})}
        unknown = set(extra) - {"config", "model", "source", "sequence_number"}
        if unknown:
            raise InvalidArgument(
                f"manifest_extra has unknown fields {sorted(unknown)}", field="manifest_extra"
            )
        with self.writer_lock(name):
            version = next_version(self._home.versions(name))

            def write(folder: Path) -> None:
                index.save(folder, files=files, index=name, version=version, created=now(), **extra)
                _read_back(folder)

            self._home.add(name, version, write)
            self._home.set_current(name, version)
        return version

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
            with self._home.open(name, self._version(name, version), anew=True):
                self._home.set_current(name, version)
        return version

    def prune(self, name: str, keep: int = 3) -> list[str]:
        """Remove all but the newest `keep` whole versions and the current one; returns what was removed.

        Broken versions and what a dead writer left go too. A live writer is waited for by nobody: its
        lock makes this raise Aborted.
        """
        if keep < 1:
            raise InvalidArgument(f"keep is {keep}; it must be at least 1", field="keep")
        with self.writer_lock(name):
            self._home.remove_leftovers(name)
            infos = self.versions(name)
            newest = [info.version for info in infos if info.problem is None][-keep:]
            removed = [info.version for info in infos if not info.is_current and info.version not in newest]
            for version in removed:
                self._home.remove(name, version)
        return removed

    def verify(self, name: str, version: str | None = None) -> Verification:
        """Check every file's size and checksum, that the parts fit each other, and a sample's recall.

        A version at an address is read from there, whatever copy there is.

        Raises:
            NotFound: No such index or version.
            DataLoss: Something is wrong; the message names it.
        """
        with self._home.open(name, self._version(name, version), anew=True) as folder:
            index = Index.open(folder, verify=False)
        manifest = index.manifest
        if len(index) != manifest.count:
            raise DataLoss(f"the index holds {len(index)} datapoints; its manifest says {manifest.count}")
        return Verification(
            manifest.version, len(manifest.files), manifest.bytes, len(index), index.sample_recall()
        )

    def diff(self, name: str, before: str, after: str) -> VersionDiff:
        """What is different in version `after`; raises as `open` does."""
        return diff(self.open(name, before), self.open(name, after))

    @contextmanager
    def writer_lock(self, name: str, *, timeout: float = 0) -> Iterator[None]:
        """Be the only writer of an index; a crashed process does not hold it, or not for long.

        Raises:
            NotFound: No such index.
            Aborted: Another writer is at work and was not done within `timeout` seconds.
        """
        self._config(name)
        with self._home.lock(name, timeout):
            yield

    def _check_etag(self, name: str, etag: str | None) -> None:
        if etag is not None and etag != self.etag(name):
            raise Aborted(
                f"index {name} was changed since its etag was {etag!r}; look at it again", field="etag"
            )

    def _decoded(self, name: str, config: bytes) -> IndexConfig:
        try:
            return msgspec.json.decode(config, type=IndexConfig)
        except msgspec.DecodeError as error:
            raise DataLoss(f"{self._home.where(name)}/{CONFIG} cannot be read: {error}") from error

    def _config(self, name: str) -> bytes:
        found = self._home.config(name) if _is_name(name) else None
        if found is not None:
            return found
        known = self.indexes()
        near = difflib.get_close_matches(str(name), known, n=3) or known[:10]
        hint = f"there is {', '.join(near)}" if near else f"there is none in {self.location} yet"
        raise NotFound(f"there is no index {name!r}; {hint}", field="index")

    def _current(self, name: str) -> str | None:
        self._config(name)
        return self._home.current(name)

    def _version(self, name: str, version: str | None) -> str:
        """A version that is there, whole or not."""
        wanted = self.current(name) if version is None else version
        self._config(name)
        there = self._home.versions(name)
        if wanted in there:
            return wanted
        if version is None:
            raise DataLoss(f"{self._home.where(name)}/{CURRENT} names {wanted!r}, which is not there")
        known = ", ".join(there) or "none"
        raise NotFound(f"index {name} has no version {version!r}; it has {known}", field="version")

    def _info(self, name: str, version: str, current: str | None) -> VersionInfo:
        is_current = version == current
        try:
            manifest = self._home.manifest(name, version)
            sizes = self._home.sizes(name, version)
            check_sizes(manifest, sizes, self._home.where(name, version))
        except (DataLoss, FailedPrecondition, NotFound) as error:
            return VersionInfo(version, is_current, problem=error.message)
        return VersionInfo(
            version=version,
            is_current=is_current,
            created=manifest.created,
            count=manifest.count,
            bytes=manifest.bytes + sizes[MANIFEST],
            recall=manifest.tuning.chosen.recall,
            engine=manifest.engine.name,
        )


def _encoded(config: Mapping[str, Any] | IndexConfig) -> bytes:
    return msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n"


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _read_back(folder: Path) -> None:
    """Open the files just written and ask them for their own first datapoint."""
    written = Index.open(folder, verify=False)  # the checksums were taken a moment ago
    first = written.search_ids(written.sample_ids(1), 1, target_recall=1.0)
    if not np.isfinite(first.distances).all():
        raise DataLoss(f"{folder} does not answer after it was written")

"""Indexes and their versions, of which one is current: `<location>/indexes/<name>/versions/v000007`.

What has no `_SUCCESS`, or whose checksums differ, is never opened; what was current stays so until the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound

from .catalog import Catalog, is_name
from .diff import VersionDiff, diff
from .homes.base import CURRENT, next_version
from .index import Index
from .journal.snapshot import restore
from .manifest import MANIFEST, Manifest, check_sizes, now
from .tuning import Recall


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


class Store(Catalog):
    """A data folder, or its like at an address that fsspec knows. It is made when the first index is created.

    Args:
        location: A path, or an address such as `s3://bucket/prefix`.
        cache_dir: Where copies of versions are kept while they are in use, if `location` is an address;
            None for the user's cache folder.

    Raises:
        InvalidArgument: An address of a kind that fsspec does not know.
        FailedPrecondition: A package for such addresses is not installed.
    """

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
        if not is_name(name):
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
            DataLoss: The file that names it is empty, which it never is when it is written.
        """
        current = self._current(name)
        if current is None:
            raise FailedPrecondition(f"index {name} has no version yet; rebuild it first", field="index")
        if not current:
            raise DataLoss(f"{self._home.where(name)}/{CURRENT} names no version: roll back to one")
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
            if version is None:
                current = self.current(name)
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


def _read_back(folder: Path) -> None:
    """Open the files just written and ask them for their own first datapoint."""
    written = Index.open(folder, verify=False)  # the checksums were taken a moment ago
    first = written.search_ids(written.sample_ids(1), 1, target_recall=1.0)
    if not np.isfinite(first.distances).all():
        raise DataLoss(f"{folder} does not answer after it was written")

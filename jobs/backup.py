"""`backup` and `restore`: indexes with version and journal, at any address that fsspec knows.

Of each index the journal is copied after the version, while a server may go on writing: the copy has every
update that the version lacks. `backup.json` is written last and holds the checksum of every file; a backup
without it is none.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import msgspec

from earshot.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    EarshotError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from earshot.index import Store
from earshot.index.files import explanation
from earshot.index.journal import JOURNAL_FILE
from earshot.index.journal.snapshot import restore as restore_journal
from earshot.index.journal.snapshot import snapshot
from earshot.index.manifest import FileEntry, file_entry, now
from earshot.index.scratch import scratch_folder

from .journals import journal_address

__all__ = ["BackedUp", "Backup", "backup", "restore"]

FORMAT = 1
BACKUP = "backup.json"
CONFIG = "config.json"
ATTEMPTS = 5
Progress = Callable[[str, int, int], None]


class BackedUp(msgspec.Struct, frozen=True):
    """One index: its version's name, "" for none, and the number of the last update in the backup."""

    version: str
    last: int


class Backup(msgspec.Struct, frozen=True):
    """`backup.json`."""

    created: str
    indexes: dict[str, BackedUp]
    files: dict[str, FileEntry]
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(entry.bytes for entry in self.files.values())


def backup(
    url: str, *, store: Store, indexes: Sequence[str] = (), journal: str | None = None, progress: Progress
) -> Backup:
    """Copy indexes to an empty address, while they may be served, updated and compacted.

    Args:
        url: A folder, or an address such as `s3://bucket/backups/monday`.
        store: What to copy from.
        indexes: Which; all where none is named.
        journal: Address of the shared journal where one is set.
        progress: Called with (index, files done, files).

    Raises:
        NotFound: No such index.
        AlreadyExists: There is something at the address.
        Aborted: An index was compacted again and again meanwhile.
        DataLoss: A version or journal is damaged.
        Unavailable, PermissionDenied, ResourceExhausted: The address cannot be written.
    """
    target = _Place(url)
    with target.told():
        if target.exists(""):
            raise AlreadyExists(f"there is something at {url} already: name an empty place", field="url")
    written: dict[str, FileEntry] = {}
    done: dict[str, BackedUp] = {}
    with tempfile.TemporaryDirectory(prefix="earshot-backup-", dir=scratch_folder()) as scratch:
        for name in indexes or store.indexes():
            config = msgspec.json.encode(store.config(name))
            (Path(scratch) / CONFIG).write_bytes(config)
            with target.told():
                target.put(Path(scratch) / CONFIG, f"indexes/{name}/{CONFIG}", written)
            done[name] = _back_up_one(name, store, journal, target, Path(scratch) / name, written, progress)
        made = Backup(now(), done, written)
        with target.told():
            target.write(BACKUP, msgspec.json.format(msgspec.json.encode(made), indent=1))
    return made


def restore(
    url: str, *, store: Store, indexes: Sequence[str] = (), journal: str | None = None, progress: Progress
) -> Backup:
    """Make indexes of a backup, under the names they had; each whole or not at all.

    Args:
        url: Where `backup` wrote.
        store: Where to; it holds none of these indexes.
        indexes: Which; all where none is named.
        journal: Address of the shared journal where one is set; it holds nothing of them either.
        progress: Called with (index, files done, files).

    Raises:
        NotFound: There is no backup, or no such index in it.
        AlreadyExists: An index of that name is there.
        DataLoss: A file is missing or damaged; the message names it.
        FailedPrecondition: A newer program made it.
        ResourceExhausted, PermissionDenied, Unavailable: It cannot be read or written.
    """
    source = _Place(url)
    made = _read(source)
    missing = set(indexes) - made.indexes.keys()
    if missing:
        raise NotFound(
            f"{url} has no index {min(missing)!r}; it has {', '.join(sorted(made.indexes))}", field="index"
        )
    there = set(store.indexes())
    wanted = list(indexes) or sorted(made.indexes)
    for name in wanted:
        if name in there:
            raise AlreadyExists(f"there is an index {name} in {store.location} already", field="index")
    with tempfile.TemporaryDirectory(prefix="earshot-restore-", dir=scratch_folder()) as scratch:
        for name in wanted:
            _restore_one(name, made, source, store, journal, Path(scratch) / name, progress)
    return msgspec.structs.replace(made, indexes={name: made.indexes[name] for name in wanted})


def _back_up_one(
    name: str,
    store: Store,
    journal: str | None,
    target: _Place,
    scratch: Path,
    written: dict[str, FileEntry],
    progress: Progress,
) -> BackedUp:
    scratch.mkdir()
    address = journal_address(store, name, journal)
    for _ in range(ATTEMPTS):
        version, sequence = _current(store, name)
        own: dict[str, FileEntry] = {}
        try:
            if version:
                with store.folder(name, version) as folder:
                    paths = sorted(path for path in folder.rglob("*") if path.is_file())
                    for number, path in enumerate(paths):
                        progress(name, number, len(paths) + 1)
                        key = f"indexes/{name}/versions/{version}/{path.relative_to(folder)}"
                        with target.told():
                            target.put(path, key, own)
        except (NotFound, DataLoss, FileNotFoundError):
            if _current(store, name) == (version, sequence):
                raise
            continue  # it was replaced and removed meanwhile
        last = trimmed = 0
        copy = scratch / JOURNAL_FILE
        copy.unlink(missing_ok=True)
        try:
            if address is not None:
                status = snapshot(address, name, copy)
                last, trimmed = status.last, status.trimmed
        except NotFound:
            pass  # nothing was ever updated
        if trimmed > sequence:
            continue  # compacted meanwhile: the journal goes on from a later version
        if copy.exists():
            with target.told():
                target.put(copy, f"indexes/{name}/{JOURNAL_FILE}", own)
        progress(name, 1, 1)
        written |= own
        return BackedUp(version, max(last, sequence))
    raise Aborted(f"index {name} was compacted {ATTEMPTS} times during its backup; try again")


def _restore_one(
    name: str,
    made: Backup,
    source: _Place,
    store: Store,
    journal: str | None,
    scratch: Path,
    progress: Progress,
) -> None:
    prefix = f"indexes/{name}/"
    files = {key: entry for key, entry in made.files.items() if key.startswith(prefix)}
    for number, (key, entry) in enumerate(files.items()):
        progress(name, number, len(files))
        path = scratch / key.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        with source.told():
            source.get(key, path, entry)
    progress(name, len(files), len(files))
    version = made.indexes[name].version
    log = scratch / JOURNAL_FILE
    shared = log if journal is not None and log.exists() else None
    if shared is not None:
        restore_journal(shared, journal or "", name)
    store.adopt(
        name,
        (scratch / CONFIG).read_bytes(),
        version,
        partial(shutil.copytree, scratch / "versions" / version, dirs_exist_ok=True) if version else None,
        log if shared is None and log.exists() else None,
    )


def _current(store: Store, name: str) -> tuple[str, int]:
    try:
        manifest = store.manifest(name)
    except FailedPrecondition:  # nothing was published yet
        return "", 0
    return manifest.version, manifest.sequence_number


def _read(source: _Place) -> Backup:
    with source.told():
        if not source.exists(BACKUP):
            raise NotFound(f"there is no backup at {source.url}: {BACKUP} is not there", field="url")
        content = source.read(BACKUP)
    try:
        version = msgspec.json.decode(content, type=dict[str, Any]).get("format")
        if isinstance(version, int) and version > FORMAT:
            raise FailedPrecondition(
                f"{source.url} has format {version}; this program reads up to {FORMAT}: use a newer one"
            )
        return msgspec.json.decode(content, type=Backup)
    except msgspec.DecodeError as error:
        raise DataLoss(f"{source.url}/{BACKUP} is damaged: {error}") from error


@dataclass(slots=True)
class _Place:
    """An address and what is there."""

    url: str
    _system: Any = field(init=False)
    _root: str = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._system, root = fsspec.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InvalidArgument(
                f"url is {self.url!r}, which cannot be reached: {error}", field="url"
            ) from None
        self._root = root.rstrip("/")

    def exists(self, key: str) -> bool:
        where = f"{self._root}/{key}".rstrip("/")
        self._system.invalidate_cache()
        return bool(
            self._system.isfile(where) if key else self._system.exists(where) and self._system.find(where)
        )

    def read(self, key: str) -> bytes:
        content: bytes = self._system.cat_file(f"{self._root}/{key}")
        return content

    def write(self, key: str, content: bytes) -> None:
        self._system.makedirs(self._root, exist_ok=True)
        self._system.pipe_file(f"{self._root}/{key}", content)

    def put(self, path: Path, key: str, written: dict[str, FileEntry]) -> None:
        """Write a file, and note what was read of it."""
        entry = file_entry(path)
        where = f"{self._root}/{key}"
        self._system.makedirs(where.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(path), where)
        if self._system.size(where) != entry.bytes:
            raise DataLoss(f"{self.url}/{key} has not the {entry.bytes} bytes that were written")
        written[key] = entry

    def get(self, key: str, path: Path, entry: FileEntry) -> None:
        """Read a file, and compare it with what was noted."""
        try:
            self._system.get_file(f"{self._root}/{key}", str(path))
        except FileNotFoundError:
            raise DataLoss(f"{self.url}/{key} is missing") from None
        if file_entry(path) != entry:
            raise DataLoss(f"{self.url}/{key} was changed or damaged: its checksum differs")

    @contextmanager
    def told(self) -> Any:
        """Whatever the address raises, as an error of ours."""
        try:
            yield
        except (EarshotError, FileNotFoundError):
            raise
        except Exception as error:
            known = explanation(error, Path(self._root)) if isinstance(error, OSError) else None
            raise (known or Unavailable(f"{self.url} cannot be used: {error}")) from error

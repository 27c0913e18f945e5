"""manifest.json: what a version is, how it was built and measured, and the checksum of every file in it.

`_SUCCESS`, written last, holds the manifest's own checksum; a folder without it is no version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from earshot.errors import DataLoss, FailedPrecondition, NotFound

from .distance import DistanceMeasure, FeatureNorm
from .files import checksum
from .filters import FilterTuning
from .tuning import Tuning

FORMAT = 1
MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"


def now() -> str:
    """The time in UTC as RFC 3339, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a version; `xxh3_128` in hex."""

    bytes: int
    xxh3_128: str


class EngineEntry(msgspec.Struct, frozen=True):
    """Which engine was built, with which build parameters, and why that one."""

    name: str
    parameters: dict[str, Any]
    reason: str


class FilterEntry(msgspec.Struct, frozen=True):
    """What can be filtered by, and what filtered search was measured to cost where it is approximate."""

    namespaces: list[str]
    tuning: FilterTuning | None
    others: list[FilterTuning | None] = []
    """Of the shards after the first, each measured for itself."""

    def of_shard(self, number: int) -> FilterTuning | None:
        """What was measured with one shard."""
        return self.others[number - 1] if number else self.tuning


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """See DESIGN, "On disk". `config`, `model` and `source` belong to whoever publishes."""

    format: int = FORMAT
    index: str = ""
    version: str = ""
    created: str = msgspec.field(default_factory=now)
    count: int
    dimension: int
    distance_measure: DistanceMeasure
    feature_norm: FeatureNorm
    engine: EngineEntry
    shards: int = 1
    tuning: Tuning
    filters: FilterEntry | None = None
    seconds: dict[str, float] = {}
    config: dict[str, Any] = {}
    model: dict[str, Any] = {}
    source: dict[str, Any] = {}
    sequence_number: int = 0
    files: dict[str, FileEntry] = {}

    @property
    def bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(entry.bytes for entry in self.files.values())


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Size and checksum of every file below `folder`, by its relative path."""
    return {
        str(path.relative_to(folder)): file_entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def file_entry(path: Path) -> FileEntry:
    """Size and checksum of a file."""
    return FileEntry(path.stat().st_size, checksum(path))


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json`, then `_SUCCESS`."""
    path = folder / MANIFEST
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    (folder / SUCCESS).write_text(checksum(path) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete version.

    Raises:
        NotFound: There is no such folder.
        DataLoss: `_SUCCESS` or the manifest is missing or damaged.
        FailedPrecondition: It was written by a newer program.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder} does not exist")
    return decode_manifest(_content(folder / SUCCESS), _content(folder / MANIFEST), str(folder))


def decode_manifest(success: bytes | None, encoded: bytes | None, where: str) -> Manifest:
    """The manifest from the contents of `_SUCCESS` and `manifest.json`, None for what is missing.

    Args:
        success: Content of `_SUCCESS`.
        encoded: Content of `manifest.json`.
        where: Folder or address of the version, for messages.

    Raises:
        DataLoss, FailedPrecondition: As in `read_manifest`.
    """
    path = f"{where}/{MANIFEST}"
    if success is None:
        raise never_finished(where)
    if encoded is None:
        raise DataLoss(f"{path} is missing")
    if xxhash.xxh3_128_hexdigest(encoded) != success.decode(errors="replace").strip():
        raise DataLoss(f"{path} was changed or damaged: its checksum is not the one in {SUCCESS}")
    try:
        written_as = msgspec.json.decode(encoded, type=_Format).format
        if written_as > FORMAT:
            raise FailedPrecondition(f"{path} has format {written_as}; this program reads up to {FORMAT}")
        return msgspec.json.decode(encoded, type=Manifest)
    except msgspec.DecodeError as error:
        raise DataLoss(f"{path} is not a manifest: {error}") from error


def never_finished(where: str) -> DataLoss:
    """The error for a version without `_SUCCESS`."""
    return DataLoss(f"{where}/{SUCCESS} is missing: the version was never finished")


def check_files(manifest: Manifest, folder: Path, *, checksums: bool) -> None:
    """Compare the files on disk with the manifest: sizes always, bytes where `checksums`.

    Raises:
        DataLoss: A file is missing, cut short, grown or changed; the message names it.
    """
    check_sizes(manifest, sizes_of(folder), str(folder))
    if checksums:
        for name, entry in manifest.files.items():
            if checksum(folder / name) != entry.xxh3_128:
                raise DataLoss(
                    f"{folder / name} was changed or damaged: its checksum differs from the manifest's"
                )


def check_sizes(manifest: Manifest, sizes: Mapping[str, int], where: str) -> None:
    """Compare the sizes of a version's files, by their paths within, with the manifest; raises as above."""
    for name, entry in manifest.files.items():
        if name not in sizes:
            raise DataLoss(f"{where}/{name} is missing")
        if sizes[name] != entry.bytes:
            raise DataLoss(f"{where}/{name} has {sizes[name]} bytes; the manifest says {entry.bytes}")


def sizes_of(folder: Path) -> dict[str, int]:
    """Bytes of every file below `folder`, by its relative path."""
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


class _Format(msgspec.Struct):
    format: int

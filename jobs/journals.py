"""Where an index's journal is, and what no version needs of it any more."""

from __future__ import annotations

from pathlib import Path

import msgspec

from earshot.errors import Aborted, FailedPrecondition, NotFound
from earshot.index import Store
from earshot.index.journal import Journal, open_journal

__all__ = [
    "JournalReport",
    "journal_address",
    "journal_report",
    "last_update",
    "read_journal",
    "trim_journal",
]


def journal_address(store: Store, index: str, journal: str | None) -> str | Path | None:
    """The address that is set, or else the file beside the versions; None where there is no place for one."""
    return journal or store.journal_file(index)


def read_journal(store: Store, index: str, journal: str | None) -> Journal | None:
    """The index's journal, to read; None where nothing was ever updated. Raises as `open_journal`."""
    address = journal_address(store, index, journal)
    if address is None:
        return None
    try:
        return open_journal(address, index, read_only=True)
    except NotFound:
        return None


def last_update(store: Store, index: str, journal: str | None) -> int:
    """The number of the last acknowledged update; 0 where there was none."""
    log = read_journal(store, index, journal)
    if log is None:
        return 0
    try:
        return log.last()
    finally:
        log.close()


class JournalReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `journal_report` found; times and sizes as in `JournalStatus`.

    `waiting` updates are in the journal alone: version `version` holds those up to `version_sequence`. All is
    empty where nothing was ever updated.
    """

    index: str
    version: str
    version_sequence: int
    waiting: int
    address: str = ""
    entries: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0
    trimmed: int = 0
    oldest: str = ""


def journal_report(store: Store, index: str, journal: str | None) -> JournalReport:
    """What an index's journal holds beside its version. Raises NotFound, and as `open_journal`."""
    store.config(index)
    try:
        manifest = store.manifest(index)
        version, sequence = manifest.version, manifest.sequence_number
    except FailedPrecondition:  # nothing was published yet
        version, sequence = "", 0
    log = read_journal(store, index, journal)
    if log is None:
        return JournalReport(index=index, version=version, version_sequence=sequence, waiting=0)
    try:
        status = log.status()
    finally:
        log.close()
    return JournalReport(
        index=index,
        version=version,
        version_sequence=sequence,
        waiting=max(0, status.last - sequence),
        **msgspec.structs.asdict(status),
    )


def trim_journal(store: Store, index: str, journal: str | None, owned: Journal | None = None) -> int:
    """Drop the entries that every whole version holds, so that each can still be rolled back to.

    Args:
        store: Where the versions are.
        index: Which.
        journal: Its address where one is set.
        owned: The journal where this process has it open to write.

    Returns:
        Up to which number it is trimmed now. Where a server owns the file, that trims it later.
    """
    through = store.oldest_sequence(index)
    if owned is not None:
        if owned.status().trimmed < through:
            owned.trim(min(through, owned.last()))
        return owned.status().trimmed
    address = journal_address(store, index, journal)
    if address is None or (isinstance(address, Path) and not address.exists()):
        return 0
    try:
        log = open_journal(address, index)
    except Aborted:
        reader = open_journal(address, index, read_only=True)
        try:
            return reader.status().trimmed
        finally:
            reader.close()
    try:
        return trim_journal(store, index, journal, log)
    finally:
        log.close()

"""The updates of one index: written to its journal, applied to what is served, carried over to new versions.

Whoever writes owns the journal from its first update on; until then, and where another process owns it, the
journal is read and followed. The workers of a server own it together, and none answers a search before it has
seen every update that another was asked for and has acknowledged.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earshot.errors import DataLoss, EarshotError, FailedPrecondition, NotFound, PermissionDenied
from earshot.index import Index
from earshot.index.journal import Entry, Journal, is_shared, open_journal, turns_of
from earshot.index.live import LiveIndex, Seal

if TYPE_CHECKING:
    from earshot.index.journal.turns import Turns

__all__ = ["Feed"]

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""For another process to let go of the journal: a job holds it for the moment in which it trims."""


class Feed:
    """One index's journal and the live index that follows it. Safe from many threads.

    Args:
        name: The index's.
        address: Of its journal; None where it can have none, and then nothing can be updated.
        version: What is served first.
        seal: Sets its fresh datapoints in order.
        shared: Whether this process is one of several workers.

    Raises:
        DataLoss, FailedPrecondition: The journal is damaged, or does not fit the version.
    """

    def __init__(
        self,
        name: str,
        address: str | Path | None,
        version: Index,
        seal: Seal,
        *,
        shared: bool = False,
    ) -> None:
        self.name = name
        self._address = address
        self._shared = shared
        self._seal = seal
        self._owning, self._following = threading.Lock(), threading.Lock()
        self._owns = False
        self._inode: int | None = None
        self._journal = self._reader()
        self.index = self._live(version)
        self._turns = self._open_turns() if shared and isinstance(address, Path) else None

    @property
    def is_shared(self) -> bool:
        """Whether several processes may write."""
        return self._shared or (self._address is not None and is_shared(self._address))

    @property
    def is_behind(self) -> bool:
        """Whether another worker acknowledged something that is not seen here; `follow` sees to that."""
        return self._turns is not None and self._turns.reached > self.index.sequence

    @property
    def journal(self) -> Journal | None:
        """To read; None where there is none yet."""
        return self._journal

    @property
    def owned(self) -> Journal | None:
        """To write; None where this process does not own it."""
        return self._journal if self._owns else None

    def write(self, entries: Sequence[Entry], *, request_id: str | None, timeout: float | None) -> int:
        """Make updates durable and visible; returns the sequence number of the last.

        Raises as `own` and `Journal.append`.
        """
        return self.own().append(entries, request_id=request_id, timeout=timeout)

    def own(self) -> Journal:
        """The journal, to write; opened where this process does not own it yet.

        Raises:
            FailedPrecondition: The index's home has no place for a journal.
            Aborted: Another process owns it.
            DataLoss: It lacks updates that the version holds.
        """
        if self._owns and self._journal is not None:
            return self._journal
        with self._owning:
            if self._owns and self._journal is not None:
                return self._journal
            if self._address is None:
                raise FailedPrecondition(
                    f"index {self.name} lies at an address that has no place for a journal, so it takes no "
                    "updates: set journal to a postgresql:// address, or rebuild it",
                    field="index",
                )
            journal = open_journal(self._address, self.name, patience=PATIENCE_SECONDS, shared=self._shared)
            try:
                if journal.last() < self.index.manifest.sequence_number:
                    raise DataLoss(
                        f"the journal of index {self.name} ends at update {journal.last()}, and version "
                        f"{self.index.manifest.version} holds updates up to "
                        f"{self.index.manifest.sequence_number}: the journal was lost"
                    )
                with self._following:
                    before, self._journal = self._journal, journal
                    journal.when_written(self._written)
                    self._catch_up(self.index)
            except EarshotError:
                journal.close()
                raise
            if before is not None:
                before.close()
            self._owns, self._inode = True, _inode(self._address)
            log.info("this process (%d) writes the journal of index %s", os.getpid(), self.name)
            return journal

    def follow(self) -> None:
        """Apply what others wrote. Raises as `Journal.read`."""
        if self._owns and not self.is_shared:
            return
        self._look_for_journal()
        if self._journal is not None and self._journal.last() > self.index.sequence:
            with self._following:
                self._catch_up(self.index)

    def carried_over(self, version: Index) -> LiveIndex:
        """A live index of a new version, with what the journal has after it; nobody's until `swap`.

        Raises:
            DataLoss, FailedPrecondition: The journal does not fit the version.
        """
        self._look_for_journal()
        return self._live(version)

    def take(self, index: LiveIndex, serve: Callable[[], None]) -> None:
        """Follow this index from now on; `serve` has requests go to it before the next update ends."""
        with self._following:
            self._catch_up(index)
            self.index = index
            serve()

    def is_stale(self) -> bool:
        """Whether the journal that is open was deleted: the index was, and another may have its name."""
        if self._turns is not None and self._turns.is_gone:
            return True
        return self._inode is not None and self._inode != _inode(self._address)

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()
        if self._turns is not None:
            self._turns.close()

    def _open_turns(self) -> Turns | None:
        """How far the other workers came, where any of them can write."""
        assert isinstance(self._address, Path)
        try:
            turns = turns_of(self._address)
        except PermissionDenied:
            return None
        with turns.turn():
            # Nobody writes, so what is on disk is all there is; somebody may have put another journal there.
            self._journal = self._journal or self._reader()
            last = 0 if self._journal is None else self._journal.last()
            if turns.reached > last:
                log.error(
                    "index %s: updates up to %d were acknowledged, and its journal ends at %d",
                    self.name,
                    turns.reached,
                    last,
                )
            turns.reached = last
        return turns

    def _live(self, version: Index) -> LiveIndex:
        if self._journal is None:
            return LiveIndex(version, seal=self._seal)
        return LiveIndex(version, self._journal.read(version.manifest.sequence_number), self._seal)

    def _written(self, first: int, entries: Sequence[Entry], last: int) -> None:
        """The journal's thread has written something, and tells no caller before this returns."""
        with self._following:
            live = self.index
            if entries and live.sequence == first - 1:
                live.apply(first, entries)
            elif live.sequence < last:  # of a request that came before, or between those of another server
                self._catch_up(live)

    def _catch_up(self, live: LiveIndex) -> None:
        if self._journal is not None:
            live.replay(self._journal.read(live.sequence))

    def _look_for_journal(self) -> None:
        """Another process may have begun one."""
        if self._journal is None:
            with self._owning:
                if self._journal is None:
                    self._journal = self._reader()

    def _reader(self) -> Journal | None:
        if self._address is None or (isinstance(self._address, Path) and not self._address.exists()):
            return None
        try:
            journal = open_journal(self._address, self.name, read_only=True)
        except NotFound:
            return None
        self._inode = _inode(self._address)
        return journal


def _inode(address: str | Path | None) -> int | None:
    """Which file lies there, where it is one; a number that no other file has while it is open."""
    try:
        return address.stat().st_ino if isinstance(address, Path) else None
    except OSError:
        return -1

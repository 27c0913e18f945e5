"""The writer's lock where there is no kernel to hold one: an object that names its owner and is kept fresh.

A lease that was not renewed for `LEASE_SECONDS` is anyone's; one whose process ran on this machine and is
dead is so at once. A writer that slept through its lease learns of it before it makes anything visible.
Clocks of writers are taken to agree within half a lease.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from earshot.errors import Aborted, EarshotError

from .conditional import Changed, Conditional, write_own

LEASE_SECONDS = 60.0
_RENEWALS = 4  # a lease
_RETRY_SECONDS = 0.25

log = logging.getLogger(__name__)

_living: set[str] = set()  # tokens of this process's leases


class Record(msgspec.Struct, frozen=True):
    """What the lock object holds. `machine` tells whether `pid` means anything to the reader."""

    host: str
    machine: str
    pid: int
    token: str
    renewed: float
    released: bool = False


class Lease:
    """The right to write one index, from `acquire` until `release`.

    Args:
        store: Where the lock object lies.
        path: Of the lock object.
        index: Its name, for messages.
    """

    def __init__(self, store: Conditional, path: str, index: str) -> None:
        self._store = store
        self._path = path
        self._index = index
        self._token = uuid.uuid4().hex
        self._tag: Any = None
        self._lost = False
        self._turn = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name=f"earshot-lease-{index}", daemon=True)

    def acquire(self, timeout: float) -> None:
        """Raises Aborted where another writer has it and did not let go within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (holder := self._try()) is not None:
            if time.monotonic() >= deadline:
                raise Aborted(f"another rebuild of {self._index} is running ({holder}); try again later")
            time.sleep(_RETRY_SECONDS)
        _living.add(self._token)
        self._thread.start()

    def check(self) -> None:
        """Renew now. Raises Aborted where the lease was lost, which happens to a process that slept."""
        with self._turn:
            if not self._lost:
                try:
                    self._write(self._tag)
                except Changed:
                    self._lost = True
            if self._lost:
                raise Aborted(
                    f"the right to write {self._index} was lost to another writer, because this process was "
                    f"not heard of for {LEASE_SECONDS:.0f} seconds; nothing was published"
                )

    def forget(self) -> None:
        """Stop renewing: the lock object goes with the index."""
        self._done.set()
        with self._turn:
            self._lost = True

    def release(self) -> None:
        """Let others have it."""
        self._done.set()
        self._thread.join()
        _living.discard(self._token)
        if not self._lost:
            with suppress(Changed):  # it was another's already
                self._write(self._tag, released=True)

    def _try(self) -> str | None:
        """Who has the lease; None where it is ours now."""
        found = self._store.read(self._path)
        holder = None if found is None else _decode(found[0])
        if holder is not None and not _is_free(holder):
            return f"process {holder.pid} on {holder.host}"
        try:
            self._write(None if found is None else found[1])
        except Changed:
            return "it was first by a moment"
        return None

    def _write(self, expected: Any, *, released: bool = False) -> None:
        record = Record(socket.gethostname(), _machine(), os.getpid(), self._token, time.time(), released)
        self._tag = write_own(self._store, self._path, msgspec.json.encode(record), expected)

    def _keep_fresh(self) -> None:
        while not self._done.wait(LEASE_SECONDS / _RENEWALS):
            try:
                self.check()
            except EarshotError:
                return
            except Exception as error:  # noqa: BLE001 — whatever a far store's library raises
                # The next renewal may do better, and the writer checks for itself before it matters.
                log.warning("the lock of index %s could not be renewed: %s", self._index, error)


def _decode(content: bytes) -> Record | None:
    try:
        return msgspec.json.decode(content, type=Record)
    except msgspec.DecodeError:
        return None  # whoever wrote this is no writer of ours


def _is_free(holder: Record) -> bool:
    if holder.released or time.time() - holder.renewed > LEASE_SECONDS:
        return True
    if holder.machine != _machine():
        return False
    if holder.pid == os.getpid():
        return holder.token not in _living
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


@cache
def _machine() -> str:
    """This boot of this machine, as far as process ids mean the same thing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex  # nothing to go by: every process is a machine of its own

"""Rebuilds that a server runs: each a process of its own, known by a record on disk.

Every process of the machine reads the same records, so it does not matter which of several workers is asked.
A lock that the job inherits says whether it lives: a dead process holds none.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import xxhash
from msgspec import UNSET

from earshot.errors import Aborted, FailedPrecondition, NotFound, from_code, row_of
from earshot.index import Store
from earshot.jobs import BadLimit
from earshot.jobs.background import Failure, Order, Record, read_record, write_record
from earshot.jobs.sources import field_mapping

from . import index_messages as messages
from .allowed import check_allowed
from .children import child_environment, python
from .names import index_name, operation_name, version_name

__all__ = ["Operations"]

KEPT = 10  # ended operations of an index
DEFAULT_KEEP = 3
DEFAULT_MAX_BAD = "1%"
CANCELLED = "CANCELLED"
LONGEST_WAIT = 5.0
LEAVING_SECONDS = 10.0
MAX_WAITING = 8

_RUNNING = "running"
_JOB = "from earshot.jobs.background import main; main()"
_ENDED_WITH_ITS_PROCESS = Failure(
    "ABORTED",
    "the process that ran it is gone, as when the server was stopped; start it again: "
    "what was embedded is kept",
)


class Operations:
    """The jobs over the indexes of one data folder.

    Args:
        data_dir: The folder or address.
        cache_dir: Records lie in there, and the job's own caches.
        allowed: Folders and addresses beneath which a caller's sources may lie.
        journal: The address of the updates' journal, where that is not the index's own.
        ended: Called with the name of an index when a job over it has ended.
    """

    def __init__(
        self,
        data_dir: str,
        cache_dir: Path,
        *,
        allowed: list[str],
        journal: str | None,
        ended: Callable[[str], None],
    ) -> None:
        self._data_dir = data_dir
        self._cache_dir = cache_dir
        self._allowed = allowed
        self._journal = journal
        self._ended = ended
        self._root = cache_dir / "operations" / xxhash.xxh3_64_hexdigest(data_dir.encode())
        self._may_wait = threading.Semaphore(MAX_WAITING)
        self._seen_to_end: set[str] = set()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, index: str, request: messages.RebuildIndexRequest, store: Store) -> messages.Operation:
        """Starts a rebuild and answers at once.

        Raises PermissionDenied for a source that the operator does not allow, FailedPrecondition where none
        is given and none is known, InvalidArgument for other arguments that are wrong, Aborted where one is
        running already.
        """
        sources, transcripts = list(request.sources), list(request.transcripts)
        check_allowed(sources + transcripts, self._allowed)
        if not sources:
            sources, transcripts = _sources_of_current(index, store)
        BadLimit.parse(request.max_bad or DEFAULT_MAX_BAD)
        if request.fields:
            field_mapping(request.fields)
        folder = self._root / index
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        began = time.time()
        record = Record(
            id=f"{datetime.fromtimestamp(began, UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}",
            index=index,
            began=began,
        )
        path = folder / f"{record.id}.json"
        order = Order(
            record=str(path.resolve()),
            data_dir=self._data_dir,
            cache_dir=str(self._cache_dir),
            index=index,
            sources=sources,
            transcripts=transcripts,
            fields=request.fields,
            max_bad=request.max_bad or DEFAULT_MAX_BAD,
            keep=DEFAULT_KEEP if request.keep is None else request.keep,
            force=request.force,
            journal=self._journal,
        )
        with _locked(folder, record.id) as lock:
            write_record(path, record)
            self._prune(folder)
            child = _spawn(order, lock)
            os.pwrite(lock, f"{record.id} {child.pid}".encode(), 0)
        self._children[record.id] = child
        threading.Thread(target=self._wait, args=(index, record.id, child), daemon=True).start()
        return self._message(path)

    def get(self, index: str, operation: str) -> messages.Operation:
        """One of them. Raises NotFound, also for one that ended so long ago that it was forgotten."""
        return self._message(self._path(index, operation))

    def list(self, index: str) -> list[messages.Operation]:
        """Those of one index, newest first."""
        found = []
        for path in sorted((self._root / index).glob("*.json"), reverse=True):
            with suppress(NotFound):  # forgotten since the folder was listed
                found.append(self._message(path))
        return found

    def cancel(self, index: str, operation: str) -> None:
        """Ends a job that still runs; what it embedded is kept. Raises NotFound."""
        path = self._path(index, operation)
        while _read(path).ended is None and (process := _process(path.parent, operation)) is not None:
            path.with_suffix(".cancelled").touch()
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            time.sleep(0.01)

    def delete(self, index: str, operation: str) -> None:
        """Forgets one that has ended. Raises NotFound, FailedPrecondition while it runs."""
        path = self._path(index, operation)
        if not self._message(path).done:
            raise FailedPrecondition(
                f"{operation_name(index, operation)} still runs; cancel it", field="name"
            )
        _remove(path)

    def wait(self, index: str, operation: str, seconds: float | None) -> messages.Operation:
        """One of them when it has ended, or after `seconds`, or sooner where many wait or it takes long.

        Raises NotFound.
        """
        path = self._path(index, operation)
        until = time.monotonic() + min(LONGEST_WAIT, LONGEST_WAIT if seconds is None else seconds)
        found = self._message(path)
        if not found.done and self._may_wait.acquire(blocking=False):
            try:
                while not found.done and (left := until - time.monotonic()) > 0:
                    time.sleep(min(0.05, left))
                    found = self._message(path)
            finally:
                self._may_wait.release()
        return found

    def none_running(self, index: str) -> AbstractContextManager[object]:
        """Keeps jobs over an index from starting. Raises Aborted where one runs."""
        folder = self._root / index
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _locked(folder, "")

    def forget(self, index: str) -> None:
        """Removes what is known of the jobs over an index that is gone."""
        shutil.rmtree(self._root / index, ignore_errors=True)

    def stop(self) -> None:
        """Ends the jobs that this process started."""
        for child in list(self._children.values()):
            _close(child)
            child.wait()

    def _wait(self, index: str, operation: str, child: subprocess.Popen[bytes]) -> None:
        child.wait()
        self._children.pop(operation, None)
        _close(child)
        with suppress(NotFound):
            self._message(self._path(index, operation))

    def _path(self, index: str, operation: str) -> Path:
        return self._root / index / f"{operation}.json"

    def _message(self, path: Path) -> messages.Operation:
        record = _read(path)
        if record.ended is None and _process(path.parent, record.id) is None:
            record = _read(path)  # it may have ended between the two looks
            if record.ended is None:
                was_cancelled = path.with_suffix(".cancelled").exists()
                record.failure = (
                    Failure(CANCELLED, "it was cancelled") if was_cancelled else _ENDED_WITH_ITS_PROCESS
                )
                record.ended = time.time()
                write_record(path, record)
        if record.ended is not None and record.id not in self._seen_to_end:
            # Whoever hears that it is done finds its version served.
            self._ended(record.index)
            self._seen_to_end.add(record.id)
        return _operation(record)

    def _prune(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.json"), reverse=True)[KEPT + 1 :]:
            _remove(path)


def _spawn(order: Order, lock: int) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [python(), "-c", _JOB],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=(lock,),
        start_new_session=True,
        env=child_environment(),
    )
    assert child.stdin is not None
    child.stdin.write(msgspec.json.encode(order) + b"\n")
    child.stdin.flush()
    return child


def _close(child: subprocess.Popen[bytes]) -> None:
    """Lets go of the pipe that keeps a job alive."""
    assert child.stdin is not None
    child.stdin.close()


@contextmanager
def _locked(folder: Path, operation: str) -> Iterator[int]:
    """A descriptor of the lock file of an index, locked; whoever inherits it holds the lock from then on."""
    descriptor = os.open(folder / _RUNNING, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, operation.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    give_up = time.monotonic() + LEAVING_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = _content(descriptor)[0]
            if _has_ended(folder / f"{running}.json") and time.monotonic() < give_up:
                time.sleep(0.01)  # it has said so, and its process goes the next moment
                continue
            by = f"rebuilt by {operation_name(folder.name, running)}" if running else "deleted"
            raise Aborted(f"index {folder.name!r} is being {by}; wait for that or cancel it") from None
        return


def _has_ended(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return read_record(path).ended is not None
    return False


def _process(folder: Path, operation: str) -> int | None:
    """The process that runs an operation; None where none does."""
    try:
        descriptor = os.open(folder / _RUNNING, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        running, process = _content(descriptor)
        return process if running == operation else None
    else:
        return None
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> tuple[str, int]:
    """What a lock file says: the operation, and the process that runs it."""
    operation, _, process = os.pread(descriptor, 100, 0).decode().partition(" ")
    return operation, int(process or 0)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".cancelled").unlink(missing_ok=True)


def _read(path: Path) -> Record:
    try:
        return read_record(path)
    except FileNotFoundError:
        name = operation_name(path.parent.name, path.stem)
        raise NotFound(
            f"there is no operation {name!r}; the last {KEPT} of an index are kept", field="name"
        ) from None


def _sources_of_current(index: str, store: Store) -> tuple[list[str], list[str]]:
    """What the operator or an allowed call once built the serving version from."""
    source = store.manifest(index).source
    if not source.get("sources") or "documents" not in source:
        raise FailedPrecondition(
            f"the current version of index {index!r} was not built from documents: name the sources",
            field="sources",
        )
    return list(source["sources"]), list(source.get("transcripts", ()))


def _operation(record: Record) -> messages.Operation:
    report, failure = record.report, record.failure
    return messages.Operation(
        name=operation_name(record.index, record.id),
        done=record.ended is not None,
        metadata=messages.RebuildIndexMetadata(
            index=index_name(record.index),
            step=record.step,
            done=record.done,
            total=record.total,
            create_time=_time(record.began),
            end_time=UNSET if record.ended is None else _time(record.ended),
        ),
        error=None if failure is None else _error(failure),
        response=None
        if report is None
        else messages.RebuildIndexResponse(
            index_version=version_name(report.index, report.version),
            published=report.published,
            documents=report.documents,
            datapoints=report.datapoints,
            embedded=report.embedded,
            measured_recall=report.recall,
            measured_recall_low=report.recall_low,
            measured_recall_high=report.recall_high,
            bad_records=report.bad_records,
            first_bad_records=report.first_bad_records,
        ),
    )


def _error(failure: Failure) -> messages.OperationError:
    return messages.OperationError(
        code=row_of(from_code(failure.code, failure.message)).grpc, message=failure.message
    )


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"

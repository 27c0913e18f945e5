"""Group commit: one thread writes, and whatever was called while it wrote goes to the disk together next.

DeWitt et al., "Implementation techniques for main memory database systems", 1984: one forced write serves
many commits, so throughput does not end at the disk's latency.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from earshot.errors import DeadlineExceeded, EarshotError, FailedPrecondition, Internal, InvalidArgument

from .codec import checksum, encode
from .entry import Entry

__all__ = [
    "REQUEST_SECONDS",
    "Call",
    "Group",
    "GroupCommit",
    "Numbered",
    "WritesInGroups",
    "Written",
    "numbered",
]

REQUEST_SECONDS = 24 * 3600
"""How long a request id is known."""


# What is written at once: more would make those wait that come in the meantime.
MAX_GROUP_BYTES = 8 << 20

log = logging.getLogger(__name__)


class Call:
    """Entries of one caller, who waits for `outcome`; a subclass says how it hears of that.

    Args:
        bodies: The entries' bytes, where they are known.

    Attributes:
        bodies: The entries' bytes.
        deadline: In seconds of the monotonic clock.
        outcome: The number of the last entry, or why none was written.

    Raises:
        InvalidArgument: An entry that cannot be written, or none at all.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        request_id: str | None,
        deadline: float | None,
        bodies: Sequence[bytes] | None = None,
    ) -> None:
        if not entries:
            raise InvalidArgument("entries is empty; there must be at least one", field="entries")
        self.entries = entries
        self.bodies = [encode(entry) for entry in entries] if bodies is None else bodies
        self.request_id = request_id
        self.deadline = deadline
        self.outcome: int | EarshotError = 0

    def begins(self) -> bool:
        """Whether the caller still wants it, asked when it is about to be written."""
        raise NotImplementedError

    @staticmethod
    def settle(calls: Sequence[Any]) -> None:
        """Some calls of this class have their outcome. Called by the thread that writes."""
        raise NotImplementedError


class _Waiting(Call):
    """A thread waits."""

    def __init__(self, entries: Sequence[Entry], request_id: str | None, deadline: float | None) -> None:
        super().__init__(entries, request_id, deadline)
        self.future: Future[int] = Future()

    def begins(self) -> bool:
        return self.future.set_running_or_notify_cancel()

    @staticmethod
    def settle(calls: Sequence[_Waiting]) -> None:
        for call in calls:
            if isinstance(call.outcome, EarshotError):
                call.future.set_exception(call.outcome)
            else:
                call.future.set_result(call.outcome)


Group = Sequence[Call]

Written = Callable[[int, Sequence[Entry], int], None]
"""See `Journal.when_written`."""


@dataclass(slots=True)
class Numbered:
    """A group ready to be written.

    Attributes:
        answers: The number of each call's last entry.
        rows: (sequence, crc, body) of each new entry.
        entries: Of these rows.
        requests: The new request ids and their numbers.
        last: The number of the newest entry then.
    """

    answers: list[int]
    rows: list[tuple[int, int, bytes]]
    entries: list[Entry]
    requests: dict[str, int]
    last: int


def numbered(group: Group, last: int, answered: Mapping[str, int]) -> Numbered:
    """Number the entries of a group from `last` + 1 on; those of `answered` request ids are there already."""
    done = Numbered([], [], [], {}, last)
    for call in group:
        name = call.request_id
        before = None if name is None else answered.get(name) or done.requests.get(name)
        if before is None:
            done.rows += [
                (number, checksum(number, body), body)
                for number, body in enumerate(call.bodies, done.last + 1)
            ]
            done.entries += call.entries
            before = done.last = done.last + len(call.bodies)
            if name is not None:
                done.requests[name] = before
        done.answers.append(before)
    return done


class GroupCommit:
    """Calls in, sequence numbers out.

    Args:
        commit: Called by the one thread with some calls; all are on disk when it returns. Raises an error of
            ours where none is.
        name: Of the thread.
        turn: Held while a group is written and `written` is told of it.
    """

    def __init__(
        self,
        commit: Callable[[Group], Numbered],
        *,
        name: str,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.written: Written = lambda first, entries, last: None
        self._commit = commit
        self._turn = turn
        # Whoever puts something in never waits, neither for the writer nor for a lock that it holds.
        self._waiting: SimpleQueue[Call | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Calls that nobody has begun to write."""
        return self._waiting.qsize()

    def submit(self, call: Call) -> None:
        """As `Journal.submit`."""
        with self._closing:
            if self._closed:
                raise FailedPrecondition("the journal is closed")
            self._waiting.put(call)

    def append(self, entries: Sequence[Entry], request_id: str | None, timeout: float | None) -> int:
        """As `Journal.append`."""
        call = _Waiting(entries, request_id, None if timeout is None else monotonic() + timeout)
        self.submit(call)
        try:
            return call.future.result(timeout)
        except TimeoutError:
            if call.future.cancel():
                raise DeadlineExceeded(
                    f"the journal did not write within {timeout:g} s; nothing was written"
                ) from None
            raise DeadlineExceeded(
                f"the journal did not write within {timeout:g} s and may yet do so; "
                "the same call with the same request id finds out"
            ) from None

    def close(self) -> None:
        """Finish what waits."""
        with self._closing:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while group := self._next():
            try:
                with self._turn():
                    done = self._commit(group)
                    self.written(done.last - len(done.entries) + 1, done.entries, max(done.answers))
            except EarshotError as error:
                for call in group:
                    call.outcome = error
            except Exception:
                log.exception("the journal's writer failed")
                for call in group:
                    call.outcome = Internal("the journal's writer failed; the log has the cause")
            else:
                for call, number in zip(group, done.answers, strict=True):
                    call.outcome = number
            # Together, for whoever wakes somebody up a call would do it for each.
            for kind in {type(call) for call in group}:
                kind.settle([call for call in group if type(call) is kind])

    def _next(self) -> list[Call]:
        """Some calls that were not given up; none when closed and done."""
        group: list[Call] = []
        size = 0
        with suppress(Empty):
            while size < MAX_GROUP_BYTES:
                call = self._waiting.get(block=not group)
                if call is None:
                    self._waiting.put(None)  # nothing comes after it; the next turn ends here
                    break
                if call.begins():
                    group.append(call)
                    size += sum(map(len, call.bodies))
        return group


class WritesInGroups:
    """A journal's half that writes: whatever it is told goes through one `GroupCommit`.

    Attributes:
        _group: None where it was opened to read only.
        _where: The journal's name in messages.
    """

    _group: GroupCommit | None
    _where: str

    def append(
        self, entries: Sequence[Entry], *, request_id: str | None = None, timeout: float | None = None
    ) -> int:
        """See `Journal`."""
        return self._writing_group.append(entries, request_id, timeout)

    def submit(self, call: Call) -> None:
        """See `Journal`."""
        self._writing_group.submit(call)

    def when_written(self, tell: Written) -> None:
        """See `Journal`."""
        self._writing_group.written = tell

    @property
    def waiting(self) -> int:
        """See `Journal`."""
        return self._writing_group.waiting

    @property
    def _writing_group(self) -> GroupCommit:
        if self._group is None:
            raise FailedPrecondition(f"{self._where} was opened to read only")
        return self._group

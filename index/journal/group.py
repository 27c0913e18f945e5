"""Group commit: one thread writes, and whatever was called while it wrote goes to the disk together next.

DeWitt et al., "Implementation techniques for main memory database systems", 1984: one forced write serves
many commits, so throughput does not end at the disk's latency.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic

from earshot.errors import DeadlineExceeded, EarshotError, FailedPrecondition, Internal

from .codec import checksum

__all__ = ["REQUEST_SECONDS", "Call", "Group", "GroupCommit", "Numbered", "numbered"]

REQUEST_SECONDS = 24 * 3600
"""How long a request id is known."""


# What is written at once: more would make those wait that come in the meantime.
MAX_GROUP_BYTES = 8 << 20

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Call:
    """Entries of one caller, encoded; `deadline` is in seconds of the monotonic clock."""

    bodies: list[bytes]
    request_id: str | None = None
    deadline: float | None = None
    answer: Future[int] = field(default_factory=Future)


Group = Sequence[Call]


@dataclass(slots=True)
class Numbered:
    """A group ready to be written.

    Attributes:
        answers: The number of each call's last entry.
        rows: (sequence, crc, body) of each new entry.
        requests: The new request ids and their numbers.
        last: The number of the newest entry then.
    """

    answers: list[int]
    rows: list[tuple[int, int, bytes]]
    requests: dict[str, int]
    last: int


def numbered(group: Group, last: int, answered: Mapping[str, int]) -> Numbered:
    """Number the entries of a group from `last` + 1 on; those of `answered` request ids are there already."""
    done = Numbered([], [], {}, last)
    for call in group:
        name = call.request_id
        before = None if name is None else answered.get(name) or done.requests.get(name)
        if before is None:
            done.rows += [
                (number, checksum(number, body), body)
                for number, body in enumerate(call.bodies, done.last + 1)
            ]
            before = done.last = done.last + len(call.bodies)
            if name is not None:
                done.requests[name] = before
        done.answers.append(before)
    return done


class GroupCommit:
    """Calls in, sequence numbers out.

    Args:
        commit: Called by the one thread with some calls; returns the number of each one's last entry once
            all are on disk. Raises an error of ours where none is.
        name: Of the thread.
    """

    def __init__(self, commit: Callable[[Group], list[int]], *, name: str) -> None:
        self._commit = commit
        self._waiting: deque[Call] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def append(self, bodies: list[bytes], request_id: str | None, timeout: float | None) -> int:
        """As `Journal.append`."""
        call = Call(bodies, request_id, None if timeout is None else monotonic() + timeout)
        with self._changed:
            if self._closed:
                raise FailedPrecondition("the journal is closed")
            self._waiting.append(call)
            self._changed.notify()
        try:
            return call.answer.result(timeout)
        except TimeoutError:
            if call.answer.cancel():
                raise DeadlineExceeded(
                    f"the journal did not write within {timeout:g} s; nothing was written"
                ) from None
            raise DeadlineExceeded(
                f"the journal did not write within {timeout:g} s and may yet do so; "
                "the same call with the same request id finds out"
            ) from None

    def close(self) -> None:
        """Finish what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next():
            try:
                numbers = self._commit(group)
            except EarshotError as error:
                for call in group:
                    call.answer.set_exception(error)
            except Exception:
                log.exception("the journal's writer failed")
                for call in group:
                    call.answer.set_exception(Internal("the journal's writer failed; the log has the cause"))
            else:
                for call, number in zip(group, numbers, strict=True):
                    call.answer.set_result(number)

    def _next(self) -> list[Call]:
        """Some calls that were not given up; none when closed and done."""
        with self._changed:
            while True:
                group: list[Call] = []
                size = 0
                while self._waiting and size < MAX_GROUP_BYTES:
                    call = self._waiting.popleft()
                    if call.answer.set_running_or_notify_cancel():
                        group.append(call)
                        size += sum(map(len, call.bodies))
                if group or self._closed:
                    return group
                self._changed.wait()

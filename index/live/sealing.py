"""Fresh rows are set in order by a process of its own, which takes no interpreter and no core from searches.

Rows go there and segments come back through memory that both map, so that nothing is copied on the way.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from ..distance import DistanceMeasure, Floats
from ..engines import Rows
from .segment import Segment

__all__ = ["Seal", "Sealer", "seal_here"]

log = logging.getLogger(__name__)

Seal = Callable[[Floats, Rows, DistanceMeasure], Segment]
"""From the vectors of all fresh rows, [capacity, dimension], and the slots that are wanted, to a segment."""

NICE = 10
IDLE_SECONDS = 60.0
ANSWER_SECONDS = 300.0
"""For a segment, of which 65,000 rows take about one: a child that hangs shall not hold up a server's end."""
_HEAD = 1 << 16  # bytes at most of what is said beside the memory
_ALIGNED = 64


def seal_here(vectors: Floats, slots: Rows, measure: DistanceMeasure) -> Segment:
    """The rows `slots` of some vectors as a segment, made by this thread."""
    return Segment.build(vectors[slots], slots, measure)


class Sealer:
    """`seal_here` in a child, which is begun when first wanted and ends when it is not for a minute.

    Where there can be none, or it was killed, the work is done here. Threads take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __call__(self, vectors: Floats, slots: Rows, measure: DistanceMeasure) -> Segment:
        """See `Seal`."""
        with self._lock:
            try:
                with _memory(len(slots) * (8 + 4 * vectors.shape[1])) as shared:
                    return self._asked(shared, vectors, slots, measure)
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                log.warning("no process to set fresh datapoints in order (%r): it is done here", error)
                self._end()
        return seal_here(vectors, slots, measure)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _asked(self, shared: IO[bytes], vectors: Floats, slots: Rows, measure: DistanceMeasure) -> Segment:
        count, dimension = len(slots), vectors.shape[1]
        with mmap.mmap(shared.fileno(), 0) as memory:
            numbers, rows = _parts(memory, count, dimension)
            numbers[:] = slots
            np.take(vectors, slots, axis=0, out=rows, mode="clip")  # checked, it would be copied twice
            del numbers, rows
        order = pickle.dumps((count, dimension, measure))
        try:
            return _exchanged(self._child(), order, shared)
        except (BrokenPipeError, ConnectionResetError, EOFError):  # it had nothing to do for long
            self._end()
            return _exchanged(self._child(), order, shared)

    def _child(self) -> socket.socket:
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            self._socket.settimeout(ANSWER_SECONDS)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", f"from {__name__} import main; main({theirs.fileno()})"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                )
        return self._socket

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()  # by which it knows
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def main(number: int) -> None:
    """The child: makes segments of what comes through a socket, until that closes or is quiet for long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the server, which drains first
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)  # whatever that of the thread was that began it
    # Whoever asked may be gone before the answer.
    with contextlib.suppress(OSError, EOFError), socket.socket(fileno=number) as asked:
        asked.settimeout(IDLE_SECONDS)
        while True:
            order, source = _received(asked)
            count, dimension, measure = pickle.loads(order)  # noqa: S301  # of our own parent
            with source, mmap.mmap(source.fileno(), 0) as memory:
                numbers, rows = _parts(memory, count, dimension)
                slots, vectors = numbers.copy(), rows.copy()
                del numbers, rows  # or the memory could not be let go of
            _send_segment(asked, Segment.build(vectors, slots, measure))


def _exchanged(child: socket.socket, order: bytes, shared: IO[bytes]) -> Segment:
    socket.send_fds(child, [order], [shared.fileno()])
    answer, source = _received(child)
    with source:
        memory = mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ)  # lives as long as the segment's arrays
    body, spans = pickle.loads(answer)  # noqa: S301  # of our own child
    whole = memoryview(memory)
    segment: Segment = pickle.loads(body, buffers=[whole[start:end] for start, end in spans])  # noqa: S301
    return segment


def _send_segment(to: socket.socket, segment: Segment) -> None:
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(segment, protocol=5, buffer_callback=buffers.append)
    spans: list[tuple[int, int]] = []
    end = 0
    for buffer in buffers:
        start = -(-end // _ALIGNED) * _ALIGNED  # products of what is not are slow
        end = start + buffer.raw().nbytes
        spans.append((start, end))
    with _memory(end) as shared:
        for buffer, (start, _) in zip(buffers, spans, strict=True):
            shared.seek(start)
            shared.write(buffer)
        shared.flush()
        socket.send_fds(to, [pickle.dumps((body, spans))], [shared.fileno()])


def _memory(size: int) -> IO[bytes]:
    """A file of so many bytes that has no name, in memory where the system can."""
    shared: Any = (
        os.fdopen(os.memfd_create("earshot-fresh"), "w+b")
        if hasattr(os, "memfd_create")
        else tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    )
    os.truncate(shared.fileno(), size)
    return shared  # type: ignore[no-any-return]


def _parts(memory: mmap.mmap, count: int, dimension: int) -> tuple[Rows, Floats]:
    """Slots and vectors as they lie there."""
    slots = np.frombuffer(memory, np.int64, count)
    vectors = np.frombuffer(memory, np.float32, count * dimension, 8 * count).reshape(count, dimension)
    return slots, vectors


def _received(source: socket.socket) -> tuple[bytes, IO[bytes]]:
    data, numbers, _, _ = socket.recv_fds(source, _HEAD, 1)
    if not data or not numbers:  # without a number to spare the system drops what came
        raise EOFError("the other side is gone, or no file can be opened")
    return data, os.fdopen(numbers[0], "r+b")

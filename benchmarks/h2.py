"""A generator of unary gRPC calls that costs little: HTTP/2 frames by hand, one thread, a few connections.

grpcio's client takes longer for a call than the server does, and h2load sends one message again and again.
Frames are those of RFC 9113; headers are written without compression's tables, and answers' are not read: a
call that failed is one whose answer has no message.
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np

from .load import Load, frame

__all__ = ["calls_by_frames", "load_by_frames"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_WIDE = (1 << 31) - 1 - 65_535
_STREAMS_A_CONNECTION = 8
_LARGEST = 1 << 14  # payload that every server takes


def load_by_frames(
    address: str, path: str, messages: Sequence[bytes], in_flight: int, seconds: float
) -> Load:
    """So many calls at a time, each with the next of some messages, from a process of its own.

    Raises:
        RuntimeError: A call failed.
    """
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_run, args=(theirs, address, path, messages, in_flight, seconds))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise RuntimeError(f"{path}: a call failed; see above") from None
    finally:
        process.join()
    return Load(*found)


@contextmanager
def calls_by_frames(address: str, path: str) -> Iterator[Callable[[bytes], None]]:
    """One call after the other on one connection, from this process; at most 64 KB each.

    The function raises RuntimeError where the call failed.
    """
    connection = _Connection.to(address, path)

    def call(message: bytes) -> None:
        connection.begin(iter([frame(message)]), 1)
        while not connection.read():
            pass

    with closing(connection.socket):
        yield call


def _run(
    answer: Any, address: str, path: str, messages: Sequence[bytes], in_flight: int, seconds: float
) -> None:
    bodies = cycle([frame(message) for message in messages])
    chosen = selectors.DefaultSelector()
    size = min(in_flight, _STREAMS_A_CONNECTION)
    connections = [_Connection.to(address, path) for _ in range(in_flight // size)]
    for connection in connections:
        chosen.register(connection.socket, selectors.EVENT_READ, connection)
        connection.begin(bodies, size)
    took: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for key, _ in chosen.select(1):
            done = key.data.read()
            took += done
            key.data.begin(bodies, len(done))
    elapsed = time.perf_counter() - began
    p50, p99 = np.percentile(np.array(took) * 1e3, (50, 99)).tolist()
    answer.send((len(took) / elapsed, p50, p99))


@dataclass
class _Connection:
    socket: socket.socket
    headers: bytes
    stream: int = -1
    unread: bytes = b""
    began: dict[int, float] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)

    @classmethod
    def to(cls, address: str, path: str) -> _Connection:
        host, _, port = address.rpartition(":")
        connected = socket.create_connection((host, int(port)))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = b"\x00\x04" + _WIDE.to_bytes(4, "big")  # INITIAL_WINDOW_SIZE: answers never wait for us
        connected.sendall(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, _WIDE.to_bytes(4, "big"))
        )
        # RFC 7541: 83 and 86 are POST and http; 04, 01 and 0f10 name :path, :authority and content-type.
        headers = b"\x83\x86\x04" + _string(path) + b"\x01" + _string(address)
        headers += b"\x0f\x10" + _string("application/grpc") + b"\x00" + _string("te") + _string("trailers")
        return cls(connected, headers)

    def begin(self, bodies: Iterator[bytes], count: int) -> None:
        """Send so many requests."""
        out = []
        for _ in range(count):
            self.stream += 2
            self.began[self.stream] = time.perf_counter()
            out.append(_frame(_HEADERS, _END_HEADERS, self.stream, self.headers))
            body = next(bodies)
            for start in range(0, len(body), _LARGEST):
                flags = _END_STREAM if start + _LARGEST >= len(body) else 0
                out.append(_frame(_DATA, flags, self.stream, body[start : start + _LARGEST]))
        self.socket.sendall(b"".join(out))

    def read(self) -> list[float]:
        """Take in what came; returns how long the calls took that it ended."""
        received = self.socket.recv(1 << 18)
        if not received:
            raise RuntimeError("the server closed the connection")
        data, at, took = self.unread + received, 0, []
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind in (_RESET, _GO_AWAY):
                raise RuntimeError(f"the server ended a call or the connection: {data[at:end].hex()}")
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self.socket.sendall(_frame(kind, _ACK, 0, data[at + 9 : end] if kind == _PING else b""))
            if kind == _DATA and end > at + 9:
                self.answered.add(stream)
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                if stream not in self.answered:
                    raise RuntimeError("a call had an error for its answer")
                self.answered.discard(stream)
                took.append(time.perf_counter() - self.began.pop(stream))
            at = end
        self.unread = data[at:]
        return took


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()

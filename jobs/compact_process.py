"""`compact` in a process of its own at low priority, so that searches hardly feel it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from earshot.errors import EarshotError, ResourceExhausted, from_code
from earshot.index import Store

from .compact import CompactReport, CompactRequest, compact

__all__ = ["result_of", "start"]

NICE = 10


class Order(msgspec.Struct):
    """What the process does."""

    request: CompactRequest
    data_dir: str
    cache_dir: str


class Failure(msgspec.Struct):
    """How it says that it could not."""

    code: str
    message: str


def start(request: CompactRequest, *, data_dir: str, cache_dir: Path) -> subprocess.Popen[bytes]:
    """Begin. Whoever started it may end it at any moment: nothing is half done then."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; from {__name__} import main; sys.exit(main())"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.json.encode(Order(request, data_dir, str(cache_dir))))
        process.stdin.close()
    process.stdin = None  # `communicate` would write to it again
    return process


def result_of(process: subprocess.Popen[bytes]) -> CompactReport:
    """Wait for the end.

    Raises:
        EarshotError: As `compact`.
        ResourceExhausted: It was killed, mostly for want of memory.
    """
    answer, told = process.communicate()
    try:
        if process.returncode == 0:
            return msgspec.json.decode(answer, type=CompactReport)
        failure = msgspec.json.decode(answer, type=Failure)
    except msgspec.DecodeError:
        reason = told.decode(errors="replace").strip().rpartition("\n")[2] or "no word"
        raise ResourceExhausted(
            f"compaction ended with exit status {process.returncode} ({reason}); free some memory"
        ) from None
    raise from_code(failure.code, failure.message)


def main() -> int:
    """The process: an `Order` on standard input, a report or a `Failure` on standard output."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    # ScaNN writes to the standard output of the process, which is kept for the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        store = Store(order.data_dir, cache_dir=order.cache_dir)
        report = compact(order.request, store=store, progress=lambda stage, done, total: None)
    except EarshotError as error:
        answer.write(msgspec.json.encode(Failure(error.code, error.message)))
        answer.close()
        return 1
    answer.write(msgspec.json.encode(report))
    answer.close()
    return 0

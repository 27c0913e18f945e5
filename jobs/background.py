"""A rebuild in a process of its own: what it is told, and the record in which it says how far it has come.

The record is a file, so that any process of the machine can read it, also after the job has ended.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from earshot.errors import EarshotError, Internal

from .bad_records import BadLimit
from .rebuild import RebuildReport, RebuildRequest, rebuild
from .sources import field_mapping

__all__ = ["Failure", "Order", "Record", "main", "read_record", "write_record"]

log = logging.getLogger(__name__)

NICENESS = 10
SECONDS_BETWEEN_RECORDS = 0.2


class Order(msgspec.Struct, kw_only=True):
    """What one process does. It lives no longer than its standard input, after this order, stays open."""

    record: str
    data_dir: str
    cache_dir: str
    index: str
    sources: list[str]
    transcripts: list[str]
    fields: list[str]
    max_bad: str
    keep: int
    force: bool
    journal: str | None


class Failure(msgspec.Struct, frozen=True):
    """Why a job failed: a name of `earshot.errors` and a sentence."""

    code: str
    message: str


class Record(msgspec.Struct, kw_only=True):
    """What is known of one job; times are seconds since 1970, `ended` is None while it runs."""

    id: str
    index: str
    began: float
    ended: float | None = None
    step: str = ""
    done: int = 0
    total: int = 0
    failure: Failure | None = None
    report: RebuildReport | None = None


def read_record(path: Path) -> Record:
    """Raises FileNotFoundError where there is none."""
    return msgspec.json.decode(path.read_bytes(), type=Record)


def write_record(path: Path, record: Record) -> None:
    """In one step: a reader sees the old or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.replace(path)


def main() -> None:
    """The process: an `Order` on a line of standard input, then the job."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    os.nice(NICENESS)
    path = Path(order.record)
    record = read_record(path)
    written = 0.0

    def progress(step: str, done: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        if step != record.step or now - written >= SECONDS_BETWEEN_RECORDS:
            written = now
            record.step, record.done, record.total = step, done, total
            write_record(path, record)

    try:
        record.report = rebuild(
            RebuildRequest(
                index=order.index,
                sources=order.sources,
                transcripts=order.transcripts,
                mapping=field_mapping(order.fields) if order.fields else None,
                max_bad=BadLimit.parse(order.max_bad),
                keep=order.keep,
                force=order.force,
                journal=order.journal,
            ),
            data_dir=order.data_dir,
            cache_dir=Path(order.cache_dir),
            progress=progress,
        )
    except EarshotError as error:
        record.failure = Failure(error.code, error.message)
    except Exception:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        log.exception("a rebuild of %s failed in a way that was not foreseen", order.index)
        failure = Internal("internal error; the server's log has the cause")
        record.failure = Failure(failure.code, failure.message)
    record.ended = time.time()
    write_record(path, record)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)  # at once: taking engines and models apart in order takes seconds


def _end_with_the_server() -> None:
    """Whatever ends the server closes the pipe; what was embedded is kept, and nothing half built is seen."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)

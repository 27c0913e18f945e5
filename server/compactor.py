"""Builds new versions in the background: where many updates have gathered or many datapoints changed.

The work is done by a process of its own at low priority; the registry swaps to what comes of it as to any new
version. Then the journal drops what every kept version holds.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from earshot.errors import Aborted, EarshotError
from earshot.jobs import CompactReport, CompactRequest
from earshot.jobs.compact_process import result_of, start
from earshot.jobs.journals import trim_journal

from .registry import Registry
from .settings import Settings

__all__ = ["Compactor"]

LOOK_SECONDS = 2.0
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 300.0, 6 * 3600.0
"""After a failure, twice as long after each more: what failed once mostly fails again, and costs as much."""

MIN_UPDATES = 1000
"""A share of a small index is soon reached; so few updates are searched exactly in no time."""

log = logging.getLogger(__name__)


class Compactor:
    """One compaction at a time, of whichever index needs it.

    Attributes:
        runs: How many there were, by index and result: "ok" or "failed".
        seconds: How long the last one took, by index.
        problems: Why the last one failed, by index; gone when one succeeds.
    """

    def __init__(self, registry: Registry, settings: Settings, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._registry, self._settings, self._look_seconds = registry, settings, look_seconds
        self._asked: dict[str, tuple[str, str]] = {}  # by index: of which version, and why
        self._not_before: dict[str, float] = {}
        self._failures: Counter[str] = Counter()  # since the last success
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="earshot-compactor", daemon=True)
        self._ending = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.runs: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, float] = {}
        self.problems: dict[str, str] = {}

    def start(self) -> None:
        """Look from now on."""
        if self._settings.compact_updates:
            self._thread.start()

    def stop(self) -> None:
        """End a running compaction; nothing of it stays."""
        with self._ending:
            self._stopping.set()
            if self._process is not None:
                self._process.kill()
        if self._thread.is_alive():
            self._thread.join()

    def ask(self, name: str, reason: str) -> None:
        """Compact an index soon, whatever its numbers say, or where it has no updates, tune it: on what it is
        asked. `reason` is for the log."""
        if (served := self._registry.peek(name)) is not None:
            self._asked[name] = served.version, reason

    def reason(self, name: str) -> str | None:
        """Why an index needs to be compacted now; None where it does not."""
        served = self._registry.peek(name)
        if served is None:
            return None
        live = served.index
        waiting = live.sequence - live.manifest.sequence_number
        version, reason = self._asked.get(name, ("", ""))
        if reason and version == served.version:
            return reason
        self._asked.pop(name, None)  # another version is there
        if waiting <= 0:
            return None
        if waiting >= self._settings.compact_updates:
            return f"{waiting} updates since version {served.version or '(none)'}"
        changed, count = live.changed, len(live)
        if waiting >= MIN_UPDATES and changed >= self._settings.compact_share * max(count, 1):
            return f"{changed} of {count} datapoints are fresh or were removed"
        return None

    def metrics(self) -> Iterator[Metric]:
        """How compactions went, and how many updates wait for one."""
        runs = CounterMetricFamily("earshot_compactions", "Compactions.", labels=("index", "result"))
        for labels, count in list(self.runs.items()):
            runs.add_metric(labels, count)
        yield runs
        took = GaugeMetricFamily("earshot_compaction_seconds", "What the last one took.", labels=("index",))
        for name, seconds in list(self.seconds.items()):
            took.add_metric((name,), seconds)
        yield took
        waiting = GaugeMetricFamily(
            "earshot_index_updates_waiting", "Updates that no version holds yet.", labels=("index",)
        )
        for name in self._registry.names():
            if (served := self._registry.peek(name)) is not None:
                live = served.index
                waiting.add_metric((name,), live.sequence - live.manifest.sequence_number)
        yield waiting

    def look(self) -> None:
        """Compact and trim what needs it, once."""
        for name in self._registry.names():
            if self._stopping.is_set():
                return
            if time.monotonic() >= self._not_before.get(name, 0):
                reason = self.reason(name)
                if reason is not None:
                    self._compact(name, reason)
            self._trim(name)

    def _compact(self, name: str, reason: str) -> None:
        self._registry.look_at(name)  # another worker, or server, may have done it a moment ago
        if self.reason(name) is None:
            return
        log.info("compacting index %s: %s", name, reason)
        began = time.monotonic()
        try:
            with self._questions(name) as questions:
                request = CompactRequest(index=name, journal=self._settings.journal, questions=questions)
                report = self._work(request)
        except Aborted as error:  # another job is at work, and brings a new version itself
            log.info("index %s was not compacted: %s", name, error.message)
            self._not_before[name] = time.monotonic() + 10 * self._look_seconds
            return
        except EarshotError as error:
            if self._stopping.is_set():
                return
            log.error("index %s could not be compacted: %s", name, error.message)
            self.runs[name, "failed"] += 1
            self.problems[name] = error.message
            self._failures[name] += 1
            pause = PAUSE_SECONDS * 2.0 ** (self._failures[name] - 1)
            self._not_before[name] = time.monotonic() + min(pause, LONGEST_PAUSE_SECONDS)
            return
        self._asked.pop(name, None)
        self.problems.pop(name, None)
        self._failures.pop(name, None)
        self.runs[name, "ok"] += 1
        self.seconds[name] = time.monotonic() - began
        log.info(
            "index %s was compacted: version %s with %d updates up to %d, %d datapoints, tuned on %s, %.1f s",
            name,
            report.version,
            report.updates,
            report.sequence,
            report.datapoints,
            report.tuned_on,
            self.seconds[name],
        )
        self._registry.refresh()

    @contextlib.contextmanager
    def _questions(self, name: str) -> Iterator[str | None]:
        """A file of real queries, where those that the version was tuned on did not speak for them."""
        served = self._registry.peek(name)
        sample = served.index.watch.sample() if served is not None and name in self._asked else None
        if sample is None:
            yield None
            return
        with tempfile.NamedTemporaryFile(prefix="earshot-questions-", suffix=".npy") as file:
            np.save(file, sample)
            file.flush()
            yield file.name

    def _work(self, request: CompactRequest) -> CompactReport:
        with self._ending:
            if self._stopping.is_set():
                raise Aborted("the server is shutting down")
            data_dir, cache_dir = self._settings.data_dir, self._settings.cache_dir
            self._process = start(request, data_dir=data_dir, cache_dir=cache_dir)
        try:
            return result_of(self._process)
        finally:
            self._process = None

    def _trim(self, name: str) -> None:
        try:
            owned = self._registry.feed(name).owned
            if owned is not None:
                trim_journal(self._registry.store, name, self._settings.journal, owned)
        except EarshotError as error:
            log.warning("the journal of index %s could not be trimmed: %s", name, error.message)

    def _run(self) -> None:
        while not self._stopping.wait(self._look_seconds):
            try:
                self.look()
            except Exception:
                log.exception("the compactor stumbled")

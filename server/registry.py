"""The open indexes: a thread looks for newly published versions, opens, warms and swaps them in.

The habit is that of Twitter's ANN service: the old index serves until the new one has answered
queries, and goes on serving where the new one cannot be opened; the problem is told, not hidden.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from earshot.errors import (
    DataLoss,
    EarshotError,
    FailedPrecondition,
    Internal,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from earshot.index import IndexConfig, Manifest, Store
from earshot.index.distance import DistanceMeasure, FeatureNorm
from earshot.index.journal import drop_journal
from earshot.index.live import LiveIndex, Sealer, empty_index
from earshot.jobs.journals import journal_address

from .background import let_searches_go_first, one_worker_at_a_time, patiently
from .embedders import Embedders
from .feed import Feed
from .huge_pages import HugePages
from .served_index import ServedIndex, served_index
from .warm import Recent, warm_up

__all__ = ["Registry"]

DEFAULT_TARGET_RECALL = 0.95
TIDY_SECONDS = 0.1
PAUSE_SECONDS = 0.002  # between two searches that warm a version up, for those of others
MEASURING_PAUSE, FIRST_MEASURING_PAUSE = 200, 50
"""Measuring recall is followed by so many times as long without it: searches of that moment take longer, and
of a hundred one may. At first more often, until there is something to tell."""

# Trying the same version again may help; any other error stays until the next version.
_MAY_PASS = (Unavailable, ResourceExhausted, PermissionDenied)

log = logging.getLogger(__name__)


class Registry:
    """Keeps every index of a store open at its current version; with `embedders`, its model ready too.

    `shared`: whether this process is one of several workers.
    """

    def __init__(
        self,
        store: Store,
        *,
        poll_seconds: float | None,
        journal: str | None = None,
        embedders: Embedders | None = None,
        shared: bool = False,
    ) -> None:
        self.store = store
        self._shared = shared
        self._embedders = embedders
        self._journal = journal
        self._poll_seconds = poll_seconds or store.poll_seconds
        self._served: dict[str, ServedIndex] = {}
        self._feeds: dict[str, Feed] = {}
        self._sealer = Sealer()
        self._huge_pages = HugePages()
        self._short: set[str] = set()
        self.on_short_recall: Callable[[str, str], None] = lambda name, reason: None
        self._problems: dict[str, str] = {}
        self._failed_version: dict[str, str] = {}
        self.loads: Counter[tuple[str, str]] = Counter()  # attempts to open a version, by index and result
        self.load_seconds: dict[str, float] = {}  # of the version that is served, warming up included
        self.when_dropped: list[Callable[[str], None]] = []
        """Called with the name of an index when something of it is not served any more: let go of it."""
        self._refreshing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="earshot-registry", daemon=True)
        self._tidier = threading.Thread(target=self._tidy, name="earshot-updates", daemon=True)

    def start(self) -> None:
        """Opens what there is, then watches for new versions until `stop`."""
        self.refresh()
        self._thread.start()
        self._tidier.start()

    def stop(self) -> None:
        """Ends the watching and lets go of the journals; open indexes can still be searched."""
        self._stopping.set()
        for thread in (self._thread, self._tidier):
            if thread.is_alive():
                thread.join()
        for feed in self._feeds.values():
            feed.close()
        self._sealer.close()

    @property
    def problems(self) -> dict[str, str]:
        """What could not be opened and why, by index; empty when all is well."""
        return dict(self._problems)

    def names(self) -> list[str]:
        """The indexes that answer queries, sorted."""
        return sorted(self._served)

    def manifest(self, name: str) -> Manifest:
        """What is served, or else the current version on disk, unopened. Raises as `Store.manifest` does."""
        served = self._served.get(name)
        return served.index.manifest if served is not None else self.store.manifest(name)

    def peek(self, name: str) -> ServedIndex | None:
        """The open version of an index without looking at the disk; None where there is none."""
        return self._served.get(name)

    def ready(self, name: str) -> ServedIndex | None:
        """The same where it may answer at once; None where `get` has to look at the disk."""
        served = self._served.get(name)
        if self._shared and served is not None:
            feed = self._feeds.get(name)
            if feed is not None and feed.is_behind:
                return None
        return served

    def catch_up(self, name: str) -> None:
        """See whatever another worker acknowledged before. Raises as `Feed.follow`."""
        feed = self._feeds.get(name)
        if feed is not None and feed.is_behind:
            feed.follow()

    def get(self, name: str) -> ServedIndex:
        """The open version of an index, with every update that this server acknowledged before.

        Raises NotFound for an unknown name, FailedPrecondition for an index without a version yet,
        Unavailable for one whose current version cannot be opened, and as `Feed.follow`.
        """
        self.catch_up(name)
        served = self._served.get(name)
        if served is None:
            self.store.config(name)
            # A job may have published it a moment ago.
            with self._refreshing:
                self._refresh_one(name)
            served = self._served.get(name)
        if served is None and name not in self._problems:
            self.store.current(name)
        if served is None:
            raise Unavailable(f"index {name!r} cannot be served: {self._problems[name]}", field="index")
        return served

    def drop_journal(self, name: str) -> None:
        """Remove the updates of an index that was deleted, or is new, where they are not in its folder."""
        if self._journal is not None:
            drop_journal(self._journal, name)

    def feed(self, name: str) -> Feed:
        """The updates of an index. Raises as `get`."""
        self.get(name)
        return self._feeds[name]

    def target_recall(self, name: str) -> float | None:
        """What searches get that name none, where that is not what the index was built with."""
        served = self._served.get(name)
        return None if served is None else served.target_recall

    def look_at(self, name: str) -> None:
        """Does for one index at once what the watching does now and then."""
        with self._refreshing:
            if name in self.store.indexes():
                self._refresh_one(name)
            else:
                self._forget(name)

    def refresh(self) -> None:
        """Opens new current versions and drops deleted indexes, once."""
        with self._refreshing:
            try:
                names = self.store.indexes()
            except EarshotError as error:
                self._note("*", "", error)
                return
            self._problems.pop("*", None)
            for gone in (self._served.keys() | self._problems.keys()) - set(names):
                self._forget(gone)
            for name in names:
                self._refresh_one(name)

    def _refresh_one(self, name: str) -> None:
        version = ""
        try:
            feed = self._feeds.get(name)
            if feed is not None and feed.is_stale():
                self._forget(name)
            version = self._version(name)
            asked = self.store.asked(name)
            served = self._served.get(name)
            if served is not None and served.version == version:
                self._problems.pop(name, None)
                self._failed_version.pop(name, None)
                if (now := served_index(name, version, served.index, asked, served.recent)) != served:
                    self._served[name] = now
                return
            if self._failed_version.get(name) == version:
                return
            # While one worker replaces a version the others serve, and hold one in memory where it holds two.
            with contextlib.nullcontext() if served is None else one_worker_at_a_time():
                self._replace(name, version, asked, Recent() if served is None else served.recent)
        except FailedPrecondition as error:
            if version:
                self._note(name, version, error)
            # else nothing has been published yet, which is no problem
        except EarshotError as error:
            self._note(name, version, error)
        except Exception:
            log.exception("index %s %s could not be opened", name, version)
            self._note(name, version, Internal("it could not be opened; the server's log has the cause"))

    def _replace(self, name: str, version: str, asked: IndexConfig, recent: Recent) -> None:
        """Open, warm up and serve a version. Raises as `_open`."""
        started = time.perf_counter()
        index = self._open(name, version)
        ready = served_index(name, version, index, asked, recent)
        self._warm_up(ready)
        self._serve(ready)
        self._huge_pages.begin()
        self.load_seconds[name] = time.perf_counter() - started
        self.loads[name, "ok"] += 1
        self._problems.pop(name, None)
        self._failed_version.pop(name, None)
        log.info("serving index %s version %s, %d datapoints", name, version, len(index))

    def _version(self, name: str) -> str:
        """The current version, empty where there is none and none is needed.

        Raises as `Store.current`, and DataLoss where the one that is served is there and current no longer.
        """
        try:
            return self.store.current(name)
        except FailedPrecondition as error:
            served = self._served.get(name)
            if served is not None and served.version in {info.version for info in self.store.versions(name)}:
                raise DataLoss(f"no version of index {name} is current any more: roll back to one") from error
            if self.store.asked(name).dimensions is None:
                raise
            return ""

    def _open(self, name: str, version: str) -> LiveIndex:
        """A version with the updates after it; of an index without a version, the updates alone."""
        if version:
            opened = patiently(self.store.open, name, version)
        else:
            asked = self.store.asked(name)
            opened = empty_index(
                asked.dimensions or 0,
                asked.distance_measure or DistanceMeasure.DOT_PRODUCT_DISTANCE,
                asked.feature_norm or FeatureNorm.NONE,
                asked.target_recall or DEFAULT_TARGET_RECALL,
            )
        feed = self._feeds.get(name)
        if feed is not None:
            carried, before = patiently(feed.carried_over, opened), feed.index
            # What was asked of another model, or another dimension, says nothing here.
            if (before.dimension, before.manifest.model) == (opened.dimension, opened.manifest.model):
                carried.watch = before.watch.renewed()
            return carried
        address = journal_address(self.store, name, self._journal)
        self._feeds[name] = Feed(name, address, opened, self._sealer, shared=self._shared)
        return self._feeds[name].index

    def _serve(self, served: ServedIndex) -> None:
        def serve() -> None:
            self._served[served.name] = served

        self._feeds[served.name].take(served.index, serve)
        self._tell_dropped(served.name)

    def _forget(self, name: str) -> None:
        if self._served.pop(name, None) is not None:
            log.info("index %s was deleted", name)
        self._problems.pop(name, None)
        self._failed_version.pop(name, None)
        feed = self._feeds.pop(name, None)
        if feed is not None:
            feed.close()
        self._tell_dropped(name)

    def _tell_dropped(self, name: str) -> None:
        for tell in self.when_dropped:
            tell(name)

    def _warm_up(self, ready: ServedIndex) -> None:
        """Searches before the swap, so that the first real one finds all in memory, the model too."""
        index = ready.index
        pause = PAUSE_SECONDS if self._thread.is_alive() else 0.0
        warm = partial(warm_up, index, ready.crowding, ready.recent, pause=pause)
        # Threads inherit the priority of who starts them, and shards are searched by threads that stay.
        patiently(warm) if index.manifest.shards == 1 else warm()
        if self._embedders is not None and index.manifest.model:
            try:
                self._embedders.get(index.manifest.model)("warm up")
            except EarshotError as error:  # the index still answers vectors; a text will be told the reason
                log.warning("the model of index %s: %s", index.manifest.index, error.message)

    def _note(self, name: str, version: str, error: EarshotError) -> None:
        self.loads[name, "failed"] += 1
        served = self._served.get(name)
        kept = f"; version {served.version} goes on serving" if served else ""
        message = f"{error.message}{kept}"
        if self._problems.get(name) != message:
            log.error("index %s %s: %s", name, version or "without a version", message)
        self._problems[name] = message
        if not isinstance(error, _MAY_PASS):
            self._failed_version[name] = version

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            self.refresh()

    def _tidy(self) -> None:
        """Follows what others write, sets fresh datapoints in order, watches recall, moves memory."""
        let_searches_go_first()
        measure_at: dict[str, float] = {}
        while not self._stopping.wait(TIDY_SECONDS):
            for name in list(self._feeds):
                self._tidy_one(name, measure_at)
            self._huge_pages.turn()

    def _tidy_one(self, name: str, measure_at: dict[str, float]) -> None:
        # A function, so that between its turns the thread keeps no index that was deleted meanwhile.
        feed = self._feeds.get(name)
        if feed is None:
            return
        try:
            feed.follow()
            feed.index.tidy()
            began = time.monotonic()
            if began >= measure_at.get(name, 0):
                self._measure(name)
                pause = MEASURING_PAUSE if feed.index.watch.recall is not None else FIRST_MEASURING_PAUSE
                measure_at[name] = began + max(0.2, pause * (time.monotonic() - began))
        except EarshotError as error:
            self._note(name, "", error)
        except Exception:
            log.exception("the updates of index %s could not be followed", name)

    def _measure(self, name: str) -> None:
        served = self._served.get(name)
        if served is None:
            return
        watch = served.index.watch
        watch.measure(served.index.now(), served.target_recall)
        if not served.is_short:
            self._short.discard(name)
        elif name not in self._short:
            self._short.add(name)
            recall = watch.recall
            assert recall is not None
            reason = f"real queries find {recall.value:.4f} of their neighbors, at most {recall.high:.4f}"
            log.warning("index %s is short of its recall %g: %s", name, served.promised, reason)
            self.on_short_recall(name, reason)

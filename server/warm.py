"""What a version is asked before it serves: stored vectors, and what was asked of the version before it.

The first search of a kind finds nothing ready: pages on disk, tables of tags, compiled parts of libraries; on
700 datapoints the first with crowding took 58 ms and the next 0.5.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earshot.errors import EarshotError
from earshot.index.live import LiveIndex

__all__ = ["Recent", "warm_up"]

log = logging.getLogger(__name__)

STORED_QUERIES = 64
TOGETHER = 8  # of these: a longer call would keep a core for as long
RECENT_BATCHES = 32
RECENT_QUERIES = 16  # of one batch
SECONDS_BETWEEN = 0.1

Floats = NDArray[np.float32]


class Recent:
    """A sample of the searches of one index, one batch every tenth of a second. Any thread may note."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Floats, int, dict[str, Any]]] = deque(maxlen=RECENT_BATCHES)
        self._next = 0.0

    def note(self, queries: Floats, k: int, options: Mapping[str, Any]) -> None:
        """Perhaps keeps these queries, float32 [q, dimension] or [dimension], and what else was asked."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SECONDS_BETWEEN
            self._kept.append((np.atleast_2d(queries)[:RECENT_QUERIES].copy(), k, dict(options)))

    def replay(self, index: LiveIndex, pause: float) -> int:
        """Asks `index` the same; how many batches it could answer, for it may be of another kind."""
        answered = 0
        for queries, k, options in list(self._kept):
            try:
                _search(index, queries, k, options, pause)
                answered += 1
            except EarshotError as error:
                log.debug("a recent search cannot be asked of the new version: %s", error.message)
        return answered


def warm_up(index: LiveIndex, crowding: int | None, recent: Recent, *, pause: float) -> None:
    """Searches as those that will come: alone and together, with tags and metadata, and the recent ones.

    `pause`: Seconds before each, in which the cores are others'.
    """
    if len(index):
        queries = index.vectors(index.sample_ids(STORED_QUERIES))
        k = min(10, len(index))
        several = [queries[start : start + TOGETHER] for start in range(0, len(queries), TOGETHER)]
        for some in (*several, *queries[:TOGETHER]):
            _search(index, some, k, {"crowding": crowding}, pause)
    recent.replay(index, pause)


def _search(index: LiveIndex, queries: Floats, k: int, options: Mapping[str, Any], pause: float) -> None:
    time.sleep(pause)
    found = index.search(queries, k, **options)
    _ = found.ids, found.crowding_tags, found.metadata  # which are read when they are asked for

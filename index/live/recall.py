"""How much of the truth real searches find now: a sample of the traffic, asked again, exactly."""

from __future__ import annotations

from collections import deque
from itertools import islice
from threading import Lock

import numpy as np

from ..distance import Floats
from ..index import Index
from ..result import hits_of
from ..tuning import Recall, recall_of

__all__ = ["RecallWatch"]

SAMPLED_AT = 10
_EVERY = 17  # no power of two, so that of batches of 16 or 64 not always the same places are remembered
_KEPT = 512
_ENOUGH = 100
_AT_ONCE = 8  # each of them costs an exact search


class RecallWatch:
    """Recent queries, and the recall at k = 10 that they have at what searches get that ask for none.

    Any thread may `offer`; one `measure`s. A query that comes again and again, as a probe's does, is one:
    of others it says nothing. What a version's updates did to recall is not what they do to the next one's,
    so each version begins anew, with the queries of the one before.
    """

    def __init__(self, queries: dict[bytes, Floats] | None = None) -> None:
        self._queries = dict(queries or {})  # the oldest first
        self._hits: deque[int] = deque(maxlen=_KEPT)
        self._lock = Lock()
        self._offered = 0

    def renewed(self) -> RecallWatch:
        """For the next version of the same index."""
        with self._lock:
            return RecallWatch(self._queries)

    def offer(self, queries: Floats) -> None:
        """Remember one of seventeen queries that were searched for, [q, dimension] or [dimension].

        Costs a hundred nanoseconds; of two threads at once one may be overlooked, which does no harm.
        """
        first = -self._offered % _EVERY
        count = len(queries) if queries.ndim == 2 else 1
        self._offered += count
        if first >= count:
            return
        picked = np.array(queries[first::_EVERY] if queries.ndim == 2 else queries[np.newaxis], np.float32)
        with self._lock:
            for query in picked:
                self._queries.setdefault(query.tobytes(), query)
            for oldest in list(islice(self._queries, max(0, len(self._queries) - _KEPT))):
                del self._queries[oldest]

    def sample(self) -> Floats | None:
        """The remembered queries, [q, dimension]; None where they are too few to speak for others."""
        with self._lock:
            kept = list(self._queries.values())
        return np.stack(kept) if len(kept) >= _ENOUGH else None

    def is_short_of(self, target: float) -> bool:
        """Whether real searches were measured to find less than a recall, beyond chance."""
        recall = self.recall
        return recall is not None and recall.high < target

    def measure(self, index: Index, target: float | None = None) -> bool:
        """Ask the oldest remembered queries again, as usual and exactly; False where there are none.

        Args:
            index: As it is at one moment (`LiveIndex.now`).
            target: Recall of a search that asks for none; None for the index's own.
        """
        k = min(SAMPLED_AT, len(index))
        with self._lock:
            taken = {query: self._queries.pop(query) for query in list(islice(self._queries, _AT_ONCE))}
            if k < SAMPLED_AT or not taken:
                return False
            self._queries.update(taken)  # asked again when their turn comes, if nothing newer is there
        asked = np.stack(list(taken.values()))
        found = index.search(asked, k, target_recall=target)
        hits = hits_of(found, index.search(asked, k, target_recall=1.0), asked)
        with self._lock:
            self._hits.extend(hits.tolist())
        return True

    @property
    def recall(self) -> Recall | None:
        """Of the last queries measured, with its interval; None before there are enough.

        What was found of a query a second time says nothing more about others.
        """
        with self._lock:
            last = min(len(self._hits), len(self._queries))
            hits = np.array(list(self._hits)[len(self._hits) - last :], np.int64)
        return recall_of(hits, SAMPLED_AT) if len(hits) >= _ENOUGH else None

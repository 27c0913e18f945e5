"""How much of the truth real searches find now: a sample of the traffic, asked again, exactly."""

from __future__ import annotations

from collections import deque
from threading import Lock

import numpy as np

from ..distance import Floats
from ..index import Index
from ..result import hits_of
from ..tuning import Recall, recall_of

__all__ = ["RecallWatch"]

SAMPLED_AT = 10
_EVERY = 16
_KEPT = 256
_WINDOW = 512
_ENOUGH = 100


class RecallWatch:
    """Recent queries, and the recall at k = 10 that they have at the index's own target.

    Any thread may `offer`; one `measure`s. What a version's updates did to recall is not what they do to the
    next one's, so each version begins anew, with the queries of the one before.
    """

    def __init__(self, queries: deque[Floats] | None = None) -> None:
        self._queries = deque(queries or (), maxlen=_KEPT)
        self._hits: deque[int] = deque(maxlen=_WINDOW)
        self._lock = Lock()
        self._offered = 0

    def renewed(self) -> RecallWatch:
        """For the next version of the same index."""
        with self._lock:
            return RecallWatch(self._queries)

    def offer(self, queries: Floats) -> None:
        """Maybe remember one of some queries that were searched for, [q, dimension] or [dimension].

        Costs a hundred nanoseconds; of two threads at once one may be overlooked, which does no harm.
        """
        before = self._offered // _EVERY
        self._offered += len(queries) if queries.ndim == 2 else 1
        if self._offered // _EVERY == before or not queries.size:
            return
        query = np.array(queries[-1] if queries.ndim == 2 else queries, np.float32)
        with self._lock:
            self._queries.append(query)

    def measure(self, index: Index, count: int = 8) -> bool:
        """Ask the oldest remembered queries again, as usual and exactly; False where there are none.

        Args:
            index: As it is at one moment (`LiveIndex.now`).
            count: Queries; each costs an exact search.
        """
        k = min(SAMPLED_AT, len(index))
        with self._lock:
            taken = [self._queries.popleft() for _ in range(min(count, len(self._queries)))]
            if k < SAMPLED_AT or not taken:
                return False
            self._queries.extend(taken)  # asked again when their turn comes, if nothing newer is there
        asked = np.stack(taken)
        hits = hits_of(index.search(asked, k), index.search(asked, k, target_recall=1.0), asked)
        with self._lock:
            self._hits.extend(hits.tolist())
        return True

    @property
    def recall(self) -> Recall | None:
        """Of the last queries measured, with its interval; None before there are enough."""
        with self._lock:
            hits = np.array(self._hits, np.int64)
        return recall_of(hits, SAMPLED_AT) if len(hits) >= _ENOUGH else None

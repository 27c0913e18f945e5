"""How the benchmarks of the index time a search: on the processor, in turns, the best of several rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np

from benchmarks.datasets import Floats, Rows

K, BATCH = 10, 256
TARGETS = (0.9, 0.95, 0.99)
ROUNDS = 5

Action = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One engine at one setting: `us` of the processor a query, in batches of 256."""

    data: str
    engine: str
    setting: str
    recall: float
    us: float

    @property
    def per_second(self) -> float:
        """Queries a second on one core."""
        return 1e6 / self.us


def fastest(actions: dict[str, Action], per_call: int, rounds: int = ROUNDS) -> dict[str, float]:
    """µs of the processor a query for each action, in turns, the best of several."""
    best = dict.fromkeys(actions, np.inf)
    for _ in range(rounds):
        for name, action in actions.items():
            began = process_time()
            action()
            best[name] = min(best[name], (process_time() - began) / per_call * 1e6)
    return best


def in_batches(search: Callable[[Floats], Rows], queries: Floats) -> Rows:
    """What a search finds, 256 queries at a time."""
    return np.concatenate([search(queries[i : i + BATCH]) for i in range(0, len(queries), BATCH)])

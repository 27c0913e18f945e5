"""A dictionary that obeys the same updates and answers by brute force: the oracle of live indexes."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import replace

from earshot.index import NumericRestrict, Operator, TokenRestrict
from earshot.index.journal import UNSET, Entry, Patch, Put, Remove

COMPARE = {
    Operator.LESS: lambda a, b: a < b,
    Operator.LESS_EQUAL: lambda a, b: a <= b,
    Operator.EQUAL: lambda a, b: a == b,
    Operator.GREATER_EQUAL: lambda a, b: a >= b,
    Operator.GREATER: lambda a, b: a > b,
    Operator.NOT_EQUAL: lambda a, b: a != b,
}


class Oracle:
    """What should be there."""

    def __init__(self, measure: str) -> None:
        self.measure = measure
        self.held: dict[str, Put] = {}

    def apply(self, entry: Entry) -> None:
        if isinstance(entry, Put):
            self.held[entry.id] = entry
        elif isinstance(entry, Remove):
            self.held.pop(entry.id, None)
        elif isinstance(entry, Patch) and entry.id in self.held:
            parts = ("vector", "crowding_tag", "metadata", "restricts")
            given = {name: getattr(entry, name) for name in parts if getattr(entry, name) is not UNSET}
            self.held[entry.id] = replace(self.held[entry.id], **given)

    def distances(self, query: np.ndarray) -> dict[str, float]:
        wide = query.astype(np.float64)
        return {name: self._distance(wide, put.vector.astype(np.float64)) for name, put in self.held.items()}

    def _distance(self, q: np.ndarray, x: np.ndarray) -> float:
        if self.measure == "DOT_PRODUCT_DISTANCE":
            return float(q @ x)
        if self.measure == "SQUARED_L2_DISTANCE":
            return float(((q - x) ** 2).sum())
        if self.measure == "L1_DISTANCE":
            return float(np.abs(q - x).sum())
        lengths = np.linalg.norm(q) * np.linalg.norm(x)
        return float(1 - q @ x / (lengths or 1))

    def search(
        self, query: np.ndarray, k: int, *, crowding: int | None = None, where: tuple = ()
    ) -> list[tuple[str, float]]:
        """(id, distance) of the neighbors, nearest first."""
        sign = -1 if self.measure == "DOT_PRODUCT_DISTANCE" else 1
        ranked = sorted(self.distances(query).items(), key=lambda item: sign * item[1])
        found: list[tuple[str, float]] = []
        of_tag: dict[str, int] = {}
        for name, distance in ranked:
            put = self.held[name]
            if not all(passes(put.restricts, restrict) for restrict in where):
                continue
            if crowding is not None and put.crowding_tag is not None:
                of_tag[put.crowding_tag] = of_tag.get(put.crowding_tag, 0) + 1
                if of_tag[put.crowding_tag] > crowding:
                    continue
            found.append((name, distance))
        return found[:k]


def passes(stored: Any, asked: TokenRestrict | NumericRestrict) -> bool:
    mine = [each for each in stored if each.namespace == asked.namespace]
    if isinstance(asked, NumericRestrict):
        assert asked.op is not None
        numbers = [each.value for each in mine if isinstance(each, NumericRestrict)]
        return any(COMPARE[asked.op](number, asked.value) for number in numbers)
    allow = {token for each in mine if isinstance(each, TokenRestrict) for token in each.allow}
    deny = {token for each in mine if isinstance(each, TokenRestrict) for token in each.deny}
    if asked.allow and (not allow & set(asked.allow) or deny & set(asked.allow)):
        return False
    return not allow & set(asked.deny)

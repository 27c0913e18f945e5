"""The queries of one StreamSearch: those that came together and are alike go to the engine as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np

from earshot.errors import EarshotError

from ..auth import Admission
from ..telemetry import CallRecord, Telemetry
from .decode import Vectors
from .search import MAX_BATCH, Key, Searcher

__all__ = ["StreamSearches"]

Answer = asyncio.Future[Sequence[bytes]]
_Group = list[tuple[bytes, Answer]]


class StreamSearches:
    """Searches for one stream, on behalf of its `admission`; `record` is that of the stream.

    Each query is counted as a call of its own, and one that is wrong fails alone.
    """

    def __init__(
        self, searcher: Searcher, telemetry: Telemetry, admission: Admission, record: CallRecord
    ) -> None:
        self._searcher = searcher
        self._telemetry = telemetry
        self._admission = admission
        self._record = record
        self._groups: dict[Key, _Group] = {}  # what came in this turn of the loop
        self._under_way: set[Answer] = set()

    def search(self, data: bytes) -> Answer:
        """The answer to a `SearchRequest` to come."""
        try:
            self._admission.check(data)
        except EarshotError as error:
            return self._failed(error)
        usual = self._searcher.usual(data)
        if usual is None:
            return self._alone(data)
        key, vectors = usual
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        if not self._groups:
            loop.call_soon(self._flush)
        self._groups.setdefault(key, []).append((vectors.data, answer))
        return answer

    def cancel(self) -> None:
        """Drops what is not answered yet."""
        for future in list(self._under_way):
            future.cancel()

    def _alone(self, data: bytes) -> Answer:
        record = self._telemetry.begin_in_stream(self._record)
        future = asyncio.ensure_future(self._searcher.search_in_pieces(data, record))
        future.add_done_callback(record.end_with)
        return future

    def _failed(self, error: EarshotError) -> Answer:
        answer: Answer = asyncio.get_running_loop().create_future()
        answer.set_exception(error)
        answer.add_done_callback(self._telemetry.begin_in_stream(self._record).end_with)
        return answer

    def _flush(self) -> None:
        groups, self._groups = self._groups, {}
        for key, group in groups.items():
            wanted = [(numbers, answer) for numbers, answer in group if not answer.done()]
            for start in range(0, len(wanted), MAX_BATCH):
                self._submit_finite(key, wanted[start : start + MAX_BATCH])

    def _submit_finite(self, key: Key, group: _Group) -> None:
        """Those that the engine would refuse go each on its own, so that no other fails with it."""
        matrix = np.frombuffer(b"".join([numbers for numbers, _ in group]), "<f4").reshape(len(group), -1)
        finite = np.isfinite(matrix).all(axis=1)
        if finite.all():
            self._submit(key, group)
            return
        self._submit(key, [query for query, is_finite in zip(group, finite, strict=True) if is_finite])
        for query, is_finite in zip(group, finite, strict=True):
            if not is_finite:
                self._submit(key, [query])

    def _submit(self, key: Key, group: _Group) -> None:
        if not group:
            return
        record = self._telemetry.begin_in_stream(self._record, len(group))
        vectors = Vectors(b"".join([numbers for numbers, _ in group]), len(group))
        try:
            found = self._searcher.submit(key, vectors, record)
        except EarshotError as error:
            found = asyncio.get_running_loop().create_future()
            found.set_exception(error)
        self._under_way.add(found)
        found.add_done_callback(record.end_with)
        found.add_done_callback(partial(self._deliver, [answer for _, answer in group]))

    def _deliver(self, answers: Sequence[Answer], found: Answer) -> None:
        self._under_way.discard(found)
        if found.cancelled():
            for answer in answers:
                answer.cancel()
            return
        error = found.exception()
        for place, answer in enumerate(answers):
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result((found.result()[place],))

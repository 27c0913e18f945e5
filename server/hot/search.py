"""The hot path of a search: decode on the loop, embed and search in batches off it, answer with bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import Executor
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import messages
from ..batch import batch_kind, batch_texts, batch_vectors
from ..names import index_id
from ..registry import ServedIndex
from ..search import SearchPlan, find, plan_search, query_kind, query_text, query_vector
from ..service import Service
from ..telemetry import CallRecord, Metrics, current
from ..workers import Workers
from .batcher import Batcher
from .encode import AnswerEncoder

__all__ = ["Searcher"]

Floats = NDArray[np.float32]
Times = tuple[float, ...]  # of the parts of a batch's work, `time.perf_counter()`
Result = TypeVar("Result")
S = TypeVar("S", list[bytes], Sequence[str], Floats)

MAX_BATCH = 64
MAX_TEXTS = 8
MAX_TOGETHER = 256  # of one request; a larger call saves nothing and keeps others waiting
MAX_WAITING = 1024


class _Key(NamedTuple):
    """Queries with equal keys go together."""

    plan: SearchPlan
    encoder: AnswerEncoder


class Searcher:
    """Searches of one service, from all connections, in micro-batches. Belongs to one event loop."""

    def __init__(
        self,
        service: Service,
        workers: Workers,
        metrics: Metrics,
        executor: Executor,
        engine: Executor,
        *,
        slots: int,
    ) -> None:
        self._service = service
        self._workers = workers
        self._searches: Batcher[_Key, Floats, tuple[list[bytes], Times]] = Batcher(
            _search,
            engine,
            slots=slots,
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
            on_batch=partial(metrics.batch, "engine"),
        )
        # One text a run of the model costs the least; a batch saves the way to another thread and back.
        self._texts: Batcher[ServedIndex, Sequence[str], tuple[Floats, Times]] = Batcher(
            self._embed,
            executor,
            slots=slots,
            max_batch=MAX_TEXTS,
            max_waiting=MAX_WAITING,
            on_batch=partial(metrics.batch, "embed"),
        )
        metrics.queues.update(engine=self._searches.waiting, embed=self._texts.waiting)

    async def search(
        self, request: messages.SearchRequest, encoder: AnswerEncoder, record: CallRecord
    ) -> bytes:
        """The answer as `encoder` writes it. Raises as `Service.search`, and ResourceExhausted."""
        if request.explain:  # alone, and beside an exact search: for people, not for load
            return encoder.whole(await self._off_loop(record, self._service.search, request))
        served = await self._served(request, record)
        record.queries, record.text = 1, request.text
        plan = plan_search(request, served)
        kind = query_kind(request)
        if kind == "text":
            texts = [query_text(request.text or "")]
            return (await self._search_texts(texts, plan, encoder, record))[0]
        if kind == "datapoint_id":
            query = await self._off_loop(record, served.index.vectors, [request.datapoint_id or ""])
        else:
            query = query_vector(request.vector or messages.Vector(), served)[np.newaxis]
        return (await self._submit(plan, query, encoder, record))[0]

    async def batch_search(
        self, request: messages.BatchSearchRequest, encoder: AnswerEncoder, record: CallRecord
    ) -> bytes:
        """The answer as `encoder` writes it. Raises as `Service.batch_search`, and ResourceExhausted."""
        served = await self._served(request, record)
        plan = plan_search(request, served)
        kind = batch_kind(request, plan)
        record.queries = len(getattr(request, kind))
        if kind == "texts":
            texts = batch_texts(request.texts)
            return encoder.batch(await self._search_texts(texts, plan, encoder, record))
        if kind == "datapoint_ids":
            queries = await self._off_loop(record, served.index.vectors, request.datapoint_ids)
        else:
            queries = batch_vectors(request.vectors, served)
        return encoder.batch(await self._search_all(plan, queries, encoder, record))

    async def _served(self, request: messages.SearchOptions, record: CallRecord) -> ServedIndex:
        name = index_id(request.index)
        served = self._service.registry.peek(name)
        if served is None:
            served = await self._off_loop(record, self._service.registry.get, name)
        record.index, record.version = served.name, served.version
        return served

    async def _search_texts(
        self, texts: Sequence[str], plan: SearchPlan, encoder: AnswerEncoder, record: CallRecord
    ) -> list[bytes]:
        started = time.perf_counter()
        # A piece at a time, so that many texts of one request let those of others in between.
        pieces = [await self._embedded(plan.served, piece, record) for piece in _cut(texts, MAX_TEXTS)]
        seconds = time.perf_counter() - started
        answers = await self._search_all(plan, np.concatenate(pieces), encoder, record)
        return [encoder.with_embed_duration(answer, seconds) for answer in answers]

    async def _search_all(
        self, plan: SearchPlan, queries: Floats, encoder: AnswerEncoder, record: CallRecord
    ) -> list[bytes]:
        pieces = [await self._submit(plan, piece, encoder, record) for piece in _cut(queries, MAX_TOGETHER)]
        return [answer for piece in pieces for answer in piece]

    async def _submit(
        self, plan: SearchPlan, queries: Floats, encoder: AnswerEncoder, record: CallRecord
    ) -> list[bytes]:
        submitted = time.perf_counter()
        answers, times = await self._searches.submit(
            plan.served.name, _Key(plan, encoder), queries, record.deadline, weight=len(queries)
        )
        started, found, encoded = times
        record.stages += (
            ("queue", submitted, started),
            ("engine", started, found),
            ("encode", found, encoded),
        )
        return answers

    async def _embedded(self, served: ServedIndex, texts: Sequence[str], record: CallRecord) -> Floats:
        submitted = time.perf_counter()
        vectors, (started, ended) = await self._texts.submit(
            served.name, served, texts, record.deadline, weight=len(texts)
        )
        record.note("queue", submitted, started)
        record.note("embed", started, ended)
        return vectors

    def _embed(self, served: ServedIndex, items: Sequence[Sequence[str]]) -> list[tuple[Floats, Times]]:
        started = time.perf_counter()
        vectors = self._service.embed(served, [text for texts in items for text in texts])
        return _parts(vectors, items, (started, time.perf_counter()))

    async def _off_loop(self, record: CallRecord, function: Callable[..., Result], *arguments: Any) -> Result:
        with current(record):
            return await self._workers.run(function, *arguments)


def _search(key: _Key, items: Sequence[Floats]) -> list[tuple[list[bytes], Times]]:
    started = time.perf_counter()
    result = find(key.plan, items[0] if len(items) == 1 else np.concatenate(items))
    found = time.perf_counter()
    answers = key.encoder.encode(key.plan, result, found - started)
    return _parts(answers, items, (started, found, time.perf_counter()))


def _cut(whole: S, size: int) -> list[S]:
    """`whole` in pieces of at most `size`."""
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def _parts(whole: S, items: Sequence[Sized], times: Times) -> list[tuple[S, Times]]:
    """`whole` in pieces, each as long as its item, and when their common work began and ended."""
    ends = list(accumulate(map(len, items)))
    return [(whole[end - len(item) : end], times) for item, end in zip(items, ends, strict=True)]

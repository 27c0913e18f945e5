"""The hot path of a search: decode on the loop, embed and search in batches off it, answer with bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import Executor
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
from .batcher import Batcher
from .encode import AnswerEncoder

__all__ = ["Searcher"]

Floats = NDArray[np.float32]
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

    def __init__(self, service: Service, executor: Executor, engine: Executor, *, slots: int) -> None:
        self._service = service
        self._executor = executor
        self._searches: Batcher[_Key, Floats, list[bytes]] = Batcher(
            _search, engine, slots=slots, max_batch=MAX_BATCH, max_waiting=MAX_WAITING
        )
        # One text a run of the model costs the least; a batch saves the way to another thread and back.
        self._texts: Batcher[ServedIndex, Sequence[str], Floats] = Batcher(
            self._embed, executor, slots=slots, max_batch=MAX_TEXTS, max_waiting=MAX_WAITING
        )

    async def search(
        self, request: messages.SearchRequest, encoder: AnswerEncoder, deadline: float | None
    ) -> bytes:
        """The answer as `encoder` writes it. Raises as `Service.search`, and ResourceExhausted."""
        if request.explain:  # alone, and beside an exact search: for people, not for load
            return encoder.whole(await self._off_loop(self._service.search, request))
        served = await self._served(request)
        plan = plan_search(request, served)
        kind = query_kind(request)
        if kind == "text":
            texts = [query_text(request.text or "")]
            return (await self._search_texts(texts, plan, encoder, deadline))[0]
        if kind == "datapoint_id":
            query = await self._off_loop(served.index.vectors, [request.datapoint_id or ""])
        else:
            query = query_vector(request.vector or messages.Vector(), served)[np.newaxis]
        return (await self._submit(plan, query, encoder, deadline))[0]

    async def batch_search(
        self, request: messages.BatchSearchRequest, encoder: AnswerEncoder, deadline: float | None
    ) -> bytes:
        """The answer as `encoder` writes it. Raises as `Service.batch_search`, and ResourceExhausted."""
        served = await self._served(request)
        plan = plan_search(request, served)
        kind = batch_kind(request, plan)
        if kind == "texts":
            texts = batch_texts(request.texts)
            return encoder.batch(await self._search_texts(texts, plan, encoder, deadline))
        if kind == "datapoint_ids":
            queries = await self._off_loop(served.index.vectors, request.datapoint_ids)
        else:
            queries = batch_vectors(request.vectors, served)
        return encoder.batch(await self._search_all(plan, queries, encoder, deadline))

    async def _served(self, request: messages.SearchOptions) -> ServedIndex:
        name = index_id(request.index)
        served = self._service.registry.peek(name)
        if served is None:
            served = await self._off_loop(self._service.registry.get, name)
        return served

    async def _search_texts(
        self, texts: Sequence[str], plan: SearchPlan, encoder: AnswerEncoder, deadline: float | None
    ) -> list[bytes]:
        started = time.perf_counter()
        # A piece at a time, so that many texts of one request let those of others in between.
        pieces = [
            await self._texts.submit(plan.served.name, plan.served, piece, deadline, weight=len(piece))
            for piece in _cut(texts, MAX_TEXTS)
        ]
        seconds = time.perf_counter() - started
        answers = await self._search_all(plan, np.concatenate(pieces), encoder, deadline)
        return [encoder.with_embed_duration(answer, seconds) for answer in answers]

    async def _search_all(
        self, plan: SearchPlan, queries: Floats, encoder: AnswerEncoder, deadline: float | None
    ) -> list[bytes]:
        pieces = [await self._submit(plan, piece, encoder, deadline) for piece in _cut(queries, MAX_TOGETHER)]
        return [answer for piece in pieces for answer in piece]

    def _submit(
        self, plan: SearchPlan, queries: Floats, encoder: AnswerEncoder, deadline: float | None
    ) -> asyncio.Future[list[bytes]]:
        key = _Key(plan, encoder)
        return self._searches.submit(plan.served.name, key, queries, deadline, weight=len(queries))

    def _embed(self, served: ServedIndex, items: Sequence[Sequence[str]]) -> list[Floats]:
        vectors = self._service.embed(served, [text for texts in items for text in texts])
        return _parts(vectors, items)

    def _off_loop(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _search(key: _Key, items: Sequence[Floats]) -> list[list[bytes]]:
    started = time.perf_counter()
    found = find(key.plan, items[0] if len(items) == 1 else np.concatenate(items))
    answers = key.encoder.encode(key.plan, found, time.perf_counter() - started)
    return _parts(answers, items)


def _cut(whole: S, size: int) -> list[S]:
    """`whole` in pieces of at most `size`."""
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def _parts(whole: S, items: Sequence[Sized]) -> list[S]:
    """`whole` in pieces, each as long as its item."""
    ends = list(accumulate(map(len, items)))
    return [whole[end - len(item) : end] for item, end in zip(items, ends, strict=True)]

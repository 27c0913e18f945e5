"""The hot path of a search: decode on the loop, embed and search in batches off it, answer with bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import messages
from ..names import index_id
from ..registry import ServedIndex
from ..search import SearchPlan, find, plan_search, query_kind, query_text, query_vector
from ..service import Service
from .batcher import Batcher
from .encode import AnswerEncoder

__all__ = ["Searcher"]

Argument = TypeVar("Argument")
Result = TypeVar("Result")

MAX_BATCH = 64
MAX_TEXTS = 8
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
        self._searches: Batcher[_Key, bytes, bytes] = Batcher(
            _search, engine, slots=slots, max_batch=MAX_BATCH, max_waiting=MAX_WAITING
        )
        # One text a run of the model costs the least; a batch saves the way to another thread and back.
        self._texts: Batcher[ServedIndex, str, NDArray[np.float32]] = Batcher(
            self._embed, executor, slots=slots, max_batch=MAX_TEXTS, max_waiting=MAX_WAITING
        )

    async def search(
        self, request: messages.SearchRequest, encoder: AnswerEncoder, deadline: float | None
    ) -> bytes:
        """The answer as `encoder` writes it. Raises as `Service.search`, and ResourceExhausted."""
        name = index_id(request.index)
        served = self._service.registry.peek(name)
        if served is None:
            served = await self._off_loop(self._service.registry.get, name)
        plan = plan_search(request, served)
        kind = query_kind(request)
        if kind == "text":
            return await self._search_text(query_text(request.text or ""), plan, encoder, deadline)
        if kind == "datapoint_id":
            stored = await self._off_loop(served.index.read, [request.datapoint_id or ""])
            query = stored[0].vector
        else:
            query = query_vector(request.vector or messages.Vector(), served)
        return await self._submit(plan, query, encoder, deadline)

    async def _search_text(
        self, text: str, plan: SearchPlan, encoder: AnswerEncoder, deadline: float | None
    ) -> bytes:
        started = time.perf_counter()
        query = await self._texts.submit(plan.served.name, plan.served, text, deadline)
        seconds = time.perf_counter() - started
        answer = await self._submit(plan, query, encoder, deadline)
        return encoder.with_embed_duration(answer, seconds)

    def _submit(
        self, plan: SearchPlan, query: NDArray[np.float32], encoder: AnswerEncoder, deadline: float | None
    ) -> asyncio.Future[bytes]:
        return self._searches.submit(plan.served.name, _Key(plan, encoder), query.tobytes(), deadline)

    def _embed(self, served: ServedIndex, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return list(self._service.embedder(served).embed(texts))

    def _off_loop(self, function: Callable[[Argument], Result], argument: Argument) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, function, argument)


def _search(key: _Key, queries: Sequence[bytes]) -> list[bytes]:
    started = time.perf_counter()
    matrix = np.frombuffer(b"".join(queries), dtype=np.float32).reshape(len(queries), -1)
    found = find(key.plan, matrix)
    return key.encoder.encode(key.plan, found, time.perf_counter() - started)

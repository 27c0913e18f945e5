"""The hot path of a search: decode on the loop, embed and search in batches off it, answer with bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import accumulate
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from earshot.index import Index

from .. import messages
from ..batch import batch_kind, batch_texts, batch_vectors
from ..json_codec import decode
from ..names import index_id
from ..proto_codec import batch_search_request, search_request
from ..search import SearchPlan, find, plan_search, query_kind, query_text, query_vector
from ..served_index import ServedIndex
from ..service import Service
from ..telemetry import CallRecord, Metrics, current
from ..visible import check_visible, when_visible
from ..workers import Workers
from .batch_size import BatchSize
from .batcher import Batcher
from .cost import Cost, Costs
from .decode import UsualRequests, Vectors, options_of_batch, options_of_search, split
from .decode_json import options_of_json, split_json
from .encode import AnswerEncoder, JsonAnswers, ProtobufAnswers
from .lanes import Promise
from .together import Together

__all__ = ["MAX_BATCH", "Key", "Searcher"]

Floats = NDArray[np.float32]
Times = tuple[float, float]  # from when to when, `time.perf_counter()`
Result = TypeVar("Result")
Check = Callable[[messages.SearchOptions], None]

MAX_BATCH = 64
MAX_TEXTS = 8
INLINE_SECONDS = 0.001  # the longest that a batch may hold up the loop
MAX_TOGETHER = 256  # of one request; a larger call saves nothing and keeps others waiting


class Key:
    """Queries with equal keys go together."""

    __slots__ = ("_hash", "cost", "encoder", "plan")

    def __init__(self, plan: SearchPlan, encoder: AnswerEncoder) -> None:
        self.plan = plan
        self.encoder = encoder
        self.cost: Cost | None = None  # where it is cheap it is searched on the loop
        self._hash = hash((plan, encoder))  # once: a plan has many fields

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Key) and self.encoder is other.encoder and self.plan == other.plan
        )


class _Item(NamedTuple):
    """Queries of one request: float32 one after another, how many, whose, and since when they wait."""

    data: bytes
    number: int
    record: CallRecord
    submitted: float


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
        threads: int,
        max_queue: int,
        p99_seconds: float = 0.1,
    ) -> None:
        self._p99_seconds = p99_seconds
        self._sizes: WeakKeyDictionary[Index, BatchSize] = WeakKeyDictionary()
        self._service = service
        self._workers = workers
        self._searches: Batcher[Key, _Item, Sequence[bytes]] = Batcher(
            _search,
            engine,
            slots=threads,
            ahead=1,
            max_batch=MAX_BATCH,
            max_waiting=max_queue,
            on_batch=partial(metrics.batch, "engine"),
            size_of=self._size_of,
            cost_of=attrgetter("cost"),
        )
        # One text a run of the model costs the least; a batch saves the way to another thread and back.
        self._texts: Batcher[ServedIndex, Sequence[str], tuple[Floats, Times]] = Batcher(
            self._embed,
            executor,
            slots=max(1, threads - 1),
            max_batch=MAX_TEXTS,
            max_waiting=max_queue,
            on_batch=partial(metrics.batch, "embed"),
        )
        metrics.queues.update(engine=self._searches.waiting, embed=self._texts.waiting)
        self._catching_up = Together(service.registry.get, "earshot-catching-up")
        self._protobuf, self._json = ProtobufAnswers(), JsonAnswers()
        self._costs: Costs[Key] = Costs(INLINE_SECONDS)

        def usual(options: Any, encoder: AnswerEncoder) -> UsualRequests[Key]:
            return UsualRequests(options, service.registry, partial(self._key, encoder=encoder))

        self._usual = usual(options_of_search, self._protobuf)
        self._usual_batches = usual(options_of_batch, self._protobuf)
        self._usual_json = usual(options_of_json, self._json)
        service.registry.when_dropped.append(self._forget)

    def _forget(self, name: str) -> None:
        """Lets go of what was remembered of an index; plans and pieces hold on to their version."""
        for usual in (self._usual, self._usual_batches, self._usual_json):
            usual.clear()
        self._costs.clear()
        for answers in (self._protobuf, self._json):
            answers.forget(name)

    def _key(self, plan: SearchPlan, encoder: AnswerEncoder) -> Key:
        key = Key(plan, encoder)
        index = plan.served.index
        # Those let threads or a device work and wait for them, which the loop must not.
        if not index.on_device and index.manifest.shards == 1:
            key.cost = self._costs.of(key)
        return key

    def _size_of(self, key: Key) -> BatchSize | None:
        """What learns how many queries go to a GPU together; a CPU gains nothing beyond `MAX_BATCH`."""
        index = key.plan.served.index
        if not index.on_device:
            return None
        size = self._sizes.get(index)
        if size is None:
            size = self._sizes[index] = BatchSize(self._p99_seconds, smallest=MAX_BATCH)
        return size

    async def search_message(self, data: bytes, record: CallRecord) -> bytes:
        """The answer to a `SearchRequest` as it travels. Raises as `search`."""
        usual = self._usual.find_in(data)
        if usual is None:
            return await self.search(search_request(data), self._protobuf, record)
        return (await self.submit(*usual, record))[0]

    async def batch_search_message(self, data: bytes, record: CallRecord) -> bytes:
        """The answer to a `BatchSearchRequest` as it travels. Raises as `batch_search`."""
        usual = self._usual_batches.find(split(data))
        if usual is None:
            return await self.batch_search(batch_search_request(data), self._protobuf, record)
        return self._protobuf.batch(await self._search_all(*usual, record))

    async def search_json(self, name: str, body: bytes, record: CallRecord, check: Check) -> bytes:
        """The answer to a search of the index `name` as JSON, if `check` allows it. Raises as `search`."""
        usual = self.usual_json(name, body)
        if usual is not None:  # one query, of the index in the path: nothing that is not checked by now
            return (await self.submit(*usual, record))[0]
        request = structs.replace(decode(body, messages.SearchRequest), index=name)
        check(request)
        return await self.search(request, self._json, record)

    async def batch_search_json(self, name: str, body: bytes, record: CallRecord, check: Check) -> bytes:
        """The answer to a batch as JSON, if `check` allows it. Raises as `batch_search`."""
        request = structs.replace(decode(body, messages.BatchSearchRequest), index=name)
        check(request)
        return await self.batch_search(request, self._json, record)

    def usual(self, data: bytes) -> tuple[Key, Vectors] | None:
        """The key and the vector of a `SearchRequest` of the usual layout, else None."""
        return self._usual.find_in(data)

    def usual_json(self, name: str, body: bytes) -> tuple[Key, Vectors] | None:
        """The same of a search of the index `name` as JSON."""
        return self._usual_json.find(split_json(name, body))

    async def search_in_pieces(self, data: bytes, record: CallRecord) -> Sequence[bytes]:
        """The answer to a `SearchRequest` of any layout, in one piece. Raises as `search`."""
        return [await self.search(search_request(data), self._protobuf, record)]

    async def search(
        self, request: messages.SearchRequest, encoder: AnswerEncoder, record: CallRecord
    ) -> bytes:
        """The answer as `encoder` writes it. Raises as `Service.search`, and ResourceExhausted."""
        if request.explain:  # alone, and beside an exact search: for people, not for load
            return encoder.whole(await self._off_loop(record, self._service.search, request))
        served = await self._served(request, record)
        record.queries, record.text = 1, request.text
        key = self._key(plan_search(request, served), encoder)
        kind = query_kind(request)
        if kind == "text":
            texts = [query_text(request.text or "")]
            return (await self._search_texts(texts, key, record))[0]
        if kind == "datapoint_id":
            query = await self._off_loop(record, served.index.vectors, [request.datapoint_id or ""])
        else:
            query = query_vector(request.vector or messages.Vector(), served)[np.newaxis]
        return (await self.submit(key, _vectors(query), record))[0]

    async def batch_search(
        self, request: messages.BatchSearchRequest, encoder: AnswerEncoder, record: CallRecord
    ) -> bytes:
        """The answer as `encoder` writes it. Raises as `Service.batch_search`, and ResourceExhausted."""
        served = await self._served(request, record)
        plan = plan_search(request, served)
        key = self._key(plan, encoder)
        kind = batch_kind(request, plan)
        record.queries = len(getattr(request, kind))
        if kind == "texts":
            texts = batch_texts(request.texts)
            return encoder.batch(await self._search_texts(texts, key, record))
        if kind == "datapoint_ids":
            queries = await self._off_loop(record, served.index.vectors, request.datapoint_ids)
        else:
            queries = batch_vectors(request.vectors, served)
        return encoder.batch(await self._search_all(key, _vectors(queries), record))

    async def _served(self, request: messages.SearchOptions, record: CallRecord) -> ServedIndex:
        name = index_id(request.index)
        served = self._service.registry.ready(name)
        if served is None and self._service.registry.peek(name) is not None:
            await self._catching_up.look(name)
            served = self._service.registry.peek(name)
        if served is None:
            served = await self._off_loop(record, self._service.registry.get, name)
        if request.min_sequence > served.index.sequence:
            served = await when_visible(partial(self._seen, name, request.min_sequence), record.deadline)
        record.index, record.version = served.name, served.version
        return served

    async def _seen(self, name: str, sequence: int) -> ServedIndex:
        served = self._service.registry.get(name)  # a new version may have come
        check_visible(served.index, sequence)
        return served

    async def _search_texts(self, texts: Sequence[str], key: Key, record: CallRecord) -> Sequence[bytes]:
        started = time.perf_counter()
        # A piece at a time, so that many texts of one request let those of others in between.
        pieces = [
            await self._embedded(key.plan.served, texts[start : start + MAX_TEXTS], record)
            for start in range(0, len(texts), MAX_TEXTS)
        ]
        seconds = time.perf_counter() - started
        answers = await self._search_all(key, _vectors(np.concatenate(pieces)), record)
        return [key.encoder.with_embed_duration(answer, seconds) for answer in answers]

    async def _search_all(self, key: Key, queries: Vectors, record: CallRecord) -> Sequence[bytes]:
        if queries.number <= MAX_TOGETHER:
            return await self.submit(key, queries, record)
        each = len(queries.data) // queries.number
        answers: list[bytes] = []
        for start in range(0, len(queries.data), MAX_TOGETHER * each):
            piece = queries.data[start : start + MAX_TOGETHER * each]
            answers += await self.submit(key, Vectors(piece, len(piece) // each), record)
        record.queries = queries.number
        return answers

    def submit(self, key: Key, queries: Vectors, record: CallRecord) -> asyncio.Future[Sequence[bytes]]:
        """The answers to at most `MAX_TOGETHER` queries to come. Raises ResourceExhausted."""
        item = _item(key, queries, record)
        return self._searches.submit(record.index, key, item, record.deadline, weight=queries.number)

    def put(self, promise: Promise[Sequence[bytes]], key: Key, queries: Vectors, record: CallRecord) -> None:
        """The same into a promise."""
        item = _item(key, queries, record)
        self._searches.put(promise, record.index, key, item, record.deadline, weight=queries.number)

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
        times = started, time.perf_counter()
        ends = accumulate(map(len, items))
        return [(vectors[end - len(item) : end], times) for item, end in zip(items, ends, strict=True)]

    async def _off_loop(self, record: CallRecord, function: Callable[..., Result], *arguments: Any) -> Result:
        with current(record):
            return await self._workers.run(function, *arguments)


def _item(key: Key, queries: Vectors, record: CallRecord) -> _Item:
    served, (data, number) = key.plan.served, queries
    record.index, record.version, record.queries = served.name, served.version, number
    return _Item(data, number, record, time.perf_counter())


def _search(key: Key, items: Sequence[_Item]) -> list[Sequence[bytes]]:
    started = time.perf_counter()
    data = items[0].data if len(items) == 1 else b"".join([item.data for item in items])
    queries = np.frombuffer(data, "<f4").reshape(-1, key.plan.served.index.dimension)
    result = find(key.plan, queries)
    found = time.perf_counter()
    answers = key.encoder.encode(key.plan, result, found - started)
    stages = ("engine", started, found), ("encode", found, time.perf_counter())
    for item in items:
        item.record.stages += (("queue", item.submitted, started), *stages)
    if len(items) == len(answers):
        return [[answer] for answer in answers]
    ends = accumulate(item.number for item in items)
    return [answers[end - item.number : end] for item, end in zip(items, ends, strict=True)]


def _vectors(queries: Floats) -> Vectors:
    return Vectors(queries.astype("<f4", copy=False).tobytes(), len(queries))

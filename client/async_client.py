"""`AsyncClient`: `Client` for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.message import Message
from numpy.typing import ArrayLike

from earshot.errors import (
    DeadlineExceeded,
    ResourceExhausted,
    Unavailable,
)

from . import codec, updates
from .access import Tls
from .codec import Call, Flow
from .grpc_transport import AsyncGrpcTransport
from .http_transport import AsyncHttpTransport
from .index_calls import AsyncIndexCalls
from .results import Datapoint, Index, IndexVersion, Removed, SearchResults, Upserted
from .retry import Budget, Retry
from .shell import DEFAULT_TIMEOUT, Shell, dial
from .stream_calls import AsyncStreamCalls
from .transport import AsyncTransport

__all__ = ["AsyncClient"]

R = TypeVar("R")


class AsyncClient(Shell[AsyncTransport], AsyncStreamCalls, AsyncIndexCalls):
    """`Client` for asyncio: the same methods, awaited. Use it in an `async with`, or await `close`.

    It belongs to the event loop of its first call.
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry: Retry = Retry(),  # noqa: B008  # frozen
        transport: AsyncTransport | None = None,
    ) -> None:
        if transport is None:
            is_grpc, address, access = dial(target, token, tls)
            transport = (
                AsyncGrpcTransport(address, access) if is_grpc else AsyncHttpTransport(address, access)
            )
        super().__init__(target, transport, timeout, retry)

    async def search(
        self,
        index: str,
        text: str | None = None,
        *,
        vector: ArrayLike | None = None,
        datapoint_id: str | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        per_crowding_attribute_neighbor_count: int | None = None,
        target_recall: float | None = None,
        approximate_neighbor_count: int | None = None,
        fraction_leaf_nodes_to_search: float | None = None,
        return_full_datapoint: bool = False,
        metadata_fields: Sequence[str] = (),
        min_sequence: int | None = None,
        explain: bool = False,
        timeout: float | None = None,
    ) -> SearchResults:
        """As `Client.search`."""
        flow = codec.search(
            index,
            text=text,
            vector=vector,
            datapoint_id=datapoint_id,
            where=where,
            neighbor_count=k,
            per_crowding_attribute_neighbor_count=per_crowding_attribute_neighbor_count,
            target_recall=target_recall,
            approximate_neighbor_count=approximate_neighbor_count,
            fraction_leaf_nodes_to_search_override=fraction_leaf_nodes_to_search,
            return_full_datapoint=return_full_datapoint,
            metadata_fields=metadata_fields,
            min_sequence=min_sequence,
            explain=explain or None,
        )
        return await self._run(flow, timeout)

    async def search_batch(
        self,
        index: str,
        texts: Sequence[str] | None = None,
        *,
        vectors: ArrayLike | None = None,
        datapoint_ids: Sequence[str] | None = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        per_crowding_attribute_neighbor_count: int | None = None,
        target_recall: float | None = None,
        approximate_neighbor_count: int | None = None,
        fraction_leaf_nodes_to_search: float | None = None,
        return_full_datapoint: bool = False,
        metadata_fields: Sequence[str] = (),
        min_sequence: int | None = None,
        timeout: float | None = None,
    ) -> list[SearchResults]:
        """As `Client.search_batch`."""
        flow = codec.search_batch(
            index,
            texts=texts,
            vectors=vectors,
            datapoint_ids=datapoint_ids,
            where=where,
            neighbor_count=k,
            per_crowding_attribute_neighbor_count=per_crowding_attribute_neighbor_count,
            target_recall=target_recall,
            approximate_neighbor_count=approximate_neighbor_count,
            fraction_leaf_nodes_to_search_override=fraction_leaf_nodes_to_search,
            return_full_datapoint=return_full_datapoint,
            metadata_fields=metadata_fields,
            min_sequence=min_sequence,
        )
        return await self._run(flow, timeout)

    async def read(
        self,
        index: str,
        ids: Iterable[str],
        *,
        metadata_fields: Sequence[str] = (),
        timeout: float | None = None,
    ) -> list[Datapoint]:
        """As `Client.read`."""
        return await self._run(codec.read(index, ids, metadata_fields), timeout)

    async def upsert(
        self,
        index: str,
        datapoints: Iterable[Datapoint | Mapping[str, Any]],
        *,
        update_mask: Sequence[str] = (),
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Upserted:
        """As `Client.upsert`."""
        flow = updates.upsert(index, datapoints, update_mask=update_mask, request_id=request_id)
        return await self._run(flow, timeout)

    async def remove(
        self, index: str, ids: Iterable[str], *, request_id: str | None = None, timeout: float | None = None
    ) -> Removed:
        """As `Client.remove`."""
        return await self._run(updates.remove(index, ids, request_id=request_id), timeout)

    async def get_index(self, name: str, *, timeout: float | None = None) -> Index:
        """As `Client.get_index`."""
        return await self._run(codec.get_index(name), timeout)

    async def indexes(self, *, timeout: float | None = None) -> list[Index]:
        """As `Client.indexes`."""
        return await self._run(codec.indexes(), timeout)

    async def versions(self, index: str, *, timeout: float | None = None) -> list[IndexVersion]:
        """As `Client.versions`."""
        return await self._run(codec.versions(index), timeout)

    async def healthy(self, *, timeout: float | None = None) -> bool:
        """As `Client.healthy`."""
        return await self._transport.probe(self._budget(timeout).remaining(), ready=False)

    async def ready(self, *, timeout: float | None = None) -> bool:
        """As `Client.ready`."""
        return await self._transport.probe(self._budget(timeout).remaining(), ready=True)

    async def close(self) -> None:
        """As `Client.close`."""
        self._closed = True
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, flow: Flow[R], timeout: float | None) -> R:
        budget = self._budget(timeout)
        try:
            call = next(flow)
            while True:
                call = flow.send(await self._send(call, budget))
        except StopIteration as end:
            answer: R = end.value
            return answer

    async def _send(self, call: Call, budget: Budget) -> Message:
        while True:
            try:
                return await self._transport.call(call.method, call.request, budget.remaining())
            except (Unavailable, ResourceExhausted, DeadlineExceeded) as error:
                pause = budget.pause_after(error, may_repeat=call.may_repeat)
            await asyncio.sleep(pause)

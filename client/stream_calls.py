"""StreamSearch of both clients: mixins over their transports."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, Protocol, TypedDict, Unpack

from numpy.typing import ArrayLike

from earshot.errors import EarshotError

from .results import SearchResults
from .retry import Budget, check_timeout
from .streams import STREAM_SEARCH, Queries, alone, alone_async, outcome
from .transport import AsyncStreaming, AsyncTransport, Streaming, Transport

__all__ = ["AsyncStreamCalls", "SearchOptions", "StreamCalls"]


class SearchOptions(TypedDict, total=False):
    """Those of `Client.search` that hold for any number of queries."""

    k: int
    where: Mapping[str, Any] | None
    per_crowding_attribute_neighbor_count: int | None
    target_recall: float | None
    approximate_neighbor_count: int | None
    fraction_leaf_nodes_to_search: float | None
    return_full_datapoint: bool
    metadata_fields: Sequence[str]
    explain: bool


_FIELDS = {"k": "neighbor_count", "fraction_leaf_nodes_to_search": "fraction_leaf_nodes_to_search_override"}


class _Shell(Protocol):
    _transport: Transport

    def _budget(self, timeout: float | None) -> Budget: ...


class _AsyncShell(Protocol):
    _transport: AsyncTransport

    def _budget(self, timeout: float | None) -> Budget: ...


class StreamCalls:
    """Of the blocking client."""

    def search_stream(
        self: _Shell,
        index: str,
        texts: Iterable[str] | None = None,
        *,
        vectors: Iterable[ArrayLike] | None = None,
        datapoint_ids: Iterable[str] | None = None,
        return_exceptions: bool = False,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Iterator[SearchResults | EarshotError]:
        """The neighbors of queries that come one by one from an iterable, in their order, as they are found.

        Over gRPC all goes through one call, in which queries that lie ready are searched together; over HTTP
        each is a request of its own, one after the other. `options` are those of `search`, from `k` to
        `explain`, for all queries alike. A query that fails raises, or with `return_exceptions` has its error
        as its result, and the stream goes on. `timeout` is for the whole stream, by itself without end.
        Nothing is tried twice. Closing the iterator ends the call.
        """
        queries = Queries(index, texts, vectors, datapoint_ids, _fields(options))
        self._budget(timeout)
        return _stream(self._transport, queries, check_timeout(timeout), return_exceptions)


class AsyncStreamCalls:
    """Of the client for asyncio."""

    async def search_stream(
        self: _AsyncShell,
        index: str,
        texts: Iterable[str] | AsyncIterable[str] | None = None,
        *,
        vectors: Iterable[ArrayLike] | AsyncIterable[ArrayLike] | None = None,
        datapoint_ids: Iterable[str] | AsyncIterable[str] | None = None,
        return_exceptions: bool = False,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> AsyncIterator[SearchResults | EarshotError]:
        """As `Client.search_stream`; the queries may come from an `async for` as well."""
        queries = Queries(index, texts, vectors, datapoint_ids, _fields(options))
        self._budget(timeout)
        transport = self._transport
        if isinstance(transport, AsyncStreaming):
            answers = transport.stream(STREAM_SEARCH, queries, check_timeout(timeout))
        else:
            answers = alone_async(transport.call, queries, check_timeout(timeout))
        async with aclosing(answers):
            async for answer in answers:
                found = outcome(answer)
                if isinstance(found, EarshotError) and not return_exceptions:
                    raise found
                yield found
        queries.raise_failure()


def _fields(options: SearchOptions) -> dict[str, Any]:
    """As the protocol calls them."""
    return {_FIELDS.get(name, name): value for name, value in options.items()}


def _stream(
    transport: Transport, queries: Queries, timeout: float | None, return_exceptions: bool
) -> Iterator[SearchResults | EarshotError]:
    if isinstance(transport, Streaming):
        answers = transport.stream(STREAM_SEARCH, queries, timeout)
    else:
        answers = alone(transport.call, queries, timeout)
    with closing(answers):
        for answer in answers:
            found = outcome(answer)
            if isinstance(found, EarshotError) and not return_exceptions:
                raise found
            yield found
    queries.raise_failure()

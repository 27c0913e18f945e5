"""StreamSearch without knowing the wire: what goes out, what comes back, and what broke on the way."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

from google.protobuf.message import Message

from earshot.errors import EarshotError, InvalidArgument, row_of
from earshot.v1 import search_service_pb2

from .codec import SEARCH_METHODS, Call, results_of, search
from .results import SearchResults
from .status import error_of

__all__ = ["STREAM_SEARCH", "Queries", "alone", "alone_async", "outcome"]

STREAM_SEARCH = SEARCH_METHODS["StreamSearch"]
SEARCH = SEARCH_METHODS["Search"]

_KINDS = {"texts": "text", "vectors": "vector", "datapoint_ids": "datapoint_id"}


class Queries:
    """The requests of one stream, made as they are wanted.

    A wire that fails to get the next request only says that it did; `failure` is why.
    """

    def __init__(
        self, index: str, texts: Any, vectors: Any, datapoint_ids: Any, options: Mapping[str, Any]
    ) -> None:
        queries = {"texts": texts, "vectors": vectors, "datapoint_ids": datapoint_ids}
        given = [kind for kind, value in queries.items() if value is not None]
        if len(given) != 1 or isinstance(queries[given[0]], str):
            raise InvalidArgument(
                f"queries: {' and '.join(given) or 'nothing'} given; "
                "give exactly one of texts, vectors and datapoint_ids, as an iterable",
                field="queries",
            )
        self._index = index
        self._kind = _KINDS[given[0]]
        self._queries = queries[given[0]]
        self._options = options
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Message]:
        """Where the queries are an iterable."""
        try:
            for query in self._queries:
                yield self._request(query)
        except Exception as error:  # noqa: BLE001  # raised again by whoever reads the answers
            self.failure = error

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Where the queries are an iterable, or one for `async for`."""
        try:
            if isinstance(self._queries, AsyncIterable):
                async for query in self._queries:
                    yield self._request(query)
            else:
                for query in self._queries:
                    yield self._request(query)
        except Exception as error:  # noqa: BLE001  # as above
            self.failure = error

    def raise_failure(self) -> None:
        """What the caller's own iterable raised, or what is wrong with a query."""
        if self.failure is not None:
            raise self.failure

    def _request(self, query: Any) -> Message:
        asked: dict[str, Any] = {"text": None, "vector": None, "datapoint_id": None, self._kind: query}
        call: Call = next(search(self._index, **asked, **self._options))
        return call.request


def alone(
    call: Callable[[Any, Message, float | None], Message], requests: Iterable[Message], timeout: float | None
) -> Generator[Message]:
    """The same answers from a wire that has no streams: each query for itself, one after the other."""
    for request in requests:
        try:
            reply: Any = call(SEARCH, request, timeout)
        except EarshotError as error:
            yield _failed(error)
        else:
            yield search_service_pb2.StreamSearchResponse(response=reply)


async def alone_async(
    call: Callable[[Any, Message, float | None], Awaitable[Message]],
    requests: AsyncIterable[Message],
    timeout: float | None,
) -> AsyncGenerator[Message]:
    """`alone` for asyncio."""
    async for request in requests:
        try:
            reply: Any = await call(SEARCH, request, timeout)
        except EarshotError as error:
            yield _failed(error)
        else:
            yield search_service_pb2.StreamSearchResponse(response=reply)


def outcome(answer: Any) -> SearchResults | EarshotError:
    """What came of one query."""
    return error_of(answer.error) if answer.WhichOneof("result") == "error" else results_of(answer.response)


def _failed(error: EarshotError) -> Message:
    answer = search_service_pb2.StreamSearchResponse()
    answer.error.code, answer.error.message = row_of(error).grpc, error.message
    return answer

"""`Client`: a thin shell that runs the calls of `codec` over a transport."""

from __future__ import annotations

import time
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
from .grpc_transport import GrpcTransport
from .http_transport import HttpTransport
from .index_calls import IndexCalls
from .results import Datapoint, Index, IndexVersion, Removed, SearchResults, Upserted
from .retry import Budget, Retry
from .shell import DEFAULT_TIMEOUT, Shell, dial
from .stream_calls import StreamCalls
from .transport import Transport

__all__ = ["Client"]

R = TypeVar("R")


class Client(Shell[Transport], StreamCalls, IndexCalls):
    """A blocking client, safe to share between threads. Use it in a `with`, or call `close`.

    `target` is `"127.0.0.1:8080"` or `"grpc://127.0.0.1:8080"` for gRPC and `"http://127.0.0.1:8080"` for
    HTTP; results and errors are the same. `timeout` is the time in seconds that a call may take, retries and
    pages included; None waits for ever. Every method takes its own `timeout` in place of the client's.

    All methods raise `earshot.errors` only: DeadlineExceeded when time is up, Unavailable when nothing
    listens or the service cannot answer now, and whatever the service says.

    `token` is sent with every call. With `tls`, or where the target says `grpcs://` or `https://`, the
    connection is encrypted and the server's certificate checked.

    `transport` replaces the network, for tests and for wires of one's own.
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry: Retry = Retry(),  # noqa: B008  # frozen
        transport: Transport | None = None,
    ) -> None:
        if transport is None:
            is_grpc, address, access = dial(target, token, tls)
            transport = GrpcTransport(address, access) if is_grpc else HttpTransport(address, access)
        super().__init__(target, transport, timeout, retry)

    def search(
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
        """The `k` nearest neighbors of a text, a vector or a datapoint of the index; exactly one of them.

        `vector`: any array or list of real numbers of shape (dimensions,), sent as float32. `where`: only
        datapoints that match, such as `{"language": ["de", "fr"], "year": {">=": 2020}}`.
        `per_crowding_attribute_neighbor_count`: at most so many neighbors with the same crowding tag; 0 sets
        no limit, None takes the index's own. `target_recall`: the share of the true neighbors to find, above
        0 and at most 1; None takes the index's own. `approximate_neighbor_count` (candidates scored exactly)
        and `fraction_leaf_nodes_to_search` (above 0, at most 1) are for experts, in place of a target.
        `return_full_datapoint` returns vectors and restricts too, `metadata_fields` only these keys of the
        metadata where any is named. `min_sequence`, from an upsert's answer, waits until a search sees that.
        `explain` says how neighbors were found, and how many of the true ones, at the cost of an exact search
        beside.

        Raises InvalidArgument naming the field, NotFound for an unknown index or datapoint,
        FailedPrecondition for a text where the index has no model, for `where` where it has no restricts.
        """
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
        return self._run(flow, timeout)

    def search_batch(
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
        """The `k` nearest neighbors of many texts, vectors or datapoints; exactly one of them.

        `vectors`: any array or list of real numbers of shape (queries, dimensions). Everything else as in
        `search`, for all queries alike. A result for each query, in order, far faster than one by one; very
        many go in several requests, which a new version of the index may come between: every result names
        the version that answered.

        Raises as `search`, and InvalidArgument names the query that is wrong, such as `texts[3]`.
        """
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
        return self._run(flow, timeout)

    def read(
        self,
        index: str,
        ids: Iterable[str],
        *,
        metadata_fields: Sequence[str] = (),
        timeout: float | None = None,
    ) -> list[Datapoint]:
        """Datapoints by id, vectors included, in the order of the ids, however many. Raises NotFound.

        `metadata_fields`: only these keys of the metadata, where any is named.
        """
        return self._run(codec.read(index, ids, metadata_fields), timeout)

    def upsert(
        self,
        index: str,
        datapoints: Iterable[Datapoint | Mapping[str, Any]],
        *,
        update_mask: Sequence[str] = (),
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Upserted:
        """Write datapoints, new ones and in place of others; durable, and seen by every later search.

        `datapoints`: mappings with the key id and one of vector and text, and perhaps crowding_tag, metadata
        and restricts (`{"language": ["de"], "year": 2020}`); or what `read` returned. What is left out, a
        datapoint does not have. `update_mask`: write only these parts of datapoints that exist:
        `all_restricts`, `embedding_metadata`, `crowding_tag`, `feature_vector`. With the same `request_id` a
        call that is made again, even by another process, writes nothing twice; those that the client repeats
        by itself never do.

        Very many go in several requests; `errors` of the answer tells by position which were refused.

        Raises as the service says of a whole request; what came in requests before is written.
        """
        flow = updates.upsert(index, datapoints, update_mask=update_mask, request_id=request_id)
        return self._run(flow, timeout)

    def remove(
        self, index: str, ids: Iterable[str], *, request_id: str | None = None, timeout: float | None = None
    ) -> Removed:
        """Remove datapoints; an id that is not there is no error. `request_id` as in `upsert`."""
        return self._run(updates.remove(index, ids, request_id=request_id), timeout)

    def get_index(self, name: str, *, timeout: float | None = None) -> Index:
        """One index as it is served now. Raises NotFound."""
        return self._run(codec.get_index(name), timeout)

    def indexes(self, *, timeout: float | None = None) -> list[Index]:
        """All indexes, by name."""
        return self._run(codec.indexes(), timeout)

    def versions(self, index: str, *, timeout: float | None = None) -> list[IndexVersion]:
        """All versions of an index, newest first. Raises NotFound."""
        return self._run(codec.versions(index), timeout)

    def healthy(self, *, timeout: float | None = None) -> bool:
        """Whether a server answers at the target. Never retried."""
        return self._transport.probe(self._budget(timeout).remaining(), ready=False)

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it serves its indexes. Never retried."""
        return self._transport.probe(self._budget(timeout).remaining(), ready=True)

    def close(self) -> None:
        """Closes the connections; the client cannot be used again."""
        self._closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[R], timeout: float | None) -> R:
        budget = self._budget(timeout)
        try:
            call = next(flow)
            while True:
                call = flow.send(self._send(call, budget))
        except StopIteration as end:
            answer: R = end.value
            return answer

    def _send(self, call: Call, budget: Budget) -> Message:
        while True:
            try:
                return self._transport.call(call.method, call.request, budget.remaining())
            except (Unavailable, ResourceExhausted, DeadlineExceeded) as error:
                pause = budget.pause_after(error, may_repeat=call.may_repeat)
            time.sleep(pause)

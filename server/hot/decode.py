"""Vector queries straight from the wire, without a protobuf object: the usual layout at one glance.

Clients write the index first, then the vector or vectors, then the rest. What stands around vectors seldom
changes from request to request, so its plan is made once and remembered by those bytes. Every other layout,
and whatever is wrong with a request, is left to `proto_codec`; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from earshot.errors import EarshotError
from earshot.v1 import datapoint_pb2, search_service_pb2

from .. import messages
from ..batch import MAX_NEIGHBORS_IN_ALL, MAX_QUERIES
from ..names import index_id
from ..proto_codec import batch_search_request, search_request
from ..registry import Registry
from ..search import SearchPlan, plan_search
from ..served_index import ServedIndex
from ..wire import LENGTH_DELIMITED, tag

__all__ = ["Around", "UsualRequests", "Vectors", "options_of_batch", "options_of_search", "split"]

Key = TypeVar("Key")

MAX_REMEMBERED = 1024
MAX_AROUND_BYTES = 4096

_FIELDS = search_service_pb2.SearchRequest.DESCRIPTOR.fields_by_name
_FORMS = datapoint_pb2.Vector.DESCRIPTOR.fields_by_name
_INDEX = tag(_FIELDS["index"].number, LENGTH_DELIMITED)[0]
_VECTOR = tag(_FIELDS["vector"].number, LENGTH_DELIMITED)[0]
# Packed floats and bytes of little-endian float32 are the same on the wire.
_FLOATS = {tag(_FORMS[form].number, LENGTH_DELIMITED)[0] for form in ("values", "float32")}


class Vectors(NamedTuple):
    """The vectors of a request, little-endian float32 one after another."""

    data: bytes
    number: int


Around = tuple[bytes, ...]
"""What stands around the vectors: the bytes before, those after, and whatever else tells requests apart."""

Request = messages.SearchRequest | messages.BatchSearchRequest


def split(data: bytes) -> tuple[Around, Vectors] | None:
    """The parts of a message that names its index in under 128 bytes and goes on with equally long vectors.

    None for any other layout. A vector has 1 to 4,095 numbers.
    """
    try:
        if data[0] != _INDEX or data[1] > 0x7F:
            return None
        start = 2 + data[1]
        if data[start] != _VECTOR:
            return None
        size, inside = data[start + 1], start + 2
        if size > 0x7F:
            size, inside = size & 0x7F | data[inside] << 7, inside + 1
        if data[inside] not in _FLOATS:
            return None
        length, payload = data[inside + 1], inside + 2
        if length > 0x7F:
            length, payload = length & 0x7F | data[payload] << 7, payload + 1
    except IndexError:
        return None
    end = payload + length
    # Where a length has a third byte its second is above 0x7F, and the vector would be longer than it may be.
    if end != inside + size or end > len(data) or length % 4 or not 0 < length < 1 << 14:
        return None
    header = data[start:payload]
    if not data.startswith(header, end):
        return (data[:start], data[end:]), Vectors(data[payload:end], 1)
    each = end - start
    rows = np.frombuffer(data, np.uint8, (len(data) - start) // each * each, start).reshape(-1, each)
    alike = (rows[:, : len(header)] == np.frombuffer(header, np.uint8)).all(axis=1)
    rows = rows if alike.all() else rows[: alike.argmin()]
    end = start + rows.size
    return (data[:start], data[end:]), Vectors(rows[:, len(header) :].tobytes(), len(rows))


class UsualRequests(Generic[Key]):
    """The keys, as `key_of` makes them of plans, of requests that are alike but for their vectors.

    `options` reads what stands around the vectors, or has None where it is not to be taken for a request.
    """

    def __init__(
        self,
        options: Callable[..., Request | None],
        registry: Registry,
        key_of: Callable[[SearchPlan], Key],
    ) -> None:
        self._options = options
        self._registry = registry
        self._key_of = key_of
        self._known: dict[Around, tuple[SearchPlan, bool, Key]] = {}
        # By length, the last search: what stands around its numbers, and its key.
        self._layouts: dict[int, tuple[bytes, bytes, ServedIndex, Key]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Forgets all; any thread may say so."""
        self._known.clear()
        self._layouts.clear()

    def find_in(self, data: bytes) -> tuple[Key, Vectors] | None:
        """`find(split(data))`, quicker where the last search as long was the same but for its numbers."""
        layout = self._layouts.get(len(data))
        if layout is not None:
            before, after, served, key = layout
            is_same = data.startswith(before) and data.endswith(after)
            if is_same and self._registry.ready(served.name) is served:
                return key, Vectors(data[len(before) : len(data) - len(after)], 1)
        parts = split(data)
        found = self.find(parts)
        if parts is not None and found is not None:
            plan, is_batch, key = self._known[parts[0]]
            if not is_batch:
                after = parts[0][1]
                before = data[: len(data) - len(after) - len(found[1].data)]
                if len(self._layouts) >= MAX_REMEMBERED:
                    self._layouts.clear()
                self._layouts[len(data)] = before, after, plan.served, key
        return found

    def find(self, parts: tuple[Around, Vectors] | None) -> tuple[Key, Vectors] | None:
        """A request's key and vectors; None for a request that must go the ordinary way."""
        if parts is None:
            return None
        around, vectors = parts
        known = self._known.get(around)
        if known is None or self._registry.ready(known[0].served.name) is not known[0].served:
            known = self._learn(around)
            if known is None:
                return None
        plan, is_batch, key = known
        if len(vectors.data) != 4 * plan.served.index.dimension * vectors.number:
            return None
        fits = _may_go_together(plan, vectors) if is_batch else vectors.number == 1
        return (key, vectors) if fits else None

    def _learn(self, around: Around) -> tuple[SearchPlan, bool, Key] | None:
        if sum(map(len, around)) > MAX_AROUND_BYTES:
            return None
        try:
            request = self._options(*around)
            if request is None or not _asks_nothing_else(request):
                return None
            served = self._registry.ready(index_id(request.index))
            if served is None:
                return None
            plan = plan_search(request, served)
        except EarshotError:  # told again, and answered, by the ordinary way
            return None
        if around in self._known or len(self._known) >= MAX_REMEMBERED:
            self.clear()  # plans hold on to their versions
        known = plan, isinstance(request, messages.BatchSearchRequest), self._key_of(plan)
        self._known[around] = known
        return known


def options_of_search(before: bytes, after: bytes) -> messages.SearchRequest:
    """A `SearchRequest` without its vector. Raises InvalidArgument."""
    return search_request(before + after)


def options_of_batch(before: bytes, after: bytes) -> messages.BatchSearchRequest:
    """A `BatchSearchRequest` without its vectors. Raises InvalidArgument."""
    return batch_search_request(before + after)


def _asks_nothing_else(request: Request) -> bool:
    if isinstance(request, messages.BatchSearchRequest):
        return not (request.min_sequence or request.texts or request.vectors or request.datapoint_ids)
    queries = (request.text, request.vector, request.datapoint_id)
    return not (request.explain or request.min_sequence) and all(query is None for query in queries)


def _may_go_together(plan: SearchPlan, vectors: Vectors) -> bool:
    if vectors.number > MAX_QUERIES or vectors.number * plan.k > MAX_NEIGHBORS_IN_ALL:
        return False
    return bool(np.isfinite(np.frombuffer(vectors.data, "<f4")).all())

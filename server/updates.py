"""Upserts and removes: checked one by one, embedded where they are text, durable and seen when answered."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from earshot.errors import EarshotError, InvalidArgument, row_of
from earshot.index.filters import Where
from earshot.index.ids import check_id
from earshot.index.journal import UNSET, Entry, Patch, Put, Remove, encode_puts

from . import update_messages as messages
from .feed import Feed
from .names import index_id
from .registry import Registry
from .restricts import stored_restricts
from .search import query_text
from .served_index import ServedIndex
from .telemetry import CURRENT, note_queries, stage

__all__ = ["Update", "Updates", "Upsert", "parts_of"]

MAX_DATAPOINTS = 1_000
MAX_REQUEST_ID = 128
PARTS = {
    "all_restricts": "restricts",
    "embedding_metadata": "metadata",
    "crowding_tag": "crowding_tag",
    "feature_vector": "vector",
}

_FLOAT32 = np.dtype("<f4")
_FORMS = ("feature_vector", "feature_vector_float32", "text")

Floats = NDArray[np.float32]
Upsert = messages.UpsertDatapointsRequest | messages.PackedUpsert
Embed = Callable[[ServedIndex, Sequence[str]], Floats]


@dataclass(frozen=True, slots=True)
class Update:
    """Checked entries for one index's journal, and what the caller is told besides.

    Attributes:
        feed: Of the index.
        entries: What to write; there may be none.
        request_id: As the journal knows it.
        errors: Why some datapoints of the request are not among them.
        here: Of those that are to be removed, how many there were.
        bodies: The entries as the journal has them, where they are known.
    """

    feed: Feed
    entries: Sequence[Entry]
    request_id: str | None
    errors: list[messages.DatapointError]
    here: int
    bodies: list[bytes] | None = None

    def upserted(self, sequence: int) -> messages.UpsertDatapointsResponse:
        """The answer when it is written, with the number of the last entry, 0 where there was none."""
        return messages.UpsertDatapointsResponse(sequence, len(self.entries), self.errors)

    def removed(self, sequence: int) -> messages.RemoveDatapointsResponse:
        """As `upserted`."""
        return messages.RemoveDatapointsResponse(sequence, self.here)


class Updates:
    """`DatapointService/UpsertDatapoints` and `RemoveDatapoints`; `embed` makes vectors of texts."""

    def __init__(self, registry: Registry, embed: Embed) -> None:
        self._registry = registry
        self._embed = embed
        self._embedding = Lock()  # one bulk load at a time: searches want the model too

    def upsert(self, request: Upsert) -> messages.UpsertDatapointsResponse:
        """Write the datapoints that are right, and say what is wrong with the others.

        Raises InvalidArgument for what is wrong with the request as a whole, and as `Feed.write`.
        """
        update = self.prepared_upsert(request)
        return update.upserted(self._write(update))

    def remove(self, request: messages.RemoveDatapointsRequest) -> messages.RemoveDatapointsResponse:
        """Remove datapoints; one that is not there is no error.

        Raises as `upsert`.
        """
        update = self.prepared_remove(request)
        return update.removed(self._write(update))

    def is_quick(self, request: Upsert | messages.RemoveDatapointsRequest) -> bool:
        """Whether preparing it asks neither the disk nor a model."""
        name = index_id(request.index)
        if self._registry.ready(name) is None or self._registry.feed(name).owned is None:
            return False
        return not isinstance(request, messages.UpsertDatapointsRequest) or not any(
            point.text for point in request.datapoints
        )

    def prepared_upsert(self, request: Upsert) -> Update:
        """What `upsert` is to write. Raises as that."""
        served = self._served(request.index)
        if isinstance(request, messages.PackedUpsert):
            _check_count("datapoints", len(request.names))
            puts = served.index.packed_puts(request.names, request.vectors)
            if puts is not None:
                bodies = encode_puts(request.names, request.vectors)
                return self._update(served, puts, "upsert", request.request_id, bodies=bodies)
            request = request.unpacked()  # tells what is wrong with each
        points = request.datapoints
        _check_count("datapoints", len(points))
        mask = parts_of(request.update_mask)
        errors: dict[int, EarshotError] = {}
        embedded = self._embedded(served, points, errors)
        known = embedded or _vectors_together(points)
        given: dict[int, Entry] = {}
        for position, point in enumerate(points):
            if position in errors:
                continue
            try:
                given[position] = _entry_of(point, mask, known.get(position))
            except EarshotError as error:
                errors[position] = error
        entries: list[Entry] = []
        for position, checked in zip(given, served.index.check_all(list(given.values())), strict=True):
            if isinstance(checked, EarshotError):
                errors[position] = checked
            else:
                entries.append(checked)
        told = [
            _told(position, points[position].datapoint_id, errors[position]) for position in sorted(errors)
        ]
        return self._update(served, entries, "upsert", request.request_id, told)

    def prepared_remove(self, request: messages.RemoveDatapointsRequest) -> Update:
        """What `remove` is to write. Raises as that."""
        served = self._served(request.index)
        ids = request.datapoint_ids
        _check_count("datapoint_ids", len(ids))
        for name in ids:
            check_id(name, "datapoint_ids holds an id that")
        here = int(np.count_nonzero(served.index.shard.ids.rows_of(ids) >= 0))
        return self._update(served, [Remove(name) for name in ids], "remove", request.request_id, here=here)

    def _served(self, index: str) -> ServedIndex:
        served = self._registry.get(index_id(index))
        note_queries(served.name, served.version, 0)
        return served

    def _update(
        self,
        served: ServedIndex,
        entries: Sequence[Entry],
        kind: str,
        request_id: str,
        errors: Sequence[messages.DatapointError] = (),
        here: int = 0,
        bodies: list[bytes] | None = None,
    ) -> Update:
        if len(request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(
                f"request_id has {len(request_id)} characters; at most {MAX_REQUEST_ID} are taken",
                field="request_id",
            )
        # An upsert and a remove of one id are two requests.
        name = f"{kind}:{request_id}" if request_id else None
        return Update(self._registry.feed(served.name), entries, name, list(errors), here, bodies)

    def _write(self, update: Update) -> int:
        if not update.entries:
            return 0
        record = CURRENT.get()
        deadline = None if record is None else record.deadline
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        with stage("write"):
            return update.feed.write(update.entries, request_id=update.request_id, timeout=timeout)

    def _embedded(
        self,
        served: ServedIndex,
        points: Sequence[messages.NewDatapoint],
        errors: dict[int, EarshotError],
    ) -> dict[int, Floats]:
        """The vectors of those that are text, by position; what cannot be embedded goes to `errors`."""
        positions: list[int] = []
        for position, point in enumerate(points):
            if point.text:
                try:
                    query_text(point.text)
                    positions.append(position)
                except EarshotError as error:
                    errors[position] = error
        if not positions:
            return {}
        try:
            with self._embedding:
                vectors = self._embed(served, [points[position].text for position in positions])
        except EarshotError as error:
            errors.update(dict.fromkeys(positions, error))
            return {}
        return dict(zip(positions, vectors, strict=True))


def parts_of(mask: str) -> frozenset[str] | None:
    """The parts that an update mask names, None for the whole datapoint. Raises InvalidArgument."""
    if not mask:
        return None
    named = [
        re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", each.strip()) for each in mask.split(",")
    ]
    for each in named:
        if each not in PARTS:
            raise InvalidArgument(
                f"update_mask names {each!r}; it can name {', '.join(PARTS)}", field="update_mask"
            )
    return frozenset(PARTS[each] for each in named)


def _entry_of(point: messages.NewDatapoint, mask: frozenset[str] | None, known: Floats | None) -> Entry:
    tag, metadata = point.crowding_tag or None, point.embedding_metadata or None
    restricts: Where = ()
    if point.restricts or point.numeric_restricts:
        restricts = stored_restricts(point.restricts, point.numeric_restricts)
    if mask is None:
        return Put(point.datapoint_id, _vector_of(point, known), tag, metadata, restricts)
    return Patch(
        point.datapoint_id,
        _vector_of(point, known) if "vector" in mask else UNSET,
        tag if "crowding_tag" in mask else UNSET,
        metadata if "metadata" in mask else UNSET,
        restricts if "restricts" in mask else UNSET,
    )


def _vectors_together(points: Sequence[messages.NewDatapoint]) -> dict[int, Floats]:
    """The vectors by position where all are packed and of one size, quicker than one by one; else none."""
    packed = [point.feature_vector_float32 for point in points]
    size = len(packed[0])
    if not size or size % 4 or {len(each) for each in packed} != {size}:
        return {}
    return dict(enumerate(np.frombuffer(b"".join(packed), _FLOAT32).reshape(len(points), -1)))


def _vector_of(point: messages.NewDatapoint, known: Floats | None) -> Floats:
    packed = point.feature_vector_float32
    if not packed or point.feature_vector or point.text:
        given = [form for form in _FORMS if getattr(point, form)]
        if len(given) != 1:
            raise InvalidArgument(
                f"{' and '.join(given) or 'no vector'} given; a datapoint needs one of {', '.join(_FORMS)}",
                field="feature_vector",
            )
        if known is not None:
            return known
        with np.errstate(over="ignore"):  # becomes infinite, which the index names
            return np.asarray(point.feature_vector, np.float32)
    if known is not None:
        return known
    if len(packed) % 4:
        raise InvalidArgument(
            f"feature_vector_float32 has {len(packed)} bytes; four are needed for each dimension",
            field="feature_vector_float32",
        )
    return np.frombuffer(packed, _FLOAT32)


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= MAX_DATAPOINTS:
        raise InvalidArgument(
            f"{field} has {count} entries; 1 to {MAX_DATAPOINTS} are taken at a time", field=field
        )


def _told(position: int, name: str, error: EarshotError) -> messages.DatapointError:
    return messages.DatapointError(position, name, messages.Status(row_of(error).grpc, error.message))

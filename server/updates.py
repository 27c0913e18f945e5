"""Upserts and removes: checked one by one, embedded where they are text, durable and seen when answered."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earshot.errors import EarshotError, FailedPrecondition, InvalidArgument, row_of
from earshot.index.ids import check_id
from earshot.index.journal import UNSET, Entry, Patch, Put, Remove

from . import update_messages as messages
from .names import index_id
from .registry import Registry, ServedIndex
from .restricts import stored_restricts
from .search import query_text
from .telemetry import CURRENT, note_queries, stage

__all__ = ["Updates", "parts_of"]

MAX_DATAPOINTS = 1_000
MAX_REQUEST_ID = 128
PARTS = {
    "all_restricts": "restricts",
    "embedding_metadata": "metadata",
    "crowding_tag": "crowding_tag",
    "feature_vector": "vector",
}

Floats = NDArray[np.float32]
Embed = Callable[[ServedIndex, Sequence[str]], Floats]


class Updates:
    """`DatapointService/UpsertDatapoints` and `RemoveDatapoints`; `embed` makes vectors of texts.

    `workers`: how many processes like this one there are behind one port.
    """

    def __init__(self, registry: Registry, embed: Embed, *, workers: int = 1) -> None:
        self._workers = workers
        self._registry = registry
        self._embed = embed
        self._embedding = Lock()  # one bulk load at a time: searches want the model too

    def upsert(self, request: messages.UpsertDatapointsRequest) -> messages.UpsertDatapointsResponse:
        """Write the datapoints that are right, and say what is wrong with the others.

        Raises InvalidArgument for what is wrong with the request as a whole, and as `Feed.write`.
        """
        served = self._registry.get(index_id(request.index))
        self._require_one_writer(served.name)
        points = request.datapoints
        _check_count("datapoints", len(points))
        mask = parts_of(request.update_mask)
        note_queries(served.name, served.version, 0)
        errors: dict[int, EarshotError] = {}
        embedded = self._embedded(served, points, errors)
        entries: list[Entry] = []
        for position, point in enumerate(points):
            if position in errors:
                continue
            try:
                entry = _entry_of(point, mask, embedded.get(position))
                entries.append(served.index.check(entry))
            except EarshotError as error:
                errors[position] = error
        return messages.UpsertDatapointsResponse(
            self._write(served, entries, "upsert", request.request_id),
            len(entries),
            [_told(position, points[position].datapoint_id, errors[position]) for position in sorted(errors)],
        )

    def remove(self, request: messages.RemoveDatapointsRequest) -> messages.RemoveDatapointsResponse:
        """Remove datapoints; one that is not there is no error.

        Raises as `upsert`.
        """
        served = self._registry.get(index_id(request.index))
        self._require_one_writer(served.name)
        ids = request.datapoint_ids
        _check_count("datapoint_ids", len(ids))
        note_queries(served.name, served.version, 0)
        for name in ids:
            check_id(name, "datapoint_ids holds an id that")
        here = int(np.count_nonzero(served.index.shard.ids.rows_of(ids) >= 0))
        sequence = self._write(served, [Remove(name) for name in ids], "remove", request.request_id)
        return messages.RemoveDatapointsResponse(sequence, here)

    def _require_one_writer(self, index: str) -> None:
        """The kernel picks the worker, so only one in `workers` updates would reach the one that writes."""
        if self._workers > 1 and not self._registry.feed(index).is_shared:
            raise FailedPrecondition(
                f"this server runs {self._workers} workers, and a journal in a file has one writer: serve "
                "with --workers 1, or keep the journal in PostgreSQL (the setting journal)",
                field="index",
            )

    def _write(self, served: ServedIndex, entries: list[Entry], kind: str, request_id: str) -> int:
        if len(request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(
                f"request_id has {len(request_id)} characters; at most {MAX_REQUEST_ID} are taken",
                field="request_id",
            )
        if not entries:
            return 0
        record = CURRENT.get()
        deadline = None if record is None else record.deadline
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        feed = self._registry.feed(served.name)
        with stage("write"):
            # An upsert and a remove of one id are two requests.
            return feed.write(
                entries, request_id=f"{kind}:{request_id}" if request_id else None, timeout=timeout
            )

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


def _entry_of(point: messages.NewDatapoint, mask: frozenset[str] | None, embedded: Floats | None) -> Entry:
    given: dict[str, Any] = {
        "crowding_tag": point.crowding_tag or None,
        "metadata": point.embedding_metadata or None,
        "restricts": stored_restricts(point.restricts, point.numeric_restricts),
    }
    if mask is None or "vector" in mask:
        given["vector"] = _vector_of(point, embedded)
    if mask is None:
        return Put(point.datapoint_id, **given)
    return Patch(
        point.datapoint_id, **{part: given[part] if part in mask else UNSET for part in PARTS.values()}
    )


def _vector_of(point: messages.NewDatapoint, embedded: Floats | None) -> Floats:
    forms = ("feature_vector", "feature_vector_float32", "text")
    given = [form for form in forms if getattr(point, form)]
    if len(given) != 1:
        raise InvalidArgument(
            f"{' and '.join(given) or 'no vector'} given; a datapoint needs one of {', '.join(forms)}",
            field="feature_vector",
        )
    if embedded is not None:
        return embedded
    if point.feature_vector:
        with np.errstate(over="ignore"):  # becomes infinite, which the index names
            return np.asarray(point.feature_vector, np.float32)
    if len(point.feature_vector_float32) % 4:
        raise InvalidArgument(
            f"feature_vector_float32 has {len(point.feature_vector_float32)} bytes; four are needed for each "
            "dimension",
            field="feature_vector_float32",
        )
    return np.frombuffer(point.feature_vector_float32, "<f4")


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= MAX_DATAPOINTS:
        raise InvalidArgument(
            f"{field} has {count} entries; 1 to {MAX_DATAPOINTS} are taken at a time", field=field
        )


def _told(position: int, name: str, error: EarshotError) -> messages.DatapointError:
    return messages.DatapointError(position, name, messages.Status(row_of(error).grpc, error.message))

"""Search answers as bytes, put together from pieces that are made once for each datapoint.

Building a protobuf object for every neighbor of every answer costs more than the search itself.
The wire format is that of `earshot.v1.SearchResponse`; a test decodes what is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from earshot.index import SearchResult
from earshot.v1 import search_service_pb2

from .. import messages
from ..json_codec import encode as encode_json
from ..names import version_name
from ..proto_codec import datapoint_message, search_response_message
from ..search import SearchPlan
from ..wire import FIXED64, LENGTH_DELIMITED, field, tag, varint
from .pieces import Pieces

Floats = NDArray[np.float32]

__all__ = ["AnswerEncoder", "JsonAnswers", "ProtobufAnswers"]

_FIELDS = search_service_pb2.SearchResponse.DESCRIPTOR.fields_by_name
_RESPONSES = search_service_pb2.BatchSearchResponse.DESCRIPTOR.fields_by_name["responses"].number
_NEIGHBOR_FIELDS = search_service_pb2.Neighbor.DESCRIPTOR.fields_by_name
# Each entry of distances and scores as they lie in a Neighbor: double, the tag of score, double.
_PAIR = np.dtype([("distance", "<f8"), ("tag", "u1"), ("score", "<f8")])


@lru_cache(maxsize=4096)
def _before_response(size: int) -> bytes:
    return tag(_RESPONSES, LENGTH_DELIMITED) + varint(size)


@lru_cache(maxsize=64)
def _version_field(name: str, version: str) -> bytes:
    return field(_FIELDS["index_version"].number, version_name(name, version).encode())


class ProtobufAnswers:
    """`SearchResponse` messages."""

    def __init__(self) -> None:
        self._pieces = Pieces(self._prefix)
        self._scores_tag = tag(_NEIGHBOR_FIELDS["score"].number, FIXED64)[0]

    def forget(self, name: str) -> None:
        """Lets go of what was remembered of an index."""
        self._pieces.forget(name)

    def encode(self, plan: SearchPlan, found: SearchResult, seconds: float) -> list[bytes]:
        """An answer for each query; `seconds` is how long finding them took."""
        pieces, counts = self._pieces.get(plan, found)
        pairs = np.empty(found.distances.shape, _PAIR)
        pairs["distance"], pairs["tag"], pairs["score"] = found.distances, self._scores_tag, found.scores
        parts = [b""] * (2 * len(pieces))
        parts[::2] = pieces
        parts[1::2] = pairs.view(f"V{_PAIR.itemsize}").ravel().tolist()
        tail = _version_field(plan.served.name, plan.served.version)
        tail += self._duration("search_duration", seconds)
        if found.sequence:
            tail += bytes([_FIELDS["sequence"].number << 3]) + varint(found.sequence)
        return [b"".join(one) + tail for one in _per_query(parts, found, counts)]

    def with_embed_duration(self, answer: bytes, seconds: float) -> bytes:
        """The answer to a text query: protobuf messages are added to by appending."""
        return answer + self._duration("embed_duration", seconds)

    @staticmethod
    def whole(response: messages.SearchResponse) -> bytes:
        """An answer that the service put together."""
        return search_response_message(response).SerializeToString()

    @staticmethod
    def batch(answers: Sequence[bytes]) -> bytes:
        """The answer to a batch, from that of each query."""
        parts = [b""] * (2 * len(answers))
        parts[::2] = map(_before_response, map(len, answers))
        parts[1::2] = answers
        return b"".join(parts)

    @staticmethod
    def _duration(name: str, seconds: float) -> bytes:
        whole, nanos = divmod(int(seconds * 1e9), 1_000_000_000)
        content = (b"\x08" + varint(whole) if whole else b"") + (b"\x10" + varint(nanos) if nanos else b"")
        return field(_FIELDS[name].number, content)

    @staticmethod
    def _prefix(datapoint: messages.Datapoint) -> bytes:
        """A neighbor up to its distance: tags, lengths and the datapoint do not change with the query."""
        inner = field(
            _NEIGHBOR_FIELDS["datapoint"].number, datapoint_message(datapoint).SerializeToString()
        ) + tag(_NEIGHBOR_FIELDS["distance"].number, FIXED64)
        return (
            tag(_FIELDS["neighbors"].number, LENGTH_DELIMITED) + varint(len(inner) + _PAIR.itemsize) + inner
        )


class JsonAnswers:
    """The same as JSON, equal to what `messages.SearchResponse` becomes."""

    def __init__(self) -> None:
        self._pieces = Pieces(lambda datapoint: b'{"datapoint":' + encode_json(datapoint) + b',"distance":')

    def forget(self, name: str) -> None:
        """Lets go of what was remembered of an index."""
        self._pieces.forget(name)

    def encode(self, plan: SearchPlan, found: SearchResult, seconds: float) -> list[bytes]:
        """An answer for each query; `seconds` is how long finding them took."""
        pieces, counts = self._pieces.get(plan, found)
        parts = [b""] * (5 * len(pieces))
        parts[::5] = pieces
        parts[1::5] = _numbers(found.distances)
        parts[2::5] = [b',"score":'] * len(pieces)
        parts[3::5] = _numbers(found.scores)
        parts[4::5] = [b"},"] * len(pieces)
        version = version_name(plan.served.name, plan.served.version)
        sequence = b',"sequence":%d' % found.sequence if found.sequence else b""
        tail = b'],"indexVersion":%b,"searchDuration":"%.6fs"%b}' % (encode_json(version), seconds, sequence)
        return [
            b'{"neighbors":[' + b"".join(one).removesuffix(b",") + tail
            for one in _per_query(parts, found, counts)
        ]

    def with_embed_duration(self, answer: bytes, seconds: float) -> bytes:
        """The answer to a text query, with one more member at its end."""
        return answer[:-1] + f',"embedDuration":"{seconds:.6f}s"}}'.encode()

    @staticmethod
    def whole(response: messages.SearchResponse) -> bytes:
        """An answer that the service put together."""
        return encode_json(response)

    @staticmethod
    def batch(answers: Sequence[bytes]) -> bytes:
        """The answer to a batch, from that of each query."""
        return b'{"responses":[' + b",".join(answers) + b"]}"


def _per_query(parts: list[bytes], found: SearchResult, counts: list[int] | None) -> list[list[bytes]]:
    """`parts`, equally many a neighbor, of each query; without those of places that are empty."""
    queries, width = found.rows.shape
    if not width:
        return [[] for _ in range(queries)]
    a_neighbor = len(parts) // (queries * width)
    a_query = a_neighbor * width
    if counts is None:
        return [parts[start : start + a_query] for start in range(0, len(parts), a_query)]
    starts = range(0, len(parts), a_query)
    return [parts[start : start + count * a_neighbor] for start, count in zip(starts, counts, strict=True)]


def _numbers(values: Floats) -> list[bytes]:
    """Each number as JSON; one call for all."""
    return encode_json(values.ravel().tolist())[1:-1].split(b",") if values.size else []


AnswerEncoder = ProtobufAnswers | JsonAnswers
"""What turns a batch's results into answers."""

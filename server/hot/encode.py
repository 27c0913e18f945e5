"""Search answers as bytes, put together from pieces that are made once for each datapoint.

Building a protobuf object for every neighbor of every answer costs more than the search itself.
The wire format is that of `earshot.v1.SearchResponse`; a test decodes what is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from earshot.index import SearchResult
from earshot.v1 import search_service_pb2

from .. import messages
from ..json_codec import encode as encode_json
from ..names import version_name
from ..proto_codec import datapoint_message, search_response_message
from ..registry import ServedIndex
from ..search import SearchPlan, attach
from ..wire import FIXED64, LENGTH_DELIMITED, field, tag, varint

__all__ = ["AnswerEncoder", "JsonAnswers", "ProtobufAnswers"]

MAX_REMEMBERED = 100_000  # datapoints of one kind; about 300 bytes each
MAX_KINDS = 32

_FIELDS = search_service_pb2.SearchResponse.DESCRIPTOR.fields_by_name
_RESPONSES = search_service_pb2.BatchSearchResponse.DESCRIPTOR.fields_by_name["responses"].number
_NEIGHBOR_FIELDS = search_service_pb2.Neighbor.DESCRIPTOR.fields_by_name
# Each entry of distances and scores as they lie in a Neighbor: double, the tag of score, double.
_PAIR = np.dtype([("distance", "<f8"), ("tag", "u1"), ("score", "<f8")])


_Kind = tuple[str, tuple[str, ...] | None]
"""An index, and what is asked of its metadata."""


class _Pieces:
    """One piece for each datapoint of one served version, made when it is first found."""

    def __init__(self, make: Callable[[messages.Datapoint], bytes]) -> None:
        self._make = make
        self._of: dict[_Kind, tuple[ServedIndex, dict[int, bytes]]] = {}

    def get(self, plan: SearchPlan, found: SearchResult, query: int, rows: list[int]) -> list[bytes]:
        """The pieces of one query's neighbors; `rows` are theirs."""
        if plan.full:  # vectors are large, and seldom asked for
            return [self._make(neighbor.datapoint) for neighbor in attach(plan, found, query)]
        kind = plan.served.name, plan.fields
        served, known = self._of.get(kind, (None, {}))
        if served is not plan.served or len(known) > MAX_REMEMBERED:
            known = {}
            self._of.pop(kind, None)
            if len(self._of) >= MAX_KINDS:
                self._of.pop(next(iter(self._of)))
            self._of[kind] = plan.served, known
        try:
            return [known[row] for row in rows]
        except KeyError:
            pieces = [self._make(neighbor.datapoint) for neighbor in attach(plan, found, query)]
            known.update(zip(rows, pieces, strict=True))
            return pieces


class ProtobufAnswers:
    """`SearchResponse` messages."""

    def __init__(self) -> None:
        self._pieces = _Pieces(self._prefix)
        self._scores_tag = tag(_NEIGHBOR_FIELDS["score"].number, FIXED64)[0]

    def encode(self, plan: SearchPlan, found: SearchResult, seconds: float) -> list[bytes]:
        """An answer for each query; `seconds` is how long finding them took."""
        pairs = np.empty(found.distances.shape, _PAIR)
        pairs["distance"], pairs["tag"], pairs["score"] = found.distances, self._scores_tag, found.scores
        packed = pairs.tobytes()
        tail = field(
            _FIELDS["index_version"].number, version_name(plan.served.name, plan.served.version).encode()
        ) + self._duration("search_duration", seconds)
        size, width = _PAIR.itemsize, found.rows.shape[1]
        answers = []
        for query, (rows, count) in enumerate(zip(found.rows.tolist(), found.counts.tolist(), strict=True)):
            start = query * width * size
            parts: list[bytes] = []
            for piece in self._pieces.get(plan, found, query, rows[:count]):
                parts.append(piece)
                parts.append(packed[start : start + size])
                start += size
            parts.append(tail)
            answers.append(b"".join(parts))
        return answers

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
        return b"".join(field(_RESPONSES, answer) for answer in answers)

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


class _JsonNeighbor(msgspec.Struct, frozen=True):
    datapoint: msgspec.Raw
    distance: float
    score: float


class _JsonAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    neighbors: list[_JsonNeighbor]
    index_version: str
    search_duration: str
    embed_duration: str | None = None


class JsonAnswers:
    """The same as JSON, equal to what `messages.SearchResponse` becomes."""

    def __init__(self) -> None:
        self._pieces = _Pieces(encode_json)

    def encode(self, plan: SearchPlan, found: SearchResult, seconds: float) -> list[bytes]:
        """An answer for each query; `seconds` is how long finding them took."""
        version = version_name(plan.served.name, plan.served.version)
        scores = found.scores.tolist()
        distances = found.distances.tolist()
        return [
            encode_json(
                _JsonAnswer(
                    [
                        _JsonNeighbor(msgspec.Raw(piece), distances[query][rank], scores[query][rank])
                        for rank, piece in enumerate(self._pieces.get(plan, found, query, rows[:count]))
                    ],
                    version,
                    f"{seconds:.6f}s",
                )
            )
            for query, (rows, count) in enumerate(
                zip(found.rows.tolist(), found.counts.tolist(), strict=True)
            )
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


AnswerEncoder = ProtobufAnswers | JsonAnswers
"""What turns a batch's results into answers."""

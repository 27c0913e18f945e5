"""The quick way to read an upsert means what the ordinary one does, and is taken for nothing else."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from earshot.index.journal import Put, encode_puts
from earshot.index.journal.codec import encode
from earshot.index.live.check import packed_puts
from earshot.server.update_messages import NewDatapoint, PackedUpsert, UpsertDatapointsRequest
from earshot.server.update_methods import packed_upsert, upsert_request
from earshot.v1 import datapoint_pb2, datapoint_service_pb2

NAMES = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["a", "x" * 127, "x" * 128])
VECTORS = st.sampled_from([b"", b"1234", bytes(28), bytes(120), bytes(124), bytes(512), bytes(16_380)])
POINTS = st.builds(
    datapoint_pb2.Datapoint,
    datapoint_id=NAMES,
    feature_vector_float32=VECTORS,
    feature_vector=st.sampled_from([[], [], [], [1.0]]),
    crowding_tag=st.sampled_from(["", "", "", "t"]),
)


def message(points: list[datapoint_pb2.Datapoint], **more: Any) -> bytes:
    return datapoint_service_pb2.UpsertDatapointsRequest(datapoints=points, **more).SerializeToString()


def one(name: str, size: int) -> datapoint_pb2.Datapoint:
    return datapoint_pb2.Datapoint(datapoint_id=name, feature_vector_float32=bytes(size))


@given(st.lists(POINTS, max_size=4), st.sampled_from(["", "i", "x" * 200]), st.sampled_from(["", "r" * 128]))
@example([one("a", 4), one("bc", 4)], "i", "")
@example([one("a" * 100, 24), one("b", 24)], "i", "r")  # one has a length of one byte, the other of two
@example([one("ü", 4)], "i", "")
def test_what_is_read_quickly_is_what_was_sent(
    points: list[datapoint_pb2.Datapoint], index: str, request_id: str
) -> None:
    data = message(points, index=index, request_id=request_id)
    found = upsert_request(data)
    assert packed_upsert(data) == (found if isinstance(found, PackedUpsert) else None)
    is_plain = all(
        point.datapoint_id and point.feature_vector_float32 and len(point.ListFields()) == 2
        for point in points
    )
    if isinstance(found, PackedUpsert):
        assert is_plain
        found = found.unpacked()
    assert found == UpsertDatapointsRequest(
        index,
        [
            NewDatapoint(
                point.datapoint_id,
                list(point.feature_vector),
                point.feature_vector_float32,
                crowding_tag=point.crowding_tag or None,
            )
            for point in points
        ],
        "",
        request_id,
    )


def test_most_upserts_are_read_quickly() -> None:
    points = [one(f"id-{number}", 512) for number in range(90, 110)]
    assert packed_upsert(message(points, index="indexes/mine", request_id="r")) is not None


@pytest.mark.parametrize("more", [b"\xfa\x01\x01x", message([], update_mask={"paths": ["restricts"]})])
def test_a_message_with_more_in_it_is_not(more: bytes) -> None:
    assert packed_upsert(message([one("a", 4)], index="i") + more) is None


@given(st.lists(NAMES.filter(len), min_size=1, max_size=4), st.integers(1, 5))
def test_puts_are_written_as_the_ordinary_way_writes_them(names: list[str], dimension: int) -> None:
    vectors = [
        struct.pack(f"<{dimension}f", *range(number, number + dimension)) for number in range(len(names))
    ]
    puts = packed_puts(names, vectors, dimension)
    assert puts is not None
    assert encode_puts(names, vectors) == [encode(put) for put in puts]
    for put, name, vector in zip(puts, names, vectors, strict=True):
        assert isinstance(put, Put)
        assert (put.id, np.asarray(put.vector).tobytes()) == (name, vector)


@pytest.mark.parametrize(
    ("names", "vectors"),
    [
        (["a"], [bytes(12)]),
        (["a"], [struct.pack("<2f", 1.0, float("nan"))]),
        (["a"], [struct.pack("<2f", 1.0, float("inf"))]),
        (["a", ""], [bytes(8)] * 2),
        (["x" * 1025], [bytes(8)]),
        (["\ud800"], [bytes(8)]),
    ],
)
def test_what_is_wrong_is_left_to_the_ordinary_way(names: list[str], vectors: list[bytes]) -> None:
    assert packed_puts(names, vectors, 2) is None

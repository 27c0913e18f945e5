"""The requests of `benchmarks.updates`, encoded beforehand, and updates that come at a steady rate."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from earshot.index.distance import Floats
from earshot.v1 import datapoint_service_pb2 as datapoint_service
from earshot.v1 import search_service_pb2 as search_service

from .h2 import calls_by_frames
from .service import synthetic

INDEX, K = "benchmark", 10
UPSERT = "/earshot.v1.DatapointService/UpsertDatapoints"


def upsert_message(names: list[str], vectors: Floats) -> bytes:
    """One request, encoded."""
    request = datapoint_service.UpsertDatapointsRequest(index=INDEX)
    for name, vector in zip(names, vectors, strict=True):
        request.datapoints.add(datapoint_id=name, feature_vector_float32=vector.astype("<f4").tobytes())
    return request.SerializeToString()


def search_message(vector: Floats, recall: float | None = None) -> bytes:
    """One request, encoded."""
    request = search_service.SearchRequest(index=INDEX, neighbor_count=K, target_recall=recall)
    request.vector.values.extend(vector.tolist())
    return request.SerializeToString()


def raw(channel: grpc.Channel, method: str) -> Callable[[bytes], bytes]:
    """A method that takes and returns bytes, so that the generator costs little."""
    return channel.unary_unary(method)  # type: ignore[return-value]


def found(answer: bytes) -> set[str]:
    """The ids in an answer."""
    response = search_service.SearchResponse.FromString(answer)
    return {neighbor.datapoint.datapoint_id for neighbor in response.neighbors}


def write_steadily(address: str, rate: int, written: Any, stop: Any) -> None:
    """Batches of 100 over 20,000 ids, each at its time or as soon as the one before is through."""
    vectors = synthetic(20_000, 3)
    messages = [
        upsert_message([f"m{row}" for row in range(start, start + 100)], vectors[start : start + 100])
        for start in range(0, len(vectors), 100)
    ]
    # By frames, as a client of grpcio's takes more of the two cores than the server does for an update.
    with calls_by_frames(address, UPSERT) as upsert:
        began = time.perf_counter()
        while not stop.is_set():
            if (pause := began + written.value / rate - time.perf_counter()) > 0:
                time.sleep(min(pause, 0.1))
                continue
            upsert(messages[written.value // 100 % len(messages)])
            written.value += 100


@contextmanager
def updates_at(address: str, rate: int) -> Iterator[Callable[[], int]]:
    """Updates that come from a process of their own; how many have. None at the rate 0."""
    processes = multiprocessing.get_context("spawn")
    written, stop = processes.Value("q", 0), processes.Event()
    writer = processes.Process(target=write_steadily, args=(address, rate, written, stop))
    if rate:
        writer.start()
        while not written.value:
            time.sleep(0.01)
    try:
        yield lambda: int(written.value)
    finally:
        stop.set()
        if rate:
            writer.join()

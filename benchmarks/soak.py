"""A long run of the server under load, with everything that happens to a server in the meantime.

`python -m benchmarks.soak [--minutes 30] [--load 0.7] [--workers 1]`: h2load (Debian's nghttp2-client) asks
at that share of what the server can do; versions are swapped, datapoints updated, calls are cancelled and
clients vanish in mid-call. It fails where a search failed or was answered wrongly, an update was not seen by
who asked next, memory grew, the log has an error, or the end was no drain.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np

from earshot.client import Client
from earshot.errors import NotFound
from earshot.index import Index, Store
from earshot.index.journal import open_journal
from earshot.server.run import Addresses
from earshot.v1 import datapoint_pb2, search_service_pb2

from .load import Asked, frame, load_by_h2load
from .service import BATCH_SEARCH, INDEX, SEARCH, STREAM_SEARCH, synthetic

COUNT = 20_000
SWAP_SECONDS = 20.0
# Else grpcio lets all troubles share a connection, and Envoy closes one on which most calls are given up.
OWN = [("grpc.use_local_subchannel_pool", 1)]
LIVE = 1_000  # datapoints that come and go
CLIENTS, STREAMS = 8, 16  # of h2load, and how many calls each may have under way
MOST_GROWTH = 0.05  # of resident memory, from the second quarter of the run to the last
FINE = {"OK", "CANCELLED"}
EXPECTED = {
    "BatchSearch": {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"},  # which were given no time
    "ReadDatapoints": {"NOT_FOUND"},  # what was just removed
}
WRONG = re.compile(r"Traceback|InvalidStateError|never retrieved| ERROR ")
COUNTED = re.compile(r'earshot_requests_total\{code="(\w+)".*method="(\w+)".*\} (\S+)')


class Troubles:
    """What was done to the server, how often, and what went wrong."""

    def __init__(self, addresses: Addresses, request: bytes) -> None:
        self.addresses = addresses
        self.request = request
        self.done: dict[str, int] = {}
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def every(self, seconds: float, trouble: Callable[[], None]) -> None:
        """Does it again and again, in a thread, until the end."""

        def run() -> None:
            while not self._stopping.wait(seconds * random.uniform(0.5, 1.5)):
                try:
                    trouble()
                except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
                    self.failures.append(f"{trouble.__name__}: {error!r}"[:300])
                self.done[trouble.__name__] = self.done.get(trouble.__name__, 0) + 1

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def stop(self) -> None:
        """Ends all of it."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def search(self) -> None:
        """A search whose answer is looked at, on a connection of its own."""
        channel: Any
        with grpc.insecure_channel(self.addresses.grpc, OWN) as channel:
            answer = search_service_pb2.SearchResponse.FromString(
                channel.unary_unary(SEARCH)(self.request, timeout=30)
            )
        ids = [neighbor.datapoint.datapoint_id for neighbor in answer.neighbors]
        markers = {name.split("-")[0] for name in ids}
        if len(ids) != 10 or len(markers) != 1:
            raise ValueError(f"an answer of {ids} from {answer.index_version}")

    def cancel(self) -> None:
        """Searches given up after a little, and batches that had no time from the beginning."""
        search = search_service_pb2.SearchRequest.FromString(self.request)
        batch = search_service_pb2.BatchSearchRequest(index=INDEX, vectors=[search.vector] * 2)
        channel: Any
        with grpc.insecure_channel(self.addresses.grpc, OWN) as channel:
            for number in range(20):
                if number % 2:
                    future = channel.unary_unary(SEARCH).future(self.request, timeout=30)
                    time.sleep(random.uniform(0, 0.003))
                    future.cancel()
                else:
                    hurried = channel.unary_unary(BATCH_SEARCH).future
                    hurried(batch.SerializeToString(), timeout=random.choice((1e-4, 1e-3)))

    def update(self) -> None:
        """Datapoints far from what is searched for, some of them new, some again, some gone; whoever is asked
        next, on another connection, knows of it."""
        names = [f"live-{random.randrange(LIVE)}" for _ in range(10)]
        far = -np.frombuffer(search_service_pb2.SearchRequest.FromString(self.request).vector.float32, "<f4")
        here = set(names[:8]) - set(names[8:])
        with Client(self.addresses.grpc) as client, Client(self.addresses.http) as other:
            client.upsert(INDEX, [{"id": name, "vector": far} for name in set(names[:8])])
            client.remove(INDEX, names[8:])
            if {point.id for point in other.read(INDEX, list(here))} != here:
                raise ValueError(f"{here} are not all there")
            with contextlib.suppress(NotFound):
                other.read(INDEX, names[8:])
                raise ValueError(f"some of {names[8:]} are still there")

    def vanish_from_streams(self) -> None:
        """A stream of queries whose client closes its connection in the middle."""
        channel: Any = grpc.insecure_channel(self.addresses.grpc, OWN)
        answers = channel.stream_stream(STREAM_SEARCH)(iter([self.request] * 200))
        next(answers)
        channel.close()

    def vanish_from_sockets(self) -> None:
        """Half a request, or a whole one, over HTTP/1.1 and HTTP/2, and a reset."""
        host, port = self.addresses.grpc.split(":")
        body = b'{"vector": {"values": [' + b"0.1, " * 127 + b"0.1]}}"
        head = b"POST /v1/indexes/%b:search HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        whole = head % (INDEX.encode(), len(body)) + body
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        for data in (whole, whole[: len(whole) // 2], whole[:20], preface, preface + b"\0\0\xff\1\4\0\0\0\1"):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(data)
                time.sleep(random.uniform(0, 0.003))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Swaps:
    """Two indexes that are published in turn; their ids say which is which."""

    def __init__(self, store: Store) -> None:
        self._store = store
        vectors = synthetic(COUNT, 1)
        self._indexes = [
            Index.build(vectors, [f"{marker}-{row}" for row in range(COUNT)]) for marker in ("even", "odd")
        ]
        self._number = 0
        store.create(INDEX)
        self.swap()

    def swap(self) -> None:
        """Publishes the other one, as if it held all updates so far, and removes what is old."""
        path, last = self._store.journal_file(INDEX), 0
        if path is not None and path.exists():
            with closing(open_journal(path, INDEX, read_only=True)) as journal:
                last = journal.last()
        extra = {"sequence_number": last}
        self._store.publish(INDEX, self._indexes[self._number % 2], manifest_extra=extra)
        self._store.prune(INDEX, 2)
        self._number += 1


def main() -> None:
    """The command line; exits with 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--load", type=float, default=0.7, help="share of what the server can do")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--json", type=Path, help="write what was seen here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = soak(Path(folder), options.minutes, options.load, options.workers)
    print(json.dumps(seen, indent=2))
    if options.json:
        options.json.write_text(json.dumps(seen, indent=2) + "\n")
    sys.exit(bool(seen["findings"]))


def soak(folder: Path, minutes: float, share: float, workers: int = 1) -> dict[str, Any]:
    """The run: what was done and seen; `findings` is empty where all is well."""
    swaps = Swaps(Store(folder / "data"))
    vector = datapoint_pb2.Vector(float32=synthetic(1, 2)[0].astype("<f4").tobytes())
    request = search_service_pb2.SearchRequest(index=INDEX, vector=vector).SerializeToString()
    findings: list[str] = []
    with _server(folder, workers) as (process, addresses):
        capacity = load_by_h2load(addresses, Asked("capacity", SEARCH, (request,)), 32, 5.0).per_second
        troubles = Troubles(addresses, request)
        troubles.every(SWAP_SECONDS, swaps.swap)
        for trouble in (troubles.search, troubles.cancel, troubles.update):
            troubles.every(0.2, trouble)
        for trouble in (troubles.vanish_from_streams, troubles.vanish_from_sockets):
            troubles.every(0.5, trouble)
        memory: list[float] = []

        def look_at_memory() -> None:
            memory.append(_resident_mib(process.pid))

        troubles.every(1.0, look_at_memory)
        try:
            load = _paced(folder, addresses, request, share * capacity, 60 * minutes)
        finally:
            troubles.stop()
        codes = _codes(addresses)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    log = (folder / "log").read_text()
    findings += troubles.failures[:10]
    if len(troubles.failures) > 10:
        findings.append(f"and {len(troubles.failures) - 10} more failures")
    if "0 failed, 0 errored, 0 timeout" not in load:
        findings.append(f"h2load: {load}")
    for method, counts in codes.items():
        if set(counts) - FINE - EXPECTED.get(method, set()):
            findings.append(f"statuses of {method}: {counts}")
    if code:
        findings.append(f"the server ended with code {code}")
    findings += [line for line in log.splitlines() if WRONG.search(line)][:10]
    quarter = len(memory) // 4
    before, after = np.mean(memory[quarter : 2 * quarter]), np.mean(memory[3 * quarter :])
    if after > (1 + MOST_GROWTH) * before:
        findings.append(f"resident memory grew from {before:.0f} to {after:.0f} MiB")
    return {
        "minutes": minutes,
        "capacity_per_second": round(capacity),
        "asked_per_second": round(share * capacity),
        "requests_by_status": codes,
        "done": dict(sorted(troubles.done.items())),
        "resident_mib": [round(float(before), 1), round(float(after), 1)],
        "findings": findings,
    }


@contextmanager
def _server(folder: Path, workers: int) -> Iterator[tuple[subprocess.Popen[str], Addresses]]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.service",
        "--serve",
        "direct",
        "--data-dir",
        str(folder / "data"),
        "--workers",
        str(workers),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        yield process, Addresses(**json.loads(process.stdout.readline()))
    finally:
        process.kill()  # where it has not ended by itself
        process.wait()
        process.stdout.close()


def _paced(folder: Path, addresses: Addresses, request: bytes, per_second: float, seconds: float) -> str:
    """Open load at this rate; h2load's summary."""
    (folder / "body").write_bytes(frame(request))
    return subprocess.run(
        [
            *("h2load", "-t1", f"-c{CLIENTS}", f"-m{STREAMS}", f"-D{seconds:g}"),
            *(f"--rps={per_second / CLIENTS:.0f}", "-d", str(folder / "body")),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{addresses.grpc}{SEARCH}",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def _codes(addresses: Addresses) -> dict[str, dict[str, int]]:
    """How many requests ended in which status, by method."""
    counted: dict[str, dict[str, int]] = {}
    for code, method, count in COUNTED.findall(httpx.get(f"{addresses.http}/metrics").text):
        codes = counted.setdefault(method, {})
        codes[code] = codes.get(code, 0) + int(float(count))
    return counted


def _resident_mib(pid: int) -> float:
    """Of a process and those that it started."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:  # it has just ended
        return 0.0
    own = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return sum(map(int, own)) / 1024 + sum(_resident_mib(int(child)) for child in children)


if __name__ == "__main__":
    main()

"""Load on a server, so many requests in flight, from a process of its own.

The same request again and again from h2load (Debian's nghttp2-client) where it is installed, or else from
grpcio, whose own cost is then the limit; different ones in turn from wrk (Debian's too), as JSON over
HTTP/1.1.
`python -m benchmarks.load ADDRESS PATH BODY IN_FLIGHT SECONDS` is the latter.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from earshot.server.run import Addresses


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of request: a path and messages, over gRPC or as JSON.

    More messages than one are those of a stream; where it `is_varied` they are requests of their own, in
    turn. `queries` is how many a request brings, and `raw` the name of what ScaNN alone does with those.
    """

    name: str
    path: str
    messages: tuple[bytes, ...]
    queries: int = 1
    raw: str = ""
    is_json: bool = False
    is_varied: bool = False

    @property
    def body(self) -> bytes:
        """What follows the headers."""
        return self.messages[0] if self.is_json else b"".join(map(frame, self.messages))


@dataclass(frozen=True, slots=True)
class Load:
    """What the load generator saw."""

    per_second: float
    p50_ms: float
    p99_ms: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_seconds(int(child)) for child in children)


def load_by_h2load(addresses: Addresses, asked: Asked, in_flight: int, seconds: float) -> Load:
    """Load from nghttp2's h2load, one thread. Raises RuntimeError where requests failed."""
    size = 0 if asked.is_json else _answer_bytes(addresses, asked)
    clients = min(in_flight, 8)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(asked.body)
        kind = "application/json" if asked.is_json else "application/grpc"
        url = addresses.http if asked.is_json else f"http://{addresses.grpc}"
        output = subprocess.run(
            [
                *("h2load", "-t1", f"-c{clients}", f"-m{in_flight // clients}", f"-D{seconds:g}"),
                *("--warm-up-time=500ms", "-d", str(body), f"--log-file={log}"),
                *("-H", f"content-type: {kind}", "-H", "te: trailers"),
                url + asked.path,
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        rows = np.loadtxt(log, dtype=np.int64)
    if " 0 failed, 0 errored, 0 timeout" not in output:
        raise RuntimeError(f"{asked.name}: requests failed:\n{output}")
    # To HTTP, an error of gRPC is a success; but it has no answer.
    data, requests = (
        int(re.search(pattern, output)[1])  # type: ignore[index]
        for pattern in (r"\((\d+)\) data", r"(\d+) succeeded")
    )
    if data < 0.9 * size * requests:
        raise RuntimeError(f"{asked.name}: {data / requests:.0f} bytes a request; an answer has {size}")
    rows = rows[rows[:, 1] == 200]  # h2load logs the request that the end of its warm-up cut as status 0
    return _summary(rows[:, 2] / 1e6, seconds)


_WRK = """
local requests, last = {}, 0

function init()
  for body in io.lines("BODIES") do
    requests[#requests + 1] = wrk.format("POST", "PATH", {["content-type"] = "application/json"}, body)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors, failed = summary.errors, 0
  for _, count in pairs(errors) do failed = failed + count end
  io.write(string.format("\\nseen: %d %d %d %g %g\\n", summary.requests, failed, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
"""


def load_by_wrk(addresses: Addresses, asked: Asked, in_flight: int, seconds: float) -> Load:
    """Load from wrk, one thread, a connection for each in flight; `seconds` are rounded.

    Raises:
        RuntimeError: Requests failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        bodies, script = Path(folder) / "bodies", Path(folder) / "script.lua"
        bodies.write_bytes(b"\n".join(asked.messages) + b"\n")
        script.write_text(_WRK.replace("BODIES", str(bodies)).replace("PATH", asked.path))
        output = subprocess.run(
            ["wrk", "-t1", f"-c{in_flight}", f"-d{round(seconds)}", "-s", str(script), addresses.http],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    requests, failed, ran, p50, p99 = map(float, output.rpartition("seen: ")[2].split())
    if failed:
        raise RuntimeError(f"{asked.name}: requests failed:\n{output}")
    return Load(1e6 * requests / ran, p50 / 1000, p99 / 1000)


def _answer_bytes(addresses: Addresses, asked: Asked) -> int:
    channel: Any
    with grpc.insecure_channel(addresses.grpc) as channel:
        return sum(map(len, channel.stream_stream(asked.path)(iter(asked.messages))))


def load_by_grpcio(addresses: Addresses, asked: Asked, in_flight: int, seconds: float) -> Load:
    """Load from grpcio's asyncio client in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", addresses.grpc, asked.path]
    command += [asked.messages[0].hex(), str(in_flight), str(seconds)]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    return Load(**json.loads(output))


def run_load(address: str, path: str, body: str, in_flight: str, seconds: str) -> None:
    """The load generator's process."""

    async def one(call: Any, until: float, took: list[float]) -> None:
        while (started := time.perf_counter()) < until:
            await call(bytes.fromhex(body))
            took.append(time.perf_counter() - started)

    async def main() -> list[float]:
        took: list[float] = []
        async with grpc.aio.insecure_channel(address) as channel:
            until = time.perf_counter() + float(seconds)
            await asyncio.gather(
                *(one(channel.unary_unary(path), until, took) for _ in range(int(in_flight)))
            )
        return took

    print(json.dumps(asdict(_summary(np.array(asyncio.run(main())), float(seconds)))))


def frame(message: bytes) -> bytes:
    """gRPC's length prefix and the message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _summary(took: NDArray[np.float64], seconds: float) -> Load:
    p50, p99 = np.percentile(took * 1e3, (50, 99)).tolist()
    return Load(len(took) / seconds, p50, p99)


if __name__ == "__main__":
    run_load(*sys.argv[1:])

"""What a service or engine is to `benchmarks.service_peers`: how it is asked, and by whom."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .datasets import Floats, Rows

__all__ = ["CLIENTS", "IN_BATCH", "Ask", "K", "Peer", "Start", "ladder", "patiently", "program_of", "running"]

K, CLIENTS = 10, 8
IN_BATCH = 5_000

Ask = Callable[[Floats], Rows]
"""Queries [q, d], one or many in one call, to rows [q, k]."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Peer:
    """One that runs: how a client of it is got at a setting of its knob, and the settings, cheapest first.

    `native` has queries a second under a load generator in C, whose eight connections send requests in turn
    or at random, from a setting, requests [r, b, d] of b queries each, and seconds. An engine that
    `is_embedded` has no clients in other processes: threads of this one share it.
    """

    connect: Callable[[Any], Ask]
    settings: Sequence[Any]
    native: Callable[[Any, Floats, float], float] | None = None
    is_embedded: bool = False


Start = Callable[[Floats, Path], Any]
"""From vectors and a folder, which may hold what an earlier run built, to a context manager of a Peer."""


def ladder(low: int, high: int) -> list[int]:
    """Settings from low to high, each about a tenth above the one before."""
    steps = [low]
    while steps[-1] < high:
        steps.append(min(max(steps[-1] + 1, round(1.1 * steps[-1])), high))
    return steps


@contextmanager
def running(*command: str) -> Iterator[Path]:
    """A process, ended at the end of the block, and the file that it prints to; of its log only errors."""
    with tempfile.NamedTemporaryFile() as printed, tempfile.TemporaryFile() as log:
        environment = {**os.environ, "RUST_LOG": "error"}
        process = subprocess.Popen(command, stdout=printed, stderr=log, env=environment)
        try:
            yield Path(printed.name)
        finally:
            process.terminate()
            process.wait(60)


def program_of(package: str) -> str:
    """A program that a package of this environment brings."""
    return str(Path(sys.executable).with_name(package))


def patiently(connect: Callable[[], Result]) -> Result:
    """What it returns, as soon as it raises nothing; within a minute."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return connect()
        except Exception:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)

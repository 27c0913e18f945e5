"""What a piece of work costs: processor time, on one thread of BLAS."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

T = TypeVar("T")


def timed(task: Callable[[], T], repeats: int = 2, *, on_device: bool = False) -> tuple[float, T]:
    """The shortest of a few runs, in seconds of processor, and the last result.

    Processor time is what a query takes from others, and does not count what else the machine is doing. Where
    another processor does the work, `on_device`, it is the time that passes.
    """
    clock = perf_counter if on_device else process_time
    seconds = np.inf
    for _ in range(repeats):
        began = clock()
        result = task()
        seconds = min(seconds, clock() - began)
    return seconds, result


def one_thread() -> threadpool_limits:
    """A context in which BLAS uses one thread, as it should where many searches run side by side.

    On more threads the processor time of a product counts their waiting too, and costs could not be compared.
    """
    return threadpool_limits(limits=1, user_api="blas")

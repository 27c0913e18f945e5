"""Moves the memory of opened indexes into huge pages, where Linux has them: searches look into it everywhere.

A search reads hundreds of places in tables of many megabytes, and with pages of 4 KiB the processor has to
look up where nearly each of them is. An allocator could ask for huge pages in the first place, but then the
kernel makes room for them while ScaNN loads, and no other thread runs meanwhile.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["HUGE_BYTES", "HugePages"]

HUGE_BYTES = 2 << 20
TURN_SECONDS = 0.001
PAUSE = 100
"""So many times as long as it worked it rests: while one page is copied, searches may wait for it."""

_COLLAPSE = 25  # MADV_COLLAPSE, which Linux knows from 6.1 on
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


class HugePages:
    """One mover for a process; `turn` is called again and again by a thread that has nothing better to do.

    Attributes:
        bytes: What lies in huge pages because of it, or lay there before; 0 where the system has none, or its
            administrator wants none.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._libc: Any = ctypes.CDLL(None) if os.name == "posix" else None  # lets others run while it calls
        self._left: Iterator[int] = iter(())
        self._not_before = 0.0

    def begin(self) -> None:
        """Go through all memory from the next turn on, because there is something new in it."""
        self.bytes = 0
        self._left = self._places()

    def turn(self) -> bool:
        """Move some pages, or rest; returns whether there may be more to move. It uses no more memory."""
        began = time.monotonic()
        if began < self._not_before:
            return True
        for start in self._left:
            self.bytes += HUGE_BYTES * self._move(start)
            took = time.monotonic() - began
            if took > TURN_SECONDS:
                self._not_before = began + (1 + PAUSE) * took
                return True
        return False

    def _places(self) -> Iterator[int]:
        """Where in this process's own memory a huge page could begin."""
        try:
            if "[never]" in _ENABLED.read_text():
                return
            maps = Path("/proc/self/maps").read_text()
        except OSError:  # another system
            return
        for line in maps.splitlines():
            bounds, kind, *rest = line.split()
            if kind == "rw-p" and len(rest) == 3:  # a fourth would be the name of a file, a stack or the heap
                start, end = (int(bound, 16) for bound in bounds.split("-"))
                yield from range(-(-start // HUGE_BYTES) * HUGE_BYTES, end - HUGE_BYTES + 1, HUGE_BYTES)

    def _move(self, start: int) -> bool:
        """Whether there is a huge page now. One that is not in memory as a whole would become larger."""
        address, size = ctypes.c_void_p(start), ctypes.c_size_t(HUGE_BYTES)
        here = np.zeros(HUGE_BYTES // mmap.PAGESIZE, np.uint8)
        if self._libc.mincore(address, size, ctypes.c_void_p(here.ctypes.data)) or not (here & 1).all():
            return False
        return bool(self._libc.madvise(address, size, _COLLAPSE) == 0)

"""Memory that is moved together: what is in it stays, and no more of it is used."""

from __future__ import annotations

import mmap
import platform
import time
from pathlib import Path

import numpy as np
import pytest

from earshot.index.distance import Floats
from earshot.server import huge_pages
from earshot.server.huge_pages import HUGE_BYTES, HugePages

MEBIBYTE = 1 << 20


def has_huge_pages() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())
    return setting.exists() and "[never]" not in setting.read_text() and release >= (6, 1)


needs_huge_pages = pytest.mark.skipif(not has_huge_pages(), reason="this system gathers no huge pages")


def untouched(size: int) -> Floats:
    """Memory as malloc gives it; NumPy would ask for huge pages at once."""
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.float32)


def of_region(address: int, name: str) -> int:
    """A figure, in bytes, of the region of memory that has this address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(bound, 16) for bound in first.split("-"))
            here = start <= address < end
        elif here and first == f"{name}:":
            return 1024 * int(line.split()[1])
    raise AssertionError(f"nothing lies at {address:x}")


def moved_to_the_end(pages: HugePages) -> None:
    pages.begin()
    give_up = time.monotonic() + 60
    while pages.turn():
        assert time.monotonic() < give_up


@needs_huge_pages
def test_what_is_whole_is_moved_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "PAUSE", 0)
    numbers = untouched(32 * MEBIBYTE)
    numbers[:] = before = np.arange(len(numbers), dtype=np.float32)
    address = numbers.ctypes.data + 16 * MEBIBYTE
    pages = HugePages()
    moved_to_the_end(pages)
    assert of_region(address, "AnonHugePages") >= 4 * HUGE_BYTES  # not all, where free memory is in pieces
    assert pages.bytes >= 4 * HUGE_BYTES
    np.testing.assert_array_equal(numbers, before)
    moved_to_the_end(pages)  # again changes nothing
    assert pages.bytes >= 4 * HUGE_BYTES


@needs_huge_pages
def test_what_has_holes_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "PAUSE", 0)
    holes = untouched(32 * MEBIBYTE)
    step = HUGE_BYTES // holes.itemsize
    holes[::step] = 1.0  # a page of each huge page
    used = of_region(holes.ctypes.data + 16 * MEBIBYTE, "Rss")
    moved_to_the_end(HugePages())
    assert of_region(holes.ctypes.data + 16 * MEBIBYTE, "Rss") <= used + MEBIBYTE
    assert (holes[::step] == 1.0).all()


def test_it_rests_a_hundred_times_as_long_as_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now, moved = 0.0, []

    def move(self: HugePages, start: int) -> bool:
        nonlocal now
        now += 0.0007
        moved.append(start)
        return True

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(HugePages, "_places", lambda self: iter(range(5)))
    monkeypatch.setattr(HugePages, "_move", move)
    pages = HugePages()
    assert not pages.turn()  # nothing was begun
    pages.begin()
    assert pages.turn()
    assert moved == [0, 1]
    now += 0.13
    assert pages.turn()
    assert moved == [0, 1]
    now += 0.02
    assert pages.turn()
    assert moved == [0, 1, 2, 3]
    now += 1
    assert not pages.turn()
    assert (moved, pages.bytes) == ([0, 1, 2, 3, 4], 5 * HUGE_BYTES)


def test_who_wants_none_gets_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    for path in (setting, tmp_path / "another system"):
        monkeypatch.setattr(huge_pages, "_ENABLED", path)
        pages = HugePages()
        pages.begin()
        assert not pages.turn()
        assert pages.bytes == 0

"""Segments made by a process of its own are those that would be made here, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from earshot.index.distance import DistanceMeasure
from earshot.index.live import Sealer, sealing
from earshot.index.live.sealing import seal_here
from earshot.index.live.segment import Segment

DOT, L2 = DistanceMeasure.DOT_PRODUCT_DISTANCE, DistanceMeasure.SQUARED_L2_DISTANCE
RNG = np.random.default_rng(5)
VECTORS = RNG.standard_normal((6000, 24), np.float32)
SLOTS = np.sort(RNG.choice(6000, 4500, replace=False))


@pytest.fixture
def sealer() -> Iterator[Sealer]:
    made = Sealer()
    yield made
    made.close()


def assert_same(one: Segment, other: Segment) -> None:
    for name in ("slots", "vectors", "bounds", "centroids", "spread", "beyond"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert one.longest == other.longest
    assert one.needed.keys() == other.needed.keys()
    for k, recalls in one.needed.items():
        np.testing.assert_array_equal(recalls, other.needed[k])


def child_of(sealer: Sealer) -> subprocess.Popen[bytes]:
    assert sealer._process is not None
    return sealer._process


@pytest.mark.parametrize("measure", [DOT, L2])
def test_the_child_makes_what_would_be_made_here(sealer: Sealer, measure: DistanceMeasure) -> None:
    found, here = sealer(VECTORS, SLOTS, measure), seal_here(VECTORS, SLOTS, measure)
    assert_same(found, here)
    assert child_of(sealer).poll() is None
    queries = RNG.standard_normal((5, 24), np.float32)
    for one, other in zip(found.search(queries, 10, 0.9), here.search(queries, 10, 0.9), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.vectors.flags.aligned
    assert not found.vectors.flags.writeable


def test_one_child_does_it_all_and_another_takes_its_place(sealer: Sealer) -> None:
    here = seal_here(VECTORS, SLOTS, DOT)
    sealer(VECTORS, SLOTS[:100], DOT)
    first = child_of(sealer)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: sealer(VECTORS, SLOTS, DOT), range(8)):
            assert_same(found, here)
    assert child_of(sealer) is first
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert_same(sealer(VECTORS, SLOTS, DOT), here)
    assert child_of(sealer) is not first


@pytest.mark.parametrize("before", [0, 10])
def test_the_child_gives_way_but_does_not_starve(sealer: Sealer, before: int) -> None:
    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), before)
        sealer(VECTORS, SLOTS[:100], DOT)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert os.getpriority(os.PRIO_PROCESS, child_of(sealer).pid) == 10


def test_what_a_segment_holds_outlives_the_child(sealer: Sealer) -> None:
    found = sealer(VECTORS, SLOTS, DOT)
    sealer.close()
    assert_same(found, seal_here(VECTORS, SLOTS, DOT))


def test_it_is_done_here_where_there_can_be_no_child(
    sealer: Sealer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python here"))
    assert_same(sealer(VECTORS, SLOTS, DOT), seal_here(VECTORS, SLOTS, DOT))
    assert "it is done here" in caplog.text


def test_it_is_done_here_where_the_child_does_not_begin(
    sealer: Sealer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert_same(sealer(VECTORS, SLOTS, DOT), seal_here(VECTORS, SLOTS, DOT))
    assert "it is done here" in caplog.text


def test_it_is_done_here_where_the_child_does_not_answer(
    sealer: Sealer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sealing, "ANSWER_SECONDS", 3.0)
    sealer(VECTORS, SLOTS[:100], DOT)
    child_of(sealer).send_signal(signal.SIGSTOP)
    assert_same(sealer(VECTORS, SLOTS, DOT), seal_here(VECTORS, SLOTS, DOT))
    assert "it is done here" in caplog.text


def test_the_child_ends_with_whoever_began_it() -> None:
    program = (
        "import numpy as np, time\n"
        "from earshot.index.live import Sealer\n"
        "from earshot.index.distance import DistanceMeasure as M\n"
        "sealer = Sealer()\n"
        "sealer(np.eye(200, 8, dtype=np.float32), np.arange(200), M.DOT_PRODUCT_DISTANCE)\n"
        "print(sealer._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)


def is_running(process: int) -> bool:
    """Nobody may be there to bury it, in a container."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False

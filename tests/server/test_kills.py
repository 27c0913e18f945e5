"""kill -9 of a server at random moments, under concurrent writers and readers, against an oracle.

After each restart every acknowledged update must be there, and nothing else: none lost, none back from the
dead, none twice. What was not acknowledged may have happened or not, but not in part.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from earshot.client import Client, Retry
from earshot.errors import EarshotError, NotFound
from earshot.index import Index, Store
from tests.server.forked import INDEX, Forker
from tests.servers import EARSHOT, environment

DIMENSION = 8
WRITERS = 4
IDS_A_WRITER = 25
NAMES = [f"base-{n}" for n in range(60)]
CYCLES = int(os.environ.get("EARSHOT_KILL_CYCLES", "200"))

State = int | None
"""The number in a datapoint's metadata, None where there is none."""


class Oracle:
    """What each id was acknowledged as, and what it may have become besides. One writer an id."""

    def __init__(self) -> None:
        self.known: dict[str, State] = {}
        self.maybe: dict[str, set[State]] = {}
        self.acknowledged = 0
        self.wrong: list[str] = []

    def settle(self, found: dict[str, int]) -> None:
        """Compare with what is there, which is known from now on."""
        for name in self.known.keys() | self.maybe.keys() | found.keys():
            state = found.get(name)
            allowed = {self.known.get(name)} | self.maybe.get(name, set())
            assert state in allowed, f"{name} is {state}; it may be {allowed}"
            self.known[name] = state
        self.maybe.clear()


def vector_of(name: str, number: int) -> np.ndarray:
    return np.random.default_rng([number, *name.encode()]).standard_normal(DIMENSION).astype(np.float32)


def write(
    oracle: Oracle,
    client: Client,
    writer: int,
    seed: int,
    stop: threading.Event,
    reader: Client | None = None,
) -> None:
    """Changes, each of which `reader`, or else the same client, looks for; until `stop` or a failure."""
    dice = random.Random(seed)
    while not stop.is_set():
        names = dice.sample([f"w{writer}-{n}" for n in range(IDS_A_WRITER)], dice.choice([1, 1, 5]))
        number = dice.randrange(1 << 30)
        is_removal = dice.random() < 0.3
        after: State = None if is_removal else number
        for name in names:
            oracle.maybe.setdefault(name, set()).add(after)
        try:
            if is_removal:
                client.remove(INDEX, names)
            else:
                points = [
                    {"id": name, "vector": vector_of(name, number), "metadata": {"n": number}}
                    for name in names
                ]
                assert not client.upsert(INDEX, points).errors
            for name in names:
                oracle.known[name] = after
                oracle.maybe.pop(name, None)
            oracle.acknowledged += len(names)
            look(oracle, reader or client, names[0], after)
        except EarshotError:
            return  # the server is gone; what was asked last may have happened or not


def look(oracle: Oracle, client: Client, name: str, state: State) -> None:
    """What was answered a moment ago is what the next search and read see."""
    if state is None:
        with contextlib.suppress(NotFound):
            client.read(INDEX, [name])
            oracle.wrong.append(f"{name} was removed and is read")
        return
    found = client.search(INDEX, vector=vector_of(name, state), k=1, target_recall=1)
    if found[0].id != name or found[0].metadata != {"n": state}:
        oracle.wrong.append(f"{name} {state}: found {found[0].id} {found[0].metadata}")


def read(oracle: Oracle, client: Client, stop: threading.Event) -> None:
    with contextlib.suppress(EarshotError):
        while not stop.is_set():
            ids = [hit.id for hit in client.search(INDEX, vector=np.ones(DIMENSION), k=1000)]
            if len(set(ids)) != len(ids):
                oracle.wrong.append("an id was found twice")
            if sum(name.startswith("base-") for name in ids) != 60:
                oracle.wrong.append(f"{len(ids)} found, and not all of those that never change")


def everything(client: Client) -> dict[str, int]:
    hits = client.search(INDEX, vector=np.ones(DIMENSION), k=1000, target_recall=1)
    found = {hit.id: hit.metadata.get("n", -1) for hit in hits}
    assert len(found) == len(hits), "an id was found twice"
    assert len(client.read(INDEX, list(found))) == len(found)
    base = {name for name in found if name.startswith("base-")}
    assert len(base) == 60
    return {name: number for name, number in found.items() if name not in base}


def one_life(
    oracle: Oracle, address: str, wait: Callable[[], object], end: Callable[[], None], seed: int
) -> None:
    """Compare, then write and read while `wait` waits, until `end` kills the server."""
    stop = threading.Event()
    with Client(address, timeout=20, retry=Retry(attempts=1)) as client:
        oracle.settle(everything(client))
        threads = [
            threading.Thread(target=write, args=(oracle, client, writer, seed + writer, stop))
            for writer in range(WRITERS)
        ]
        threads.append(threading.Thread(target=read, args=(oracle, client, stop)))
        for thread in threads:
            thread.start()
        wait()
        end()
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not oracle.wrong, oracle.wrong[:3]


@contextlib.contextmanager
def forker(folder: Path) -> Iterator[Forker]:
    data = folder / "data"
    store = Store(data)
    store.create(INDEX)
    vectors = np.random.default_rng(0).standard_normal((60, DIMENSION)).astype(np.float32)
    store.publish(INDEX, Index.build(vectors, NAMES, distance_measure="SQUARED_L2_DISTANCE"))
    with (folder / "log").open("wb") as log:
        forker = Forker(data, log)
        try:
            yield forker
        finally:
            forker.close()


def run(folder: Path, cycles: int, *, compacting: bool) -> Oracle:
    dice = random.Random(20261123)
    oracle = Oracle()
    compaction = 0
    with forker(folder) as forks:
        for cycle in range(cycles):
            pid, address, *_ = forks.order("serve")
            assert address != "failed", (folder / "log").read_text()[-2000:]
            if compacting and dice.random() < 0.7:
                compaction = int(forks.order("compact")[0])
            wait = partial(time.sleep, dice.uniform(0.02, 0.5))
            one_life(oracle, address, wait, partial(kill, int(pid)), cycle * 100)
            if compaction and dice.random() < 0.5:
                kill(compaction)
                compaction = 0
        if compaction:
            kill(compaction)
        pid, address, *_ = forks.order("serve")
        with Client(address) as client:
            oracle.settle(everything(client))
        kill(int(pid))
    log = (folder / "log").read_text()
    assert "Traceback" not in log, log
    return oracle


@contextlib.contextmanager
def serving(data: Path, log: IO[bytes], *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`earshot serve` as people run it, which compacts every 60 updates by itself."""
    arguments = ("serve", "--port", "0", *more)
    with subprocess.Popen(
        [EARSHOT, *arguments],
        env=environment(data, EARSHOT_COMPACT_UPDATES="60"),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().rstrip(".\n").split()[-1]
        finally:
            kill(process.pid)


def children(pid: int) -> list[int]:
    """Of a process and of its children, however deep."""
    own = _children(pid)
    return [*own, *(below for each in own for below in children(each))]


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def run_served(folder: Path, cycles: int, *, whole_group: bool) -> tuple[Oracle, int]:
    """Lives of the server, and the number of the last version: in one of four lives a compaction may
    begin, and each tenth lasts until one has ended."""
    dice = random.Random(20261128)
    oracle, store = Oracle(), Store(folder / "data")
    with forker(folder), (folder / "serve.log").open("wb") as log:
        for cycle in range(cycles + 1):
            with serving(folder / "data", log) as (process, address):

                def end(pid: int = process.pid) -> None:
                    group = children(pid) if whole_group else []
                    for each in (pid, *group):
                        kill(each)

                if cycle < cycles:
                    wait = partial(
                        time.sleep, dice.uniform(2, 6) if dice.random() < 0.25 else dice.uniform(0.02, 0.5)
                    )
                    if cycle % 10 == 9:
                        wait = partial(next_version, store, store.current(INDEX))
                    one_life(oracle, address, wait, end, cycle * 100)
                else:
                    with Client(address) as client:
                        oracle.settle(everything(client))
                process.wait(30) if cycle < cycles else end()
    text = (folder / "serve.log").read_text()
    assert "Traceback" not in text, text
    return oracle, int(store.current(INDEX)[1:])


def changing(oracle: Oracle, address: str, writer: int, stop: threading.Event) -> None:
    """Writes on one connection and looks on another, perhaps another worker's; now and then on new ones."""
    once = Retry(attempts=1)
    address = f"http://{address}"  # whose clients share no connection, as grpcio's of one process do
    for life in range(1_000_000):
        if stop.is_set():
            return
        with Client(address, timeout=20, retry=once) as client, Client(address, retry=once) as other:
            turn = threading.Event()
            ends = threading.Timer(0.3, turn.set)  # then the kernel deals anew
            ends.start()
            write(oracle, client, writer, 1000 * writer + life, turn, other)
            ends.cancel()


def run_workers(folder: Path, kills: int) -> Oracle:
    """One server with three workers, of which one after another is killed; its clients go on."""
    dice = random.Random(20261129)
    oracle, stop = Oracle(), threading.Event()
    with (
        forker(folder),
        (folder / "serve.log").open("wb") as log,
        serving(folder / "data", log, "--workers", "3") as (process, address),
    ):
        threads = [
            threading.Thread(target=changing, args=(oracle, address, writer, stop))
            for writer in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1)
            for _ in range(kills):
                if workers := _children(process.pid):  # else all of them are about to start
                    os.kill(dice.choice(workers), signal.SIGKILL)
                time.sleep(dice.uniform(0.5, 3))
            give_up = time.monotonic() + 60
            while owners(folder) < 4:  # one of those that came after a kill writes too
                assert time.monotonic() < give_up
                time.sleep(0.1)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        for _ in range(10):  # connections, which are not all of one worker
            with Client(address, timeout=30, retry=Retry(attempts=20)) as client:
                oracle.settle(everything(client))
    assert not oracle.wrong, oracle.wrong[:3]
    text = (folder / "serve.log").read_text()
    assert "Traceback" not in text, text
    return oracle


def owners(folder: Path) -> int:
    """How many processes have written the journal so far."""
    text = (folder / "serve.log").read_text()
    return len(set(re.findall(r"this process \((\d+)\) writes the journal", text)))


def next_version(store: Store, version: str) -> None:
    """Wait for a compaction to publish."""
    deadline = time.monotonic() + 120
    while store.current(INDEX) == version:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("compacting", [False, True])
def test_nothing_acknowledged_is_lost_or_comes_back(tmp_path: Path, compacting: bool) -> None:
    assert run(tmp_path, 4, compacting=compacting).acknowledged > 20


@pytest.mark.parametrize("whole_group", [False, True])
def test_the_server_that_people_run_loses_nothing_either(tmp_path: Path, whole_group: bool) -> None:
    assert run_served(tmp_path, 2, whole_group=whole_group)[0].acknowledged > 5


def test_workers_that_are_killed_lose_nothing_and_each_sees_what_another_acknowledged(tmp_path: Path) -> None:
    assert run_workers(tmp_path, 3).acknowledged > 100


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing_in_many_lives(tmp_path: Path) -> None:
    assert run_workers(tmp_path, 40).acknowledged > 1000


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_hot_server_that_compacts_loses_nothing_in_many_lives(
    tmp_path: Path, whole_group: bool, record_property: Any
) -> None:
    oracle, version = run_served(tmp_path, CYCLES, whole_group=whole_group)
    record_property("acknowledged", oracle.acknowledged)
    print(f"{CYCLES} kills, {oracle.acknowledged} acknowledged updates, {version} versions")
    assert version > CYCLES // 10


@pytest.mark.slow
@pytest.mark.parametrize("compacting", [False, True])
def test_nothing_acknowledged_is_lost_or_comes_back_in_many_lives(
    tmp_path: Path, compacting: bool, record_property: Any
) -> None:
    oracle: Oracle = run(tmp_path, CYCLES, compacting=compacting)
    record_property("acknowledged", oracle.acknowledged)
    print(f"{CYCLES} kills, {oracle.acknowledged} acknowledged updates")

"""What is done beside searches: at low priority, and by one worker at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from earshot.errors import DataLoss
from earshot.server.background import one_worker_at_a_time, patiently
from earshot.server.telemetry import PEERS


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def failing() -> None:
    raise DataLoss("a file is missing")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_what_is_done_patiently_leaves_the_caller_its_priority() -> None:
    before = niceness()
    assert patiently(niceness) == max(before, 10)
    assert niceness() == before


def test_what_fails_patiently_fails_here() -> None:
    assert patiently(divmod, 7, 2) == (3, 1)
    with pytest.raises(DataLoss, match="a file is missing"):
        patiently(failing)


HOLDER = """
import sys, time
from earshot.server.background import one_worker_at_a_time
with one_worker_at_a_time():
    print("inside", flush=True)
    time.sleep(600)
"""


def test_a_worker_waits_until_another_is_done_or_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PEERS, str(tmp_path))
    entered = threading.Event()

    def enter() -> None:
        with one_worker_at_a_time():
            entered.set()

    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "inside\n"
        waiting = threading.Thread(target=enter)
        waiting.start()
        time.sleep(0.2)
        assert not entered.is_set()
        holder.kill()
        waiting.join(30)
    assert entered.is_set()


def test_who_has_no_peers_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PEERS, raising=False)
    with one_worker_at_a_time(), one_worker_at_a_time():
        pass

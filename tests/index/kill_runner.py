"""Run by test_store_faults: kill a writer at its first file system call, then its second, until it survives.

After every kill the store must open, at the old version or the new, and take the next write.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from earshot.errors import NotFound
from earshot.index import Index, Store

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link"}


def die_at(step: int) -> None:
    """From here on, die at the step-th call that touches the file system."""
    count = 0

    def tick(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in EVENTS and not (event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so"))):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    original = os.fsync

    def fsync(fd: Any) -> None:
        tick("os.rename", ())
        original(fd)

    os.fsync = fsync
    sys.addaudithook(tick)


def survives(operation: Callable[[], object], step: int) -> bool:
    child = os.fork()
    if child == 0:
        die_at(step)
        try:
            operation()
        except BaseException as error:  # noqa: BLE001
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def main(operation: str, folder: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    small = Index.build(vectors[:20])
    large = Index.build(vectors) if operation == "publish-scann" else small
    template = Store(folder / "template")
    template.create("podcasts")
    for _ in range(2):
        template.publish("podcasts", small)
    operations: dict[str, tuple[Any, set[str | None]]] = {
        "publish": (lambda store: store.publish("podcasts", small), {"v000002", "v000003"}),
        "publish-scann": (lambda store: store.publish("podcasts", large), {"v000002", "v000003"}),
        "retune": (
            lambda store: store.publish("podcasts", store.open("podcasts").tuned()),
            {"v000002", "v000003"},
        ),
        "rollback": (lambda store: store.rollback("podcasts"), {"v000001", "v000002"}),
        "prune": (lambda store: store.prune("podcasts", keep=1), {"v000002"}),
        "delete": (lambda store: store.delete("podcasts"), {"v000002", None}),
        "create": (lambda store: store.create("news"), {"v000002"}),
    }
    act, allowed = operations[operation]
    step = 0
    while True:
        step += 1
        data = folder / str(step)
        shutil.copytree(template.location, data)
        store = Store(data)
        survived = survives(partial(act, store), step)
        check(store, small, allowed, survived)
        if operation == "create":
            assert (store.indexes() == ["news", "podcasts"]) or not survived
            if "news" not in store.indexes():
                store.create("news")
            assert store.config("news") == {}
        shutil.rmtree(data)
        if survived:
            print(step - 1)
            return


def check(store: Store, index: Index, allowed: set[str | None], survived: bool) -> None:
    try:
        current = store.current("podcasts")
    except NotFound:
        assert None in allowed
        store.create("podcasts")
        store.publish("podcasts", index)
        return
    assert current in allowed - ({"v000002"} if survived and "v000003" in allowed else set()), current
    assert len(store.open("podcasts", verify=True).search(np.ones(4)).ids[0]) == 10
    store.verify("podcasts")
    numbers = [int(info.version[1:]) for info in store.versions("podcasts")]
    assert store.publish("podcasts", index) == f"v{max(numbers) + 1:06d}"
    store.prune("podcasts", keep=1)
    assert len(store.versions("podcasts")) == 1
    leftovers = list((Path(store.location) / "indexes/podcasts/versions").glob(".*"))
    assert not leftovers, leftovers


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

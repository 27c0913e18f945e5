"""Run by test_remote_faults: kill a writer before and after each of its requests, until it survives.

Every `stride`-th of them: an odd number meets both the requests and their answers.

One index goes through all the kills, so that what the dead leave behind piles up until someone prunes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import s3fs

from earshot.errors import NotFound
from earshot.index import Index, Store

EVENTS = {"os.rename", "os.mkdir"}


def die_at(step: int) -> None:
    """From here on, die at the step-th request, answer or change of the cache folder."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    original = s3fs.S3FileSystem._call_s3

    async def call(self: s3fs.S3FileSystem, *arguments: Any, **options: Any) -> Any:
        tick()
        answer = await original(self, *arguments, **options)
        tick()
        return answer

    s3fs.S3FileSystem._call_s3 = call
    s3fs.S3FileSystem.call_s3 = lambda self, *arguments, **options: s3fs.core.sync(
        self.loop, call, self, *arguments, **options
    )
    sys.addaudithook(lambda event, _: tick() if event in EVENTS else None)


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


def main(operation: str, location: str, cache: Path, stride: int) -> None:
    index = Index.build(np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32))

    def act() -> None:
        store = Store(location, cache_dir=cache / "writer")
        if operation == "publish":
            store.publish("podcasts", index)
        elif operation == "rollback":
            store.rollback("podcasts", target)
        elif operation == "prune":
            store.prune("podcasts", keep=1)
        else:
            store.delete("podcasts")

    store = Store(location, cache_dir=cache / "reader")
    step, target = 1 - stride, ""
    while True:
        step += stride
        before, target = prepare(store, index)
        survived = survives(act, step)
        check(store, before, target, operation, survived)
        if survived:
            break
    store.create("podcasts") if operation == "delete" else None
    store.publish("podcasts", index)
    store.prune("podcasts", keep=1)
    assert [info.problem for info in store.versions("podcasts")] == [None]
    print(step - 1)


def prepare(store: Store, index: Index) -> tuple[str, str]:
    """At least two whole versions: the current one and another."""
    if store.indexes() == []:
        store.create("podcasts")
    while len(whole := [info.version for info in store.versions("podcasts") if info.problem is None]) < 2:
        store.publish("podcasts", index)
    current = store.current("podcasts")
    return current, next(version for version in whole if version != current)


def check(store: Store, before: str, target: str, operation: str, survived: bool) -> None:
    try:
        current = store.current("podcasts")
    except NotFound:
        assert operation == "delete"
        return
    changed = {
        "publish": int(current[1:]) > int(before[1:]),
        "rollback": current == target,
        "prune": False,
        "delete": False,
    }[operation]
    assert current == before or changed, current
    assert changed or not survived or operation == "prune"
    assert len(store.open("podcasts").search(np.ones(4)).ids[0]) == 10
    store.verify("podcasts")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))

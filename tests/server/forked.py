"""Real servers and jobs, each a process of its own that is forked from one that has everything imported.

`python -m tests.server.forked DATA` takes orders on its standard input, a word a line: `serve` answers with
pid and address, `compact` with a pid; the processes lead groups of their own, so that a group can be killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

INDEX = "v"
ROOT = Path(__file__).resolve().parents[2]


class Forker:
    """The process that forks, and what is asked of it."""

    def __init__(self, data_dir: Path, log: IO[bytes]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.forked", str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
        )

    def order(self, word: str) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(timeout=60)
        self._process.stdout.close()  # type: ignore[union-attr]


def main() -> None:
    data_dir = sys.argv[1]
    from earshot.errors import Aborted
    from earshot.index import Store
    from earshot.jobs import CompactRequest, compact
    from earshot.server.run import Addresses, serve
    from earshot.server.settings import load_settings

    settings = load_settings(data_dir=data_dir, port=0, grpc_port=0, poll_seconds=0.05)

    def run_server(answer: int) -> None:
        def ready(addresses: Addresses) -> None:
            os.write(answer, f"{addresses.grpc}\n".encode())

        serve(settings, ready=ready)

    def run_compact(answer: int) -> None:
        os.write(answer, b"started\n")
        with contextlib.suppress(Aborted):  # another is at work
            compact(CompactRequest(index=INDEX), store=Store(data_dir), progress=lambda *_: None)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    for line in sys.stdin:
        job = {"serve": run_server, "compact": run_compact}[line.strip()]
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.close(ours)
            try:
                job(theirs)
            except BaseException:  # noqa: BLE001
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as stream:
            told = stream.readline()
        sys.stdout.write(f"{pid} {told}" if told else f"{pid} failed\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

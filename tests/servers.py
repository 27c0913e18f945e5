"""Starts real servers in processes of their own, and stops the ones it started."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from earshot.cli.main import run

EARSHOT = Path(sys.executable).parent / "earshot"


@dataclass(frozen=True)
class Server:
    """A running `earshot serve`."""

    grpc: str
    http: str
    data_dir: Path
    process: subprocess.Popen[str]
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text()


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    ours = {"EARSHOT_DATA_DIR": str(data_dir), "EARSHOT_POLL_SECONDS": "0.05", "COLUMNS": "200"}
    return {**os.environ, **ours, **more}


@contextlib.contextmanager
def serving(data_dir: Path, *arguments: str, **env: str) -> Iterator[Server]:
    """A server over `data_dir` on free ports, until the block ends; it must then drain and exit with 0."""
    log_file = data_dir.parent / f"{data_dir.name}-server.log"
    ports = ("--grpc-port", "0") if "portable" in arguments else ()
    with log_file.open("w") as log:
        process = subprocess.Popen(
            [EARSHOT, "serve", "--port", "0", *ports, *arguments],
            env=environment(data_dir, **env),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    if "" in lines:
        raise RuntimeError(f"the server did not start: {log_file.read_text()}")
    server = Server(
        grpc=re.search(r"[\d.]+:\d+", lines[0])[0],  # type: ignore[index]
        http=re.search(r"http://\S+", lines[1])[0],  # type: ignore[index]
        data_dir=data_dir,
        process=process,
        log_file=log_file,
    )
    try:
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=60)
        finally:
            process.kill()
            process.stdout.close()
    assert code in (0, -signal.SIGKILL), server.log()


def earshot(data_dir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a person would."""
    return subprocess.run(
        [EARSHOT, *arguments], env=environment(data_dir, **env), capture_output=True, text=True, check=False
    )


def earshot_here(data_dir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The same without a process of its own, a second sooner: for calls whose words are what matters."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(data_dir, **env).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [str(EARSHOT), *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def earshot_json(data_dir: Path, *arguments: str) -> Any:
    """Runs a command with --json, which must succeed."""
    done = earshot(data_dir, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write_feed(path: Path, items: Sequence[tuple[str, str, str]], *, show: str = "A show") -> Path:
    """A small RSS feed of (guid, title, description)."""
    entries = "".join(
        f"<item><guid isPermaLink='false'>{guid}</guid><title>{title}</title>"
        f"<description>{text}</description><pubDate>Mon, 05 Jan 2026 05:00:00 +0000</pubDate>"
        f"<enclosure url='https://media.example/{guid}.mp3' length='1' type='audio/mpeg'/></item>"
        for guid, title, text in items
    )
    path.write_text(
        "<?xml version='1.0'?><rss version='2.0'><channel>"
        f"<title>{show}</title><language>en</language>{entries}</channel></rss>"
    )
    return path

"""A writer that dies at any request leaves the old version or the new, whole."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("kill_runner.py")


@pytest.mark.parametrize(
    ("operation", "at_least", "stride"),
    [
        ("publish", 40, 3),
        pytest.param("publish", 40, 1, marks=pytest.mark.slow),
        pytest.param("rollback", 20, 1, marks=pytest.mark.slow),
        pytest.param("prune", 20, 1, marks=pytest.mark.slow),
        pytest.param("delete", 15, 1, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_request_the_index_opens_at_the_old_or_the_new(
    operation: str, at_least: int, stride: int, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    location = f"s3://earshot-tests/{uuid.uuid4().hex}"
    run = subprocess.run(
        [sys.executable, str(RUNNER), operation, location, str(tmp_path), str(stride)],
        capture_output=True,
        text=True,
        env={**os.environ, **s3_environment, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout) >= at_least

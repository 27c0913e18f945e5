"""Clients that others wrote: Node's gRPC, curl and h2load, each where it is to be had."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from google.api import annotations_pb2  # type: ignore[import-untyped]

from tests.conftest import ROOT

from .conftest import Face

PACKAGE = ROOT / "tests" / "node"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """The script beside its packages, installed once into the user's cache."""
    npm = tool("npm")
    wanted = (PACKAGE / "package.json").read_text()
    folder = Path(platformdirs.user_cache_dir("earshot-tests")) / "node"
    if not (folder / "node_modules").is_dir() or (folder / "package.json").read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(wanted)
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(f"npm cannot install: {done.stderr.strip()[-200:]}")
    shutil.copy(PACKAGE / "client.js", folder)
    return folder


@pytest.fixture
def proto_folders(tmp_path: Path) -> list[str]:
    """Where our protos and those that they import lie."""
    google = Path(str(annotations_pb2.__file__)).parent.parent
    renamed = tmp_path / "google" / "longrunning" / "operations.proto"
    renamed.parent.mkdir(parents=True)
    renamed.write_bytes((google / "longrunning" / "operations_proto.proto").read_bytes())
    return [str(ROOT / "proto"), str(google.parent), str(tmp_path)]


def test_node_asks_as_python_does(
    face: Face, vectors: np.ndarray, node_folder: Path, proto_folders: list[str]
) -> None:
    query = base64.b64encode(vectors[3].tobytes()).decode()
    done = subprocess.run(
        [tool("node"), "client.js", face.addresses.grpc, query, *proto_folders],
        cwd=node_folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    expected = [f"id-{row}" for row in np.argsort(((vectors - vectors[3]) ** 2).sum(axis=1))[:3]]
    assert told["found"] == expected
    assert told["row"] == 3
    assert told["batch"] == [expected, expected]
    assert told["streamed"] == [expected, 5, expected]
    assert told["read"] == vectors.shape[1]
    assert "indexes/plain" in told["listed"]
    assert told["unknown"]["code"] == "NOT_FOUND"
    assert told["wrong"]["code"] == "FAILED_PRECONDITION"
    assert "plain" in told["wrong"]["message"]


def test_curl_speaks_http1_and_http2(face: Face) -> None:
    versions = ["--http1.1"] + (["--http2-prior-knowledge"] if face.transport != "portable" else [])
    for version in versions:
        done = subprocess.run(
            [
                *(tool("curl"), "-sS", version, "-w", "\n%{http_code}", "--max-time", "20"),
                *("-d", '{"datapointId": "id-1", "neighborCount": 1}'),
                f"{face.addresses.http}/v1/indexes/plain:search",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        body, status = done.stdout.rsplit("\n", 1)
        assert status == "200", body
        assert json.loads(body)["neighbors"][0]["datapoint"]["datapointId"] == "id-1"


def test_a_load_of_many_streams_is_answered_without_an_error(face: Face, tmp_path: Path) -> None:
    h2load = tool("h2load")
    body = tmp_path / "body"
    body.write_text('{"datapointId": "id-1", "neighborCount": 3}')
    command = [h2load, "-n", "300", "-c", "4", "-m", "8", "-d", str(body)]
    if face.transport == "portable":
        command += ["--h1"]  # its HTTP has no streams
    done = subprocess.run(
        [*command, f"{face.addresses.http}/v1/indexes/plain:search"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "300 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout
    assert "status codes: 300 2xx" in done.stdout, done.stdout

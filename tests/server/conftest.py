"""One server for the tests of this folder: an index of vectors, and one of text with a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from earshot.index import Index, Store
from tests.certificates import Files, write_certificates
from tests.servers import Server, earshot, serving, write_feed

DIMENSIONS = 8
COUNT = 50


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((COUNT, DIMENSIONS), dtype=np.float32)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("served") / "data"
    store = Store(folder)
    store.create("plain")
    index = Index.build(
        vectors,
        [f"id-{row}" for row in range(COUNT)],
        crowding_tags=[f"tag-{row % 5}" for row in range(COUNT)],
        metadata=[{"row": row, "nested": {"ümlaut": ["ä", None, True]}} for row in range(COUNT)],
        distance_measure="SQUARED_L2_DISTANCE",
    )
    store.publish("plain", index)
    feed = write_feed(
        folder.parent / "feed.xml",
        [
            ("bread", "The loaf that collapsed", "Why sourdough falls flat in the oven."),
            ("grid", "Fifty hertz", "How the power grid keeps its frequency."),
            ("choir", "Going flat", "Why choirs sink in pitch during a concert."),
        ],
    )
    done = earshot(folder, "rebuild", "shows", "--source", str(feed))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", params=["portable", "direct"])
def server(data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(data_dir, "--transport", request.param) as running:
        yield running
        assert "Traceback" not in running.log()

"""What goes wrong on disk is noticed, named and never served."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from earshot.errors import DataLoss, PermissionDenied, ResourceExhausted
from earshot.index import Index, Store

SLOW = pytest.mark.slow
RUNNER = Path(__file__).with_name("kill_runner.py")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def published(tmp_path_factory, base) -> Path:
    """A version with every kind of file: ScaNN's, norms, ids, attributes and filters."""
    store = Store(tmp_path_factory.mktemp("published"))
    store.create("podcasts")
    index = Index.build(
        base[:1200],
        distance_measure="COSINE_DISTANCE",
        crowding_tags=[f"show-{row % 9}" for row in range(1200)],
        metadata=[{"row": row} for row in range(1200)],
        restricts={"language": ["de", "fr"] * 600, "year": list(range(1200))},
    )
    store.publish("podcasts", index)
    return Path(store.location)


@pytest.mark.parametrize("harm", [truncate, grow, empty, flip, Path.unlink])
def test_every_damaged_file_is_named_and_not_served(harm, published, tmp_path) -> None:
    version = Path("indexes/podcasts/versions/v000001")
    names = [
        path.relative_to(published / version) for path in (published / version).rglob("*") if path.is_file()
    ]
    assert len(names) >= 20
    for number, name in enumerate(names):
        data = tmp_path / str(number)
        shutil.copytree(published, data)
        harm(data / version / name)
        store = Store(data)
        with pytest.raises(DataLoss) as caught:
            store.open("podcasts")
        # The manifest and _SUCCESS vouch for each other.
        named = ("manifest.json", "_SUCCESS") if len(name.parts) == 1 else (name.name,)
        assert any(each in caught.value.message for each in named), caught.value.message
        with pytest.raises(DataLoss):
            store.verify("podcasts")
        if harm is not flip:
            (info,) = store.versions("podcasts")
            assert info.problem is not None


@pytest.mark.parametrize("content", ["v000009\n", "", "../../elsewhere", "\0"])
def test_a_current_that_names_nothing_is_data_loss(content, published, tmp_path) -> None:
    shutil.copytree(published, tmp_path / "data")
    (tmp_path / "data/indexes/podcasts/CURRENT").write_text(content)
    store = Store(tmp_path / "data")
    with pytest.raises(DataLoss, match="CURRENT names"):
        store.open("podcasts")
    assert store.rollback("podcasts", "v000001") == store.current("podcasts") == "v000001"


def test_a_config_that_is_not_json_is_data_loss(store) -> None:
    (Path(store.location) / "indexes/podcasts/config.json").write_text("{")
    with pytest.raises(DataLoss, match=r"config\.json is not JSON"):
        store.config("podcasts")


@pytest.mark.parametrize("engine", ["small_index", "scann_index"])
@pytest.mark.parametrize("limit", [100, 1000, 3000, 15_000, 120_000])
def test_when_the_disk_is_full_the_old_version_stays(engine, limit, store, small_index, request) -> None:
    """A limit on the size of files stands in for a full disk: writes fail in the same places."""
    index = request.getfixturevalue(engine)
    if engine == "small_index" and limit > 3000:
        pytest.skip("every file of the small index is smaller")
    store.publish("podcasts", small_index)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ResourceExhausted, match=r"free some disk space|raise the limit on file sizes"):
            store.publish("podcasts", index)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_only_the_old_is_there(store)
    assert store.publish("podcasts", index) == "v000002"


@pytest.mark.parametrize(
    ("number", "error", "advice"),
    [
        (errno.ENOSPC, ResourceExhausted, "free some disk space"),
        (errno.EDQUOT, ResourceExhausted, "free some of the quota"),
        (errno.EACCES, PermissionDenied, "make it writable"),
        (errno.EROFS, PermissionDenied, "mounted read-only"),
    ],
)
@pytest.mark.parametrize("step", ["os.mkdir", "os.rename", "os.replace", "os.fsync", "pyarrow.OSFile"])
def test_a_refused_write_says_what_to_do(
    step, number, error, advice, store, small_index, monkeypatch
) -> None:
    store.publish("podcasts", small_index)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), "/data/file")

    with monkeypatch.context() as patch:
        patch.setattr(step, refuse)
        with pytest.raises(error, match=f"cannot write /data/file: .*{advice}"):
            store.publish("podcasts", small_index)
    assert store.current("podcasts") == "v000001"
    store.verify("podcasts")
    store.publish("podcasts", small_index)
    assert [info.problem for info in store.versions("podcasts") if info.is_current] == [None]


def test_a_data_folder_that_cannot_be_made_is_explained(tmp_path, monkeypatch) -> None:
    def refuse(path: str, mode: int = 0o777) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(PermissionDenied, match="choose another data folder"):
        Store(tmp_path / "data").create("podcasts")


@pytest.mark.parametrize(
    "operation",
    [
        "publish",
        pytest.param("publish-scann", marks=pytest.mark.slow),
        "retune",
        "rollback",
        "prune",
        "delete",
        "create",
    ],
)
def test_killed_at_any_step_the_index_opens_at_the_old_or_the_new(operation, tmp_path) -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(RUNNER), operation, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    kills = int(run.stdout)
    steps = {"publish": 30, "publish-scann": 40, "retune": 30, "rollback": 4, "prune": 10, "delete": 10}
    assert kills >= steps.get(operation, 5)


def assert_only_the_old_is_there(store: Store) -> None:
    assert [info.version for info in store.versions("podcasts")] == ["v000001"]
    assert store.open("podcasts").search(np.ones(16)).counts.tolist() == [10]
    versions = Path(store.location) / "indexes/podcasts/versions"
    assert [path.name for path in versions.iterdir()] == ["v000001"]

"""A store at an address does what a store in a folder does, with copies of versions on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest

from earshot.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from earshot.index import Index, Store
from earshot.index.homes import cache as cache_module


def copies(tmp_path: Path, machine: str = "here") -> list[str]:
    return sorted(path.name for path in (tmp_path / machine).glob("versions/*/podcasts/*") if path.is_dir())


def filesystem(location: str) -> tuple[fsspec.AbstractFileSystem, str]:
    return fsspec.core.url_to_fs(location, use_listings_cache=False)


def test_what_one_machine_publishes_another_opens(open_store, small_index) -> None:
    here, there = open_store("here"), open_store("there")
    assert there.indexes() == []
    here.create("podcasts", {"a": 1})
    assert there.config("podcasts") == {"a": 1}
    with pytest.raises(FailedPrecondition, match="no version yet"):
        there.open("podcasts")
    assert here.publish("podcasts", small_index) == "v000001"
    found = there.open("podcasts")
    query = np.ones(16)
    assert found.search(query).ids == small_index.search(query).ids
    assert there.manifest("podcasts").version == "v000001"
    assert there.indexes() == ["podcasts"]
    assert open_store("elsewhere").verify("podcasts").count == 50


def test_a_config_changed_elsewhere_meanwhile_is_not_overwritten(open_store, monkeypatch) -> None:
    here, there = open_store("here"), open_store("there")
    here.create("podcasts", {"a": 1})
    assert here.reconfigure("podcasts", {"shards": 2}).shards == 2
    assert there.config("podcasts") == {"a": 1, "shards": 2}
    look = here._home.config

    def look_and_be_late(name: str) -> bytes | None:
        found = look(name)
        there.reconfigure("podcasts", {"shards": 3})
        return found

    monkeypatch.setattr(here._home, "config", look_and_be_late)
    with pytest.raises(Aborted, match="config of index podcasts was changed"):
        here.reconfigure("podcasts", {"shards": 4})
    assert there.asked("podcasts").shards == 3


def test_a_tree_of_scann_comes_back_as_it_was(open_store, scann_index, unseen) -> None:
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    here.publish("podcasts", scann_index)
    found, expected = there.open("podcasts").search(unseen), scann_index.search(unseen)
    np.testing.assert_array_equal(found.rows, expected.rows)


def test_the_layout_is_that_of_a_folder(store, small_index, files, tmp_path) -> None:
    store.publish("podcasts", small_index)
    local = Store(tmp_path / "data")
    local.create("podcasts")
    local.publish("podcasts", small_index)
    in_folder = {
        str(path.relative_to(local.location)) for path in Path(local.location).rglob("*") if path.is_file()
    }
    assert set(files()) == in_folder


def test_a_mirrored_folder_is_a_store(store, small_index, location, tmp_path) -> None:
    store.publish("podcasts", small_index)
    far, root = filesystem(location)
    far.get(root, str(tmp_path / "mirror"), recursive=True)
    Store(tmp_path / "mirror").verify("podcasts")


def test_names_and_versions_are_told_as_in_a_folder(store, small_index) -> None:
    with pytest.raises(AlreadyExists):
        store.create("podcasts")
    with pytest.raises(NotFound, match="there is podcasts"):
        store.open("podcast")
    with pytest.raises(InvalidArgument):
        store.create("Bad")
    store.publish("podcasts", small_index)
    with pytest.raises(NotFound, match="it has v000001"):
        store.open("podcasts", "v000009")


def test_rollback_prune_and_delete(store, small_index, open_store, files) -> None:
    for _ in range(4):
        store.publish("podcasts", small_index)
    assert [info.version for info in store.versions("podcasts")] == [f"v{n:06d}" for n in (1, 2, 3, 4)]
    assert all(info.problem is None and info.bytes > 0 for info in store.versions("podcasts"))
    assert store.rollback("podcasts") == "v000003"
    assert open_store("there").current("podcasts") == "v000003"
    assert store.rollback("podcasts", "v000001") == "v000001"
    assert store.prune("podcasts", keep=1) == ["v000002", "v000003"]
    assert store.publish("podcasts", small_index) == "v000005"
    store.delete("podcasts")
    assert files() == {}
    assert store.indexes() == []
    store.create("podcasts")
    assert store.publish("podcasts", small_index) == "v000001"


def test_a_copy_of_a_deleted_namesake_is_not_believed(open_store, small_index, base) -> None:
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    here.publish("podcasts", small_index)
    assert len(there.open("podcasts")) == 50
    here.delete("podcasts")
    here.create("podcasts")
    here.publish("podcasts", Index.build(base[:20]))
    assert len(there.open("podcasts")) == 20


def test_the_copies_used_last_stay(store, small_index, open_store, tmp_path) -> None:
    for _ in range(3):
        store.publish("podcasts", small_index)
    assert copies(tmp_path) == ["v000002", "v000003"]
    there = open_store("there")
    opened = there.open("podcasts", "v000001")
    there.open("podcasts", "v000003")
    there.open("podcasts", "v000001")
    there.open("podcasts", "v000002")
    assert copies(tmp_path, "there") == ["v000001", "v000002"]
    there.open("podcasts", "v000003")
    assert copies(tmp_path, "there") == ["v000002", "v000003"]
    assert opened.search(np.ones(16)).counts.tolist() == [10]  # its files are gone, not its memory


def test_a_copy_is_fetched_once(store, small_index, open_store, monkeypatch) -> None:
    store.publish("podcasts", small_index)
    there = open_store("there")
    there.open("podcasts")

    def refuse(*args: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(type(there._home), "_fetch", refuse)
    there.open("podcasts")
    with pytest.raises(AssertionError):
        there.verify("podcasts")  # which does not believe copies


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "empty folder"])
def test_a_damaged_copy_is_fetched_again(harm, store, small_index, open_store, tmp_path) -> None:
    store.publish("podcasts", small_index)
    there = open_store("there")
    there.open("podcasts")
    (folder,) = (tmp_path / "there").glob("versions/*/podcasts/v000001")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if harm == "truncate":
            os.truncate(path, len(content) // 2)
        elif harm == "flip":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif harm == "remove":
            path.unlink()
        else:
            for other in folder.rglob("*.*"):
                other.unlink(missing_ok=True) if other.is_file() else None
        assert len(there.open("podcasts")) == 50


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_every_damaged_object_is_named_and_not_served(
    harm, store, small_index, open_store, location, files, tmp_path
) -> None:
    store.publish("podcasts", small_index)
    far, root = filesystem(location)
    objects = [name for name in files() if "/v000001/" in name]
    assert len(objects) >= 6
    for number, name in enumerate(objects):
        path = f"{root.rstrip('/')}/{name}"
        content = far.cat_file(path)
        if harm == "remove":
            far.rm_file(path)
        else:
            middle = len(content) // 2
            harmed = content[:middle] if harm == "truncate" else _flipped(content, middle)
            far.pipe_file(path, harmed)
        machine = open_store(str(number))
        with pytest.raises(DataLoss) as caught:
            machine.open("podcasts")
        last = name.rpartition("/")[2]
        named = ("manifest.json", "_SUCCESS") if last in {"manifest.json", "_SUCCESS"} else (last,)
        assert any(each in caught.value.message for each in named), caught.value.message
        assert copies(tmp_path, str(number)) == []
        with pytest.raises(DataLoss):
            store.verify("podcasts")
        if harm != "flip":
            assert store.versions("podcasts")[0].problem is not None
        far.pipe_file(path, content)
    assert len(open_store("last").open("podcasts")) == 50


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_rollback_to_a_damaged_version_is_refused(store, small_index, location) -> None:
    for _ in range(2):
        store.publish("podcasts", small_index)
    far, root = filesystem(location)
    path = f"{root.rstrip('/')}/indexes/podcasts/versions/v000001/shard-00000/vectors.npy"
    content = far.cat_file(path)
    far.pipe_file(path, _flipped(content, len(content) - 1))
    with pytest.raises(DataLoss, match=r"vectors\.npy"):
        store.rollback("podcasts", "v000001")
    assert store.current("podcasts") == "v000002"


def test_no_space_for_a_copy_says_what_to_do(store, small_index, open_store, tmp_path, monkeypatch) -> None:
    store.publish("podcasts", small_index)
    there = open_store("there")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(there._home._filesystem, "get", full)
        with pytest.raises(ResourceExhausted, match="free some disk space"):
            there.open("podcasts")
    assert [path for path in (tmp_path / "there").rglob("*") if path.is_file() and path.name != ".lock"] == []
    assert len(there.open("podcasts")) == 50


def test_a_cache_that_cannot_be_made_is_explained(store, small_index, location, tmp_path) -> None:
    store.publish("podcasts", small_index)
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="a file stands where a folder is needed"):
        Store(location, cache_dir=tmp_path / "file").open("podcasts")


def test_what_a_dead_process_left_in_the_cache_goes(store, small_index, tmp_path) -> None:
    store.publish("podcasts", small_index)
    (folder,) = (tmp_path / "here").glob("versions/*/podcasts")
    for prefix in (cache_module._FETCHED, cache_module._WRITTEN):
        (folder / f"{prefix}v000002").mkdir()
        (folder / f"{prefix}v000002" / "file").write_text("half")
    store.publish("podcasts", small_index)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "v000001", "v000002"]


def test_a_file_address_is_a_folder(tmp_path, small_index) -> None:
    far = Store(f"file://{tmp_path}/data")
    far.create("podcasts")
    far.publish("podcasts", small_index)
    assert len(Store(tmp_path / "data").open("podcasts")) == 50


def test_an_address_of_no_known_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="nonsense://here"):
        Store("nonsense://here")


def test_a_missing_package_is_named(monkeypatch) -> None:
    def missing(*args: object, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(FailedPrecondition, match=r"pip install 'earshot\[s3\]'"):
        Store("s3://bucket/prefix")


def test_a_bucket_that_is_not_there_is_named(s3_environment, tmp_path) -> None:
    store = Store("s3://earshot-nowhere/x", cache_dir=tmp_path)
    assert store.indexes() == []
    with pytest.raises(NotFound, match="s3://earshot-nowhere/x"):
        store.create("podcasts")


def test_an_endpoint_that_does_not_answer_is_unavailable(store, tmp_path, monkeypatch) -> None:
    home = store._home

    for error, expected in ((OSError(121, "remote"), Unavailable), (PermissionError("no"), PermissionDenied)):

        def fail(*args: object, error: OSError = error, **options: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(home._conditional, "read", fail)
            with pytest.raises(expected, match=home.location.partition("://")[0]):
                store.current("podcasts")

"""Operating points measured anew, and published without writing the vectors again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from earshot.errors import DataLoss, InvalidArgument
from earshot.index import Index, Store

from .conftest import clustered


def test_other_queries_and_another_target_change_the_table_only(scann_index: Index, base: np.ndarray) -> None:
    far = -clustered(200, seed=5)  # nothing like the base
    tuned = scann_index.tuned(far, target_recall=0.99)
    assert tuned.manifest.tuning.tuned_on == "given queries (200)"
    assert tuned.manifest.tuning.target_recall == 0.99
    assert tuned.manifest.tuning.chosen.recall.low >= 0.99
    assert scann_index.manifest.tuning.target_recall == 0.95
    assert tuned.measure_recall(-clustered(200, seed=6)).high >= 0.99
    found, before = (index.search(base[:5], 3, target_recall=1) for index in (tuned, scann_index))
    np.testing.assert_array_equal(found.rows, before.rows)
    assert scann_index.tuned().manifest.tuning.target_recall == 0.95


def test_bad_queries_and_targets_are_refused(scann_index: Index) -> None:
    with pytest.raises(InvalidArgument, match="tuning_queries has shape"):
        scann_index.tuned(np.ones((3, 5)))
    with pytest.raises(InvalidArgument, match="tuning_queries is empty"):
        scann_index.tuned(np.ones((0, 16)))
    with pytest.raises(InvalidArgument, match="target_recall is 2"):
        scann_index.tuned(target_recall=2)


def test_filters_are_calibrated_anew(base: np.ndarray, unseen: np.ndarray) -> None:
    index = Index.build(base, restricts={"even": [str(row % 2 == 0) for row in range(len(base))]})
    tuned = index.tuned(unseen)
    assert tuned.manifest.filters is not None
    assert index.manifest.filters is not None
    assert tuned.manifest.filters.namespaces == index.manifest.filters.namespaces
    before, after = (
        entry.search(unseen[:5], 3, where={"even": "True"}, target_recall=1) for entry in (index, tuned)
    )
    np.testing.assert_array_equal(before.rows, after.rows)


def test_a_published_tuning_shares_every_file_with_the_version_before(
    scann_index: Index, store: Store
) -> None:
    store.publish("podcasts", scann_index)
    opened = store.open("podcasts")
    version = store.publish("podcasts", opened.tuned(target_recall=0.5))
    assert version == "v000002"
    folder = Path(store.location) / "indexes" / "podcasts" / "versions"
    names = opened.manifest.files
    assert names
    for name in names:
        assert (folder / "v000001" / name).samefile(folder / "v000002" / name)
    assert store.verify("podcasts").count == len(scann_index)
    store.prune("podcasts", keep=1)
    assert store.open("podcasts").manifest.tuning.target_recall == 0.5


def test_where_there_are_no_links_files_are_copied(
    scann_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scann_index.save(tmp_path / "before")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "other device")

    monkeypatch.setattr(os, "link", refuse)
    Index.open(tmp_path / "before").save(tmp_path / "after")
    written = Index.open(tmp_path / "after")
    assert not (tmp_path / "before/shard-00000/ids.arrow").samefile(tmp_path / "after/shard-00000/ids.arrow")
    assert len(written) == len(scann_index)


def test_damage_is_not_sealed_by_a_new_manifest(scann_index: Index, tmp_path: Path) -> None:
    scann_index.save(tmp_path / "before")
    opened = Index.open(tmp_path / "before")
    path = tmp_path / "before/shard-00000/vectors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    opened.save(tmp_path / "after")
    with pytest.raises(DataLoss, match=r"vectors\.npy was changed or damaged"):
        Index.open(tmp_path / "after")


def test_a_file_that_went_missing_is_named(scann_index: Index, tmp_path: Path) -> None:
    scann_index.save(tmp_path / "before")
    opened = Index.open(tmp_path / "before")
    (tmp_path / "before/shard-00000/ids.arrow").unlink()
    with pytest.raises(DataLoss, match=r"ids\.arrow is missing"):
        opened.save(tmp_path / "after")

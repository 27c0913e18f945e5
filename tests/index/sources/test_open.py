"""Every format brings the same matrix, and damage is named."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from earshot.errors import FailedPrecondition, InvalidArgument, NotFound
from earshot.index import DistanceMeasure, Index, open_vectors
from earshot.index.scratch import is_mapped, to_scratch

MATRIX = np.random.default_rng(0).integers(0, 100, (300, 7))
FLOATS = MATRIX.astype(np.float32)


def vecs(values: np.ndarray, dtype: str) -> bytes:
    return b"".join(struct.pack("<i", len(row)) + row.astype(dtype).tobytes() for row in values)


def big(values: np.ndarray, dtype: str) -> bytes:
    return struct.pack("<II", *values.shape) + values.astype(dtype).tobytes()


def table(**more: Any) -> pa.Table:
    return pa.table({"embedding": pa.array(list(FLOATS), pa.list_(pa.float32(), 7)), **more})


def hdf5(path: Path, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("train", data=FLOATS, **options)
        file.create_dataset("test", data=FLOATS[:5].astype(">f8"))
        file.attrs["distance"] = "angular"


WRITERS: dict[str, Callable[[Path], Any]] = {
    "float32.npy": lambda path: np.save(path, FLOATS),
    "big-endian.npy": lambda path: np.save(path, FLOATS.astype(">f4")),
    "float64.npy": lambda path: np.save(path, FLOATS.astype(np.float64)),
    "float16.npy": lambda path: np.save(path, FLOATS.astype(np.float16)),
    "int64.npy": lambda path: np.save(path, MATRIX),
    "by-column.npy": lambda path: np.save(path, np.asfortranarray(FLOATS)),
    "array.npz": lambda path: np.savez(path, FLOATS),
    "packed.npz": lambda path: np.savez_compressed(path, base=FLOATS.astype(">f8")),
    "a.fvecs": lambda path: path.write_bytes(vecs(MATRIX, "<f4")),
    "a.bvecs": lambda path: path.write_bytes(vecs(MATRIX, "u1")),
    "a.ivecs": lambda path: path.write_bytes(vecs(MATRIX, "<i4")),
    "a.fbin": lambda path: path.write_bytes(big(MATRIX, "<f4")),
    "a.u8bin": lambda path: path.write_bytes(big(MATRIX, "u1")),
    "a.i8bin": lambda path: path.write_bytes(big(MATRIX, "i1")),
    "fixed.parquet": lambda path: pq.write_table(table(), path, row_group_size=64),
    "lists.parquet": lambda path: pq.write_table(pa.table({"v": pa.array(MATRIX.tolist())}), path),
    "a.arrow": lambda path: pa.feather.write_feather(table(), path, compression="uncompressed", chunksize=50),
    "a.feather": lambda path: pa.feather.write_feather(table(), path, compression="lz4"),
    "a.hdf5": hdf5,
    "chunked.h5": lambda path: hdf5(path, chunks=(64, 7), compression="gzip"),
}
IN_PLACE = ("float32.npy", "a.fbin", "a.hdf5")


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_brings_the_matrix_mapped(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    source = open_vectors(tmp_path / name)
    assert source.vectors.dtype == np.float32
    assert source.vectors.flags.c_contiguous
    assert is_mapped(source.vectors)
    np.testing.assert_array_equal(source.vectors, FLOATS)


@pytest.mark.parametrize("name", WRITERS)
def test_only_little_endian_float32_is_mapped_where_it_lies(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    base: Any = open_vectors(path).vectors
    while not isinstance(base, np.memmap):
        base = base.base
    assert (str(base.filename) == str(path)) == (name in IN_PLACE)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_short_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    for kept in (0, 3, len(content) // 2 + 1, len(content) - 1):  # the middle of a row
        path.write_bytes(content[:kept])
        with pytest.raises(InvalidArgument, match=path.name) as caught:
            open_vectors(path)
        assert caught.value.field == "vectors"


def test_a_table_brings_ids_tags_and_metadata_and_an_index_takes_them(tmp_path: Path) -> None:
    ids = [f"ünï-{row}" for row in range(300)]
    titles = [None if row % 2 else f"title {row}" for row in range(300)]
    tags = [f"tag {row % 3}" for row in range(300)]
    pq.write_table(table(id=ids, title=titles, crowding_tag=tags), tmp_path / "a.parquet", row_group_size=100)
    source = open_vectors(tmp_path / "a.parquet")
    assert repr(source) == f"<VectorSource: {tmp_path}/a.parquet, 300 × 7, ids, crowding_tags, metadata>"
    assert list(source.ids or ()) == list(source.ids or ()) == ids
    index = Index.build(
        source.vectors, source.ids, crowding_tags=source.crowding_tags, metadata=source.metadata
    )
    (found,) = index.read(["ünï-4"])
    np.testing.assert_array_equal(found.vector, FLOATS[4])
    assert (found.crowding_tag, found.metadata) == ("tag 1", {"title": "title 4"})
    assert index.read(["ünï-5"])[0].metadata == {}


def test_columns_can_be_named_and_numbers_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(other=list(2 * FLOATS), key=range(300)), path)
    source = open_vectors(path, vectors="other", ids="key")
    np.testing.assert_array_equal(source.vectors, 2 * FLOATS)
    assert list(source.ids or ())[:2] == ["0", "1"]
    with pytest.raises(InvalidArgument, match=r"no column 'name'.*'key'"):
        open_vectors(path, ids="name")
    with pytest.raises(InvalidArgument, match="'embedding', 'other'"):
        open_vectors(path, vectors="key")


def test_two_columns_of_vectors_without_a_usual_name_must_be_chosen_from(tmp_path: Path) -> None:
    pq.write_table(pa.table({"left": list(FLOATS), "right": list(FLOATS)}), tmp_path / "a.parquet")
    with pytest.raises(InvalidArgument, match="'left', 'right': name one"):
        open_vectors(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1.0, 2.0], [1.0]], "vector 1 has 1 values, the rows before 2"),
        ([[1.0, 2.0], None], "vector 1 is null"),
        ([None, [1.0, 2.0]], "vector 0 is null"),
        ([[1.0, None]], "hold nulls"),
        ([[], []], "or nothing"),
    ],
)
def test_rows_that_are_no_vectors_are_named(rows: list[Any], words: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "a.parquet")
    with pytest.raises(InvalidArgument, match=words):
        open_vectors(tmp_path / "a.parquet")


def test_archives_bring_ids_and_queries(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", base=FLOATS, queries=MATRIX[:4], ids=np.array(["a", "b"]), neighbors=MATRIX)
    source = open_vectors(tmp_path / "a.npz")
    assert source.ids == ["a", "b"]
    np.testing.assert_array_equal(source.queries, FLOATS[:4])
    np.testing.assert_array_equal(open_vectors(tmp_path / "a.npz", vectors="neighbors").vectors, FLOATS)
    with pytest.raises(InvalidArgument, match="holds <U1"):
        open_vectors(tmp_path / "a.npz", vectors="ids")


def test_ann_benchmarks_files_bring_queries_and_the_measure(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.hdf5")
    source = open_vectors(tmp_path / "a.hdf5")
    assert source.distance_measure is DistanceMeasure.COSINE_DISTANCE
    np.testing.assert_array_equal(source.queries, FLOATS[:5])
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file.attrs["distance"] = "jaccard"
    with pytest.raises(InvalidArgument, match="'jaccard'; known are angular, dot, euclidean"):
        open_vectors(tmp_path / "a.hdf5")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdf5(tmp_path / "a.hdf5")

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("earshot.index.sources.hdf5.import_module", missing)
    with pytest.raises(FailedPrecondition, match=r"earshot\[hdf5\]"):
        open_vectors(tmp_path / "a.hdf5")


def test_rows_of_another_dimension_are_named_in_vecs(tmp_path: Path) -> None:
    content = bytearray(vecs(MATRIX, "<f4"))
    content[32 * 5 : 32 * 5 + 4] = struct.pack("<i", 8)
    (tmp_path / "a.fvecs").write_bytes(bytes(content))
    with pytest.raises(InvalidArgument, match="row 5 has dimension 8, row 0 has 7"):
        open_vectors(tmp_path / "a.fvecs")


@pytest.mark.parametrize(
    "array",
    [
        np.ones(3),
        np.ones((2, 2, 2)),
        np.ones((0, 3)),
        np.ones((3, 0)),
        np.ones((2, 2), complex),
        np.array([["a"]]),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InvalidArgument, match="must hold numbers of shape"):
        open_vectors(tmp_path / "a.npy")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([["a", None]], object), allow_pickle=True)
    with pytest.raises(InvalidArgument, match=r"a\.npy"):
        open_vectors(tmp_path / "a.npy")


def test_unknown_formats_and_missing_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"\.npy \.npz"):
        open_vectors(tmp_path / "a.csv")
    with pytest.raises(NotFound, match=r"a\.npy is not there"):
        open_vectors(tmp_path / "a.npy")


def test_overflow_of_float32_is_found_when_an_index_is_built(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1.0, 2.0], [1e300, 1.0]]))
    with pytest.raises(InvalidArgument, match="row 1, holds infinity"):
        Index.build(open_vectors(tmp_path / "a.npy").vectors)


@given(
    matrix=hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<i2"]).map(np.dtype),
        st.tuples(st.integers(1, 20), st.integers(1, 5)),
        elements=st.integers(-1000, 1000),
    ),
    cuts=st.lists(st.integers(0, 20), max_size=4),
)
def test_scratch_holds_the_blocks_however_they_are_cut(matrix: np.ndarray, cuts: list[int]) -> None:
    np.testing.assert_array_equal(to_scratch(np.split(matrix, sorted(cuts))), matrix)


def test_columns_of_a_table_become_restricts_and_crowding_tags(tmp_path: Path) -> None:
    rows = range(300)
    columns = {
        "language": ["de" if row % 3 else "fr" for row in rows],
        "year": [1990 + row % 30 for row in rows],
        "score": [None if row == 5 else row / 10 for row in rows],
        "tags": [["a", None], ["b", "a"], None] * 100,
        "is_free": [row % 2 == 0 for row in rows],
        "day": pa.array([date(2026, 1, 1 + row % 31) for row in rows]),
        "kind": pa.array(["x", "y", "z"] * 100).dictionary_encode(),
        "show": list(rows),
    }
    for path, write in ((tmp_path / "t.parquet", pq.write_table), (tmp_path / "t.arrow", write_ipc)):
        write(table(**columns), path)
        names = [name for name in columns if name != "show"]
        source = open_vectors(path, crowding_tag="show", restricts=names)
        index = Index.build(
            source.vectors,
            crowding_tags=source.crowding_tags,
            metadata=source.metadata,
            restricts=source.restricts,
        )
        for where, passing in (
            ({"language": "fr"}, [row for row in rows if row % 3 == 0]),
            ({"year": {">=": 2018}}, [row for row in rows if row % 30 >= 28]),
            ({"score": {"<": 0.6}}, [0, 1, 2, 3, 4]),
            ({"tags": "b"}, [row for row in rows if row % 3 == 1]),
            ({"tags": "a", "is_free": "true"}, [row for row in rows if row % 3 < 2 and row % 2 == 0]),
            ({"day": 20260131}, [row for row in rows if row % 31 == 30]),
            ({"kind": "z"}, [row for row in rows if row % 3 == 2]),
        ):
            found = index.search(FLOATS[0], 300, where=where)
            assert sorted(found.rows[0].tolist()) == passing, where
        datapoint = index.read(["7"])[0]
        assert datapoint.crowding_tag == "7"
        assert datapoint.metadata is not None
        assert datapoint.metadata["language"] == "de"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"restricts": ["colour"]}, "has no column 'colour'; it has"),
        ({"crowding_tag": "colour"}, "has no column 'colour'"),
        ({"restricts": ["when"]}, r"column 'when', holds timestamp\[us\]; searches filter by texts"),
        ({"restricts": ["embedding"]}, "column 'embedding', holds fixed_size_list"),
    ],
)
def test_columns_that_cannot_be_filtered_by_are_named(
    how: dict[str, Any], words: str, tmp_path: Path
) -> None:
    pq.write_table(table(when=pa.array([datetime(2026, 1, 1)] * 300)), tmp_path / "t.parquet")
    with pytest.raises(InvalidArgument, match=words):
        open_vectors(tmp_path / "t.parquet", **how)


@pytest.mark.parametrize("how", [{"ids": "id"}, {"crowding_tag": "tag"}, {"restricts": ["year"]}])
def test_files_that_are_no_tables_have_no_columns(how: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", FLOATS)
    with pytest.raises(InvalidArgument, match=r"v\.npy is no table; only \.parquet, \.arrow, \.feather have"):
        open_vectors(tmp_path / "v.npy", **how)


def write_ipc(written: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), written.schema) as stream:
        stream.write_table(written)

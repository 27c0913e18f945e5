from __future__ import annotations

import numpy as np
import pytest

from earshot.errors import InvalidArgument
from earshot.index.vectors import as_queries, as_vectors, unit_norm


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">f4", ">i2"]
)
def test_every_numeric_type_becomes_float32(dtype: str) -> None:
    matrix = as_vectors(np.arange(12).reshape(3, 4).astype(dtype))
    assert matrix.dtype == np.dtype("=f4")
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::2],
        lambda a: a[:, ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a.tolist(),
        lambda a: list(a),
        lambda a: np.ma.asarray(a),
    ],
)
def test_any_layout_is_read_by_its_values(view) -> None:
    original = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    viewed = view(original)
    matrix = as_vectors(viewed)
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, np.asarray(viewed, np.float32))


def test_a_float32_matrix_and_a_mapped_file_are_not_copied(tmp_path) -> None:
    matrix = np.ones((4, 3), np.float32)
    assert np.shares_memory(as_vectors(matrix), matrix)
    np.save(tmp_path / "v.npy", matrix)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert np.shares_memory(as_vectors(mapped), mapped)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((2, 3), bool), "type bool"),
        (np.array([["a", "b"]]), "must hold floating point numbers"),
        (np.array([[1 + 2j]]), "type complex128"),
        (np.array([[object()]]), "type object"),
        ([[1.0, 2.0], [1.0]], "different lengths"),
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (5, r"shape \(\)"),
        (np.ones((0, 3)), "is empty"),
        (np.ones((3, 0)), "dimension 0"),
        (np.ones((1, 4097)), "dimension 4097; it must be between 1 and 4096"),
        (np.array([[0.0], [1.0], [np.nan]]), "row 2, holds NaN"),
        (np.array([[0.0], [-np.inf]]), "row 1, holds infinity"),
        (np.array([[1e30, 0.0]]), "row 0, is too long"),
        (np.array([[1e300, 0.0]]), "row 0, is too long"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(values, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        as_vectors(values, field="vectors")
    assert caught.value.field == "vectors"


def test_a_bad_row_is_named_whichever_block_it_is_in() -> None:
    values = np.zeros((5000, 4096), np.float32)
    values[4321, 7] = np.nan
    with pytest.raises(InvalidArgument, match="row 4321, holds NaN"):
        as_vectors(values)


def test_one_query_may_be_a_vector_and_no_queries_are_allowed() -> None:
    assert as_queries(np.ones(3), 3).shape == (1, 3)
    assert as_queries(np.ones((0, 3)), 3).shape == (0, 3)


@pytest.mark.parametrize("values", [np.ones(4), np.ones((2, 4)), np.ones((1, 1, 3)), 1.0, []])
def test_queries_of_a_wrong_dimension_are_told_the_right_one(values) -> None:
    with pytest.raises(InvalidArgument, match="the index has dimension 3"):
        as_queries(values, 3)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18])
def test_lengths_far_from_one_are_scaled_to_one(scale: float) -> None:
    vectors = (scale * np.array([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]])).astype(np.float32)
    scaled, norms = unit_norm(vectors)
    np.testing.assert_allclose(scaled, np.array([[0.6, 0.8], [0, 0], [-1, 0]]), rtol=1e-6)
    np.testing.assert_allclose(norms, np.array([5 * scale, 0, scale]), rtol=1e-6)
    assert scaled.dtype == norms.dtype == np.float32

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument
from earshot.index import NumericRestrict, TokenRestrict
from earshot.index.journal import UNSET, Entry, Patch, Put, Remove
from earshot.index.journal.codec import FORM, checksum, decode, encode

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
vectors = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8).map(
    lambda values: np.array(values, np.float32)
)
restricts = st.lists(
    st.one_of(
        st.builds(TokenRestrict, names, st.lists(names).map(tuple), st.lists(names).map(tuple)),
        st.builds(
            NumericRestrict, names, st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
        ),
    ),
    max_size=3,
).map(tuple)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
metadata = st.none() | st.dictionaries(names, json_values, max_size=3)
tags = st.none() | names
unset = st.just(UNSET)
entries = st.one_of(
    st.builds(Put, names, vectors, tags, metadata, restricts),
    st.builds(Patch, names, vectors | unset, tags | unset, metadata | unset, restricts | unset),
    st.builds(Remove, names),
)


def same(one: Entry, other: Entry) -> bool:
    if type(one) is not type(other) or isinstance(one, Remove) or isinstance(other, Remove):
        return one == other
    parts = ("id", "crowding_tag", "metadata", "restricts")
    return all(getattr(one, part) == getattr(other, part) for part in parts) and (
        np.array_equal(one.vector, other.vector)
        if isinstance(one.vector, np.ndarray) and isinstance(other.vector, np.ndarray)
        else one.vector is other.vector
    )


@given(entries)
def test_an_entry_comes_back_as_it_was(entry):
    assert same(decode(encode(entry)), entry)


def test_ints_and_floats_stay_apart():
    found = decode(
        encode(
            Put("a", np.ones(1, np.float32), restricts=(NumericRestrict("n", 2), NumericRestrict("m", 2.0)))
        )
    )
    assert [type(item.value) for item in found.restricts] == [int, float]


def test_any_number_type_of_vector_becomes_float32():
    assert decode(encode(Put("a", np.arange(3)))).vector.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": {1, 2}, "b": b"\xff", "c": 1j}])
def test_metadata_that_json_cannot_hold_is_refused(metadata):
    with pytest.raises(InvalidArgument, match="'a' cannot be written as JSON"):
        encode(Put("a", np.ones(1, np.float32), metadata=metadata))


def test_a_lone_surrogate_is_refused():
    with pytest.raises(InvalidArgument, match="lone surrogate"):
        encode(Remove("\ud800"))


@given(entries, st.data())
def test_a_flipped_bit_or_another_number_changes_the_checksum(entry, data):
    body = encode(entry)
    bit = data.draw(st.integers(0, 8 * len(body) - 1))
    flipped = bytearray(body)
    flipped[bit // 8] ^= 1 << bit % 8
    assert checksum(7, bytes(flipped)) != checksum(7, body) != checksum(8, body)


def test_a_form_of_a_newer_program_is_named():
    with pytest.raises(FailedPrecondition, match=f"form {FORM + 1}; this program reads up to {FORM}"):
        decode(bytes([FORM + 1]) + b"anything")


@given(st.binary(max_size=30))
def test_what_is_no_entry_is_data_loss_and_nothing_else(body):
    with contextlib.suppress(DataLoss):
        assert isinstance(decode(bytes([FORM]) + body), Entry)

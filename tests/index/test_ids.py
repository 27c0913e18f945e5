from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.errors import InvalidArgument
from earshot.index.ids import Ids

NAMES = st.lists(
    st.text(min_size=1, max_size=200).filter(lambda s: _fits(s)), min_size=1, max_size=100, unique=True
)


def _fits(name: str) -> bool:
    try:
        return len(name.encode()) <= 1024
    except UnicodeEncodeError:
        return False


@settings(max_examples=100, deadline=None)
@given(names=NAMES)
def test_every_id_is_found_at_its_row_after_a_round_trip(names, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("ids")
    Ids.build(names, len(names)).save(folder)
    ids = Ids.open(folder)
    rows = np.arange(len(names))
    assert ids.of(rows).tolist() == names
    np.testing.assert_array_equal(ids.rows_of(names), rows)
    assert ids.rows_of([name + "\x00" for name in names if name + "\x00" not in names]).max(initial=-1) == -1


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_few_and_many_rows_give_the_same_ids(held, monkeypatch) -> None:
    """Whether they are kept as strings or made each time."""
    monkeypatch.setattr("earshot.index.ids._HELD_BYTES", held)
    ids = Ids.build([f"ü{i}" for i in range(500)], 500)
    rows = np.random.default_rng(0).integers(-1, 500, (20, 10))
    expected = [[None if row < 0 else f"ü{row}" for row in line] for line in rows.tolist()]
    assert ids.of(rows).tolist() == expected
    assert [ids.of(line).tolist() for line in rows] == expected


def test_ids_that_share_a_hash_are_told_apart(monkeypatch) -> None:
    monkeypatch.setattr("earshot.index.ids.xxhash.xxh3_64_intdigest", lambda data: len(data))
    ids = Ids.build(["aa", "b", "bb", "c", "cc"], 5)
    assert ids.rows_of(["cc", "b", "dd", "bb"]).tolist() == [4, 1, -1, 2]
    with pytest.raises(InvalidArgument, match="'bb' in rows 1 and 3"):
        Ids.build(["aa", "bb", "cc", "bb"], 4)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a"], "'a' in rows 0 and 2"),
        (["a", ""], "row 1, has 0 bytes"),
        (["é" * 513], "row 0, has 1026 bytes"),
        (["a", 7], "row 1, is 7"),
        (["a", None], "row 1, is None"),
        (["a\ud800"], "lone surrogate"),
        (["a"], "has 1 entries for 2 vectors"),
    ],
)
def test_ids_that_cannot_be_kept_are_refused_by_row(names, message) -> None:
    count = 2 if "entries" in message else len(names)
    with pytest.raises(InvalidArgument, match=message) as caught:
        Ids.build(names, count)
    assert caught.value.field == "ids"


def test_an_id_of_one_kibibyte_is_kept() -> None:
    assert Ids.build(["é" * 512], 1).of(np.array([0])).tolist() == ["é" * 512]


def test_without_ids_rows_are_numbered() -> None:
    assert Ids.build(None, 3).of(np.arange(3)).tolist() == ["0", "1", "2"]

from __future__ import annotations

import numpy as np
import pytest

from earshot.errors import DataLoss, InvalidArgument
from earshot.index.attributes import Attributes


def test_tags_and_metadata_survive_a_round_trip(tmp_path) -> None:
    metadata = [{"title": "Über", "n": [1, 2.5, None]}, None, {}]
    Attributes.build(3, ["show", None, "show"], metadata).save(tmp_path)
    attributes = Attributes.open(tmp_path)
    assert [attributes.metadata(row) for row in range(3)] == metadata
    assert [attributes.crowding_tag(row) for row in range(3)] == ["show", None, "show"]
    assert attributes.crowding_codes.tolist() == [0, -1, 0]


def test_the_empty_string_is_a_tag_like_any() -> None:
    assert Attributes.build(3, ["", None, ""], None).crowding_codes.tolist() == [0, -1, 0]


@pytest.mark.parametrize(("limit", "expected"), [(1, 4), (2, 6), (3, 7), (9, 7)])
def test_how_many_a_crowded_answer_can_hold(limit, expected) -> None:
    assert Attributes.build(7, ["a", "a", "a", "b", "b", None, None], None).reachable(limit) == expected


@pytest.mark.parametrize(
    ("tags", "metadata", "message"),
    [
        (["a"], None, "crowding_tags has 1 entries for 2 vectors"),
        (None, [{}] * 3, "metadata has 3 entries for 2 vectors"),
        (["a", 3], None, "crowding_tags, row 1, is 3"),
        (None, [{}, "text"], "metadata, row 1, is a str"),
        (None, [{}, {"f": float}], "metadata, row 1, cannot be written as JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_row(tags, metadata, message) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Attributes.build(2, tags, metadata)


def test_a_table_with_other_columns_is_data_loss(tmp_path) -> None:
    Attributes.build(1, None, None).save(tmp_path)
    (tmp_path / "attributes.arrow").rename(tmp_path / "ids.arrow")
    from earshot.index.ids import Ids

    with pytest.raises(DataLoss, match="it must have"):
        Ids.open(tmp_path)


def test_metadata_of_numpy_values_is_refused_rather_than_guessed() -> None:
    with pytest.raises(InvalidArgument, match="row 0"):
        Attributes.build(1, None, [{"n": np.arange(3)}])

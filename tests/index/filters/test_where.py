"""What a person may write as a filter, and what a wrong one is told."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.errors import InvalidArgument
from earshot.index.filters.datapoints import collect
from earshot.index.filters.restricts import NumericRestrict, Operator, TokenRestrict
from earshot.index.filters.where import as_where

GOOD = [
    ({"language": "de"}, [TokenRestrict("language", ("de",))]),
    ({"language": ["fr", "de", "de"]}, [TokenRestrict("language", ("de", "fr"))]),
    ({"language": {"not": "en"}}, [TokenRestrict("language", deny=("en",))]),
    ({"language": {"in": ["de"], "not": ["en"]}}, [TokenRestrict("language", ("de",), ("en",))]),
    ({"year": 2020}, [NumericRestrict("year", 2020, Operator.EQUAL)]),
    ({"year": np.int32(2020)}, [NumericRestrict("year", 2020, Operator.EQUAL)]),
    (
        {"year": {">=": 2020, "<": 2024.5}},
        [
            NumericRestrict("year", 2020, Operator.GREATER_EQUAL),
            NumericRestrict("year", 2024.5, Operator.LESS),
        ],
    ),
    ([{"namespace": "c", "allow_list": ["x"], "deny": ["y"]}], [TokenRestrict("c", ("x",), ("y",))]),
    ([{"namespace": "p", "value_float": 1, "op": "LESS"}], [NumericRestrict("p", 1.0, Operator.LESS)]),
    (TokenRestrict("c", ("x",)), [TokenRestrict("c", ("x",))]),
    ([TokenRestrict("c")], []),
    ([TokenRestrict("c", ("x",)), TokenRestrict("c", ("y",))], [TokenRestrict("c", ("x", "y"))]),
    ({}, []),
]


@pytest.mark.parametrize(("where", "meaning"), GOOD)
def test_a_filter_reads_as_restricts(where, meaning):
    assert set(as_where(where)) == set(meaning)


def test_equal_filters_are_equal_however_written():
    assert as_where({"a": ["x", "y"], "b": "z"}) == as_where(
        [TokenRestrict("b", ("z",)), {"namespace": "a", "allow": ["y", "x", "x"]}]
    )


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("language = de", "where is 'language = de'"),
        ({"language": []}, "at least one token"),
        ({"language": {}}, "at least one token"),
        ({"language": None}, "None"),
        ({"language": {"like": "d"}}, "'like'.*in, not, <"),
        ({"language": {"!=": "en"}}, "'not': 'en'"),
        ({"language": {"not": 3}}, "'not': 3"),
        ({"language": ["de", 3]}, "'language'"),
        ({"": "de"}, "namespace is empty"),
        ({3: "de"}, "namespace 3 is a int"),
        ({"year": float("nan")}, "NaN"),
        ({"year": {">": True}}, "True"),
        ({"year": 2**63}, "outside int64"),
        ({"language": "x" * 2000}, "2000 bytes"),
        ({"language": "\ud800"}, "Unicode"),
        ([{"allow": ["x"]}], "no namespace"),
        ([{"namespace": "a", "alow": ["x"]}], "alow"),
        ([{"namespace": "a", "allow": "x"}], "must be a list"),
        ([{"namespace": "a", "value_int": 1}], "no op"),
        ([{"namespace": "a", "value_int": 1.5, "op": "LESS"}], "must be an int"),
        ([{"namespace": "a", "value_int": 1, "value_float": 1.0, "op": "LESS"}], "value_float, value_int"),
        ([{"namespace": "a", "value_int": 1, "op": "LIKE"}], "LESS_EQUAL"),
    ],
)
def test_a_wrong_filter_is_named(where, said):
    with pytest.raises(InvalidArgument, match=said):
        as_where(where)


def test_datapoints_may_come_as_columns_or_one_by_one():
    columns = collect(
        {"language": ["de", None], "year": np.array([1, 2]), "tags": [["a", "b"], {"not": "c"}]}, 2
    )
    entries = collect(
        [
            {"language": "de", "year": 1, "tags": ["a", "b"]},
            [{"namespace": "tags", "deny": ["c"]}, NumericRestrict("year", 2)],
        ],
        2,
    )
    assert columns.tokens == entries.tokens
    assert columns.numbers == entries.numbers


@pytest.mark.parametrize(
    ("restricts", "said"),
    [
        ({"language": ["de"]}, "1 entries for 2 vectors"),
        ({"language": "de"}, "must be a list"),
        ([None], "1 entries for 2 vectors"),
        ([None, "de"], "row 1"),
        ({"year": [1, float("nan")]}, "row 1.*NaN"),
        ({"year": [1, {"not": 2}]}, "row 1.*only tokens"),
        ([None, [NumericRestrict("year", 1), NumericRestrict("year", 2.5)]], "row 1.*two numbers"),
        ([[NumericRestrict("year", 1, Operator.LESS)], None], "row 0.*op"),
    ],
)
def test_wrong_restricts_are_named_by_row(restricts, said):
    with pytest.raises(InvalidArgument, match=said):
        collect(restricts, 2)

"""Compiled bitmaps against the semantics of `restricts`, written down a second time, row by row."""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.errors import DataLoss
from earshot.index.filters.datapoints import collect
from earshot.index.filters.inverted import RestrictIndex
from earshot.index.filters.restricts import NumericRestrict, Operator, TokenRestrict
from earshot.index.filters.where import as_where, canonical

COMPARE = {
    Operator.LESS: operator.lt,
    Operator.LESS_EQUAL: operator.le,
    Operator.EQUAL: operator.eq,
    Operator.GREATER_EQUAL: operator.ge,
    Operator.GREATER: operator.gt,
    Operator.NOT_EQUAL: operator.ne,
}

namespaces = st.sampled_from(["color", "shape"])
tokens = st.lists(st.sampled_from(["red", "blue", "größe", ""]), max_size=3)
# Where int64 and float64 cannot say the same number, and at the ends of both.
EDGES = [0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**62 + 1]
integers = st.sampled_from(EDGES) | st.integers(-3, 3)
floats = (
    st.sampled_from([float(edge) for edge in EDGES] + [0.5, -0.0, -2.5, float("inf"), float("-inf"), 1e300])
    | st.floats(-3, 3)
    | st.floats(allow_nan=False)
)
numbers = integers | floats
token_restricts = st.builds(TokenRestrict, namespaces, tokens.map(tuple), tokens.map(tuple))


@st.composite
def datapoints(draw):
    restricts = draw(st.lists(token_restricts, max_size=3))
    for namespace in ("year", "price"):
        value = draw(st.none() | numbers)
        if value is not None:
            restricts.append(NumericRestrict(namespace, value))
    return restricts


comparisons = st.builds(
    NumericRestrict, st.sampled_from(["year", "price", "none"]), numbers, st.sampled_from(Operator)
)
queries = st.lists(token_restricts | comparisons, max_size=4)


def passes(datapoint, query) -> bool:
    for namespace in {r.namespace for r in query if isinstance(r, TokenRestrict)}:
        mine = [r for r in datapoint if isinstance(r, TokenRestrict) and r.namespace == namespace]
        asked = [r for r in query if isinstance(r, TokenRestrict) and r.namespace == namespace]
        allow, deny = {t for r in mine for t in r.allow}, {t for r in mine for t in r.deny}
        wanted, unwanted = {t for r in asked for t in r.allow}, {t for r in asked for t in r.deny}
        if wanted and (not wanted & allow or wanted & deny):
            return False
        if unwanted & allow:
            return False
    for restrict in query:
        if isinstance(restrict, NumericRestrict):
            values = [
                r.value
                for r in datapoint
                if isinstance(r, NumericRestrict) and r.namespace == restrict.namespace
            ]
            # Python compares int with float exactly.
            assert restrict.op is not None
            if not any(COMPARE[restrict.op](value, restrict.value) for value in values):
                return False
    return True


@settings(max_examples=200, deadline=None)
@given(st.lists(datapoints(), min_size=1, max_size=12), queries, st.randoms(use_true_random=False))
def test_a_compiled_filter_passes_what_the_semantics_pass(points, query, random):
    order = list(range(len(points)))
    random.shuffle(order)
    index = RestrictIndex.build(collect(points, len(points)), np.array(order, np.uint32))
    expected = {order[row] for row, point in enumerate(points) if passes(point, query)}
    assert set(index.compile(as_where(query))) == expected


@settings(deadline=None)
@given(st.lists(datapoints(), min_size=1, max_size=8))
def test_a_datapoint_gets_its_restricts_back(points):
    index = RestrictIndex.build(collect(points, len(points)), None)
    assert [index.of(row) for row in range(len(points))] == [canonical(point) for point in points]


def test_what_was_saved_passes_the_same(tmp_path: Path):
    columns = {"language": ["de", "fr", None, "de"], "year": [2019, 2020.5, 2021, None]}
    built = RestrictIndex.build(collect(columns, 4), None)
    built.save(tmp_path)
    opened = RestrictIndex.open(tmp_path)
    for where in ({"language": "de"}, {"year": {">": 2019}}, {"language": {"not": "de"}, "year": 2021}):
        assert opened.compile(as_where(where)) == built.compile(as_where(where))
    assert opened.namespaces == ["language", "year"]


@pytest.mark.parametrize("name", ["tokens.arrow", "numbers.arrow", "datapoints.arrow"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str):
    RestrictIndex.build(collect({"language": ["de"], "year": [1]}, 1), None).save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataLoss, match=name):
        RestrictIndex.open(tmp_path)

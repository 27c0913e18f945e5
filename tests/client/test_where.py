"""A filter means the same whether the client writes it or the index reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from earshot.client.where import restricts_from, where_from
from earshot.errors import InvalidArgument
from earshot.index import Operator
from earshot.index.filters import Where, as_where
from earshot.server import messages
from earshot.server.json_codec import decode, encode
from earshot.server.proto_codec import datapoint_message, search_request
from earshot.server.restricts import restricts_of, where_of
from earshot.v1 import datapoint_pb2, search_service_pb2

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
tokens = names | st.lists(names, min_size=1, max_size=3)
integers = st.integers(-(2**63), 2**63 - 1)
numbers = integers | st.floats(allow_nan=False)
comparisons = st.dictionaries(st.sampled_from(["<", "<=", "==", ">=", ">", "!="]), numbers, min_size=1)
sides = st.dictionaries(st.sampled_from(["in", "not"]), tokens, min_size=1)
filters = st.dictionaries(names, tokens | numbers | comparisons | sides, max_size=4)


def over_grpc(where: Any) -> Where | None:
    message = search_service_pb2.SearchRequest(index="i", text="x", **restricts_from(where))
    request = search_request(message.SerializeToString())
    return where_of(request.restricts, request.numeric_restricts)


def over_http(where: Any) -> Where | None:
    message = search_service_pb2.SearchRequest(index="i", text="x", **restricts_from(where))
    request = decode(json_format.MessageToJson(message).encode(), messages.SearchRequest)
    return where_of(request.restricts, request.numeric_restricts)


@given(filters)
def test_both_wires_carry_what_the_index_reads(where: Any) -> None:
    meant = as_where(where) or None
    assert over_grpc(where) == meant
    assert over_http(where) == meant


def test_numpy_values_are_taken() -> None:
    where = {"a": np.array(["x", "y"]), "b": np.int32(3), "c": {"<": np.float32(0.1)}, "d": {"z"}}
    assert over_grpc(where) == over_http(where) == as_where(where)


def test_no_filter_sends_nothing() -> None:
    assert restricts_from(None) == restricts_from({}) == {"restricts": [], "numeric_restricts": []}
    assert where_of([messages.TokenRestrict(namespace="language")], []) is None


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("language=de", "where is 'language=de'"),
        (["language"], r"where is \['language'\]"),
        ({"language": []}, "'language'"),
        ({"language": {}}, "'language'"),
        ({"language": None}, "'language'.* is None"),
        ({"language": ["de", 3]}, "'language'"),
        ({"language": {"not": 3}}, "'language'.* is 3"),
        ({"language": {"like": "d"}}, "'like'.*in, not, <"),
        ({"language": {"!=": "en"}}, "'en'.*'not': 'en'"),
        ({"year": {">": True}}, "'year'.*True"),
        ({"year": 2**63}, "'year'.*9223372036854775808"),
        ({"language": "\ud800"}, "'language'"),
        ({3: "de"}, "3"),
    ],
)
def test_a_filter_that_neither_understands_is_refused_by_the_client(where: Any, said: str) -> None:
    with pytest.raises(InvalidArgument):
        as_where(where)
    with pytest.raises(InvalidArgument, match=said):
        restricts_from(where)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"": "de"}, "namespace is empty"),
        ({"x" * 1025: "de"}, "1025 bytes"),
        ({"language": "x" * 2000}, "'language'|2000 bytes"),
        ({"year": float("nan")}, "'year' has the value NaN"),
    ],
)
def test_what_only_the_index_knows_is_refused_in_its_own_words(where: Any, said: str) -> None:
    for asked in (over_grpc, over_http, as_where):
        with pytest.raises(InvalidArgument, match=said):
            asked(where)


def test_the_operators_of_the_protocol_are_those_of_the_index() -> None:
    assert datapoint_pb2.NumericRestrict.Operator.keys() == ["OPERATOR_UNSPECIFIED", *Operator]
    for number, name in enumerate(Operator, start=1):
        by_number, by_name = (messages.NumericRestrict("a", value_int=1, op=op) for op in (number, str(name)))
        assert where_of([], [by_number]) == where_of([], [by_name])
    for nothing in (0, "OPERATOR_UNSPECIFIED"):
        with pytest.raises(InvalidArgument, match="no op"):
            where_of([], [messages.NumericRestrict("a", value_int=1, op=nothing)])


def test_a_float32_is_the_same_number_over_both_wires() -> None:
    message = search_service_pb2.SearchRequest(
        numeric_restricts=[
            datapoint_pb2.NumericRestrict(
                namespace="a", value_float=0.1, op=datapoint_pb2.NumericRestrict.EQUAL
            )
        ]
    )
    of_bytes = search_request(message.SerializeToString()).numeric_restricts
    of_json = decode(json_format.MessageToJson(message).encode(), messages.SearchRequest).numeric_restricts
    assert where_of([], of_bytes) == where_of([], of_json) == as_where({"a": float(np.float32(0.1))})


@given(st.dictionaries(names, st.lists(names, min_size=1, max_size=3, unique=True) | numbers, max_size=4))
def test_a_datapoint_tells_its_restricts_over_both_wires(restricts: dict[str, Any]) -> None:
    stored, numeric = restricts_of(as_where(restricts))
    datapoint = messages.Datapoint("id", restricts=stored, numeric_restricts=numeric)
    expected = {name: sorted(cell) if isinstance(cell, list) else cell for name, cell in restricts.items()}
    assert where_from(datapoint_message(datapoint)) == expected
    over_json = json_format.Parse(encode(datapoint), datapoint_pb2.Datapoint())
    assert where_from(over_json) == expected


def test_denied_tokens_of_a_datapoint_stand_apart() -> None:
    tokens = [datapoint_pb2.TokenRestrict(namespace="tag", allow_list=["a"], deny_list=["b"])]
    assert where_from(datapoint_pb2.Datapoint(restricts=tokens)) == {"tag": {"in": ["a"], "not": ["b"]}}

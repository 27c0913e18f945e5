"""The `where` of a search: from what a person writes to the restricts of the protocol.

The form is that of `earshot.index`, which this package does not import; a test holds the two together.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from earshot.errors import InvalidArgument
from earshot.v1 import datapoint_pb2

__all__ = ["restricts_from", "where_from"]

_SIDES = {"in": "allow_list", "not": "deny_list"}
_OPERATORS = {
    "<": datapoint_pb2.NumericRestrict.LESS,
    "<=": datapoint_pb2.NumericRestrict.LESS_EQUAL,
    "==": datapoint_pb2.NumericRestrict.EQUAL,
    ">=": datapoint_pb2.NumericRestrict.GREATER_EQUAL,
    ">": datapoint_pb2.NumericRestrict.GREATER,
    "!=": datapoint_pb2.NumericRestrict.NOT_EQUAL,
}


def restricts_from(where: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields `restricts` and `numeric_restricts` of a request.

    `where` maps namespaces, all of which must match: `{"language": "de"}`, `{"language": ["de", "fr"]}` (one
    of these), `{"language": {"not": "en"}}`, `{"year": 2020}`, `{"year": {">=": 2020, "<": 2024}}`; the
    comparisons are `<  <=  ==  >=  >  !=`, and `{"in": [...], "not": [...]}` says both. None filters nothing.

    Raises InvalidArgument naming the namespace; what only a server can know, it says.
    """
    if where is not None and not isinstance(where, Mapping):
        raise InvalidArgument(
            f"where is {reprlib.repr(where)}; it must be a mapping such as {{'language': 'de'}}",
            field="where",
        )
    fields: dict[str, Any] = {"restricts": [], "numeric_restricts": []}
    for namespace, spec in (where or {}).items():
        for key, value in _conditions(namespace, spec):
            try:
                if key in _SIDES:
                    tokens = {_SIDES[key]: _tokens(namespace, value)}
                    fields["restricts"].append(datapoint_pb2.TokenRestrict(namespace=namespace, **tokens))
                else:
                    fields["numeric_restricts"].append(_number(namespace, key, value))
            except (TypeError, ValueError) as error:  # a lone surrogate, an int beyond int64
                raise InvalidArgument(
                    f"where[{reprlib.repr(namespace)}] is {reprlib.repr(value)}: {error}", field="where"
                ) from error
    return fields


def where_from(datapoint: datapoint_pb2.Datapoint) -> dict[str, Any]:
    """What a datapoint is found by: a list of tokens, `{"in": [...], "not": [...]}`, or a number."""
    found: dict[str, Any] = {}
    for tokens in datapoint.restricts:
        allowed, denied = list(tokens.allow_list), list(tokens.deny_list)
        found[tokens.namespace] = {"in": allowed, "not": denied} if denied else allowed
    for number in datapoint.numeric_restricts:
        found[number.namespace] = getattr(number, number.WhichOneof("value") or "value_int")
    return found


def _conditions(namespace: Any, spec: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(spec, Mapping):
        return [("in" if isinstance(spec, str) or _is_list(spec) else "==", spec)]
    if not spec:
        raise _wrong(namespace, spec)
    return spec.items()


def _tokens(namespace: Any, value: Any) -> list[str]:
    tokens = [value] if isinstance(value, str) else list(value) if _is_list(value) else []
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise _wrong(namespace, value)
    return tokens


def _number(namespace: Any, key: Any, value: Any) -> datapoint_pb2.NumericRestrict:
    if key not in _OPERATORS:
        raise InvalidArgument(
            f"where[{namespace!r}] has the operator {reprlib.repr(key)}; "
            f"it must be one of {', '.join([*_SIDES, *_OPERATORS])}",
            field="where",
        )
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise _wrong(namespace, value)
    if isinstance(value, (int, np.integer)):
        return datapoint_pb2.NumericRestrict(namespace=namespace, value_int=int(value), op=_OPERATORS[key])
    return datapoint_pb2.NumericRestrict(namespace=namespace, value_double=float(value), op=_OPERATORS[key])


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset, np.ndarray))


def _wrong(namespace: Any, value: Any) -> InvalidArgument:
    return InvalidArgument(
        f"where[{namespace!r}] is {reprlib.repr(value)}; strings are tokens, allowed or under 'not', numbers "
        f"are compared: write 'de', ['de', 'fr'], {{'not': 'en'}}, 2020 or {{'>=': 2020, '<': 2024}}",
        field="where",
    )

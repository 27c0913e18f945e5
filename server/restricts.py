"""Filters between the wire and the index: what a request restricts, and what a datapoint is found by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isinf
from typing import Any

import numpy as np

from earshot.errors import InvalidArgument
from earshot.index import NumericRestrict, Operator, TokenRestrict
from earshot.index.filters import Restrict, Where, as_where

from . import messages

__all__ = ["restricts_of", "stored_restricts", "where_of"]

_VALUES = ("value_int", "value_float", "value_double")
# Enums travel by name or by number; a number that is not here is left for the index to refuse.
_OPERATORS: dict[str | int, Any] = {0: None, "OPERATOR_UNSPECIFIED": None, **dict(enumerate(Operator, 1))}


def where_of(
    tokens: Sequence[messages.TokenRestrict], numbers: Sequence[messages.NumericRestrict]
) -> Where | None:
    """The filter of a request, equal for equal filters; None where nothing is restricted.

    Raises InvalidArgument naming the namespace and the value.
    """
    if not tokens and not numbers:
        return None
    return as_where(list(stored_restricts(tokens, numbers))) or None


def stored_restricts(
    tokens: Sequence[messages.TokenRestrict], numbers: Sequence[messages.NumericRestrict]
) -> Where:
    """Restricts as the index has them, one by one. Raises InvalidArgument naming the namespace."""
    return (
        *(TokenRestrict(each.namespace, tuple(each.allow_list), tuple(each.deny_list)) for each in tokens),
        *(
            NumericRestrict(each.namespace, _value(each), _OPERATORS.get(each.op, each.op))
            for each in numbers
        ),
    )


def restricts_of(
    stored: Iterable[Restrict],
) -> tuple[list[messages.TokenRestrict], list[messages.NumericRestrict]]:
    """What is stored of a datapoint, as it is answered."""
    tokens: list[messages.TokenRestrict] = []
    numbers: list[messages.NumericRestrict] = []
    for restrict in stored:
        if isinstance(restrict, TokenRestrict):
            tokens.append(
                messages.TokenRestrict(
                    namespace=restrict.namespace,
                    allow_list=list(restrict.allow),
                    deny_list=list(restrict.deny),
                )
            )
        elif isinstance(restrict.value, int):
            numbers.append(messages.NumericRestrict(namespace=restrict.namespace, value_int=restrict.value))
        else:
            numbers.append(
                messages.NumericRestrict(namespace=restrict.namespace, value_double=_in_json(restrict.value))
            )
    return tokens, numbers


def _value(restrict: messages.NumericRestrict) -> int | float:
    given = [name for name in _VALUES if getattr(restrict, name) is not None]
    if len(given) != 1:
        raise InvalidArgument(
            f"namespace {restrict.namespace!r} has {' and '.join(given) or 'no value'}; "
            f"set exactly one of {', '.join(_VALUES)}",
            field="numeric_restricts",
        )
    if restrict.value_int is not None:
        return restrict.value_int
    if restrict.value_float is not None:
        with np.errstate(over="ignore"):  # becomes infinite, as in protobuf
            return float(np.float32(restrict.value_float))
    return float(restrict.value_double or 0)


def _in_json(value: float) -> messages.Double:
    # JSON has no infinity; Google's mapping writes its name.
    if isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value

"""What a filter is made of: token restricts and numeric restricts, on a datapoint and in a query.

The semantics are those of Google's Vector Search:

- A query's restricts are joined by AND across namespaces. Several token restricts of one namespace are one
  (OR); several numeric ones are a range (AND).
- A query that allows tokens in a namespace matches datapoints that allow at least one of them there.
- A datapoint that denies a token matches no query that allows it, whatever else the two share.
- A query that denies a token matches no datapoint that allows it. With denied tokens alone, everything else
  matches, datapoints without the namespace included.
- A namespace absent from the query restricts nothing. A namespace absent from the datapoint is no wildcard:
  neither a query that allows tokens there nor any comparison, NOT_EQUAL included, matches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isnan
from typing import Any

import numpy as np

from earshot.errors import InvalidArgument

MAX_NAME_BYTES = 1024
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Operator(StrEnum):
    """How a datapoint's value must compare with the query's."""

    LESS = "LESS"
    LESS_EQUAL = "LESS_EQUAL"
    EQUAL = "EQUAL"
    GREATER_EQUAL = "GREATER_EQUAL"
    GREATER = "GREATER"
    NOT_EQUAL = "NOT_EQUAL"


@dataclass(frozen=True, slots=True)
class TokenRestrict:
    """Tokens allowed and denied in one namespace, of a datapoint or of a query; both lists are sorted sets.

    Raises:
        InvalidArgument: The namespace is empty, or a name is no string of at most 1 KiB of UTF-8.
    """

    namespace: str
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        for side in ("allow", "deny"):
            tokens = getattr(self, side)
            if isinstance(tokens, str):
                raise InvalidArgument(
                    f"{side} of namespace {self.namespace!r} is the string {tokens!r}; it must be a list",
                    field=self.namespace,
                )
            for token in tokens:
                _check_name(token, f"token {token!r} of namespace {self.namespace!r}", self.namespace)
            object.__setattr__(self, side, tuple(sorted(set(tokens))))


@dataclass(frozen=True, slots=True)
class NumericRestrict:
    """One number of a namespace: of a datapoint (`op` None), or what a query compares it with.

    An int is compared exactly as an int64, a float as a float64, and each with the other exactly too:
    2**53 + 1 is not EQUAL to 2.0**53. −0.0 equals 0.0; infinities are ordinary bounds.

    Raises:
        InvalidArgument: The value is NaN, no number, or an int outside int64.
    """

    namespace: str
    value: int | float
    op: Operator | None = None

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        object.__setattr__(self, "value", as_number(self.value, self.namespace))
        if self.op is not None:
            try:
                object.__setattr__(self, "op", Operator(self.op))
            except ValueError:
                raise InvalidArgument(
                    f"op of namespace {self.namespace!r} is {self.op!r}; "
                    f"it must be one of {', '.join(Operator)}",
                    field=self.namespace,
                ) from None


Restrict = TokenRestrict | NumericRestrict


def as_number(value: Any, namespace: str) -> int | float:
    """A Python int within int64, or a float that is a number.

    Raises:
        InvalidArgument: It is neither; the message names the namespace.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidArgument(
            f"namespace {namespace!r} has the value {value!r}; it must be an int or a float", field=namespace
        )
    if isinstance(value, (int, np.integer)):
        if not INT64_MIN <= value <= INT64_MAX:
            raise InvalidArgument(
                f"namespace {namespace!r} has the value {value}, which is outside int64", field=namespace
            )
        return int(value)
    if isnan(value):
        raise InvalidArgument(
            f"namespace {namespace!r} has the value NaN, which compares with nothing; leave it out",
            field=namespace,
        )
    return float(value)


def check_namespace(namespace: Any) -> None:
    """Raise InvalidArgument unless it is a string of 1 to 1,024 bytes of UTF-8."""
    _check_name(namespace, f"namespace {namespace!r}", "namespace")
    if not namespace:
        raise InvalidArgument("a namespace is empty; it must be a name", field="namespace")


def _check_name(name: Any, what: str, field: str) -> None:
    if not isinstance(name, str):
        raise InvalidArgument(f"{what} is a {type(name).__name__}; it must be a string", field=field)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"{what} is not valid Unicode", field=field) from None
    if size > MAX_NAME_BYTES:
        raise InvalidArgument(
            f"{what[:80]}… has {size} bytes; at most {MAX_NAME_BYTES} are possible", field=field
        )

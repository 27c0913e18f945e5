"""The `where` of a search: from what a person writes to one canonical, hashable tuple of restricts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from earshot.errors import InvalidArgument

from .restricts import NumericRestrict, Operator, Restrict, TokenRestrict, as_number, check_namespace

Where = tuple[Restrict, ...]
"""At most one TokenRestrict a namespace, sorted: equal filters are equal tuples."""

_OPERATORS = {
    "<": Operator.LESS,
    "<=": Operator.LESS_EQUAL,
    "==": Operator.EQUAL,
    ">=": Operator.GREATER_EQUAL,
    ">": Operator.GREATER,
    "!=": Operator.NOT_EQUAL,
}
_TOKEN_KEYS = {"in": "allow", "not": "deny"}
_VALUE_KEYS = ("value_int", "value_float", "value_double")
_KEYS = ", ".join([*_TOKEN_KEYS, *_OPERATORS])


def as_where(where: Any) -> Where:
    """Read a filter.

    Args:
        where: A mapping of namespaces, all of which must match:

            - `{"language": "de"}`, `{"language": ["de", "fr"]}`: one of these tokens;
            - `{"language": {"not": "en"}}`: none of these; `{"in": [...], "not": [...]}`: both;
            - `{"year": 2020}`: this number; `{"year": {">=": 2020, "<": 2024}}`: compared with
              `<  <=  ==  >=  >  !=`.

            Or a list of `TokenRestrict` and `NumericRestrict`, or of mappings with Google's field names
            (`namespace`, `allow` or `allow_list`, `deny` or `deny_list`; `value_int`, `value_float` or
            `value_double`, and `op`).

    Raises:
        InvalidArgument: It is none of these; the message names the namespace and what would do.
    """
    if isinstance(where, (TokenRestrict, NumericRestrict)):
        where = [where]
    if isinstance(where, Mapping):
        restricts = [restrict for name, spec in where.items() for restrict in _friendly(name, spec)]
    elif isinstance(where, Sequence) and not isinstance(where, str):
        restricts = [as_restrict(entry) for entry in where]
    else:
        raise InvalidArgument(
            f"where is {where!r}; it must be a mapping such as {{'language': 'de'}}, or a list of restricts",
            field="where",
        )
    return _checked(tuple(restricts))


@lru_cache(maxsize=1024)
def _checked(restricts: tuple[Restrict, ...]) -> Where:
    # Equal restricts mean the same, so what was checked before need not be again: tens of µs a query.
    for restrict in restricts:
        if isinstance(restrict, NumericRestrict) and restrict.op is None:
            raise InvalidArgument(
                f"where compares {restrict.namespace!r} with {restrict.value} but has no op; "
                f"give one of {', '.join(Operator)}",
                field="where",
            )
    return canonical(restricts)


def canonical(restricts: Iterable[Restrict]) -> Where:
    """Token restricts of one namespace merged, duplicates and those that restrict nothing dropped, sorted."""
    tokens: dict[str, TokenRestrict] = {}
    numbers: set[NumericRestrict] = set()
    for restrict in restricts:
        if isinstance(restrict, NumericRestrict):
            numbers.add(restrict)
            continue
        before = tokens.get(restrict.namespace, TokenRestrict(restrict.namespace))
        tokens[restrict.namespace] = TokenRestrict(
            restrict.namespace, before.allow + restrict.allow, before.deny + restrict.deny
        )
    return (
        *(tokens[name] for name in sorted(tokens) if tokens[name].allow or tokens[name].deny),
        *sorted(numbers, key=lambda r: (r.namespace, r.op or "", type(r.value).__name__, r.value)),
    )


def as_restrict(entry: Any) -> Restrict:
    """A restrict as it is, or from a mapping with Google's field names.

    Raises:
        InvalidArgument: Unknown or missing fields.
    """
    if isinstance(entry, (TokenRestrict, NumericRestrict)):
        return entry
    if not isinstance(entry, Mapping) or "namespace" not in entry:
        raise InvalidArgument(f"{entry!r} is no restrict: it has no namespace", field="restricts")
    fields = {key: value for key, value in entry.items() if key != "namespace" and value is not None}
    numeric = [key for key in _VALUE_KEYS if key in fields]
    allowed = {*numeric, "op"} if numeric else {"allow", "allow_list", "deny", "deny_list"}
    unknown = fields.keys() - allowed
    if unknown or len(numeric) > 1:
        raise InvalidArgument(
            f"a restrict of namespace {entry['namespace']!r} has the fields {', '.join(sorted(fields))}; it "
            f"must have allow and deny, or one of {', '.join(_VALUE_KEYS)} and, in a query, op",
            field="restricts",
        )
    if numeric:
        value = fields[numeric[0]]
        if numeric[0] != "value_int":
            value = float(as_number(value, entry["namespace"]))
        elif not isinstance(value, (int, np.integer)):
            raise InvalidArgument(
                f"value_int of namespace {entry['namespace']!r} is {value!r}; it must be an int",
                field="restricts",
            )
        return NumericRestrict(entry["namespace"], value, fields.get("op"))
    sides = {side: (*fields.get(side, ()), *fields.get(f"{side}_list", ())) for side in ("allow", "deny")}
    for key, tokens in fields.items():
        if isinstance(tokens, str):
            raise InvalidArgument(
                f"{key} of namespace {entry['namespace']!r} is the string {tokens!r}; it must be a list",
                field="restricts",
            )
    return TokenRestrict(entry["namespace"], **sides)


def _friendly(namespace: Any, spec: Any) -> list[Restrict]:
    check_namespace(namespace)
    if isinstance(spec, Mapping):
        if not spec:
            raise _wrong(namespace, spec)
        return [restrict for key, value in spec.items() for restrict in _operator(namespace, key, value)]
    if isinstance(spec, str) or _is_list(spec):
        return _operator(namespace, "in", spec)
    return _operator(namespace, "==", spec)


def _operator(namespace: str, key: Any, value: Any) -> list[Restrict]:
    if key in _TOKEN_KEYS:
        tokens = (value,) if isinstance(value, str) else tuple(value) if _is_list(value) else ()
        if not tokens or not all(isinstance(token, str) for token in tokens):
            raise _wrong(namespace, {key: value} if key == "not" else value)
        return [TokenRestrict(namespace, **{_TOKEN_KEYS[key]: tokens})]
    if key not in _OPERATORS:
        raise InvalidArgument(
            f"where[{namespace!r}] has the operator {key!r}; it must be one of {_KEYS}", field="where"
        )
    if isinstance(value, str):
        raise InvalidArgument(
            f"where[{namespace!r}] compares the string {value!r} by {key}; strings are tokens: "
            f"write {{{namespace!r}: {value!r}}} or {{{namespace!r}: {{'not': {value!r}}}}}",
            field="where",
        )
    return [NumericRestrict(namespace, as_number(value, namespace), _OPERATORS[key])]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset, np.ndarray))


def _wrong(namespace: str, spec: Any) -> InvalidArgument:
    return InvalidArgument(
        f"where[{namespace!r}] is {spec!r}; it must be a token, a list of at least one token, a number, "
        f"or a mapping with the keys {_KEYS}",
        field="where",
    )

"""Datapoints from JSON lines: with our keys, with those of Google's files, or with those of the API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from earshot.errors import InvalidArgument

__all__ = ["datapoint_from", "ids_from"]

_NAMES = {
    "id": ("id", "datapoint_id", "datapointId"),
    "vector": ("vector", "embedding", "feature_vector", "featureVector"),
    "text": ("text",),
    "crowding_tag": ("crowding_tag", "crowdingTag"),
    "metadata": ("metadata", "embedding_metadata", "embeddingMetadata"),
    "restricts": ("restricts",),
    "numeric_restricts": ("numeric_restricts", "numericRestricts"),
}
_KEYS = {alias: name for name, aliases in _NAMES.items() for alias in aliases}
_SIDES = {
    **dict.fromkeys(("allow", "allow_list", "allowList"), "in"),
    **dict.fromkeys(("deny", "deny_list", "denyList"), "not"),
}
_NUMBERS: dict[str, type[int] | type[float]] = {
    **dict.fromkeys(("value_int", "valueInt"), int),
    **dict.fromkeys(("value_float", "valueFloat", "value_double", "valueDouble"), float),
}


def datapoint_from(line: bytes, number: int) -> dict[str, Any]:
    """One datapoint, as `Client.upsert` takes it. Raises InvalidArgument naming the line."""
    try:
        given = msgspec.json.decode(line, type=dict[str, Any])
        named: dict[str, Any] = {}
        for key, value in given.items():
            if key not in _KEYS:
                raise ValueError(f"unknown key {key!r}; known are {', '.join(sorted(_KEYS))}")
            if value is not None:
                named[_KEYS[key]] = value
        restricts = {**_restricts(named.pop("restricts", {})), **_numbers(named.pop("numeric_restricts", []))}
        if restricts:
            named["restricts"] = restricts
        tag = named.get("crowding_tag")
        if isinstance(tag, Mapping):  # as Google's API writes it
            named["crowding_tag"] = next(iter(tag.values()), None)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        raise InvalidArgument(f"line {number}: {error}", field="file") from error
    return named


def ids_from(lines: Iterable[bytes]) -> Iterator[str]:
    """An id a line, or a JSON object a line that has one; empty lines count for nothing."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(b"{"):
            yield str(datapoint_from(text, number)["id"])
        elif text:
            yield text.decode()


def _restricts(given: Any) -> dict[str, Any]:
    """A mapping as it is; a list of Google's as a mapping."""
    if isinstance(given, Mapping):
        return dict(given)
    found = {}
    for each in given:
        tokens = {_SIDES[side]: names for side, names in each.items() if side != "namespace" and names}
        if tokens:
            found[each["namespace"]] = tokens
    return found


def _numbers(given: Any) -> dict[str, Any]:
    found = {}
    for each in given:
        ((kind, value),) = [item for item in each.items() if item[0] in _NUMBERS]
        found[each["namespace"]] = _NUMBERS[kind](value)
    return found

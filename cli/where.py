"""`--where` conditions, such as `language=de` and `year>=2020`, become the filter of a search."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from earshot.errors import InvalidArgument

__all__ = ["parse_where"]

_CONDITION = re.compile(r"\s*(?P<namespace>[^<>=!]+?)\s*(?P<operator><=|>=|!=|==|=|<|>)\s*(?P<value>.+?)\s*")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_QUOTED = re.compile(r"(['\"])(?P<token>.*)\1")


def parse_where(conditions: Iterable[str]) -> dict[str, Any]:
    """The filter that all conditions together make; tokens of one namespace are alternatives.

    A value is a number where it reads as one, else a token; in quotes it is always a token.
    Raises InvalidArgument naming the condition.
    """
    where: dict[str, Any] = {}
    for condition in conditions:
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise InvalidArgument(
                f"where is {condition!r}; write it like 'language=de', 'language!=en' or 'year>=2020'",
                field="where",
            )
        operator, value = match["operator"], _value(match["value"])
        terms = where.setdefault(match["namespace"], {})
        if isinstance(value, str):
            if operator not in {"=", "==", "!="}:
                raise InvalidArgument(
                    f"where {condition!r} compares the token {value!r} by {operator}; "
                    "tokens can only be equal (=) or not (!=)",
                    field="where",
                )
            terms.setdefault("not" if operator == "!=" else "in", []).append(value)
            continue
        operator = "==" if operator == "=" else operator
        if operator in terms:
            raise InvalidArgument(
                f"where {condition!r} is the second {operator} of {match['namespace']!r}; one is possible",
                field="where",
            )
        terms[operator] = value
    return where


def _value(text: str) -> str | int | float:
    if quoted := _QUOTED.fullmatch(text):
        return quoted["token"]
    if _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    return text

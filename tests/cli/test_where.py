"""What may stand behind `--where`."""

from __future__ import annotations

from typing import Any

import pytest

from earshot.cli.where import parse_where
from earshot.errors import InvalidArgument


@pytest.mark.parametrize(
    ("conditions", "meaning"),
    [
        (["language=de"], {"language": {"in": ["de"]}}),
        (["language=de", "language == fr"], {"language": {"in": ["de", "fr"]}}),
        (["language!=en", "show=A & B, C"], {"language": {"not": ["en"]}, "show": {"in": ["A & B, C"]}}),
        (["year>=2020", "year<2024"], {"year": {">=": 2020, "<": 2024}}),
        (["year=2020"], {"year": {"==": 2020}}),
        (["year!=-5"], {"year": {"!=": -5}}),
        (["duration_s<=90.5", "x>.5e3"], {"duration_s": {"<=": 90.5}, "x": {">": 500.0}}),
        (["show='1984'", 'show="2001"'], {"show": {"in": ["1984", "2001"]}}),
        (["language=nan", "language=inf", "language=1_000"], {"language": {"in": ["nan", "inf", "1_000"]}}),
        (["formula=a=b<c"], {"formula": {"in": ["a=b<c"]}}),
        ([], {}),
    ],
)
def test_conditions_become_one_filter(conditions: list[str], meaning: dict[str, Any]) -> None:
    assert parse_where(conditions) == meaning


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (["language"], "where is 'language'; write it like"),
        (["=de"], "where is '=de'"),
        (["language="], "where is 'language='"),
        ([""], "where is ''"),
        (["language>de"], "'language>de' compares the token 'de' by >"),
        (["year>=2020", "year>=2021"], "'year>=2021' is the second >= of 'year'"),
    ],
)
def test_a_wrong_condition_is_named(conditions: list[str], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_where(conditions)
    assert words in caught.value.message

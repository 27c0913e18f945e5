"""Which texts are refused, and how."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.embedding import check_texts
from earshot.errors import InvalidArgument


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], "^text is blank"),
        (["fine", " \t\n\u00a0"], "^text 1 of 2 is blank"),
        (["fine", 7], "^text 1 of 2 must be a string, not int"),
        ([None], "^text must be a string, not NoneType"),
        (["cut in half: \ud83c"], "lone surrogate at character 13"),
        ("one string", "sequence of strings"),
    ],
)
def test_a_text_without_an_embedding_is_refused_by_name(texts: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        check_texts(texts)
    assert caught.value.field == "text"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: text.strip())))
def test_any_other_unicode_text_is_taken(texts: list[str]) -> None:
    check_texts(texts)

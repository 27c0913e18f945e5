"""A journal of each kind, so that one suite holds for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from earshot.index.journal import Journal, open_journal

Open = Callable[..., Journal]


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("database")
    return str(tmp_path / "journal.sqlite")


@pytest.fixture
def opened(address: str) -> Iterator[Open]:
    """Opens the test's journal; whatever is still open at the end is closed."""
    with ExitStack() as stack:

        def open_it(**options: bool) -> Journal:
            journal = open_journal(address, "podcasts", **options)
            stack.callback(journal.close)
            return journal

        yield open_it


@pytest.fixture
def journal(opened: Open) -> Journal:
    return opened()

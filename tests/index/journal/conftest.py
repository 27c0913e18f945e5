"""A journal of each kind, so that one suite holds for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from earshot.index.journal import Journal, open_journal

Open = Callable[..., Journal]


@pytest.fixture(params=["sqlite", "shared", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "postgres":
        return request.getfixturevalue("database")
    return str(tmp_path / "journal.sqlite")


@pytest.fixture
def opened(address: str, kind: str) -> Iterator[Open]:
    """Opens the test's journal; whatever is still open at the end is closed."""
    with ExitStack() as stack:

        def open_it(**options: bool) -> Journal:
            journal = open_journal(address, "podcasts", **{"shared": kind == "shared", **options})
            stack.callback(journal.close)
            return journal

        yield open_it


@pytest.fixture
def journal(opened: Open) -> Journal:
    return opened()

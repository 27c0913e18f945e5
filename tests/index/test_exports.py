from __future__ import annotations

import sys

import earshot.index


def test_all_is_sorted_and_complete() -> None:
    names = earshot.index.__all__
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(earshot.index))
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))


def test_nothing_is_imported_under_the_folders_bare_name() -> None:
    assert "index" not in sys.modules

"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_the_python_tour_runs_from_top_to_bottom(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    page = (ROOT / "docs" / "python.md").read_text()
    names: dict[str, object] = {"folder": tmp_path}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    blocks = re.findall(r"```(python|pycon)\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 5
    for kind, block in blocks:
        if kind == "python":
            exec(block, names)
            continue
        test = parser.get_doctest(block, names, "docs/python.md", None, 0)
        runner.run(test, out=said.append, clear_globs=False)
        names.update(test.globs)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)

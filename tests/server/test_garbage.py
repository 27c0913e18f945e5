"""Full garbage collections pass over what was loaded before an index is opened, and over nothing else."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
import earshot.server.run
from earshot.server.workers import spare_what_is_loaded

class Cycle:
    pass

before = len(gc.get_objects())
spare_what_is_loaded()
after = len(gc.get_objects())
made = Cycle()
made.itself = made
gone = weakref.ref(made)
del made
gc.collect()
print(before, after, gone() is None)
"""


def test_full_collections_pass_over_what_was_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after, is_collected = done.stdout.split()
    assert int(after) < int(before) / 100
    assert is_collected == "True"

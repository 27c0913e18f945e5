"""Starting a Python of our own from any server, also from the Python that is embedded in Envoy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["child_environment", "python"]

# With these Envoy finds the Python that it embeds; they would lead one that is a program astray.
_OF_ENVOY = {"LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "PYTHONHOME"}


def python() -> str:
    """The interpreter of our environment; an embedded one has no program of its own in `sys.executable`."""
    ours = Path(sys.prefix, "bin", "python3")
    return str(ours) if ours.exists() else sys.executable


def child_environment() -> dict[str, str]:
    """Variables with which `python` finds what we have imported."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_ENVOY}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

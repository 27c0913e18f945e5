"""The batch jobs: `rebuild` from text, `build` from vectors, `tune` what is there. Each publishes."""

from __future__ import annotations

from .build import BuildReport, BuildRequest, build
from .evaluate import tuned_on
from .rebuild import BadLimit, RebuildReport, RebuildRequest, rebuild
from .tune import TuneReport, TuneRequest, tune

__all__ = [
    "BadLimit",
    "BuildReport",
    "BuildRequest",
    "RebuildReport",
    "RebuildRequest",
    "TuneReport",
    "TuneRequest",
    "build",
    "rebuild",
    "tune",
    "tuned_on",
]

"""The batch jobs: `rebuild` from text, `build` from vectors, `tune` what is there. Each publishes."""

from __future__ import annotations

from .build import BuildReport, BuildRequest, build
from .compact import CompactReport, CompactRequest, compact
from .evaluate import tuned_on
from .journals import JournalReport, journal_report
from .rebuild import BadLimit, RebuildReport, RebuildRequest, rebuild
from .tune import TuneReport, TuneRequest, tune

__all__ = [
    "BadLimit",
    "BuildReport",
    "BuildRequest",
    "CompactReport",
    "CompactRequest",
    "JournalReport",
    "RebuildReport",
    "RebuildRequest",
    "TuneReport",
    "TuneRequest",
    "build",
    "compact",
    "journal_report",
    "rebuild",
    "tune",
    "tuned_on",
]

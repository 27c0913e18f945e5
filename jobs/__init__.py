"""The batch jobs: `rebuild` from text, `build` from vectors, `tune` what is there. Each publishes."""

from __future__ import annotations

from .backup import BackedUp, Backup, backup, restore
from .build import BuildReport, BuildRequest, build
from .compact import CompactReport, CompactRequest, compact
from .evaluate import tuned_on
from .journals import JournalReport, journal_report
from .rebuild import BadLimit, RebuildReport, RebuildRequest, rebuild
from .tune import TuneReport, TuneRequest, tune

__all__ = [
    "BackedUp",
    "Backup",
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
    "backup",
    "build",
    "compact",
    "journal_report",
    "rebuild",
    "restore",
    "tune",
    "tuned_on",
]

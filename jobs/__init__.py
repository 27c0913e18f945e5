"""The batch rebuild: read, embed, build, evaluate, publish. One way through, each step once."""

from __future__ import annotations

from .rebuild import BadLimit, RebuildReport, RebuildRequest, rebuild

__all__ = ["BadLimit", "RebuildReport", "RebuildRequest", "rebuild"]

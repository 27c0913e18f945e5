"""`earshot compact`: a new version from the current one and the updates since."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import CacheDir, DataDir, IndexName, Journal, Json, store_of
from .output import console, print_json, progress_bars, recall_text

__all__ = ["compact"]


def compact(
    index: IndexName,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep for rollback.")] = 3,
    journal: Journal = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Build a new version from the current one and the updates since, tuned and measured as any build.

    A server over the same data folder swaps to it without a failed query and goes on with the updates that
    came meanwhile; it does all this by itself when many have gathered. The journal then drops what every
    kept version holds.
    """
    from earshot.jobs import CompactRequest
    from earshot.jobs import compact as run_job
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir, journal=journal)
    request = CompactRequest(index=index, journal=settings.journal, keep=keep)
    with progress_bars() as progress:
        report = run_job(request, store=store_of(data_dir, cache_dir), progress=progress)
    if json:
        print_json(report)
        return
    if not report.published:
        console.print(
            f"nothing to compact: {index} {report.version or '(no version)'} stays", highlight=False
        )
        return
    assert report.recall is not None
    console.print(
        f"published [bold]{index} {report.version}[/]: {report.updates} updates up to {report.sequence}, "
        f"{report.datapoints} datapoints, recall {recall_text(report.recall)} on {report.engine}, "
        f"{sum(report.seconds.values()):.1f} s\ntuned on {report.tuned_on}; "
        f"the journal is trimmed up to {report.trimmed}",
        highlight=False,
    )

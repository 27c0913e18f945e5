"""`earshot tune`: measure anew what it takes to reach the recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import CacheDir, DataDir, IndexName, Json, TuningQueries, store_of
from .output import console, plain_table, print_json, progress_bars, recall_text

if TYPE_CHECKING:
    from earshot.index import OperatingPoint

__all__ = ["tune"]


def tune(
    index: IndexName,
    queries: TuningQueries = None,
    target_recall: Annotated[
        float | None, typer.Option(help="Another recall to serve by default.", show_default=False)
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Measure an index's operating points anew, on real queries, and publish the table.

    The new version shares its files with the old one, so this takes no room; `earshot rollback` takes it
    back. Without --queries the titles of the documents ask, or, where there are none, a sample of the
    vectors, which flatters where queries come from elsewhere. One half of the queries tunes, the other
    measures what came of it.
    """
    from earshot.jobs import TuneRequest
    from earshot.jobs import tune as run_job
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir)
    request = TuneRequest(index=index, queries=queries, target_recall=target_recall)
    with progress_bars() as progress:
        report = run_job(
            request,
            store=store_of(data_dir, cache_dir),
            cache_dir=settings.cache_dir,
            progress=progress,
        )
    if json:
        print_json(report)
        return
    console.print(
        f"published [bold]{report.index} {report.version}[/]: recall {report.target_recall:g} asked for, "
        f"tuned on {report.tuned_on}",
        highlight=False,
        soft_wrap=True,
    )
    before = recall_text(report.recall_before) if report.recall_before else "-"
    rows = [
        ("recall", before, recall_text(report.recall)),
        ("operating point", _point_text(report.point_before), _point_text(report.point)),
        ("cost, × exact search", f"{report.point_before.cost:.4f}", f"{report.point.cost:.4f}"),
    ]
    console.print(plain_table(("", "before", "now"), rows))


def _point_text(point: OperatingPoint) -> str:
    return f"{point.leaves} leaves, {point.candidates} candidates" if point.leaves else "exact search"

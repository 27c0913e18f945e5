"""`earshot rebuild`: source files in, a published version out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .options import CacheDir, DataDir, DropLiveUpdates, IndexName, Journal, Json, Shards, TuningQueries
from .output import console, print_json, progress_bars

if TYPE_CHECKING:
    from earshot.embedding import Precision
    from earshot.jobs import RebuildReport

__all__ = ["print_report", "rebuild"]


def rebuild(
    index: IndexName,
    source: Annotated[
        list[str],
        typer.Option(
            help="Feed (file or address), JSON lines file (plain or .gz) or folder. May be repeated.",
            show_default=False,
        ),
    ],
    transcripts: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file or folder of transcripts (JSON lines, VTT, SRT). May be repeated.",
            show_default=False,
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KEY",
            help="Which key of a JSON line is the id, title, show, text, date, language, url or duration_s, "
            "such as text=body.summary; extra=KEY keeps another key. May be repeated.",
            show_default=False,
        ),
    ] = None,
    max_bad: Annotated[
        str, typer.Option(help="Bad records to skip before giving up: a share or a number.")
    ] = "1%",
    target_recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true neighbors that a search shall find (default: what the index was created "
            "with, or 0.99).",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="What the model computes in: int8, float32, or bfloat16 on a GPU with PyTorch (float32 "
            "elsewhere)."
        ),
    ] = "int8",
    shards: Shards = None,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep for rollback.")] = 3,
    force: Annotated[bool, typer.Option("--force", help="Build although nothing has changed.")] = False,
    tuning_queries: TuningQueries = None,
    journal: Journal = None,
    drop_live_updates: DropLiveUpdates = False,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Read sources, embed what is new, build an index, measure its recall and publish it.

    A server over the same data folder picks the new version up without a failed query. A killed run
    resumes; a run over unchanged sources does nothing.
    """
    from earshot.jobs import BadLimit, RebuildRequest
    from earshot.jobs import rebuild as run_job
    from earshot.jobs.sources import field_mapping
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir, journal=journal)
    request = RebuildRequest(
        index=index,
        sources=source,
        transcripts=transcripts or (),
        mapping=field_mapping(field) if field else None,
        max_bad=BadLimit.parse(max_bad),
        target_recall=target_recall,
        precision=cast("Precision", precision),
        shards=shards,
        keep=keep,
        drop_live_updates=drop_live_updates,
        journal=settings.journal,
        force=force,
        tuning_queries=tuning_queries,
    )
    with progress_bars() as progress:
        report = run_job(request, data_dir=settings.data_dir, cache_dir=settings.cache_dir, progress=progress)
    if json:
        print_json(report)
    else:
        print_report(report)


def print_report(report: RebuildReport) -> None:
    """The job's result in a few lines."""
    if report.published:
        console.print(
            f"published [bold]{report.index} {report.version}[/]: {report.documents} documents, "
            f"{report.datapoints} datapoints ({report.embedded} embedded now), "
            f"recall {report.recall:.4f} [{report.recall_low:.4f}, {report.recall_high:.4f}] "
            f"on {report.engine}, {sum(report.seconds.values()):.1f} s\ntuned on {report.tuned_on}",
            highlight=False,
        )
    else:
        console.print(f"nothing has changed: {report.index} {report.version} stays", highlight=False)
    if report.bad_records or report.warnings:
        console.print(
            f"{report.bad_records} bad records skipped, {report.warnings} warnings:", highlight=False
        )
        for line in report.first_bad_records[:10]:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)

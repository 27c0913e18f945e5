"""`earshot build`: a file of vectors in, a published version out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    CacheDir,
    DataDir,
    DropLiveUpdates,
    IndexName,
    Journal,
    Json,
    Shards,
    TuningQueries,
    store_of,
)
from .output import console, parts_table, print_json, progress_bars, recall_text

__all__ = ["build"]


def build(
    index: IndexName,
    vectors: Annotated[
        Path,
        typer.Option(
            help="File of vectors: .npy, .npz, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, .parquet, "
            ".arrow, .feather, .hdf5. Other columns of a table become metadata.",
            show_default=False,
        ),
    ],
    vector_column: Annotated[
        str | None,
        typer.Option(help="Column or array of vectors, if not plain.", show_default=False),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of ids (default: id, if there is one).", show_default=False)
    ] = None,
    crowding_column: Annotated[
        str | None,
        typer.Option(help="Column of crowding tags (default: crowding_tag, if any).", show_default=False),
    ] = None,
    restrict: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column of the table that searches can filter by (--where). May be repeated.",
            show_default=False,
        ),
    ] = None,
    ids: Annotated[Path | None, typer.Option(help="Text file with an id a line.", show_default=False)] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="DOT_PRODUCT_DISTANCE, COSINE_DISTANCE, SQUARED_L2_DISTANCE or L1_DISTANCE "
            "(default: what the file says, or the dot product).",
            show_default=False,
        ),
    ] = None,
    unit_norm: Annotated[
        bool, typer.Option("--unit-norm", help="Scale vectors and queries to length 1.")
    ] = False,
    engine: Annotated[
        str | None, typer.Option(help="auto, or the name of an engine (default: auto).", show_default=False)
    ] = None,
    target_recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true neighbors that a search shall find (default: what the index was created "
            "with, or 0.95).",
            show_default=False,
        ),
    ] = None,
    shards: Shards = None,
    tuning_queries: TuningQueries = None,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep for rollback.")] = 3,
    journal: Journal = None,
    drop_live_updates: DropLiveUpdates = False,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Build an index from vectors that you bring, measure its recall and publish it.

    The file is mapped, or converted on disk, never held in memory whole; the engine makes its own copy of
    the vectors. Such an index is searched by vector and by datapoint id: it knows no model, so no text.
    """
    from earshot.jobs import BuildRequest
    from earshot.jobs import build as run_job
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir, journal=journal)
    request = BuildRequest(
        index=index,
        vectors=vectors,
        vector_column=vector_column,
        id_column=id_column,
        crowding_column=crowding_column,
        restricts=restrict or (),
        ids=ids,
        distance_measure=measure,
        feature_norm="UNIT_L2_NORM" if unit_norm else None,
        engine=engine,
        target_recall=target_recall,
        shards=shards,
        tuning_queries=tuning_queries,
        keep=keep,
        drop_live_updates=drop_live_updates,
        journal=settings.journal,
    )
    with progress_bars() as progress:
        report = run_job(request, store=store_of(data_dir, cache_dir), progress=progress)
    if json:
        print_json(report)
        return
    console.print(
        f"published [bold]{report.index} {report.version}[/]: {report.datapoints} × {report.dimension}, "
        f"{report.distance_measure}, recall {recall_text(report.recall)} on {report.engine}, "
        f"{sum(report.seconds.values()):.1f} s\ntuned on {report.tuned_on}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(parts_table(report.parts))

"""`earshot rebuild`: source files in, a published version out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from earshot.errors import InvalidArgument

from .options import (
    CacheDir,
    DataDir,
    DropLiveUpdates,
    IndexName,
    Journal,
    Json,
    Server,
    Shards,
    TuningQueries,
    client_of,
)
from .output import console, print_json, progress_bars

if TYPE_CHECKING:
    from earshot.client import Client, Operation
    from earshot.embedding import Precision
    from earshot.jobs import RebuildReport

__all__ = ["print_report", "rebuild"]


def rebuild(
    index: IndexName,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Feed (file or address), JSON lines file (plain or .gz) or folder. May be repeated. "
            "A server reads those of its current version again where none is given.",
            show_default=False,
        ),
    ] = None,
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
    server: Server = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Read sources, embed what is new, build an index, measure its recall and publish it.

    A server over the same data folder picks the new version up without a failed query. A killed run
    resumes; a run over unchanged sources does nothing.

    With --server the server does it, at low priority, and goes on where this command is stopped: `source`,
    `transcripts`, `field`, `max-bad`, `keep` and `force` are passed on, all else is the index's config there.
    """
    if server is not None:
        own = {
            "--target-recall": target_recall,
            "--shards": shards,
            "--tuning-queries": tuning_queries,
            "--journal": journal,
            "--drop-live-updates": drop_live_updates or None,
            "--precision": None if precision == "int8" else precision,
        }
        _check_passed_on([flag for flag, value in own.items() if value is not None])
        paths = [str(each) for each in transcripts or ()]
        with client_of(server, data_dir) as client:
            started = client.rebuild(
                index,
                source or (),
                transcripts=paths,
                fields=field or (),
                max_bad=max_bad,
                keep=keep,
                force=force,
            )
            if not json:
                console.print(f"{started.name} runs on the server", highlight=False, soft_wrap=True)
            done = _followed(client, started)
        _print_done(done, json=json)
        return
    if not source:
        raise InvalidArgument(
            "sources: give at least one --source: a file, folder or address", field="source"
        )
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


def _check_passed_on(flags: list[str]) -> None:
    if flags:
        raise InvalidArgument(
            f"{' and '.join(flags)} cannot be passed on to a server, which builds as the index's config says",
            field="server",
        )


def _followed(client: Client, started: Operation) -> Operation:
    """The job at its end, with bars until then. Raises what it failed with."""
    with progress_bars() as advance:

        def progress(now: Operation) -> None:
            if now.step:
                advance(now.step, now.step_done, now.step_total)

        return client.wait(started, progress=progress)


def _print_done(done: Operation, *, json: bool) -> None:
    report = done.report
    assert report is not None
    version = report.index_version.removeprefix("indexes/").replace("/versions/", " ")
    if json:
        print_json(done)
    elif report.published:
        console.print(
            f"published [bold]{version}[/]: {report.documents} documents, {report.datapoints} datapoints "
            f"({report.embedded} embedded now), recall {report.measured_recall:.4f} "
            f"[{report.measured_recall_low:.4f}, {report.measured_recall_high:.4f}], "
            f"{report.bad_records} bad records",
            highlight=False,
        )
    else:
        console.print(f"nothing has changed: {version} stays", highlight=False)


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

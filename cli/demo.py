"""`earshot demo`: sample podcasts in, neighbours out, and a server to play with."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.errors import NotFound

from .options import CacheDir, DataDir
from .output import console, progress_bars, results_table
from .rebuild import print_report

if TYPE_CHECKING:
    from earshot.server import Addresses, Settings

__all__ = ["demo"]

EXAMPLES = (
    "why does my sourdough collapse",
    "how does bitcoin mining affect the power grid",
    "my voice shakes when I speak in public",
)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the example searches.")] = False,
    feed: Annotated[
        str | None, typer.Option(help="A feed of your own, file or address, in place of the samples.")
    ] = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Build an index from sample podcasts, search it over gRPC, and serve it until Ctrl-C.

    The samples become the index `podcasts`. A feed of your own becomes the index `my-podcasts` and is
    searched for three of its own titles. The second time nothing is done again that has not changed.
    """
    from earshot.jobs import RebuildRequest
    from earshot.jobs import rebuild as run_job
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir)
    index = "my-podcasts" if feed else "podcasts"
    request = RebuildRequest(index=index, sources=[feed or _sample_feeds()])
    with progress_bars() as progress:
        report = run_job(request, data_dir=settings.data_dir, cache_dir=settings.cache_dir, progress=progress)
    print_report(report)
    asyncio.run(_serve(settings, index, report.sample_titles if feed else EXAMPLES, once=once))


async def _serve(settings: Settings, index: str, examples: Sequence[str], *, once: bool) -> None:
    from earshot.server import running_with

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_with(settings) as addresses:
        await asyncio.to_thread(_show_examples, addresses, index, examples)
        if once:
            return
        console.print(
            f"\nserving gRPC at [bold]{addresses.grpc}[/] and HTTP at [bold]{addresses.http}[/] "
            f"(API page: {addresses.http}/docs), until Ctrl-C. Try:\n"
            f"  {_program()} search {index} 'whatever comes to your mind' --server {addresses.grpc}",
            highlight=False,
            soft_wrap=True,
        )
        await stop.wait()


def _show_examples(addresses: Addresses, index: str, examples: Sequence[str]) -> None:
    from earshot.client import Client

    # A data folder that has tokens asks for one here too.
    with Client(addresses.grpc, token=os.environ.get("EARSHOT_TOKEN")) as client:
        client.search(index, "warm up", k=1)  # loads the model, so that the times shown are of searches
        for text in examples:
            console.print(f"\n[bold cyan]{text}[/]\n")
            console.print(results_table(client.search(index, text, k=3)))


def _program() -> str:
    """How this program can be called from here."""
    return "earshot" if shutil.which("earshot") else os.path.relpath(sys.argv[0])


def _sample_feeds() -> Path:
    folder = Path(str(resources.files("earshot.samples").joinpath("README.md"))).resolve().parent
    if not any(folder.glob("*/feed.xml")):
        raise NotFound(
            f"the sample feeds are not in {folder}; name a feed of your own with --feed", field="feed"
        )
    return folder

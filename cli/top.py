"""`earshot top`: what a running server is doing, as a table that keeps itself up to date."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from earshot.errors import EarshotError, Unavailable

from .options import Json, connection
from .output import console, print_json
from .scrape import IndexRow, Reading, ServerLine, index_rows, server_line

__all__ = ["top"]

TIMEOUT_SECONDS = 5.0
WIDE = 130  # characters; in less there is no room for the stages
STAGES = frozenset({"queue", "embed", "engine", "encode", "datapoints"})
COLUMNS = (
    *("index", "version", "datapoints", "queries/s", "p50 ms", "p99 ms"),
    *("queue", "embed", "engine", "encode", "batch", "waiting", "errors/s", "recall"),
)


def top(
    server: Annotated[
        str, typer.Option(help="Address of the server's HTTP, such as https://search.example:8080.")
    ] = "http://127.0.0.1:8080",
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, print, and exit.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a server does now: queries a second, how long they take and where, errors, recall.

    Times are of the last interval: p50 and p99 of whole requests, then the mean of each of their parts in
    milliseconds: waiting in the queue, embedding text, the engine, encoding the answer. `batch` is how many
    queries went to the engine together. `recall` is that of real searches with its 95 % interval, once enough
    of them were asked again exactly: red where it is short of what was promised; before, in grey, what was
    measured when the index was built.
    """
    scrape = _Scrape(server)
    try:
        before = scrape.reading()
        if once or as_json:
            time.sleep(interval)
            after = scrape.reading()
            line, rows = server_line(before, after), index_rows(before, after)
            if as_json:
                print_json({"server": line._asdict(), "indexes": [row._asdict() for row in rows]})
            else:
                console.print(_screen(server, line, rows))
            return
        with Live(_screen(server, None, []), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                try:
                    after = scrape.reading()
                except EarshotError as error:
                    live.update(Text(f"{error.message}; trying again", "bold red"), refresh=True)
                    continue
                live.update(
                    _screen(server, server_line(before, after), index_rows(before, after)), refresh=True
                )
                before = after
    except KeyboardInterrupt:
        return
    finally:
        scrape.close()


class _Scrape:
    """Reads a server's `/metrics`, with the token and certificates that the options name."""

    def __init__(self, server: str) -> None:
        self._server = server if "://" in server else f"http://{server}"
        self._pages = connection.get().pages(self._server)

    def reading(self) -> Reading:
        """Raises as the client does, and Unavailable where there is no such page."""
        try:
            page = self._pages.page("/metrics", TIMEOUT_SECONDS).decode()
        except EarshotError as error:
            error.message = f"{self._server}/metrics: {error.message}"
            raise
        if "earshot_build_info" not in page:
            raise Unavailable(f"{self._server}/metrics is not that of an earshot server", field="server")
        return Reading(page, time.monotonic())

    def close(self) -> None:
        """Lets go of the connection."""
        self._pages.close()


def _screen(server: str, line: ServerLine | None, rows: list[IndexRow]) -> Group:
    if line is None:
        return Group(Text(f"{server}: looking", "dim"))
    head = Text.assemble(
        (f"{server}  ", "bold"),
        f"earshot {line.version} ({line.transport})  in flight {line.in_flight}  "
        f"CPU {line.cpu_percent:.0f} %  memory {line.memory_megabytes:,.0f} MB",
    )
    if line.unnamed_errors_per_second:
        head.append(f"  errors without an index {line.unnamed_errors_per_second:,.1f}/s", "red")
    return Group(head, Text(), _table(rows) if rows else Text("no index is served", "yellow"))


def _table(rows: list[IndexRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    is_wide = console.width >= WIDE
    for column in COLUMNS:
        if is_wide or column not in STAGES:
            table.add_column(
                column, justify="left" if column in {"index", "version"} else "right", no_wrap=True
            )
    for row in rows:
        cells: dict[str, str | Text] = {
            "index": Text(row.name, "red" if row.problem else ""),
            "version": f"{row.version}{' !' if row.problem else ''}",
            "datapoints": f"{row.datapoints:,}",
            "queries/s": f"{row.queries_per_second:,.1f}",
            "p50 ms": _shown(row.p50_ms),
            "p99 ms": _shown(row.p99_ms),
            "queue": _shown(row.queue_ms),
            "embed": _shown(row.embed_ms),
            "engine": _shown(row.engine_ms),
            "encode": _shown(row.encode_ms),
            "batch": _shown(row.batch, 1),
            "waiting": f"{row.waiting:,}" if row.waiting else "",
            "errors/s": Text(f"{row.errors_per_second:,.1f}" if row.errors_per_second else "", "red"),
            "recall": _recall(row),
        }
        table.add_row(*(cells[column] for column in COLUMNS if is_wide or column not in STAGES))
    return table


def _recall(row: IndexRow) -> Text:
    """That of real searches with its interval; dim where it is known of the build alone."""
    if row.recall_low is None or row.recall_high is None or row.target_recall is None:
        return Text(_shown(row.recall, 4), "dim")
    style = "red" if row.recall_high < row.target_recall else ""
    return Text(f"{row.recall:.4f} [{row.recall_low:.4f}, {row.recall_high:.4f}]", style)


def _shown(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"

"""What a person or a program sees: tables, JSON, error lines and progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from earshot.errors import EarshotError, InvalidArgument, NotFound

__all__ = [
    "console",
    "exit_code",
    "plain_table",
    "print_error",
    "print_json",
    "progress_bars",
    "results_table",
]

console = Console()
_stderr = Console(stderr=True)

SNIPPET_CHARACTERS = 220


def exit_code(error: EarshotError) -> int:
    """2 where the call was wrong, 1 where the work failed."""
    return 2 if isinstance(error, InvalidArgument | NotFound) else 1


def print_error(error: EarshotError) -> None:
    """One line on standard error."""
    _stderr.print(f"[bold red]error:[/] {_escape(error.message)}", highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """`value` as indented JSON on standard output."""
    console.print(
        msgspec.json.format(msgspec.json.encode(value), indent=2).decode(),
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table without frills; numbers stand at the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[position], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        table.add_row(*(_escape(_shown(value)) for value in row))
    return table


def results_table(hits: Sequence[tuple[float, dict[str, Any]]]) -> Table:
    """Search results: score and metadata as title, show, date and snippet, and when it is spoken."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("episode", ratio=2)
    table.add_column("date", no_wrap=True)
    table.add_column("snippet", ratio=4)
    for score, metadata in hits:
        title = _escape(str(metadata.get("title") or ""))
        show = _escape(str(metadata.get("show") or ""))
        snippet = " ".join(str(metadata.get("snippet") or "").split())
        if len(snippet) > SNIPPET_CHARACTERS:
            snippet = snippet[:SNIPPET_CHARACTERS].rsplit(" ", 1)[0] + " …"
        start = metadata.get("start_s")
        when = f"[cyan]at {_clock(start)}[/] " if start is not None else ""
        table.add_row(
            f"{score:.3f}",
            f"[bold]{title}[/]\n[dim]{show}[/]",
            str(metadata.get("date") or ""),
            when + _escape(snippet),
        )
    return table


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on standard error; the function takes (step, done, total) and draws a bar a step."""
    bars = Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=_stderr,
    )
    tasks: dict[str, Any] = {}
    with bars:

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield advance


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")

"""What a person or a program sees: tables, JSON, error lines and progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from earshot.errors import EarshotError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from earshot.client import SearchResults
    from earshot.index import Part, Recall

__all__ = [
    "console",
    "exit_code",
    "parts_table",
    "plain_table",
    "print_error",
    "print_json",
    "print_note",
    "progress_bars",
    "recall_text",
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
    _stderr.print(f"[bold red]error:[/] {escape(error.message)}", highlight=False, soft_wrap=True)


def print_note(text: str) -> None:
    """One line for people on standard error, beside what a program may read."""
    _stderr.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """`value` as indented JSON on standard output."""
    console.print(
        msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode(),
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
        table.add_row(*(escape(_shown(value)) for value in row))
    return table


def recall_text(recall: Recall) -> str:
    """A measured recall with its 95 % interval."""
    return f"{recall.value:.4f} [{recall.low:.4f}, {recall.high:.4f}]"


def parts_table(parts: Sequence[Part]) -> Table:
    """Bytes on disk by part, and what they come to a vector."""
    rows = [(part.name, f"{part.bytes / 1e6:.2f}", f"{part.bytes_a_vector:.1f}") for part in parts]
    total = sum(part.bytes for part in parts), sum(part.bytes_a_vector for part in parts)
    rows.append(("all", f"{total[0] / 1e6:.2f}", f"{total[1]:.1f}"))
    return plain_table(("part", "MB", "bytes a vector"), rows)


def results_table(found: SearchResults) -> Group:
    """Search results as title, show, date, score and snippet, and what the query took."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("episode", ratio=2)
    table.add_column("date", no_wrap=True)
    table.add_column("snippet", ratio=4)
    for hit in found:
        metadata = hit.metadata
        snippet = " ".join(str(metadata.get("snippet") or "").split())
        if len(snippet) > SNIPPET_CHARACTERS:
            snippet = snippet[:SNIPPET_CHARACTERS].rsplit(" ", 1)[0] + " …"
        start = metadata.get("start_s")
        spoken = "" if start is None else f"[cyan]at {_clock(start)}[/] "
        title = str(metadata.get("title") or hit.id)
        table.add_row(
            f"{hit.score:.3f}",
            f"[bold]{escape(title)}[/]\n[dim]{escape(str(metadata.get('show') or ''))}[/]",
            str(metadata.get("date") or ""),
            spoken + escape(snippet),
        )
    embedding = f"embedding {1000 * found.embed_seconds:.1f} ms, " if found.embed_seconds is not None else ""
    took = f"{embedding}search {1000 * found.search_seconds:.1f} ms, {found.index_version}"
    return Group(table if len(found) else "no results", f"[dim]{took}[/]")


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


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # a NumPy array
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)

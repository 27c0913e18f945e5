"""`earshot upsert`: datapoints from JSON lines, written durably, a running server's or the data folder's."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from earshot.errors import EarshotError, InvalidArgument

from .lines import datapoint_from
from .options import CacheDir, DataDir, IndexName, Json, Server, client_of
from .output import console, print_error, print_json, progress_bars

__all__ = ["opened_lines", "upsert"]

BATCH = 1_000
MAX_SHOWN = 20


def upsert(
    index: IndexName,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="JSON lines: id and vector or text, and perhaps crowding_tag, metadata, restricts "
            '({"language": ["de"], "year": 2020}); the keys of Google\'s files are known too. - reads the '
            "standard input.",
            show_default=False,
        ),
    ],
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Write only this part of datapoints that exist: all_restricts, embedding_metadata, "
            "crowding_tag or feature_vector. May be repeated.",
            show_default=False,
        ),
    ] = None,
    server: Server = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Write datapoints, new ones and in place of others. Each is durable, and seen by searches, when counted.

    Lines that are wrong are told by their number, the others are written; the exit code is then 1.
    """
    written = sequence = done = 0
    wrong: list[tuple[int, str]] = []
    with client_of(server, data_dir, cache_dir) as client, progress_bars() as progress:
        started = time.perf_counter()
        for batch in _batches(file):
            points, numbers = [], []
            for number, line in batch:
                try:
                    points.append(datapoint_from(line, number))
                    numbers.append(number)
                except InvalidArgument as error:
                    wrong.append((number, error.message.partition(": ")[2]))
            if points:
                told = client.upsert(index, points, update_mask=mask or ())
                wrong += [(numbers[place], error.message) for place, error in told.errors.items()]
                written, sequence = written + told.count, max(sequence, told.sequence)
            done += len(batch)
            progress("upsert", done, done)
    seconds = time.perf_counter() - started
    if json:
        errors = [{"line": number, "message": message} for number, message in sorted(wrong)]
        print_json({"written": written, "sequence": sequence, "seconds": seconds, "errors": errors})
    else:
        for number, message in sorted(wrong)[:MAX_SHOWN]:
            print_error(EarshotError(f"line {number}: {message}"))
        if len(wrong) > MAX_SHOWN:
            print_error(EarshotError(f"and {len(wrong) - MAX_SHOWN} lines more"))
        console.print(
            f"wrote {written} datapoints to {index} in {seconds:.1f} s "
            f"({written / max(seconds, 1e-9):,.0f}/s), up to sequence number {sequence}; "
            f"{len(wrong)} lines were wrong",
            highlight=False,
        )
    if wrong:
        raise typer.Exit(1)


def opened_lines(file: str) -> Iterator[bytes]:
    """The lines of a file, or of the standard input for `-`. Raises InvalidArgument where there is none."""
    if file == "-":
        yield from sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as stream:
            yield from stream
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}", field="file") from error


def _batches(file: str) -> Iterator[list[tuple[int, bytes]]]:
    numbered = ((number, line) for number, line in enumerate(opened_lines(file), 1) if line.strip())
    while batch := list(itertools.islice(numbered, BATCH)):
        yield batch

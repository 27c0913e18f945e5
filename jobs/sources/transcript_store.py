"""Transcripts found by episode id while the documents stream past.

The text lies in an anonymous temporary file, only ids and offsets in memory: transcripts are far
larger than what they belong to, and come in another order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from .document import BadRecord, OnBad
from .files import Kind, SourceFile, read_lines, read_whole
from .passages import Segment
from .transcripts import TranscriptError, parse_captions, parse_record


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    length: int
    kind: Kind
    origin: str


class TranscriptStore:
    """JSON lines transcripts by `id`, caption files by file name without extension.

    Every record is checked when it is added, so that `get` cannot fail on it.
    """

    def __init__(self) -> None:
        """Opens the temporary file; leaving the `with` block removes it."""
        self._spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._places: dict[str, _Place] = {}

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes and thereby removes the temporary file."""
        self._spool.close()

    def add(self, file: SourceFile, on_bad: OnBad, advance: Callable[[int], None]) -> None:
        """Takes in every transcript of `file`; what cannot be read is reported and left out."""
        lines: Iterable[tuple[int | None, bytes | None]] = (
            [(None, read_whole(file.path))] if file.kind is Kind.CAPTIONS else read_lines(file.path, advance)
        )
        for number, data in lines:
            try:
                self._add_one(file, number, data)
            except TranscriptError as error:
                on_bad(BadRecord(file.name, number, f"transcript left out: {error}", drops_document=False))

    def _add_one(self, file: SourceFile, line: int | None, data: bytes | None) -> None:
        if data is None:
            raise TranscriptError("the line is too long")
        if file.kind is Kind.CAPTIONS:
            key = file.path.name.removesuffix(".gz").rpartition(".")[0]
            parse_captions(data)
        else:
            key, _ = parse_record(data)
        if key in self._places:
            raise TranscriptError(f"the one of {key!r} was already read from {self._places[key].origin}")
        origin = file.name if line is None else f"{file.name}:{line}"
        self._places[key] = _Place(self._spool.seek(0, os.SEEK_END), len(data), file.kind, origin)
        self._spool.write(data)

    def get(self, key: str) -> tuple[Segment, ...]:
        """The segments of the transcript with this id; none where there is none."""
        place = self._places.get(key)
        if place is None:
            return ()
        self._spool.seek(place.offset)
        data = self._spool.read(place.length)
        return parse_captions(data) if place.kind is Kind.CAPTIONS else parse_record(data)[1]

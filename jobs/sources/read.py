"""All sources of a rebuild as one stream of documents, each id once.

What makes a source unusable is said before the first document; what is wrong with a single record
is told to `on_bad` and the stream goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import httpx

from earshot.errors import InvalidArgument

from .document import BadRecord, Document, OnBad
from .fetch import fetch, http_client, is_url, public_name
from .files import TRANSCRIPTS, Kind, SourceFile, find_files, read_whole
from .jsonl import FieldMapping, read_records
from .passages import passages
from .rss import FeedPlace, read_feed
from .transcript_store import TranscriptStore

Progress: TypeAlias = Callable[[int, int], None]
_REPORT_EVERY_BYTES = 65536


def read_documents(
    sources: Sequence[str | Path],
    *,
    mapping: FieldMapping | None = None,
    transcripts: Sequence[str | Path] = (),
    on_bad: OnBad,
    progress: Progress | None = None,
) -> Iterator[Document]:
    """The documents of feeds and JSON lines files, in the order of `sources`.

    A source is a file, a folder (searched recursively) or the http(s) address of a feed; what a file
    is, its content tells. `transcripts` are files or folders of JSON lines, WebVTT or SubRip (these
    named after the episode's id); such files among `sources` count as well. `progress` hears bytes
    read and bytes in all, compressed as they lie; a fetched feed adds to both when it has arrived.

    Raises:
        NotFound: a source does not exist (a file, or HTTP 404).
        InvalidArgument: a source is empty, binary, cut short, of no known kind, or there is none.
        PermissionDenied, Unavailable: a source cannot be opened, or fetched.
    """
    if not sources:
        raise InvalidArgument("sources: at least one file, folder or feed address is needed", field="sources")
    spoken = find_files(transcripts, field="transcripts", suffixes=TRANSCRIPTS)
    for file in spoken:
        if file.kind not in (Kind.TRANSCRIPTS, Kind.CAPTIONS):
            raise InvalidArgument(
                f"transcripts: {file.name} is {file.kind.value}, not transcripts", field="transcripts"
            )
    taken = {file.path.resolve() for file in spoken}
    found: list[str | SourceFile] = []
    for source in sources:
        if is_url(source):
            found.append(str(source))
            continue
        for file in find_files([source], field="sources"):
            if file.path.resolve() not in taken:
                taken.add(file.path.resolve())
                (spoken if file.kind in (Kind.TRANSCRIPTS, Kind.CAPTIONS) else found).append(file)
    if not found:
        raise InvalidArgument(
            "sources: only transcripts were given, no feed and no documents", field="sources"
        )
    return _documents(found, spoken, mapping or FieldMapping(), on_bad, progress)


def _documents(
    found: Sequence[str | SourceFile],
    spoken: Sequence[SourceFile],
    mapping: FieldMapping,
    on_bad: OnBad,
    progress: Progress | None,
) -> Iterator[Document]:
    files = [source for source in found if isinstance(source, SourceFile)]
    meter = _Meter(sum(file.size for file in (*files, *spoken)), progress)
    origins: dict[str, str] = {}
    with TranscriptStore() as store, http_client() as client:
        for file in spoken:
            store.add(file, on_bad, meter.within)
            meter.finished(file.size)
        for source in found:
            for document in _one_source(source, mapping, client, meter, on_bad):
                first = origins.setdefault(document.id, document.origin)
                if first is not document.origin:
                    name, _, line = document.origin.rpartition(":")
                    reason = f"duplicate id: {document.id!r} was already read from {first}"
                    on_bad(BadRecord(name, int(line), reason))
                elif not document.passages and (segments := store.get(document.id)):
                    yield replace(document, passages=passages(segments))
                else:
                    yield document
            if isinstance(source, SourceFile):
                meter.finished(source.size)


def _one_source(
    source: str | SourceFile, mapping: FieldMapping, client: httpx.Client, meter: _Meter, on_bad: OnBad
) -> Iterator[Document]:
    if isinstance(source, SourceFile) and source.kind is Kind.RECORDS:
        return read_records(source, mapping, on_bad, meter.within)
    if isinstance(source, SourceFile):
        data = read_whole(source.path)
        place = FeedPlace(source.name, folder=source.path.resolve().parent, root=source.root)
    else:
        data, address = fetch(client, source)
        place = FeedPlace(public_name(source), url=address)
        if not data.strip():
            raise InvalidArgument(f"sources: {place.name} answered with nothing", field="sources")
        meter.arrived(len(data))
    return read_feed(data, place, lambda url: fetch(client, url)[0], on_bad)


class _Meter:
    """Adds up how far the files have been read; reports when it has moved enough to be seen."""

    def __init__(self, total: int, report: Progress | None) -> None:
        self._report = report
        self._total = total
        self._before = 0
        self._reported = 0

    def within(self, position: int) -> None:
        """`position` bytes of the present file have been read."""
        done = min(self._before + position, self._total)
        if self._report and done - self._reported >= _REPORT_EVERY_BYTES:
            self._reported = done
            self._report(done, self._total)

    def finished(self, size: int) -> None:
        """The present file, of `size` bytes, is done."""
        self._before += size
        self._reported = self._before
        if self._report:
            self._report(self._before, self._total)

    def arrived(self, size: int) -> None:
        """A feed of `size` bytes came from the network, and was not in the total."""
        self._total += size
        self.finished(size)

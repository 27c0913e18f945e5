"""Files as they lie on disk: found in folders, told apart by content, read as lines or whole.

A file that cannot be a source at all (missing, empty, binary, cut short) fails the job from here.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Final, cast

from earshot.errors import InvalidArgument, NotFound, PermissionDenied

MAX_FEED_BYTES: Final = 64 * 2**20
MAX_LINE_BYTES: Final = 64 * 2**20
_HEAD_BYTES: Final = 65536
_JSON_LINES: Final = (".jsonl", ".ndjson", ".json")
SOURCES: Final = (".xml", ".rss", ".atom", *_JSON_LINES)
TRANSCRIPTS: Final = (".vtt", ".srt", *_JSON_LINES)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class Kind(Enum):
    """What a file's content turned out to be."""

    FEED = "an XML feed"
    RECORDS = "JSON lines of documents"
    TRANSCRIPTS = "JSON lines of transcripts"
    CAPTIONS = "WebVTT or SubRip captions"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `root` is the folder out of which its transcripts must not lead."""

    path: Path
    kind: Kind
    size: int
    root: Path

    @property
    def name(self) -> str:
        """The file as errors and origins name it."""
        return str(self.path)


def find_files(
    paths: Sequence[str | Path], *, field: str, suffixes: tuple[str, ...] = SOURCES
) -> list[SourceFile]:
    """The files that `paths` (files, and folders to be searched recursively) stand for, each once.

    In a folder, files are taken by extension, hidden ones left out, in sorted order.

    Raises:
        NotFound: a path does not exist.
        InvalidArgument: a file is empty, binary or of no known kind; a folder holds no source.
        PermissionDenied: the operating system said so.
    """
    found: dict[Path, SourceFile] = {}
    for named in paths:
        if not str(named):
            raise InvalidArgument(f"{field}: a path is empty", field=field)
        given = Path(named)
        if given.is_dir():
            candidates, root = list(_walk(given, suffixes)), given
            if not candidates:
                raise InvalidArgument(
                    f"{field}: the folder {given} holds no file with one of the extensions "
                    f"{', '.join(suffixes)} (or these with .gz)",
                    field=field,
                )
        else:
            candidates, root = [given], given.parent
        for path in candidates:
            found.setdefault(path.resolve(), _source_file(path, root.resolve(), field))
    return list(found.values())


def _walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().removesuffix(".gz").endswith(suffixes):
                yield Path(parent, name)


def _source_file(path: Path, root: Path, field: str) -> SourceFile:
    with opened(path) as (stream, raw):
        head = stream.read(_HEAD_BYTES)
        size = os.fstat(raw.fileno()).st_size
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise InvalidArgument(f"{field}: {path} is empty", field=field)
    return SourceFile(path, _kind(head, path, field), size, root)


def _kind(head: bytes, path: Path, field: str) -> Kind:
    is_utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not is_utf16 and (b"\0" in head or len(_CONTROL.findall(head)) > len(head) // 100):
        raise InvalidArgument(f"{field}: {path} is a binary file, not a feed or JSON lines", field=field)
    text = head.decode("utf-16" if is_utf16 else "utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if text.startswith("WEBVTT") or suffix in ("vtt", "srt"):
        return Kind.CAPTIONS
    if re.match(r"<(?:!doctype\s+html|html)\b", text, re.IGNORECASE):
        raise InvalidArgument(f"{field}: {path} is an HTML page, not a feed", field=field)
    if text.startswith("<"):
        return Kind.FEED
    if text.startswith("[") and suffix == "json":
        raise InvalidArgument(
            f"{field}: {path} is one JSON array; write one object a line (JSON lines)", field=field
        )
    if text.startswith("{") or suffix in ("jsonl", "ndjson"):
        is_transcript = re.match(r'\{[^\n]*?"segments"\s*:\s*\[\s*[\]{]', text)
        return Kind.TRANSCRIPTS if is_transcript else Kind.RECORDS
    raise InvalidArgument(f"{field}: {path} is neither an RSS feed nor JSON lines", field=field)


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file's bytes, unpacked where they are gzip (by content), and the raw file beneath.

    Raises:
        NotFound, PermissionDenied: the file cannot be opened.
        InvalidArgument: it is no regular file, or its gzip data is cut short or broken.
    """
    try:
        # Asked before opening: to open a pipe would wait for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidArgument(f"{path} is not a regular file")
        raw = path.open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist") from error
    except OSError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    with raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_gzip else raw
            yield stream, raw
        except EOFError as error:
            raise InvalidArgument(f"{path} is cut short: its gzip data ends too early") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InvalidArgument(f"{path} is damaged: {error}") from error


def read_lines(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[int, bytes | None]]:
    """Each line that is not blank with its number from 1, in constant memory.

    A line over `MAX_LINE_BYTES` is None. `advance` hears how many bytes of the file have been read.
    """
    with opened(path) as (stream, raw):
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            is_too_long = len(line) > MAX_LINE_BYTES
            while is_too_long and line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            content = line.strip()
            if is_too_long or content:
                yield number, None if is_too_long else content
            advance(raw.tell())


def read_whole(path: Path) -> bytes:
    """The file's content, unpacked.

    Raises:
        InvalidArgument: more than `MAX_FEED_BYTES`, or as `opened`.
    """
    with opened(path) as (stream, _):
        data = stream.read(MAX_FEED_BYTES + 1)
    if len(data) > MAX_FEED_BYTES:
        raise InvalidArgument(f"{path} is larger than {MAX_FEED_BYTES // 2**20} MiB, the limit for a feed")
    return data

"""Transcripts in WebVTT, SubRip and JSON lines, as segments: what is said, and when.

Tags, entities and speaker labels go; what stays is what was spoken.
"""

from __future__ import annotations

import codecs
import html
import io
import re

import msgspec
import webvtt
from webvtt.errors import MalformedCaptionError, MalformedFileError

from .passages import Segment

_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|<\d[\d:.]*>|\{\\[^{}]{0,40}\}")
_SPEAKER = re.compile(r"\s*(?:>>+\s*)?(?:-\s+)?([^\W\d_][\w .'’#&-]{0,39}):\s+")
_ARROWS = re.compile(r"\s*>>+\s*")


class TranscriptError(ValueError):
    """The transcript cannot be read; the text says why."""


def parse_captions(data: bytes) -> tuple[Segment, ...]:
    """The cues of a WebVTT or SubRip file, told apart by their first line.

    Raises:
        TranscriptError: it is neither, or holds no cue with text.
    """
    text = _decode(data)
    kind = "vtt" if text.lstrip("\ufeff \t\r\n").startswith("WEBVTT") else "srt"
    try:
        cues = webvtt.WebVTT.from_buffer(io.StringIO(text), format=kind)
    except (MalformedFileError, MalformedCaptionError) as error:
        raise TranscriptError("neither WebVTT nor SubRip captions") from error
    segments = tuple(
        Segment(spoken, cue.start_time.in_milliseconds() / 1000, cue.end_time.in_milliseconds() / 1000)
        for cue in cues.captions
        if (spoken := _spoken(cue.raw_text))
    )
    if not segments:
        raise TranscriptError("no cue with text in it")
    return segments


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # SubRip has no declared encoding; where it is not UTF-8 it is nearly always this one.
        return data.decode("cp1252", errors="replace")


def _spoken(raw: str) -> str:
    return " ".join(" ".join(_without_speaker(_plain(line)) for line in raw.splitlines()).split())


def _plain(line: str) -> str:
    return html.unescape(_TAG.sub("", line))


def _without_speaker(line: str) -> str:
    """Drops `HOST:` and `>>`. In lower case a label cannot be told from prose ("One thing: ...")."""
    label = _SPEAKER.match(line)
    if label and label[1].isupper():
        return line[label.end() :]
    return _ARROWS.sub(" ", line)


class _SegmentRecord(msgspec.Struct):
    text: str
    start: float | None = None
    end: float | None = None


class _TranscriptRecord(msgspec.Struct):
    id: str | int
    segments: list[_SegmentRecord]
    timing: str | None = None


_DECODER = msgspec.json.Decoder(_TranscriptRecord)


def parse_record(line: bytes) -> tuple[str, tuple[Segment, ...]]:
    """An id and its segments from one JSON line `{id, timing, segments: [{start, end, text}]}`.

    Without times (`"timing": "none"`, or a segment without `start`) the segment's start is None.

    Raises:
        TranscriptError: not JSON, a missing key, or a value of the wrong type.
    """
    try:
        record = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TranscriptError(f"not a transcript record: {error}") from error
    key = str(record.id).strip()
    if not key:
        raise TranscriptError("no id")
    timed = record.timing != "none"
    return key, tuple(
        Segment(segment.text, segment.start, segment.end) if timed else Segment(segment.text)
        for segment in record.segments
    )

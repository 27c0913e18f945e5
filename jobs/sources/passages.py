"""A transcript cut into overlapping passages that a model can embed and a player can jump to.

Works on spans of the joined text, so that nothing is lost and scripts without spaces work too.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from .document import Passage

# Chinese and Japanese are not written in words: each character counts. The 40 keeps a "word" of a
# script that separates phrases only (Thai), or of garbage, from becoming a passage of its own.
_EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_EAST_ASIAN}]|[^\s{_EAST_ASIAN}]{{1,40}}")
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*\Z")


@dataclass(frozen=True, slots=True)
class Segment:
    """What a transcript holds: a stretch of speech and when it is spoken, in seconds, where known."""

    text: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Words:
    """Every word's span in `text`, and where each segment's words begin."""

    text: str
    spans: list[tuple[int, int]]
    firsts: list[int]
    segments: list[Segment]


def passages(segments: Sequence[Segment], *, words: int = 120, overlap: float = 0.5) -> tuple[Passage, ...]:
    """Windows of about `words` words, each sharing about `overlap` of its words with the next.

    Borders fall on the nearest end of a segment or sentence within an eighth of a window, else
    between two words; a tail of less than a quarter of a window joins the last passage. Every word is
    in at least one passage, in order. A passage starts when its first segment starts; one that starts
    inside a segment starts in proportion, where the segment's end (or the next one's start) is known,
    else when the segment does.
    """
    joined = _join(segments)
    total = len(joined.spans)
    borders = _borders(joined)
    slack, step = words // 8, max(1, round(words * (1 - overlap)))
    made: list[Passage] = []
    first = 0
    while first < total:
        last = _nearest(borders, first + words, slack)
        if total - last < words // 4:
            last = total
        made.append(_passage(joined, first, last))
        if last >= total:
            break
        first = min(last, max(first + 1, _nearest(borders, first + step, slack)))
    return tuple(made)


def _join(segments: Sequence[Segment]) -> _Words:
    spans: list[tuple[int, int]] = []
    firsts: list[int] = []
    kept: list[Segment] = []
    parts: list[str] = []
    offset = 0
    for segment in segments:
        text = " ".join(segment.text.split())
        if not text:
            continue
        firsts.append(len(spans))
        kept.append(segment)
        spans.extend((offset + match.start(), offset + match.end()) for match in _WORD.finditer(text))
        parts.append(text)
        offset += len(text) + 1
    return _Words(" ".join(parts), spans, firsts, kept)


def _borders(joined: _Words) -> list[int]:
    """Numbers of the words before which a passage may well begin or end, ascending."""
    sentences = (
        number + 1
        for number, (start, end) in enumerate(joined.spans)
        if _SENTENCE_END.search(joined.text, start, end)
    )
    return sorted({*joined.firsts, *sentences})


def _nearest(borders: Sequence[int], wanted: int, slack: int) -> int:
    low, high = bisect_left(borders, wanted - slack), bisect_right(borders, wanted + slack)
    return min(borders[low:high], key=lambda border: abs(border - wanted), default=wanted)


def _passage(joined: _Words, first: int, last: int) -> Passage:
    start, end = joined.spans[first][0], joined.spans[last - 1][1]
    return Passage(joined.text[start:end], _start_s(joined, first))


def _start_s(joined: _Words, word: int) -> float | None:
    number = bisect_right(joined.firsts, word) - 1
    segment = joined.segments[number]
    following = joined.segments[number + 1] if number + 1 < len(joined.segments) else None
    start, begin = segment.start_s, joined.firsts[number]
    end = segment.end_s if segment.end_s is not None else following.start_s if following else None
    if start is None or end is None or end <= start or word == begin:
        return start
    count = (joined.firsts[number + 1] if following else len(joined.spans)) - begin
    return round(start + (end - start) * (word - begin) / count, 3)

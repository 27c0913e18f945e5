"""A document becomes datapoints: one for itself, one for each passage that is spoken in it.

All datapoints of a document bear its id as crowding tag, so that a search returns it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .sources import Document, document_text

__all__ = ["Row", "restricts_of", "rows_of"]

SNIPPET_WORDS = 120
MAX_TOKEN_BYTES = 1024  # of an index


@dataclass(frozen=True, slots=True)
class Row:
    """What is embedded and stored for one datapoint."""

    id: str
    text: str
    crowding_tag: str
    metadata: dict[str, Any]
    restricts: dict[str, str | int | float]


def rows_of(document: Document) -> Iterator[Row]:
    """The document's own row, then its passages.

    A passage is embedded with the episode's title before it: alone it seldom says what it is
    about. Its id is the document's with `#` and its number, counted from 1. Both can be filtered
    by what `restricts_of` says of the document.
    """
    restricts = restricts_of(document)
    about = {
        "title": document.title,
        "show": document.show,
        "date": document.date,
        "language": document.language,
        "url": document.url,
        "duration_s": document.duration_s,
        **document.extra,
    }
    about = {key: value for key, value in about.items() if value not in (None, "")}
    yield Row(
        id=document.id,
        text=document_text(document),
        crowding_tag=document.id,
        metadata={**about, "snippet": _first_words(document.text or document.title)},
        restricts=restricts,
    )
    for number, passage in enumerate(document.passages, start=1):
        spoken: dict[str, Any] = {**about, "snippet": passage.text}
        if passage.start_s is not None:
            spoken["start_s"] = round(passage.start_s, 1)
        yield Row(
            id=f"{document.id}#{number}",
            text=f"{document.title}\n{passage.text}" if document.title else passage.text,
            crowding_tag=document.id,
            metadata=spoken,
            restricts=restricts,
        )


def restricts_of(document: Document) -> dict[str, str | int | float]:
    """What a search can filter a document by, where it is known.

    The tokens `language` and `show`, and the numbers `year`, `date` (20260131) and `duration_s`. A show whose
    name is no token of an index, because it is longer than 1 KiB, is left out.
    """
    tokens = {"language": document.language, "show": document.show}
    restricts: dict[str, str | int | float] = {
        namespace: token
        for namespace, token in tokens.items()
        if token and len(token.encode()) <= MAX_TOKEN_BYTES
    }
    if document.date:
        restricts["date"] = int(document.date.replace("-", ""))
        restricts["year"] = int(document.date[:4])
    if document.duration_s is not None:
        restricts["duration_s"] = document.duration_s
    return restricts


def _first_words(text: str) -> str:
    words = text.split()
    return " ".join(words[:SNIPPET_WORDS]) + (" …" if len(words) > SNIPPET_WORDS else "")

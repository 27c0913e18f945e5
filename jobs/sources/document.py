"""What every source becomes: one episode (or article) with its text, and what could not be read.

Nothing in here knows where the text came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a transcript; `start_s` is when it is spoken, in seconds, where that is known."""

    text: str
    start_s: float | None


@dataclass(frozen=True, slots=True)
class Document:
    """One episode.

    `text` is the description as plain text; `date` is YYYY-MM-DD; `language` is the primary
    subtag of BCP 47 (`en` for `en-GB`); `extra` holds JSON values; `origin` is `file:line`.
    At least one of `title` and `text` is not empty.
    """

    id: str
    title: str
    show: str
    text: str
    date: str | None
    language: str | None
    url: str | None
    duration_s: float | None
    extra: Mapping[str, JSON] = field(default_factory=dict)
    passages: tuple[Passage, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """Something that could not be read, where it stands (`line` counts from 1) and why.

    `drops_document` is false for a mere warning: the episode is kept, without its transcript.
    """

    file: str
    line: int | None
    reason: str
    drops_document: bool = True

    def __str__(self) -> str:
        """`file:line: reason`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"


OnBad: TypeAlias = Callable[[BadRecord], None]


def document_text(document: Document) -> str:
    """Title, show and description on lines of their own: the text of a document that is embedded."""
    return "\n".join(part for part in (document.title, document.show, document.text) if part)

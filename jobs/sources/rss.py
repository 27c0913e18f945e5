"""RSS items to documents: which tag is the id, which the text, and where the transcript lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from earshot.errors import EarshotError, InvalidArgument

from .document import JSON, BadRecord, Document, OnBad, Passage
from .feed import Feed, FeedError, Item, TranscriptLink, parse_feed
from .fetch import is_url
from .fields import language_tag
from .files import read_whole
from .html_text import html_text, title_text
from .passages import passages
from .transcripts import parse_captions

_FETCHES_AT_ONCE: Final = 8
_TEXT_TAGS: Final = ("description_html", "description", "subtitle")
_EXTRA_TAGS: Final = {
    "season": "season",
    "number": "episode",
    "type": "episode_type",
    "itunes_author": "author",
}


@dataclass(frozen=True, slots=True)
class FeedPlace:
    """Where a feed came from: `url` after redirects, or a file in `folder` beneath `root`."""

    name: str
    url: str = ""
    folder: Path = Path()
    root: Path = Path()


Fetch = Callable[[str], bytes]


def read_feed(data: bytes, place: FeedPlace, fetch: Fetch, on_bad: OnBad) -> Iterator[Document]:
    """The episodes of a feed, in its order, with the passages of their transcripts.

    An item without guid is known by its enclosure's address, else by its link; one without any of
    these, or with neither title nor description, goes to `on_bad`. So does the place where the XML
    breaks; the items before it are kept. A transcript that cannot be had is reported, the episode
    kept without it.

    Raises:
        InvalidArgument: the document is XML but no feed.
    """
    feed = parse_feed(data, place.url)
    if feed.error and not feed.items and feed.error.reason.startswith("not an RSS feed"):
        raise InvalidArgument(f"{place.name}:{feed.error.line}: {feed.error.reason}", field="sources")
    good = [(item, made) for item in feed.items if (made := _good(item, feed, place, on_bad))]
    # Transcripts over HTTP take most of the time; map keeps the feed's order.
    with ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool:
        loaded = pool.map(lambda pair: _transcript(pair[0], feed, place, fetch), good)
        for (item, document), (spoken, reason) in zip(good, loaded, strict=True):
            if reason:
                on_bad(BadRecord(place.name, item.line, reason, drops_document=False))
            yield replace(document, passages=spoken)
    if feed.error:
        on_bad(BadRecord(place.name, feed.error.line, _broken(feed, feed.error)))


def _good(item: Item, feed: Feed, place: FeedPlace, on_bad: OnBad) -> Document | None:
    """The item as a document without passages; None where it is a bad record."""
    document = _document(item, feed, place)
    reason = ""
    if not document.id:
        reason = "no id: the item has no <guid>, no <enclosure> and no <link>"
    elif not document.title and not document.text:
        reason = f"empty text: the item {document.id!r} has neither title nor description"
    if reason:
        on_bad(BadRecord(place.name, item.line, reason))
        return None
    return document


def _document(item: Item, feed: Feed, place: FeedPlace) -> Document:
    tags = item.tags
    guid, link = tags.get("guid", "").strip(), tags.get("link", "").strip()
    enclosures = [enclosure["url"] for enclosure in tags["enclosures"] if enclosure["url"]]
    audio = enclosures[0] if enclosures else ""
    permalink = guid if tags.get("guid_is_permalink") else ""
    extra: dict[str, JSON] = {name: tags[tag] for tag, name in _EXTRA_TAGS.items() if tags.get(tag)}
    if audio:
        extra["audio_url"] = audio
    return Document(
        id=guid or audio or link,
        title=title_text(tags.get("title", "")),
        show=title_text(feed.title),
        # Feeds give the same notes in several tags, some of them shortened.
        text=max((html_text(tags.get(tag, "")) for tag in _TEXT_TAGS), key=len),
        date=item.date,
        language=language_tag(feed.language),
        url=next((address for address in (link, permalink, audio) if is_url(address)), None),
        duration_s=float(tags["total_time"]) if tags["total_time"] > 0 else None,
        extra=extra,
        origin=f"{place.name}:{item.line}",
    )


def _transcript(item: Item, feed: Feed, place: FeedPlace, fetch: Fetch) -> tuple[tuple[Passage, ...], str]:
    """The passages of the first transcript that can be read; else why the best one cannot."""
    failure = ""
    for link in sorted(filter(_rank, item.transcripts), key=lambda link: _preference(link, feed)):
        try:
            return passages(parse_captions(_load(link.url, place, fetch))), ""
        except (EarshotError, ValueError, OSError, RuntimeError) as error:
            failure = failure or f"episode kept without its transcript {link.url}: {error}"
    return (), failure


def _rank(link: TranscriptLink) -> int:
    """1 for WebVTT, 2 for SubRip, 0 for what holds no cues (HTML, plain text) or is not read (JSON)."""
    path = link.url.partition("?")[0].lower()
    if "vtt" in link.type or path.endswith(".vtt"):
        return 1
    return 2 if "srt" in link.type or "subrip" in link.type or path.endswith(".srt") else 0


def _preference(link: TranscriptLink, feed: Feed) -> tuple[bool, int]:
    spoken = language_tag(feed.language)
    return language_tag(link.language) not in (None, spoken), _rank(link)


def _load(href: str, place: FeedPlace, fetch: Fetch) -> bytes:
    address = urljoin(place.url, href) if place.url else href
    if is_url(address):
        return fetch(address)
    if place.url or urlsplit(href).scheme:
        raise InvalidArgument(f"{href} is neither relative nor an http address")
    path = (place.folder / unquote(urlsplit(href).path)).resolve()
    if not path.is_relative_to(place.root):
        raise InvalidArgument(f"it lies outside {place.root}")
    return read_whole(path)


def _broken(feed: Feed, error: FeedError) -> str:
    return f"{error.reason}; the {len(feed.items)} items before it were kept, the rest is lost"

"""An RSS feed's XML to items, by podcastparser, driven so that each item knows its line.

What podcastparser lacks is added here: line numbers, several transcripts an item, items it would
drop, the current name of the Podcasting 2.0 namespace, and safety from hostile or sloppy XML.
"""

from __future__ import annotations

import html.entities
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.parsers import expat

import podcastparser

from .fields import iso_date

podcastparser.Namespace.NAMESPACES.setdefault("https://podcastindex.org/namespace/1.0", "podcast")
# Its remarks on single tags would go to stderr where nobody set up logging.
logging.getLogger(podcastparser.__name__).addHandler(logging.NullHandler())

_NATIVE_ENCODINGS: Final = ("utf-8", "utf-16", "iso-8859-1", "us-ascii")
_DECLARED_ENCODING: Final = re.compile(
    rb"<\?xml[^>]{0,100}?\sencoding\s*=\s*[\"']([A-Za-z0-9._:-]{1,40})[\"']"
)
_DATES: Final = (
    "rss/channel/item/pubDate",
    "atom:feed/atom:entry/atom:published",
    "atom:feed/atom:entry/atom:updated",
)


class FeedError(ValueError):
    """The XML breaks off or is no feed."""

    def __init__(self, line: int, reason: str) -> None:
        """`line` counts from 1."""
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TranscriptLink:
    """A `podcast:transcript` tag as it stands."""

    url: str
    type: str
    language: str


@dataclass(slots=True)
class Item:
    """One `<item>`: podcastparser's attributes of it, and what we note beside them."""

    line: int
    tags: dict[str, Any]
    date: str | None = None
    transcripts: list[TranscriptLink] = field(default_factory=list)


@dataclass(slots=True)
class Feed:
    """A feed as far as it could be read; `error` says where and why it stopped early."""

    title: str = ""
    language: str = ""
    items: list[Item] = field(default_factory=list)
    error: FeedError | None = None


def parse_feed(data: bytes, base: str) -> Feed:
    """The items of an RSS 2.0 (or Atom) document, in the order of the file.

    `base` is the address relative links are resolved against, empty for a feed from disk. Entity
    declarations are refused, so that no document can unfold into more than it holds; external ones
    are never fetched. The named entities of HTML (`&nbsp;`) are understood though XML has none.
    Items that end before the XML breaks are kept.
    """
    content = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    lines_before = data[: len(data) - len(content)].count(b"\n")
    handler = _Handler(base)
    feed = Feed()
    try:
        _parse(content, handler)
    except FeedError as error:
        feed.error = FeedError(error.line + lines_before, error.reason)
    for item in handler.items:
        item.line += lines_before
    feed.title, feed.language = handler.data.get("title", ""), handler.data.get("language", "")
    feed.items = handler.items
    return feed


def _parse(content: bytes, handler: _Handler) -> None:
    content, encoding = _in_known_encoding(content)
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    # With a (never read) external DTD assumed, undefined entities are reported, not fatal.
    parser.UseForeignDTD(True)
    parser.EntityDeclHandler = handler.refuse_entity
    parser.SkippedEntityHandler = handler.html_entity
    parser.StartElementHandler = handler.startElement
    parser.EndElementHandler = handler.endElement
    parser.CharacterDataHandler = handler.characters
    handler.expat = parser
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = f"invalid XML: {expat.ErrorString(error.code)} in column {error.offset + 1}"
        raise FeedError(error.lineno, reason) from error


def _in_known_encoding(content: bytes) -> tuple[bytes, str | None]:
    """The document as expat can read it: what it does not know is decoded here (windows-1252, GB18030)."""
    declared = _DECLARED_ENCODING.match(content)
    name = declared[1].decode("ascii").lower() if declared else "utf-8"
    if name in _NATIVE_ENCODINGS:
        return content, None
    try:
        return content.decode(name).encode("utf-8"), "utf-8"
    except (LookupError, UnicodeError) as error:
        raise FeedError(1, f"invalid XML: not readable in its declared encoding {name!r}") from error


class _Handler(podcastparser.PodcastHandler):  # type: ignore[misc]  # the library has no types
    """Gathers items with their lines; keeps those that the base class would drop."""

    expat: expat.XMLParserType
    item: Item
    text: list[str] | None
    namespace: Any

    def __init__(self, base: str) -> None:
        """`base` as in `parse_feed`."""
        super().__init__("", 0)
        self.base = base
        self.items: list[Item] = []

    def set_base(self, base: str) -> None:
        """`xml:base` is ignored: it would change the meaning of guids."""

    def refuse_entity(self, name: str, *_: object) -> None:
        raise FeedError(
            self.expat.CurrentLineNumber, f"the document declares an XML entity, {name!r}: refused"
        )

    def html_entity(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            self.characters(html.entities.html5.get(f"{name};", ""))

    def set_episode_attr(self, key: str, value: Any) -> None:
        # The base class would join a permalink guid with the feed's address, and so give a feed
        # other ids on disk than on the web. Under another name it keeps the guid as it stands.
        super().set_episode_attr("guid_is_permalink" if key == "_guid_is_permalink" else key, value)

    def add_episode(self) -> None:
        super().add_episode()
        self.item = Item(self.expat.CurrentLineNumber, self.episodes[-1])

    def validate_episode(self) -> None:
        """Called where an item ends. Whether it is good is decided where it becomes a document."""
        self.items.append(self.item)

    def startElement(self, name: str, attrs: Mapping[str, str]) -> None:  # noqa: N802
        if not self.path_stack:
            root = podcastparser.Namespace(attrs).map(name)
            if root not in podcastparser.VALID_ROOTS:
                raise FeedError(
                    self.expat.CurrentLineNumber, f"not an RSS feed: the root element is <{name}>"
                )
        try:
            super().startElement(name, attrs)
        except (ValueError, TypeError, AttributeError):
            self.text = None  # one tag that the library stumbles over does not cost the feed
        if (
            self.path_stack == ["rss", "channel", "item", "podcast:transcript"]
            and attrs.get("url", "").strip()
        ):
            link = TranscriptLink(
                attrs["url"].strip(), attrs.get("type", "").lower(), attrs.get("language", "")
            )
            self.item.transcripts.append(link)

    def endElement(self, name: str) -> None:  # noqa: N802
        if self.text is not None and "/".join(self.path_stack) in _DATES:
            self.item.date = self.item.date or iso_date("".join(self.text))
        try:
            super().endElement(name)
        except (ValueError, TypeError, AttributeError, LookupError):
            self.text = None
            self.namespace = self.namespace.parent
            self.path_stack.pop()

"""HTML to text that reads well as a snippet and holds nothing but words for the model.

Feeds mix HTML, plain text and text that is half of each, so the first question is which it is.
"""

from __future__ import annotations

import html
import re

from selectolax.lexbor import LexborHTMLParser

# Element names of HTML that feeds use; anything else in angle brackets is prose.
_BLOCKS = """
    address article aside blockquote body br caption center dd details div dl dt fieldset figcaption
    figure footer form h1 h2 h3 h4 h5 h6 head header hr html legend li main menu nav ol p pre section
    summary table tbody tfoot thead tr ul
"""
_INLINE = """
    a abbr acronym audio b bdi bdo big cite code data del dfn em font i img ins kbd label mark picture q
    ruby s samp small source span strike strong sub sup td th time tt u var video wbr
"""
_DROPPED = "script style noscript template iframe object svg math title"
# Parsing is quadratic in the depth of nesting, and a feed may be hostile.
_MOST_MARKUP = 200_000
_NAMES = "|".join(f"{_BLOCKS} {_INLINE} {_DROPPED}".split())
_BLOCK_SELECTOR, _DROPPED_SELECTOR = ",".join(_BLOCKS.split()), ",".join(_DROPPED.split())

# A closing tag, or an opening one that prose about HTML seldom holds alone: this is markup. "The <link>
# tag" and "x < y" are not.
_MARKUP = re.compile(
    rf"</(?:{_NAMES})\s*>|<(?:br|p|hr|li|div)\b[^<>]*>|<(?:a|img|span|font)\s[^<>]*=", re.IGNORECASE
)
_ESCAPED_MARKUP = re.compile(rf"&lt;/(?:{_NAMES})\s*&gt;|&lt;(?:br|p)\s*/?&gt;", re.IGNORECASE)
_STRAY_LESS_THAN = re.compile(rf"<(?!/?(?:{_NAMES})(?![\w@.:-])|!--)", re.IGNORECASE)
_TITLE_TAGS = re.compile(r"</?(?:b|i|u|em|strong|span|br)\s*/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u2028\u2029\u2060\ufeff]")
_MARKDOWN_LINK = re.compile(r"\[([^\[\]\n]{1,300})\]\(https?://[^()\s]{1,2000}\)")
_URL = re.compile(r"https?://(?:www\.)?([^\s/?#<>\"')\]]+)([^\s<>\"')\]]*)", re.IGNORECASE)


def html_text(source: str) -> str:
    """The words of an HTML (or plain) text, one line a block.

    Block elements break lines, list items start with "- ", scripts and styles vanish, entities are
    decoded, also where they were escaped twice, white space collapses. Of links the text stays; a bare
    address is shortened to its host, which is what it tells a reader ("Visit example.com for more").
    Plain text keeps its lines, and a "<" in prose survives. Markup beyond 200,000 characters is left
    out. Never raises.
    """
    if not _MARKUP.search(source) and _ESCAPED_MARKUP.search(source):
        source = html.unescape(source)
    text = _from_markup(source[:_MOST_MARKUP]) if _MARKUP.search(source) else _decoded(source)
    text = _decoded(text)  # feeds escape entities twice: &amp;nbsp;
    text = _MARKDOWN_LINK.sub(r"\1", text)
    text = _URL.sub(_host, text)
    lines = (" ".join(line.split()) for line in _INVISIBLE.sub("", text).splitlines())
    return "\n".join(line for line in lines if line not in ("", "-"))


def title_text(source: str) -> str:
    """A title on one line: entities decoded, bold and the like dropped, "the <link> tag" kept."""
    text = _decoded(_decoded(source))
    return " ".join(_INVISIBLE.sub("", _TITLE_TAGS.sub(" " if "<br" in text else "", text)).split())


def _decoded(text: str) -> str:
    # Only complete references: html.unescape alone would turn "?a=1&copy=2" into "?a=1©=2".
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text)


def _from_markup(source: str) -> str:
    tree = LexborHTMLParser(_STRAY_LESS_THAN.sub("&lt;", source))
    body = tree.body
    if body is None:
        return ""
    for node in body.css(_DROPPED_SELECTOR):
        node.decompose()
    for node in body.css(_BLOCK_SELECTOR):
        node.insert_before("\n- " if node.tag == "li" else "\n")
        node.insert_after("\n")
    for node in body.css("td,th"):
        node.insert_after(" ")
    return body.text()


def _host(match: re.Match[str]) -> str:
    end = match[2] or match[1]
    return match[1].rstrip(".,;:!?") + (end[-1] if end[-1] in ".,;:!?" else "")

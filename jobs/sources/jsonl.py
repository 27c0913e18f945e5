"""JSON lines to documents: which key is which is a mapping, and every bad line is named.

The default mapping fits podcast episodes and the corpora of information retrieval ({_id, title, text}).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

import msgspec

from earshot.errors import InvalidArgument

from .document import JSON, BadRecord, Document, OnBad
from .fields import iso_date, language_tag, seconds
from .files import MAX_LINE_BYTES, SourceFile, read_lines
from .html_text import html_text, title_text

_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """For each field of a document the keys that may hold it; the first that is there wins.

    A key with dots (`show.title`) leads into nested objects unless the record has it literally. Of
    all other keys only those in `extra` are kept.
    """

    id: tuple[str, ...] = ("id", "_id")
    title: tuple[str, ...] = ("title",)
    show: tuple[str, ...] = ("show",)
    text: tuple[str, ...] = ("description", "text")
    date: tuple[str, ...] = ("date", "published")
    language: tuple[str, ...] = ("language",)
    url: tuple[str, ...] = ("url", "link")
    duration_s: tuple[str, ...] = ("duration_s", "duration")
    extra: tuple[str, ...] = ()


def field_mapping(pairs: Iterable[str]) -> FieldMapping:
    """A mapping from `field=key` pairs as a command line gives them; `extra` may be given often.

    Raises:
        InvalidArgument: a pair is not of that form, or names no field of a document.
    """
    known = [field.name for field in fields(FieldMapping)]
    chosen: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        name, equals, key = (part.strip() for part in pair.partition("="))
        if name not in known or not equals or not key:
            raise InvalidArgument(
                f"mapping: {pair!r} is not FIELD=KEY with FIELD one of {', '.join(known)}", field="mapping"
            )
        chosen[name] = (*chosen.get(name, ()), key)
    return replace(FieldMapping(), **chosen)


class _BadValueError(ValueError):
    """A record that is no document; the text says why."""


def read_records(
    file: SourceFile, mapping: FieldMapping, on_bad: OnBad, advance: Callable[[int], None]
) -> Iterator[Document]:
    """The documents of a JSON lines file, plain or gzip, one at a time.

    A line that is no JSON object, has no id, no text, or a value of the wrong type goes to `on_bad`; so does,
    as a warning, a key of the mapping that no record has: it may be a typo, and would be missed by nobody.

    Raises:
        InvalidArgument: the file is cut short.
    """
    unseen = _chosen_keys(mapping)
    for number, line in read_lines(file.path, advance):
        try:
            if line is None:
                raise _BadValueError(f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
            record = _record(line)
            unseen = {key: name for key, name in unseen.items() if _find(record, (key,)) is None}
            yield _document(record, mapping, f"{file.name}:{number}")
        except _BadValueError as error:
            on_bad(BadRecord(file.name, number, str(error)))
    for key, name in unseen.items():
        reason = f"no record has the key {key!r}, which the mapping names for {name}"
        on_bad(BadRecord(file.name, None, reason, drops_document=False))


def _chosen_keys(mapping: FieldMapping) -> dict[str, str]:
    """The keys that somebody chose, with the field each is for; the defaults are only guesses."""
    default = FieldMapping()
    names = [field.name for field in fields(FieldMapping)]
    return {
        key: name
        for name in names
        if getattr(mapping, name) != getattr(default, name)
        for key in getattr(mapping, name)
    }


def _record(line: bytes) -> dict[str, JSON]:
    try:
        record = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _BadValueError(f"invalid JSON: {error}") from error
    if not isinstance(record, dict):
        raise _BadValueError(f"a JSON {_type_name(record)} where an object is wanted")
    return record


def _document(record: dict[str, JSON], mapping: FieldMapping, origin: str) -> Document:
    key = _find(record, mapping.id)
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    identifier = _text(key, mapping.id).strip()
    if not identifier:
        raise _BadValueError(f"no id: {_keys(mapping.id)} is missing or empty")
    title = title_text(_text(_find(record, mapping.title), mapping.title))
    text = html_text(_text(_find(record, mapping.text), mapping.text))
    if not title and not text:
        keys = f"{_keys(mapping.title)} and {_keys(mapping.text)}"
        raise _BadValueError(f"empty text: the record {identifier!r} has nothing in {keys}")
    duration = _find(record, mapping.duration_s)
    if isinstance(duration, bool | list | dict):
        raise _wrong_type(duration, mapping.duration_s, "a number")
    return Document(
        id=identifier,
        title=title,
        show=title_text(_text(_find(record, mapping.show), mapping.show)),
        text=text,
        date=iso_date(_find(record, mapping.date)),
        language=language_tag(_text(_find(record, mapping.language), mapping.language)),
        url=_text(_find(record, mapping.url), mapping.url).strip() or None,
        duration_s=seconds(duration),
        extra={path: value for path in mapping.extra if (value := _find(record, (path,))) is not None},
        origin=origin,
    )


def _find(record: dict[str, JSON], paths: tuple[str, ...]) -> JSON:
    """The value at the first path that leads to one; null counts as missing."""
    for path in paths:
        value: object = record.get(path, _MISSING)
        if value is _MISSING:
            value = record
            for key in path.split("."):
                value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value  # type: ignore[return-value]  # from a JSON decoder
    return None


def _text(value: JSON, paths: tuple[str, ...]) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong_type(value, paths, "a string")
    return value


def _wrong_type(value: JSON, paths: tuple[str, ...], wanted: str) -> _BadValueError:
    return _BadValueError(
        f"wrong type: {_keys(paths)} is a JSON {_type_name(value)} where {wanted} is wanted"
    )


def _keys(paths: tuple[str, ...]) -> str:
    return " or ".join(repr(path) for path in paths)


def _type_name(value: JSON) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")

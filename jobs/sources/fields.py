"""Dates, durations and languages as feeds write them, brought to one form each.

None of these functions raises: what cannot be understood is unknown, not wrong.
"""

from __future__ import annotations

import datetime
import math
import re
from email.utils import parsedate

from .document import JSON

_YEARS = range(1900, 2101)
_SECONDS_BEFORE_MILLISECONDS = 10**11  # the year 5138 in seconds, March 1973 in milliseconds
_EPOCH = re.compile(r"\d{10}|\d{13}")
_ISO = re.compile(r"(?P<y>\d{4})(?P<sep>[-/.])(?P<m>\d{1,2})(?P=sep)(?P<d>\d{1,2})(?!\d)")
_ISO_BASIC = re.compile(r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?!\d)")
_DAY_FIRST = re.compile(r"(?P<d>\d{1,2})\.\s?(?P<m>\d{1,2})\.\s?(?P<y>\d{4})(?!\d)")
_SLASHED = re.compile(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})(?!\d)")
_MONTH_FIRST = re.compile(r"(?:[A-Za-z]+,\s+)?([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})")
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,5}):(\d{1,2}(?:\.\d+)?)")
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]+)*")


def iso_date(value: JSON) -> str | None:
    """The day that `value` names, as YYYY-MM-DD, in the time zone it is written in; else None.

    Understands ISO 8601, RFC 2822 (also sloppy), `January 5, 2023`, `5.1.2023`, `1/15/2023` where
    one of the numbers can only be a day, and seconds or milliseconds since 1970 as a number. A year
    or month alone names no day, and 3/4/2023 names two: both are None.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_epoch(value)
    return _from_text(" ".join(value.split())) if isinstance(value, str) else None


def _from_epoch(value: float) -> str | None:
    seconds = value / 1000 if abs(value) >= _SECONDS_BEFORE_MILLISECONDS else value
    # Small numbers are years, days or mistakes, not moments of 1970.
    if not 10**8 <= abs(seconds) < _SECONDS_BEFORE_MILLISECONDS:
        return None
    try:
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=seconds)
    except OverflowError:  # a day before the year 1
        return None
    return _day(moment.year, moment.month, moment.day)


def _from_text(text: str) -> str | None:
    if _EPOCH.fullmatch(text):
        return _from_epoch(int(text))
    for pattern in (_ISO, _ISO_BASIC, _DAY_FIRST):
        if match := pattern.match(text):
            return _day(int(match["y"]), int(match["m"]), int(match["d"]))
    if match := _SLASHED.match(text):
        first, second, year = int(match[1]), int(match[2]), int(match[3])
        if first <= 12 and second <= 12 and first != second:
            return None
        return _day(year, second, first) if first > 12 else _day(year, first, second)
    if match := _MONTH_FIRST.match(text):
        text = f"{match[2]} {match[1][:3]} {match[3]}"
    if ":" not in text:
        text += " 00:00"  # parsedate wants a time
    try:
        parsed = parsedate(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _day(*parsed[:3]) if parsed else None


def _day(year: int, month: int, day: int) -> str | None:
    try:
        return datetime.date(year, month, day).isoformat() if year in _YEARS else None
    except ValueError:
        return None


def seconds(value: JSON) -> float | None:
    """A duration in seconds from a number, `"3600"`, `"59:30"` or `"1:02:03"`; else None."""
    if isinstance(value, str):
        text = value.strip()
        if match := _CLOCK.fullmatch(text):
            value = int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
        else:
            try:
                value = float(text)
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 10**9 and math.isfinite(value) else None


def language_tag(value: str | None) -> str | None:
    """The primary subtag of a BCP 47 tag in lower case (`en` for `en-GB` and `EN_us`); else None."""
    match = _LANGUAGE.fullmatch((value or "").strip())
    return match[1].lower() if match else None

import codecs

import pytest

from earshot.jobs.sources.passages import Segment
from earshot.jobs.sources.transcripts import TranscriptError, parse_captions, parse_record

VTT = """WEBVTT - a show

NOTE nobody says this

STYLE
::cue { color: red }

1
00:01.500 --> 00:03.000 align:start
<v Host One>Salt &amp; <b>pepper</b>, <00:02.000>x &lt; y</v>
second line

intro-2
01:00:04.000 --> 01:00:05.000
<v.loud Guest>GUEST: Right.

01:00:06.000 --> 01:00:07.000
&nbsp;
"""

SRT = """1
00:00:01,500 --> 00:00:03,000
HOST: <i>Hi</i> there {\\an8}

2
00:00:04,000 --> 00:00:05,500
>> GUEST TWO: one thing: go
One rule: stay
"""


def test_a_webvtt_file_becomes_what_was_spoken_and_when():
    assert parse_captions(VTT.encode()) == (
        Segment("Salt & pepper, x < y second line", 1.5, 3.0),
        Segment("Right.", 3604.0, 3605.0),
    )


def test_a_subrip_file_loses_speaker_labels_but_not_prose_with_a_colon():
    assert parse_captions(SRT.encode()) == (
        Segment("Hi there", 1.5, 3.0),
        Segment("one thing: go One rule: stay", 4.0, 5.5),
    )


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + VTT.encode(),
        VTT.replace("\n", "\r\n").encode(),
        VTT.encode("utf-16"),
    ],
)
def test_byte_order_marks_and_line_ends_do_not_matter(data):
    assert parse_captions(data) == parse_captions(VTT.encode())


def test_subrip_in_windows_1252_is_read():
    assert parse_captions(SRT.replace("Hi", "Café").encode("cp1252"))[0].text == "Café there"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "neither WebVTT nor SubRip"),
        (b"<html>not found</html>", "neither WebVTT nor SubRip"),
        (b"WEBVTT\n\n", "no cue"),
        (b"WEBVTT\n\n00:xx --> 00:05\nhi\n", "no cue"),
        (b"\x00\x01\x02\xff", "neither WebVTT nor SubRip"),
    ],
)
def test_what_holds_no_captions_is_refused(data, reason):
    with pytest.raises(TranscriptError, match=reason):
        parse_captions(data)


def test_a_record_gives_its_id_and_segments():
    line = b'{"id": 7, "segments": [{"start": 1, "text": "a", "speaker": "S"}, {"text": "b"}]}'
    assert parse_record(line) == ("7", (Segment("a", 1.0), Segment("b")))


def test_a_record_without_timing_has_no_times_whatever_it_says():
    line = b'{"id": "x", "timing": "none", "segments": [{"start": 0.0, "end": 1.0, "text": "a"}]}'
    assert parse_record(line) == ("x", (Segment("a"),))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (b'{"segments": []}', "`id`"),
        (b'{"id": " ", "segments": []}', "no id"),
        (b'{"id": "x"}', "`segments`"),
        (b'{"id": "x", "segments": [{"text": 5}]}', r"segments\[0\].text|segments\[...\].text"),
        (b'{"id": "\xff", "segments": []}', "utf-8"),
    ],
)
def test_a_bad_record_is_refused_with_its_reason(line, reason):
    with pytest.raises(TranscriptError, match=reason):
        parse_record(line)

import time

import pytest

from earshot.errors import InvalidArgument

from .conftest import captions, rss

GOOD = '<guid isPermaLink="false">e1</guid><title>One</title>'


def write(tmp_path, data, name="feed.xml"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_an_episode_is_read_with_every_tag(tmp_path, read):
    feed = write(
        tmp_path,
        rss(
            """<title>Salt &amp;amp; bread</title><guid isPermaLink="false"> crumb-1 </guid>
            <pubDate>Sun, 05 Mar 2023 00:30:00 +0100</pubDate><link>https://x.example/1</link>
            <enclosure url="https://m.example/1.mp3" length="1" type="audio/mpeg"/>
            <itunes:duration>1:02:03</itunes:duration><itunes:season>2</itunes:season>
            <itunes:episode>7</itunes:episode><itunes:episodeType>bonus</itunes:episodeType>
            <description><![CDATA[<p>One</p><p>two &ndash; three</p>]]></description>"""
        ),
    )
    ((document,), bad) = read(feed)
    assert bad == []
    assert (document.id, document.title, document.show) == ("crumb-1", "Salt & bread", "The Show")
    assert (document.text, document.date, document.language) == ("One\ntwo – three", "2023-03-05", "en")
    assert (document.url, document.duration_s, document.origin) == (
        "https://x.example/1",
        3723.0,
        f"{feed}:3",
    )
    assert document.extra == {
        "season": 2,
        "episode": 7,
        "episode_type": "bonus",
        "audio_url": "https://m.example/1.mp3",
    }


def test_items_keep_the_order_of_the_file_whatever_their_dates(tmp_path, read):
    items = [
        f"<guid>{day}</guid><title>t</title><pubDate>{day} Mar 2023 00:00:00 GMT</pubDate>"
        for day in (5, 7, 6)
    ]
    documents, _ = read(write(tmp_path, rss(*items)))
    assert [document.id for document in documents] == ["5", "7", "6"]


@pytest.mark.parametrize(
    ("tags", "identifier"),
    [
        ("<guid>abc</guid><link>https://x.example/l</link>", "abc"),
        ("<guid>https://x.example/?p=1</guid>", "https://x.example/?p=1"),
        (
            '<guid> </guid><enclosure url="https://m.example/1.mp3"/><link>https://x.example/l</link>',
            "https://m.example/1.mp3",
        ),
        ("<link>https://x.example/l</link>", "https://x.example/l"),
        (
            '<enclosure url="https://m.example/1.mp3"/><enclosure url="https://m.example/1.ogg"/>',
            "https://m.example/1.mp3",
        ),
    ],
)
def test_the_id_is_the_guid_as_it_stands_else_enclosure_else_link(tmp_path, read, tags, identifier):
    ((document,), bad) = read(write(tmp_path, rss(f"<title>t</title>{tags}")))
    assert (document.id, bad) == (identifier, [])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("<title>t</title>", "no id"),
        ("<guid>g</guid>", "empty text: the item 'g'"),
        ('<enclosure url="https://m.example/1.mp3"/>', "empty text"),
        ("<guid>g</guid><title> </title><description>&lt;p&gt;&lt;/p&gt;</description>", "empty text"),
    ],
)
def test_an_item_without_id_or_text_is_named_by_its_line(tmp_path, read, item, reason):
    documents, (bad,) = read(write(tmp_path, rss(GOOD, item, GOOD.replace("e1", "e2"))))
    assert [document.id for document in documents] == ["e1", "e2"]
    assert bad.line == 4
    assert reason in bad.reason


def test_an_item_without_title_is_known_by_its_description(tmp_path, read):
    ((document,), _) = read(write(tmp_path, rss("<guid>g</guid><description>words</description>")))
    assert (document.title, document.text) == ("", "words")


def test_the_channels_own_date_and_image_are_not_an_episodes(tmp_path, read):
    channel = "<title>Show</title><pubDate>Thu, 05 Jan 2023</pubDate><image><title>Logo</title></image>"
    ((document,), bad) = read(write(tmp_path, rss(GOOD, channel=channel)))
    assert (document.show, document.date, document.language, bad) == ("Show", None, None, [])


def test_of_several_notes_the_longest_is_the_text(tmp_path, read):
    item = (
        f"{GOOD}<itunes:summary>Short.</itunes:summary><description>Short, too.</description>"
        "<content:encoded>&lt;p&gt;Notes at length: a &lt;b&gt;link&lt;/b&gt;.&lt;/p&gt;</content:encoded>"
    )
    ((document,), _) = read(write(tmp_path, rss(item)))
    assert document.text == "Notes at length: a link."


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "windows-1252", "UTF-16", "GB18030"])
def test_other_encodings_are_read(tmp_path, read, encoding):
    ((document,), bad) = read(
        write(tmp_path, rss(f"{GOOD}<description>Épisode</description>", encoding=encoding))
    )
    assert (document.text, bad) == ("Épisode", [])


@pytest.mark.parametrize("encoding", ["klingon", "euc-jp"])
def test_an_encoding_that_does_not_fit_is_a_bad_record(tmp_path, read, encoding):
    data = rss(f"{GOOD}<description>\u20ac\u00ff</description>").replace(b"UTF-8", encoding.encode())
    documents, (bad,) = read(write(tmp_path, data))
    assert (documents, bad.line) == ([], 1)
    assert encoding in bad.reason


def test_blank_lines_before_the_declaration_and_html_entities_are_forgiven(tmp_path, read):
    data = b"\n\n" + rss(f"{GOOD}<description>a&nbsp;b&eacute;&unknownthing;</description>")
    feed = write(tmp_path, data)
    ((document,), bad) = read(feed)
    assert (document.text, document.origin, bad) == ("a bé", f"{feed}:5", [])


def test_malformed_xml_keeps_the_items_before_it_and_names_the_line(tmp_path, read):
    data = rss(GOOD, "<guid>e2</guid><title>t & u</title>", "<guid>e3</guid><title>t</title>")
    documents, (bad,) = read(write(tmp_path, data))
    assert [document.id for document in documents] == ["e1"]
    assert bad.line == 4
    assert "invalid XML" in bad.reason
    assert "rest is lost" in bad.reason


def test_a_feed_that_breaks_off_is_a_bad_record(tmp_path, read):
    documents, (bad,) = read(write(tmp_path, rss(GOOD).removesuffix(b"</channel></rss>\n")))
    assert [document.id for document in documents] == ["e1"]
    assert "no element found" in bad.reason


@pytest.mark.parametrize("root", ["opml", "rdf:RDF"])
def test_xml_that_is_no_feed_fails_naming_its_root(tmp_path, read, root):
    with pytest.raises(InvalidArgument, match=rf"feed.xml:2: not an RSS feed: the root element is <{root}>"):
        read(write(tmp_path, f'<?xml version="1.0"?>\n<{root} xmlns:rdf="r"></{root}>'.encode()))


def test_entity_bombs_are_refused_at_once(tmp_path, read):
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = rss("<guid>g</guid><title>&l11;</title>").decode()
    bomb = bomb.replace("\n<rss", f'\n<!DOCTYPE rss [<!ENTITY l0 "lol">{entities}]><rss')
    started = time.monotonic()
    documents, (bad,) = read(write(tmp_path, bomb.encode()))
    assert documents == []
    assert (bad.line, "'l0': refused" in bad.reason) == (2, True)
    assert time.monotonic() - started < 2


def test_external_entities_are_never_read(tmp_path, read):
    secret = tmp_path / "secret.dtd"
    secret.write_text('<!ENTITY eacute "LEAKED">')
    data = rss(f"{GOOD}<description>&eacute;</description>").decode()
    data = data.replace("\n<rss", f'\n<!DOCTYPE rss SYSTEM "{secret}"><rss')
    ((document,), _) = read(write(tmp_path, data.encode()))
    assert document.text == "é"


@pytest.mark.parametrize(
    "tag",
    [
        '<enclosure url="http://[oops/x.mp3"/>',
        '<atom:link rel="self"/>',
        f"<itunes:duration>{'9' * 5000}:10</itunes:duration>",
        "<pubDate>Mon, 99 Foo 99999999999 99:99:99 +9999</pubDate>",
        "<itunes:season>two</itunes:season>",
        '<psc:chapters xmlns:psc="http://podlove.org/simple-chapters"><psc:chapter/></psc:chapters>',
        "<itunes:owner><itunes:name>n</itunes:name></itunes:owner>",
        "<unknown:tag>x</unknown:tag>",
    ],
)
def test_one_broken_tag_does_not_cost_the_item_or_the_next(tmp_path, read, tag):
    documents, bad = read(write(tmp_path, rss(tag + GOOD, GOOD.replace("e1", "e2") + tag)))
    assert [(document.id, document.title) for document in documents] == [("e1", "One"), ("e2", "One")]
    assert bad == []


@pytest.mark.parametrize(
    "namespace",
    [
        "https://podcastindex.org/namespace/1.0",
        "https://github.com/Podcastindex-org/podcast-namespace/blob/main/docs/1.0.md",
    ],
)
def test_a_transcript_beside_the_feed_becomes_timed_passages(tmp_path, read, namespace):
    write(tmp_path, captions(), "spoken words/one.vtt")
    item = f'{GOOD}<podcast:transcript url="spoken%20words/one.vtt" type="text/vtt"/>'
    data = rss(item).replace(b"https://podcastindex.org/namespace/1.0", namespace.encode())
    ((document,), bad) = read(write(tmp_path, data))
    assert bad == []
    assert [(passage.start_s, passage.text.split()[0]) for passage in document.passages] == [
        (0.0, "w0"),
        (6.0, "w60"),
    ]


def test_of_several_transcripts_webvtt_in_the_shows_language_is_read(tmp_path, read):
    for name, word in (("a.srt", "subrip"), ("b.vtt", "english"), ("c.vtt", "español")):
        write(tmp_path, f"WEBVTT\n\n00:01.000 --> 00:02.000\n{word}\n".encode(), name)
    item = (
        f'{GOOD}<podcast:transcript url="x.html" type="text/html"/>'
        '<podcast:transcript url="c.vtt" type="text/vtt" language="es"/>'
        '<podcast:transcript url="a.srt" type="application/x-subrip"/>'
        '<podcast:transcript url="b.vtt" type="text/vtt" language="en"/>'
    )
    ((document,), _) = read(write(tmp_path, rss(item)))
    assert [passage.text for passage in document.passages] == ["english"]
    (tmp_path / "b.vtt").unlink()
    ((document,), bad) = read(tmp_path / "feed.xml")
    assert ([passage.text for passage in document.passages], bad) == (["subrip"], [])


@pytest.mark.parametrize(
    ("href", "reason"),
    [
        ("missing.vtt", "does not exist"),
        ("feed.xml?x.vtt", "neither WebVTT nor SubRip"),
        ("../outside.vtt", "lies outside"),
        ("/etc/hostname.vtt", "lies outside"),
        ("file:///etc/hostname.vtt", "neither relative nor an http address"),
        ("folder.vtt", "not a regular file"),
        ("//[oops/x.vtt", "Invalid IPv6"),
        (f"{'x' * 5000}.vtt", "cannot be read"),
    ],
)
def test_a_transcript_that_cannot_be_read_is_a_warning_and_the_episode_stays(tmp_path, read, href, reason):
    write(tmp_path, captions(), "outside.vtt")
    (tmp_path / "feeds" / "folder.vtt").mkdir(parents=True)
    item = f'{GOOD}<podcast:transcript url="{href}" type="text/vtt"/>'
    (document,), (bad,) = read(write(tmp_path, rss(item), "feeds/feed.xml"))
    assert document.passages == ()
    assert (bad.line, bad.drops_document) == (3, False)
    assert "episode kept without its transcript" in bad.reason
    assert reason in bad.reason


def test_a_folder_of_feeds_may_share_a_folder_of_transcripts(tmp_path, read):
    write(tmp_path, captions(), "transcripts/one.vtt")
    item = f'{GOOD}<podcast:transcript url="../transcripts/one.vtt" type="text/vtt"/>'
    write(tmp_path, rss(item), "feeds/feed.xml")
    ((document,), bad) = read(tmp_path)
    assert (len(document.passages), bad) == (2, [])


def test_atom_feeds_are_read_too(tmp_path, read):
    data = (
        b'<feed xmlns="http://www.w3.org/2005/Atom"><title>Show</title><entry><id>urn:1</id><title>One</title>'
        b'<published>2023-01-05T10:00:00Z</published><content type="html">&lt;p&gt;a&lt;/p&gt;</content>'
        b"</entry></feed>"
    )
    ((document,), _) = read(write(tmp_path, data, "a.atom"))
    assert (document.id, document.show, document.text, document.date) == ("urn:1", "Show", "a", "2023-01-05")

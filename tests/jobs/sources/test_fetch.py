import gzip
import socket

import pytest

from earshot.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable

from .conftest import captions, rss

ITEM = '<guid isPermaLink="false">{0}</guid><title>t</title><podcast:transcript url="{1}" type="text/vtt"/>'


def test_a_feed_is_fetched_through_redirects_with_its_transcripts(web, read):
    items = [ITEM.format(number, f"t/{number}.vtt") for number in range(20)]
    web.pages = {
        "/feed": (301, {"Location": "/shows/one/feed.xml"}, b""),
        "/shows/one/feed.xml": (200, {}, rss(*items, "<guid>x</guid><title>t</title><link>/about</link>")),
        **{f"/shows/one/t/{number}.vtt": (200, {}, captions(300 + 10 * number)) for number in range(20)},
    }
    progress = []
    documents, bad = read(f"{web.url}/feed", progress=lambda *at: progress.append(at))
    assert bad == []
    assert [document.id for document in documents] == [*map(str, range(20)), "x"]
    assert [document.passages[-1].text.split()[-1] for document in documents[:20]] == [
        f"w{299 + 10 * number}" for number in range(20)
    ]
    assert documents[0].origin == f"{web.url}/feed:3"
    assert documents[-1].url == f"{web.url}/about"
    size = len(web.pages["/shows/one/feed.xml"][2])
    assert progress == [(size, size)]


def test_a_missing_transcript_is_a_warning_naming_the_status(web, read):
    web.pages["/feed"] = (200, {}, rss(ITEM.format("e1", "gone.vtt")))
    (document,), (bad,) = read(f"{web.url}/feed")
    assert document.passages == ()
    assert not bad.drops_document
    assert f"{web.url}/gone.vtt answered HTTP 404" in bad.reason


def test_a_feed_on_the_web_cannot_name_a_file_as_transcript(web, read):
    web.pages["/feed"] = (200, {}, rss(ITEM.format("e1", "file:///etc/hostname.vtt")))
    (document,), (bad,) = read(f"{web.url}/feed")
    assert document.passages == ()
    assert "neither relative nor an http address" in bad.reason


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, PermissionDenied),
        (403, PermissionDenied),
        (404, NotFound),
        (410, NotFound),
        (400, InvalidArgument),
        (429, Unavailable),
        (503, Unavailable),
    ],
)
def test_a_failing_status_is_named_with_the_address(web, read, status, error):
    web.pages["/feed"] = (status, {}, b"")
    with pytest.raises(error, match=rf"^{web.url}/feed answered HTTP {status} "):
        read(f"{web.url}/feed")


def test_a_feed_over_the_limit_is_refused_also_when_it_is_packed(web, read):
    body = gzip.compress(bytes(65 * 2**20))
    web.pages["/feed"] = (200, {"Content-Encoding": "gzip"}, body)
    with pytest.raises(InvalidArgument, match="larger than 64 MiB"):
        read(f"{web.url}/feed")


def test_an_empty_answer_and_an_answer_that_is_no_feed_are_refused(web, read):
    web.pages = {"/empty": (200, {}, b""), "/page": (200, {}, b"<html><body></body></html>")}
    with pytest.raises(InvalidArgument, match="/empty answered with nothing"):
        read(f"{web.url}/empty")
    with pytest.raises(InvalidArgument, match=r"/page:1: not an RSS feed: the root element is <html>"):
        read(f"{web.url}/page")


def test_a_redirect_without_end_is_an_error(web, read):
    web.pages["/feed"] = (302, {"Location": "/feed"}, b"")
    with pytest.raises(Unavailable, match="redirect"):
        read(f"{web.url}/feed")


def test_a_server_that_is_not_there_is_named(read):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}/feed"
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:\d+/feed cannot be fetched") as caught:
            read(url)
    assert "secret" not in caught.value.message


def test_an_answer_that_breaks_off_is_an_error(web, read):
    web.pages["/feed"] = (200, {"Content-Length": "100000"}, rss("<guid>g</guid><title>t</title>"))
    with pytest.raises(Unavailable, match="cannot be fetched"):
        read(f"{web.url}/feed")


def test_a_slow_server_is_given_up(web, read, monkeypatch):
    monkeypatch.setattr("earshot.jobs.sources.fetch._TOTAL_S", -1.0)
    web.pages["/feed"] = (200, {}, rss("<guid>g</guid><title>t</title>"))
    with pytest.raises(Unavailable, match="did not answer completely"):
        read(f"{web.url}/feed")


@pytest.mark.parametrize("url", ["http://", "http://[::1/feed", "https://x y.example/"])
def test_an_address_that_is_none_is_refused(read, url):
    with pytest.raises((InvalidArgument, Unavailable)):
        read(url)

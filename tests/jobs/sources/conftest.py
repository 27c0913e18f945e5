"""Readers that collect, small feeds, and an HTTP server of the machine's own."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from earshot.jobs.sources import read_documents

NAMESPACES = (
    'xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd" '
    'xmlns:content="http://purl.org/rss/1.0/modules/content/" '
    'xmlns:atom="http://www.w3.org/2005/Atom" '
    'xmlns:podcast="https://podcastindex.org/namespace/1.0"'
)


def rss(*items, channel="<title>The Show</title><language>en-GB</language>", encoding="UTF-8"):
    """A feed of items given as the inside of `<item>`, the first one beginning on line 3."""
    inside = "\n".join(f"<item>{item}</item>" for item in items)
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n'
        f'<rss version="2.0" {NAMESPACES}><channel>{channel}\n{inside}\n</channel></rss>\n'
    )
    return text.encode(encoding)


def captions(words=150):
    """A WebVTT file of one cue a second with ten words each, w0 and on."""

    def stamp(at):
        return f"{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}"

    cues = [
        f"{stamp(at)}.000 --> {stamp(at)}.900\n"
        + " ".join(f"w{number}" for number in range(at * 10, at * 10 + 10))
        for at in range(words // 10)
    ]
    return ("WEBVTT\n\n" + "\n\n".join(cues) + "\n").encode()


@pytest.fixture
def read():
    """Reads sources to the end: documents and bad records as two lists."""

    def run(*sources, **options):
        bad = []
        return list(read_documents(sources, on_bad=bad.append, **options)), bad

    return run


@pytest.fixture
def web():
    """A server on 127.0.0.1: `web.pages[path] = (status, headers, body)`, its address is `web.url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = self.server.pages.get(self.path, (404, {}, b"nothing here"))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.pages = {}
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()

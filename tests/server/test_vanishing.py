"""HTTP clients that go away, or give up, while their query still waits: it costs no engine time."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.servers import Server, serving

from .test_metrics import Scrape

# A batch of long texts keeps the model busy for seconds; what comes later has to wait for it.
LONG = {"texts": [f"{n} " + "words that keep the model busy " * 60 for n in range(200)], "neighborCount": 1}


def post_and_leave(server: Server, path: str, body: dict[str, Any]) -> None:
    """Sends a whole request and closes the connection before the answer."""
    content = json.dumps(body).encode()
    at = urlsplit(server.http)
    with socket.create_connection((at.hostname, at.port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        time.sleep(0.2)


def test_who_leaves_or_gives_up_while_waiting_costs_no_search(data_dir: Path) -> None:
    with serving(data_dir, "--transport", "portable", EARSHOT_THREADS="1") as server:
        url = f"{server.http}/v1/indexes/shows"
        httpx.post(f"{url}:search", json={"text": "warm"}, timeout=30)
        busy = threading.Thread(
            target=httpx.post, args=(f"{url}:batchSearch",), kwargs={"json": LONG, "timeout": 120}
        )
        busy.start()
        time.sleep(0.3)
        post_and_leave(server, "/v1/indexes/shows:search", {"text": "left"})
        late = httpx.post(f"{url}:search", json={"text": "late"}, headers={"grpc-timeout": "200m"})
        assert late.status_code in (429, 504)
        busy.join()
        time.sleep(0.3)
        seen = Scrape(server.http)
        assert seen.get("earshot_requests_total", method="Search", code="OK") == 1
        assert seen.get("earshot_requests_total", method="Search", code="CANCELLED") == 1
        assert seen.get("earshot_stage_duration_seconds_count", method="Search", stage="engine") == 1
        assert seen.get("earshot_requests_in_flight") == 0
        assert "Traceback" not in server.log()

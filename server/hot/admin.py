"""Envoy's admin interface, behind a socket in a private folder: is it ready, where, and drain."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

__all__ = ["Admin"]

POLL_SECONDS = 0.02
TIMEOUT_SECONDS = 5.0
_ACTIVE = "http.ingress_http.downstream_rq_active"


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket at `path`."""

    def __init__(self, path: str) -> None:
        super().__init__("admin", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Admin:
    """Talks to Envoy's admin socket at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def port(self) -> int | None:
        """The port it listens on; None while it is not ready."""
        try:
            if self._ask("GET", "/ready") != b"LIVE\n":
                return None
            listeners: list[dict[str, Any]] = json.loads(self._ask("GET", "/listeners?format=json"))[
                "listener_statuses"
            ]
        except (OSError, http.client.HTTPException, KeyError):
            return None
        return int(listeners[0]["local_address"]["socket_address"]["port_value"]) if listeners else None

    def drain(self, seconds: float, quiet_seconds: float) -> None:
        """Tells clients to leave, then waits for `quiet_seconds` without a request; `seconds` at most.

        Raises OSError where nobody answers at the socket.
        """
        give_up = time.monotonic() + seconds
        self._ask("POST", "/drain_listeners?graceful")
        quiet_since = time.monotonic()
        while (now := time.monotonic()) < give_up and now - quiet_since < quiet_seconds:
            if self._is_active():
                quiet_since = time.monotonic()
            time.sleep(POLL_SECONDS)

    def _is_active(self) -> bool:
        answer = json.loads(self._ask("GET", f"/stats?filter=^{_ACTIVE}$&format=json"))
        return any(stat.get("value", 0) for stat in answer["stats"])

    def _ask(self, method: str, target: str) -> bytes:
        connection = _Connection(self.path)
        try:
            connection.request(method, target)
            return connection.getresponse().read()
        finally:
            connection.close()

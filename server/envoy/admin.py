"""Envoy's admin interface, in a private folder: is it ready, where, and drain.

A drain loses nothing because every connection is told to leave before it is closed (GOAWAY, or `connection:
close`). Envoy says so with its answers; connections that ask nothing are told by way of an idle timeout that
a file beside the socket shortens. Quiet alone proves nothing: a client may be between two requests.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Admin"]

POLL_SECONDS = 0.02
TIMEOUT_SECONDS = 5.0
IDLE_SECONDS = 0.2  # while draining: from a connection's last answer until it is told to leave
_PRESSURE = "envoy.resource_monitors.injected_resource"
_TYPES = "type.googleapis.com/envoy"


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
        self._leave = Path(path).with_name("leave")

    def configuration(self) -> dict[str, Any]:
        """What Envoy's configuration needs for this interface; writes the file that it watches."""
        self._leave.write_text("0")
        return {
            "admin": {"address": {"pipe": {"path": self.path, "mode": 0o600}}},
            "overload_manager": {
                "refresh_interval": f"{POLL_SECONDS}s",
                "resource_monitors": [
                    {
                        "name": _PRESSURE,
                        "typed_config": {
                            "@type": f"{_TYPES}.extensions.resource_monitors.injected_resource.v3"
                            ".InjectedResourceConfig",
                            "filename": str(self._leave),
                        },
                    }
                ],
                "actions": [
                    {
                        "name": "envoy.overload_actions.reduce_timeouts",
                        "triggers": [{"name": _PRESSURE, "threshold": {"value": 1.0}}],
                        "typed_config": {
                            "@type": f"{_TYPES}.config.overload.v3.ScaleTimersOverloadActionConfig",
                            "timer_scale_factors": [
                                {
                                    "timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE",
                                    "min_timeout": f"{IDLE_SECONDS}s",
                                }
                            ],
                        },
                    }
                ],
            },
        }

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

    def drain(self, seconds: float) -> bool:
        """Closes the port after a notice, tells clients to leave and waits until they have.

        Returns whether all left within `seconds`. Raises OSError where nobody answers at the socket.
        """
        give_up = time.monotonic() + seconds
        self._ask("POST", "/drain_listeners?graceful")
        told = self._leave.with_name("leave.new")
        told.write_text("1")
        told.rename(self._leave)  # Envoy watches for that
        return self._wait(give_up, self._listens) and self._wait(give_up, self._has_connections)

    def wait_for_requests(self, seconds: float) -> bool:
        """Waits until no request runs, `seconds` at most; whether it came to that."""
        return self._wait(time.monotonic() + seconds, self._has_requests)

    def _listens(self) -> bool:
        return self._stat("listener_manager.listener_stopped") < self._stat(
            "listener_manager.total_listeners_active"  # which stay in this count when they are stopped
        )

    def _has_connections(self) -> bool:
        return self._stat("http.ingress_http.downstream_cx_active") > 0

    def _has_requests(self) -> bool:
        return self._stat("http.ingress_http.downstream_rq_active") > 0

    def _wait(self, give_up: float, is_not_over: Callable[[], bool]) -> bool:
        while is_not_over():
            if time.monotonic() >= give_up:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _stat(self, name: str) -> int:
        answer = json.loads(self._ask("GET", f"/stats?filter=^{name}$&format=json"))
        return sum(stat.get("value", 0) for stat in answer["stats"])  # histograms' summary has no value

    def _ask(self, method: str, target: str) -> bytes:
        connection = _Connection(self.path)
        try:
            connection.request(method, target)
            return connection.getresponse().read()
        finally:
            connection.close()

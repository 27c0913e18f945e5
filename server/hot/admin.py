"""Envoy's admin interface, behind a socket in a private folder: is it ready, where, and drain."""

from __future__ import annotations

import time

import httpx

__all__ = ["Admin"]

POLL_SECONDS = 0.02
_ACTIVE = "http.ingress_http.downstream_rq_active"


class Admin:
    """Talks to Envoy's admin socket at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def port(self) -> int | None:
        """The port it listens on; None while it is not ready."""
        with self._client() as client:
            try:
                if client.get("/ready").status_code != httpx.codes.OK:
                    return None
                listeners = client.get("/listeners", params={"format": "json"}).json()["listener_statuses"]
            except (httpx.TransportError, KeyError):
                return None
        return int(listeners[0]["local_address"]["socket_address"]["port_value"]) if listeners else None

    def drain(self, seconds: float, quiet_seconds: float) -> None:
        """Tells clients to leave, then waits for `quiet_seconds` without a request; `seconds` at most."""
        with self._client() as client:
            give_up = time.monotonic() + seconds
            client.post("/drain_listeners", params={"graceful": ""})
            quiet_since = time.monotonic()
            while (now := time.monotonic()) < give_up and now - quiet_since < quiet_seconds:
                if self._is_active(client):
                    quiet_since = time.monotonic()
                time.sleep(POLL_SECONDS)

    def _is_active(self, client: httpx.Client) -> bool:
        answer = client.get("/stats", params={"filter": f"^{_ACTIVE}$", "format": "json"}).json()
        return any(stat.get("value", 0) for stat in answer["stats"])

    def _client(self) -> httpx.Client:
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=self.path), base_url="http://admin", timeout=5.0
        )

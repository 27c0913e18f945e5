"""The service and its faces: `service` knows no transport, `grpc_face` and `http_face` carry it."""

from __future__ import annotations

from .local import LocalTransport, local_client
from .logs import configure_logging
from .run import Addresses, running, serve
from .service import Service
from .settings import Settings, load_settings
from .transports import running_with, serve_with

__all__ = [
    "Addresses",
    "LocalTransport",
    "Service",
    "Settings",
    "configure_logging",
    "load_settings",
    "local_client",
    "running",
    "running_with",
    "serve",
    "serve_with",
]

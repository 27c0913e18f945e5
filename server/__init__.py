"""The service and its faces: `service` knows no transport, `grpc_face` and `http_face` carry it.

What is named here loads when it is asked for: a command that reads settings has no use for a web server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "Addresses": "run",
    "LocalTransport": "local",
    "Service": "service",
    "Settings": "settings",
    "configure_logging": "logs",
    "load_settings": "settings",
    "local_client": "local",
    "running": "run",
    "running_with": "transports",
    "serve": "run",
    "serve_with": "transports",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)

"""The hot face: gRPC and HTTP on one port, through one ASGI application on pyvoy."""

from __future__ import annotations

from .run import running_hot, serve_hot

__all__ = ["running_hot", "serve_hot"]

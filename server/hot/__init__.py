"""The hot face: gRPC and HTTP on one port, through one ASGI application on pyvoy."""

from __future__ import annotations

from .run import hot_process, running_hot, serve_hot

__all__ = ["hot_process", "running_hot", "serve_hot"]

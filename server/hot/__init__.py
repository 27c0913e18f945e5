"""The hot face: gRPC and HTTP on one port, through one ASGI application on pyvoy."""

from __future__ import annotations

from .run import embedding_environment, hot_process, running_hot, serve_hot

__all__ = ["embedding_environment", "hot_process", "running_hot", "serve_hot"]

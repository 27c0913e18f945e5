"""The direct transport: HTTP/2 and HTTP/1.1 on the event loop itself, without another process or thread."""

from __future__ import annotations

from .run import loop_factory, running_direct, serve_direct

__all__ = ["loop_factory", "running_direct", "serve_direct"]

"""The service behind Envoy, which embeds Python (pyvoy): gRPC and HTTP on one port, HTTP/3 too."""

from __future__ import annotations

from .run import embedding_environment, envoy_process, running_envoy, serve_envoy

__all__ = ["embedding_environment", "envoy_process", "running_envoy", "serve_envoy"]

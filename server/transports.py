"""Which transport carries the service: the portable one, or Envoy with ours inside."""

from __future__ import annotations

from collections.abc import Callable

from .run import Addresses, serve
from .settings import Settings

__all__ = ["serve_with"]


def serve_with(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves with the transport that the settings name, until SIGTERM or SIGINT; see `run.serve`."""
    if settings.transport == "portable":
        serve(settings, ready=ready)
        return
    from .hot import serve_hot  # Envoy's packages load only where they are used

    serve_hot(settings, ready=ready)

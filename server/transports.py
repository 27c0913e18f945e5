"""Which transport carries the service: the portable one, or Envoy with ours inside."""

from __future__ import annotations

from collections.abc import Callable

from .run import Addresses, serve
from .settings import Settings
from .supervisor import supervise
from .worker import worker_process

__all__ = ["serve_with"]


def serve_with(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves with the transport and the workers that the settings name, until SIGTERM or SIGINT."""
    if settings.transport == "portable":
        if settings.workers == 1:
            serve(settings, ready=ready)
        else:
            supervise(settings, worker_process, ready=ready)
        return
    from .hot import hot_process, serve_hot  # Envoy's packages load only where they are used

    if settings.workers == 1:
        serve_hot(settings, ready=ready)
    else:
        supervise(settings, hot_process, ready=ready)

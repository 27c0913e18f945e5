"""Which transport carries the service: the portable one, or Envoy with ours inside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from earshot.errors import FailedPrecondition

from .run import Addresses, running, serve
from .settings import Settings
from .supervisor import supervise
from .worker import worker_process

__all__ = ["running_with", "serve_with", "settled"]

log = logging.getLogger(__name__)


def settled(settings: Settings) -> Settings:
    """The settings with `hot` or `portable` in place of `auto`; the log says why it is `portable`."""
    if settings.transport != "auto":
        return settings
    if "grpc_port" in settings.model_fields_set:
        reason = "gRPC is given a port of its own"
    else:
        try:
            from .hot import embedding_environment

            embedding_environment()
        except (ImportError, FailedPrecondition) as error:
            reason = str(error)
        else:
            return settings.model_copy(update={"transport": "hot"})
    log.info("the transport is portable: %s", reason)
    return settings.model_copy(update={"transport": "portable"})


def running_with(settings: Settings) -> AbstractAsyncContextManager[Addresses]:
    """One server with the transport that the settings name, from enter to exit."""
    settings = settled(settings)
    if settings.transport == "portable":
        return running(settings)
    from .hot import running_hot  # Envoy's packages load only where they are used

    return running_hot(settings)


def serve_with(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves with the transport and the workers that the settings name, until SIGTERM or SIGINT."""
    settings = settled(settings)
    if settings.transport == "portable":
        if settings.workers == 1:
            serve(settings, ready=ready)
        else:
            supervise(settings, worker_process, ready=ready)
        return
    from .hot import hot_process, serve_hot

    if settings.workers == 1:
        serve_hot(settings, ready=ready)
    else:
        supervise(settings, hot_process, ready=ready)

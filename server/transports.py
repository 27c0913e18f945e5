"""Which transport carries the service: our own, Envoy with ours inside, or the libraries' servers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from .direct import running_direct, serve_direct
from .run import Addresses, running, serve
from .settings import Settings
from .supervisor import Start, supervise
from .worker import worker_process

__all__ = ["running_with", "serve_with", "settled"]

log = logging.getLogger(__name__)


def settled(settings: Settings) -> Settings:
    """The settings with a transport in place of `auto`; the log says why it is not `direct`."""
    if settings.transport != "auto":
        return settings
    if "grpc_port" in settings.model_fields_set:
        log.info("the transport is portable: gRPC is given a port of its own")
        return settings.model_copy(update={"transport": "portable"})
    if settings.http3 and "http3" in settings.model_fields_set and settings.tls_certificate is not None:
        log.info("the transport is envoy: HTTP/3 was asked for")
        return settings.model_copy(update={"transport": "envoy"})
    return settings.model_copy(update={"transport": "direct"})


def running_with(settings: Settings) -> AbstractAsyncContextManager[Addresses]:
    """One server with the transport that the settings name, from enter to exit."""
    settings = settled(settings)
    if settings.transport == "direct":
        return running_direct(settings)
    if settings.transport == "portable":
        return running(settings)
    from .envoy import running_envoy  # Envoy's packages load only where they are used

    return running_envoy(settings)


def serve_with(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves with the transport and the workers that the settings name, until SIGTERM or SIGINT."""
    settings = settled(settings)
    one, many = _starts(settings.transport)
    if settings.workers == 1:
        one(settings, ready=ready)
    else:
        supervise(settings, many, ready=ready)


def _starts(transport: str) -> tuple[Callable[..., None], Start]:
    """What serves in one process, and what starts a worker of several."""
    if transport == "envoy":
        from .envoy import envoy_process, serve_envoy

        return serve_envoy, envoy_process
    return serve_direct if transport == "direct" else serve, worker_process

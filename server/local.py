"""The service without a socket: for commands that read the data folder themselves, and for tests."""

from __future__ import annotations

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from earshot.client import Client
from earshot.index import Store

from .embedders import Embedders
from .grpc_methods import METHODS
from .registry import Registry
from .service import Service
from .settings import Settings

__all__ = ["LocalTransport", "local_client"]


class LocalTransport:
    """The client's wire, straight into the table of methods: the same bytes, the same errors."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def call(self, method: MethodDescriptor, request: Message, timeout: float | None) -> Message:
        """The answer to `request`; there is nothing to wait for, so `timeout` is not looked at."""
        del timeout
        path = f"/{method.containing_service.full_name}/{method.name}"
        answer: Message = GetMessageClass(method.output_type).FromString(
            METHODS[path](self._service, request.SerializeToString())
        )
        return answer

    def probe(self, timeout: float | None, *, ready: bool) -> bool:
        """It is there, and so it is ready."""
        del timeout, ready
        return True

    def close(self) -> None:
        """Lets go of the journals."""
        self._service.registry.stop()


def local_client(settings: Settings) -> Client:
    """A client of the data folder as it is now; an index is opened when it is asked for."""
    store = Store(settings.data_dir, cache_dir=settings.cache_dir)
    registry = Registry(store, poll_seconds=settings.poll_seconds, journal=settings.journal)
    service = Service(registry, Embedders(settings.cache_dir))
    return Client(f"folder {settings.data_dir}", transport=LocalTransport(service))

"""The Python SDK: one `Client` and one `AsyncClient`, over gRPC or HTTP as the target says.

Needs neither ScaNN nor a model: NumPy, grpcio, httpx and protobuf are all it imports.
"""

from __future__ import annotations

from .access import Tls
from .async_client import AsyncClient
from .client import Client
from .results import (
    Datapoint,
    Explanation,
    Index,
    IndexVersion,
    Neighbor,
    Operation,
    RebuildReport,
    Removed,
    SearchResults,
    Step,
    Upserted,
)
from .retry import Retry
from .transport import AsyncTransport, Transport

__all__ = [
    "AsyncClient",
    "AsyncTransport",
    "Client",
    "Datapoint",
    "Explanation",
    "Index",
    "IndexVersion",
    "Neighbor",
    "Operation",
    "RebuildReport",
    "Removed",
    "Retry",
    "SearchResults",
    "Step",
    "Tls",
    "Transport",
    "Upserted",
]

"""What Envoy is told: pyvoy's configuration, and what a service that drains and shares no port needs."""

from __future__ import annotations

import json
from typing import Any

from pyvoy import PyvoyServer

from ..limits import MAX_HEADER_BYTES
from ..settings import Settings
from .admin import Admin
from .paths import refuse_malformed_paths
from .secrets import Secrets

__all__ = ["NOTICE_SECONDS", "envoy_configuration", "has_http3"]

# Clients are told to leave for so long before the port closes; the shortest that Envoy takes.
NOTICE_SECONDS = 1
# More wait in the client, where they cost us nothing; fewer RFC 9113 advises against.
STREAMS_A_CONNECTION = 100
# Envoy closes a connection when over half of its streams, once they are so many, were reset within a second,
# which is how a flood of resets looks (CVE-2023-44487). By default they are 500, and clients with short
# deadlines, or that ask again while somebody types, lost what else was under way on their connection.
STREAMS_BEFORE_RESETS_COUNT = 100_000
ALT_SVC_SECONDS = 86400  # for so long may a client remember that there is HTTP/3
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"


def has_http3(settings: Settings) -> bool:
    """Whether QUIC is spoken on the port too.

    Not beside mutual TLS: Envoy asks for no client's certificate over QUIC. And not by several workers: the
    kernel deals packets, not connections, out among them, and differently when one of them is replaced.
    """
    return (
        settings.http3
        and settings.tls_certificate is not None
        and settings.tls_client_ca is None
        and settings.workers == 1
    )


def envoy_configuration(settings: Settings, admin: Admin, secrets: Secrets) -> dict[str, Any]:
    """The whole of it, as a dictionary for Envoy's `--config-yaml`."""
    server = PyvoyServer(
        "earshot.server.envoy.entry:app",
        address=settings.host,
        port=settings.port,
        tls_cert=settings.tls_certificate,
        tls_key=settings.tls_key or settings.tls_certificate,
        tls_ca_cert=settings.tls_client_ca,
        tls_enable_http3=has_http3(settings),
        lifespan=True,
        loop="uvloop",
    )
    configuration = server.get_envoy_config()
    configuration.update(admin.configuration())
    configuration["node"] = {"id": "earshot", "cluster": "earshot"}  # who reads secrets has a name
    known = {"overload.premature_reset_total_stream_count": STREAMS_BEFORE_RESETS_COUNT}
    configuration["layered_runtime"] = {"layers": [{"name": "earshot", "static_layer": known}]}
    for listener in configuration["static_resources"]["listeners"]:
        is_quic = "udp_listener_config" in listener
        # But for workers of ours, a port in use is an error and no second server.
        listener["enable_reuse_port"] = settings.workers > 1
        for chain in listener["filter_chains"]:
            if "transport_socket" in chain:
                secrets.use_in(chain["transport_socket"])
            http = chain["filters"][-1]["typed_config"]
            http["server_header_transformation"] = "PASS_THROUGH"
            # Envoy makes the id of a request that brings none, and says it in the answer: for nothing, there.
            http["generate_request_id"] = True
            http["preserve_external_request_id"] = True
            http["always_set_request_id_in_response"] = True
            http["drain_timeout"] = f"{NOTICE_SECONDS}s"
            http["max_request_headers_kb"] = MAX_HEADER_BYTES >> 10
            http["request_headers_timeout"] = "10s"
            http["stream_idle_timeout"] = "3600s"  # health watchers may hear nothing for long
            http["http2_protocol_options"] = {"max_concurrent_streams": STREAMS_A_CONNECTION}
            if is_quic:
                quic = {"max_concurrent_streams": STREAMS_A_CONNECTION}
                http["http3_protocol_options"] = {"quic_protocol_options": quic}
                _hand_over(http)
            elif has_http3(settings):
                _advertise(http, settings.port)
            refuse_malformed_paths(http)
    return configuration


def _hand_over(http: dict[str, Any]) -> None:
    """Lets QUIC's calls come to the application of all others."""
    told = http["http_filters"][-1]["typed_config"]["filter_config"]
    application = {**json.loads(told["value"]), "app": "earshot.server.envoy.entry:http3", "lifespan": False}
    # pyvoy lets both listeners share one list.
    last = http["http_filters"][-1]
    typed = {**last["typed_config"], "filter_config": {**told, "value": json.dumps(application)}}
    http["http_filters"] = [*http["http_filters"][:-1], {**last, "typed_config": typed}]


def _advertise(http: dict[str, Any], port: int) -> None:
    """Tells who comes by HTTP/1.1 or HTTP/2 that there is HTTP/3."""
    header = {"key": "alt-svc", "value": f'h3=":{port}"; ma={ALT_SVC_SECONDS}'}
    mutation = {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    told = {"@type": f"{_FILTERS}.header_mutation.v3.HeaderMutation"}
    told["mutations"] = {"response_mutations": [mutation]}  # type: ignore[assignment]
    filters = {"name": "envoy.filters.http.header_mutation", "typed_config": told}
    http["http_filters"] = [filters, *http["http_filters"]]

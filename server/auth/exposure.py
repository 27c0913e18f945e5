"""What a server refuses to do: to offer everything to everybody on an address that others can reach."""

from __future__ import annotations

import ipaddress
import logging
import socket

from earshot.errors import InvalidArgument

from ..settings import Settings
from .tokens import TokenFile

__all__ = ["check_exposure", "is_loopback"]

log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at `host`, an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def check_exposure(settings: Settings) -> None:
    """Raises InvalidArgument where a public address would be open to all. Warns of tokens in plain text."""
    if is_loopback(settings.host):
        return
    path = settings.tokens_path
    has_tokens = path is not None and bool(TokenFile(path).read())
    if not (has_tokens or settings.tls_client_ca or settings.insecure):
        raise InvalidArgument(
            f"host {settings.host} can be reached by other machines, and nobody would be asked for a token: "
            "make one with `earshot tokens create`, or ask clients for certificates with --tls-client-ca, or "
            "say --insecure",
            field="host",
        )
    if settings.tls_certificate is not None:
        return
    if has_tokens:
        log.warning(
            "tokens travel unencrypted to %s: give --tls-certificate and --tls-key, unless something before "
            "this server encrypts",
            settings.host,
        )
    elif settings.insecure:
        log.warning("--insecure: everybody who can reach %s may read and change everything", settings.host)

"""TLS as the direct transport speaks it."""

from __future__ import annotations

import ssl

from ..settings import Settings

__all__ = ["renew", "tls_context"]


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What the settings' certificates serve; None without. `check_tls` has looked at the files."""
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2", "http/1.1"])
    renew(context, settings)
    if settings.tls_client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def renew(context: ssl.SSLContext, settings: Settings) -> None:
    """Handshakes from now on have the files as they are. Raises OSError where one is gone."""
    assert settings.tls_certificate is not None
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)

"""The server's certificates, looked at before anything listens, and as asyncio and gRPC want them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Self

import grpc

from earshot.errors import InvalidArgument

from .settings import Settings

__all__ = ["GrpcCertificates", "RenewableContext", "check_tls", "tls_context"]


def check_tls(settings: Settings) -> None:
    """Raises InvalidArgument naming the setting where the certificates cannot be served."""
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None and (key or client_ca):
        name = "tls_key" if key else "tls_client_ca"
        raise InvalidArgument(f"{name} is given without tls_certificate, so nothing is encrypted", field=name)
    if certificate is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgument(
            f"tls_certificate {certificate} and tls_key {key} cannot be used: {_reason(error)}",
            field="tls_certificate",
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise InvalidArgument(
                f"tls_client_ca {client_ca} cannot be used: {_reason(error)}", field="tls_client_ca"
            ) from error


class RenewableContext(ssl.SSLContext):
    """Leaves each handshake to a context of the files as they were last read.

    A context of OpenSSL's learns of further authorities and forgets none; who came in by one may resume.
    """

    _make: Callable[[], ssl.SSLContext]
    _now: ssl.SSLContext

    @classmethod
    def of(cls, make: Callable[[], ssl.SSLContext]) -> Self:
        """The first one is made at once."""
        found = cls(ssl.PROTOCOL_TLS_SERVER)
        found._make, found._now = make, make()
        return found

    def renew(self) -> bool:
        """Read the files again, which `check_tls` has looked at; whether other authorities are believed now.

        Raises OSError where a file is gone since.
        """
        before, self._now = self._now, self._make()
        return before.get_ca_certs(binary_form=True) != self._now.get_ca_certs(binary_form=True)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """What event loops call for a connection."""
        return self._now.wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def tls_context(settings: Settings, protocols: Sequence[str]) -> RenewableContext | None:
    """What serves the settings' certificates, which `check_tls` has looked at; None where there are none."""
    certificate = settings.tls_certificate
    if certificate is None:
        return None

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(list(protocols))
        context.load_cert_chain(certificate, settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return RenewableContext.of(make)


class GrpcCertificates:
    """For grpcio's server, which asks at each handshake whether there are newer ones.

    Attributes:
        credentials: None without TLS. `check_tls` has looked at the files.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._newer: grpc.ServerCertificateConfiguration | None = None
        self.credentials: grpc.ServerCredentials | None = None
        if settings.tls_certificate is not None:
            self.credentials = grpc.dynamic_ssl_server_credentials(
                self._read(),
                self._fetch,  # type: ignore[arg-type]  # None, which grpcio takes too, is as before
                require_client_authentication=settings.tls_client_ca is not None,
            )

    def renew(self) -> None:
        """Read the files again, which `check_tls` has looked at. Raises OSError where one is gone since."""
        self._newer = self._read()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        newer, self._newer = self._newer, None
        return newer

    def _read(self) -> grpc.ServerCertificateConfiguration:
        settings = self._settings
        assert settings.tls_certificate is not None
        key = (settings.tls_key or settings.tls_certificate).read_bytes()
        client_ca = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
        return grpc.ssl_server_certificate_configuration(
            [(key, settings.tls_certificate.read_bytes())], client_ca
        )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return {
            "KEY_VALUES_MISMATCH": "the key belongs to another certificate",
            "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in it",
        }.get(error.reason or "", error.reason or str(error))
    return str(error.strerror)

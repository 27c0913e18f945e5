"""The server's certificates, looked at before anything listens, and as gRPC wants them."""

from __future__ import annotations

import ssl

import grpc

from earshot.errors import InvalidArgument

from .settings import Settings

__all__ = ["GrpcCertificates", "check_tls"]


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

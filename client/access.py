"""What opens doors: a token, and the certificates of TLS, ready for each transport."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import grpc

from earshot.errors import InvalidArgument

__all__ = ["Access", "Tls"]

File = str | PathLike[str]


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to trust, and who we are. Files in PEM.

    `ca`: certificates that may have signed the server's; None trusts those of the system. `certificate` and
    `key`: our own, for servers that ask for one (mutual TLS).
    """

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP. Raises InvalidArgument naming the file that cannot be used."""
        self._check()
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise _unusable(self, error) from error
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """For gRPC. Raises as `context`."""
        self.context()  # gRPC itself would only say so in its log, once it connects
        ca, certificate, key = (
            None if file is None else Path(file).read_bytes()
            for file in (self.ca, self.certificate, self.key or self.certificate)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def _check(self) -> None:
        if self.key is not None and self.certificate is None:
            raise InvalidArgument("tls: a key without the certificate to which it belongs", field="tls")


@dataclass(frozen=True, slots=True)
class Access:
    """How a client comes in: by its token, if any, and over TLS or not."""

    token: str | None = field(default=None, repr=False)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise InvalidArgument(
                "token: it has characters that no token has; was it cut or wrapped?", field="token"
            )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call, as gRPC metadata and as HTTP headers."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def channel(self, grpc_module: Any, address: str, options: Any) -> Any:
        """A channel of `grpc` or of `grpc.aio`."""
        if self.tls is None:
            return grpc_module.insecure_channel(address, options=options)
        return grpc_module.secure_channel(address, self.tls.credentials(), options=options)


def _unusable(tls: Tls, error: OSError) -> InvalidArgument:
    files = ", ".join(str(file) for file in (tls.ca, tls.certificate, tls.key) if file is not None)
    reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else str(error)
    return InvalidArgument(f"tls: {error.filename or files} cannot be used: {reason}", field="tls")

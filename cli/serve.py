"""`earshot serve`: gRPC and HTTP until SIGTERM or Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import CacheDir, DataDir
from .output import console
from .tokens import TokensFile

if TYPE_CHECKING:
    from earshot.server import Addresses

__all__ = ["serve"]


def serve(
    transport: Annotated[
        str | None,
        typer.Option(
            help="direct: one port for gRPC and HTTP; envoy: the same through Envoy, with HTTP/3; portable: "
            "grpcio and uvicorn, a port each (default: direct where --grpc-port is not given)."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of HTTP, and of gRPC too (default: 8080; 0 takes a free one).")
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(help="Port of gRPC alone, portable transport (default: 8081; 0 takes a free one)."),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text or json, a line for each entry (default: text).")
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(help="debug (with a line for every call), info, warning or error (default: info)."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the ports (default: 1).")] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="The server's certificate, PEM; from then on only TLS is spoken.", show_default=False
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Private key of the certificate, PEM.", show_default=False)
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            help="Who signed the certificates that clients must show, PEM: mutual TLS.", show_default=False
        ),
    ] = None,
    http3: Annotated[
        bool | None,
        typer.Option(
            "--http3/--no-http3", help="HTTP/3 too, over UDP: with TLS, through Envoy.", show_default=False
        ),
    ] = None,
    tokens_file: TokensFile = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure",
            help="Serve an address that other machines can reach without asking for tokens.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Serve all indexes over gRPC and HTTP; newly published versions are picked up by themselves."""
    from earshot.server import configure_logging, load_settings, serve_with

    settings = load_settings(
        transport=transport,
        host=host,
        port=port,
        grpc_port=grpc_port,
        log_format=log_format,
        log_level=log_level,
        workers=workers,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        http3=http3,
        tokens_file=tokens_file,
        insecure=insecure,
        data_dir=data_dir,
        cache_dir=cache_dir,
    )
    configure_logging(settings)
    serve_with(settings, ready=_print_addresses)


def _print_addresses(addresses: Addresses) -> None:
    console.print(f"gRPC  {addresses.grpc}", highlight=False)
    console.print(f"HTTP  {addresses.http}   (API page: {addresses.http}/docs)", highlight=False)
    console.file.flush()

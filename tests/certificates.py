"""Certificates for tests, by authorities of their own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Files", "write_certificates"]


@dataclass(frozen=True)
class Files:
    """Certificates in PEM, and their keys."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    other_ca: Path


def write_certificates(folder: Path) -> Files:
    """Files in `folder`: a server's for localhost, a client's, who signed both, and somebody else."""
    found = Files(*(folder / f"{field.name}.pem" for field in dataclasses.fields(Files)))
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(found.ca))
    trustme.CA().cert_pem.write_to_path(str(found.other_ca))
    for names, certificate, key in (
        (("localhost", "127.0.0.1"), found.server, found.server_key),
        (("client@example.org",), found.client, found.client_key),
    ):
        issued = ca.issue_cert(*names)
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
    return found

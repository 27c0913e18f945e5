"""Targets, and that the client stands on its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from earshot.client import Client
from earshot.client.transport import parse_target
from earshot.errors import InvalidArgument


@pytest.mark.parametrize(
    ("target", "scheme", "address"),
    [
        ("127.0.0.1:8081", "grpc", "127.0.0.1:8081"),
        ("grpc://localhost:8081", "grpc", "localhost:8081"),
        ("[::1]:8081", "grpc", "[::1]:8081"),
        ("grpcs://search.example:443", "grpcs", "search.example:443"),
        ("http://127.0.0.1:8080", "http", "http://127.0.0.1:8080"),
        ("https://search.example/earshot/", "https", "https://search.example/earshot/"),
    ],
)
def test_the_target_decides_the_transport(target: Any, scheme: Any, address: Any) -> None:
    assert parse_target(target) == (scheme, address)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "localhost",
        "localhost:",
        ":8081",
        "grpc://",
        "grpc://h",
        "ftp://h:1",
        "http://",
        "h:1/x",
        "h:99999",
        "h:x",
    ],
)
def test_a_wrong_target_is_refused_with_what_would_be_right(target: Any) -> None:
    with pytest.raises(InvalidArgument, match="write 'host:port'") as caught:
        Client(target)
    assert repr(target) in caught.value.message


def test_the_client_needs_neither_engine_nor_model_nor_server() -> None:
    script = """
import sys
for name in ("scann", "onnxruntime", "onnx", "pyarrow", "fastapi", "uvicorn", "tokenizers", "grpc_health",
             "earshot.index", "earshot.embedding", "earshot.server", "earshot.jobs"):
    sys.modules[name] = None
from earshot.client import AsyncClient, Client
with Client("127.0.0.1:1"), Client("http://127.0.0.1:1"):
    pass
"""
    subprocess.run([sys.executable, "-c", script], check=True)

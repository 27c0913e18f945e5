"""Arguments and options that several commands share, and the client that two of them choose."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from earshot.client import Client, Tls
    from earshot.client.http_transport import HttpTransport
    from earshot.index import Store

__all__ = [
    "BackupUrl",
    "CacheDir",
    "DataDir",
    "DropLiveUpdates",
    "IndexName",
    "Indexes",
    "Journal",
    "Json",
    "Server",
    "Shards",
    "TuningQueries",
    "Version",
    "Where",
    "client_of",
    "connected",
    "store_of",
]

IndexName = Annotated[
    str, typer.Argument(metavar="INDEX", help="Name of the index, such as podcasts.", show_default=False)
]
DataDir = Annotated[
    str | None,
    typer.Option(
        help="Folder that holds the indexes, or an address such as s3://bucket/prefix "
        "(default: $EARSHOT_DATA_DIR or .earshot).",
        show_default=False,
    ),
]
BackupUrl = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="A folder, or an address such as s3://bucket/backups/monday.", show_default=False
    ),
]
Indexes = Annotated[
    list[str] | None,
    typer.Option(metavar="INDEX", help="This index only. May be repeated.", show_default=False),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder for models and computed embeddings (default: $EARSHOT_CACHE_DIR or the user's cache).",
        show_default=False,
    ),
]
Journal = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="postgresql://… of the journal that several servers share (default: $EARSHOT_JOURNAL, or a file "
        "beside the index's versions).",
        show_default=False,
    ),
]
DropLiveUpdates = Annotated[
    bool,
    typer.Option(
        "--drop-live-updates",
        help="Forget every upsert and remove so far; otherwise they stay, over what the sources say.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Shards = Annotated[
    int | None,
    typer.Option(
        help="Parts that are built in processes of their own and searched side by side (default: 1).",
        show_default=False,
    ),
]
TuningQueries = Annotated[
    Path | None,
    typer.Option(
        help="Real queries to measure with: a query a line, JSON lines with the key text, or a file of "
        "vectors.",
        show_default=False,
    ),
]
Version = Annotated[
    str | None, typer.Argument(metavar="[VERSION]", help="Such as v000007.", show_default=False)
]
Server = Annotated[
    str | None,
    typer.Option(
        help="Ask this server (127.0.0.1:8080 for gRPC, http://127.0.0.1:8080; grpcs://, https:// for TLS) "
        "and not the data folder.",
        show_default=False,
    ),
]
_CONNECTION: dict[str, Any] = {
    "token": Annotated[
        str | None,
        typer.Option(
            envvar="EARSHOT_TOKEN",
            help="Token for the server; as a variable it stays out of the process list.",
        ),
    ],
    "tls_ca": Annotated[
        Path | None,
        typer.Option(envvar="EARSHOT_TLS_CA", help="Who may have signed the server's certificate, PEM."),
    ],
    "tls_certificate": Annotated[
        Path | None,
        typer.Option(
            "--client-certificate",
            envvar="EARSHOT_CLIENT_CERTIFICATE",
            help="Our certificate, for servers that ask for one, PEM.",
        ),
    ],
    "tls_key": Annotated[
        Path | None,
        typer.Option("--client-key", envvar="EARSHOT_CLIENT_KEY", help="Its private key, PEM."),
    ],
}
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Only what matches, such as language=de, 'year>=2020' or 'show!=\"Late Vowels\"'. "
        "May be repeated: all must match, but of several tokens (language=de, language=fr) one.",
        show_default=False,
    ),
]


def client_of(server: str | None, data_dir: str | None, cache_dir: Path | None = None) -> Client:
    """A client of a server where one is named, else of the data folder."""
    if server:
        return connection.get().client(server)
    from earshot.server import load_settings, local_client

    return local_client(load_settings(data_dir=data_dir, cache_dir=cache_dir))


@dataclass(frozen=True)
class Connection:
    """How a command reaches a server: its token and certificates."""

    token: str | None = None
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def client(self, server: str) -> Client:
        """A client of `server`."""
        from earshot.client import Client

        return Client(server, token=self.token, tls=self._tls())

    def pages(self, server: str) -> HttpTransport:
        """What reads pages such as `/metrics` of the server at an HTTP address."""
        from earshot.client.access import Access
        from earshot.client.http_transport import HttpTransport

        return HttpTransport(server, Access(self.token, self._tls()))

    def _tls(self) -> Tls | None:
        from earshot.client import Tls

        files = (self.tls_ca, self.tls_certificate, self.tls_key)
        return Tls(*files) if any(files) else None


connection: ContextVar[Connection] = ContextVar("connection", default=Connection())  # noqa: B039  # frozen


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, where it has `--server`, with the options that say how to reach one."""
    signature = inspect.signature(command, eval_str=True)
    if "server" not in signature.parameters:
        return command

    @functools.wraps(command)
    def run(**given: Any) -> None:
        connection.set(Connection(**{name: given.pop(name) for name in _CONNECTION}))
        command(**given)

    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in _CONNECTION.items()
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *more]
    )
    return run


def store_of(data_dir: str | None, cache_dir: Path | None) -> Store:
    """The data folder itself, for what no server does."""
    from earshot.index import Store
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir)
    return Store(settings.data_dir, cache_dir=settings.cache_dir)

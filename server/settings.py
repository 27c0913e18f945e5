"""Every setting, declared once.

Flags beat `EARSHOT_*`, which beat `earshot.toml`, which beats the default.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from earshot.errors import InvalidArgument

__all__ = ["Settings", "load_settings"]

MEBIBYTE = 1 << 20


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


class Settings(BaseSettings):
    """What an operator may set. Keep it short: a default that is right beats a setting."""

    model_config = SettingsConfigDict(env_prefix="EARSHOT_", toml_file="earshot.toml", extra="forbid")

    data_dir: Annotated[str, BeforeValidator(_as_text)] = Field(
        ".earshot", description="Folder that holds the indexes, or an address such as s3://bucket/prefix."
    )
    cache_dir: Path = Field(
        Path(platformdirs.user_cache_dir("earshot")),
        description="Folder for models made ready to run and for embeddings already computed.",
    )
    transport: Literal["auto", "direct", "envoy", "portable"] = Field(
        "auto",
        description="direct: gRPC and HTTP on one port, the fastest. envoy: the same through Envoy, with "
        "HTTP/3, on Linux and macOS only. portable: gRPC by grpcio and HTTP by uvicorn, a port each, the "
        "slowest. auto: direct, but portable where grpc_port is set, and envoy where http3 is, with TLS.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8080,
        ge=0,
        le=65535,
        description="Port of HTTP, and of gRPC too unless the transport is portable; 0 takes a free one.",
    )
    grpc_port: int = Field(
        8081, ge=0, le=65535, description="Port of gRPC where the transport is portable; 0 takes a free one."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="Searches at a time in one worker; 0 means one a core in all."
    )
    workers: int = Field(
        1, ge=1, le=256, description="Processes that share the ports; the threads are divided among them."
    )
    rebuild_sources: list[str] = Field(
        [],
        description="Folders, files and addresses beneath which the sources of a rebuild that a caller asks "
        "the server for may lie. By itself none, but what the current version was built from may be read "
        "again.",
    )
    poll_seconds: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="How often a server looks for a new version of its indexes; by itself every 0.5 s in a "
        "folder, every 10 s at an address.",
    )
    journal: str | None = Field(
        None,
        pattern=r"^postgres(ql)?://",
        description="Address postgresql://… of the journal of updates, where several servers share indexes "
        "or the data lies at an address; by itself a file beside each index's versions. "
        "Needs earshot[postgres].",
    )
    compact_updates: int = Field(
        100_000,
        ge=0,
        description="After how many updates a server builds a new version in the background; 0 for never.",
    )
    compact_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of an index's datapoints that may be fresh or removed before a server builds a "
        "new version in the background.",
    )
    max_message_bytes: int = Field(
        16 * MEBIBYTE, ge=1024, le=1 << 30, description="Largest request that is read, in bytes."
    )
    max_answer_bytes: int = Field(
        64 * MEBIBYTE, ge=1024, le=1 << 30, description="Largest answer that is sent, in bytes."
    )
    tokens_file: Path | None = Field(
        None,
        description="File of the tokens that callers need, made by `earshot tokens create`; by itself "
        "tokens.json in the data folder, and none where the data lies at an address.",
    )
    insecure: bool = Field(
        False, description="Serve an address that other machines can reach without asking for tokens."
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate of the server, PEM, with its chain; from then on only TLS is spoken."
    )
    tls_key: Path | None = Field(None, description="Private key of the certificate, PEM.")
    tls_client_ca: Path | None = Field(
        None,
        description="Certificates, PEM, one of which must have signed the client's: mutual TLS.",
    )
    http3: bool = Field(
        True,
        description="With TLS, speak HTTP/3 too, over UDP on the same port (envoy transport, one worker, no "
        "mutual TLS).",
    )

    @property
    def threads_of_a_worker(self) -> int:
        """How many searches one process runs at a time."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)

    @property
    def tokens_path(self) -> Path | None:
        """Where the tokens are, if anywhere."""
        if self.tokens_file is not None:
            return self.tokens_file
        return None if "://" in self.data_dir else Path(self.data_dir) / "tokens.json"

    max_queue: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Queries that may wait for an index; what comes beyond is refused at once, to be tried "
        "again later.",
    )
    p99_seconds: float = Field(
        0.1,
        gt=0,
        description="In how many seconds 99 of 100 searches on a GPU should be answered: as many queries go "
        "there together as allow it (not the portable transport).",
    )
    log_format: Literal["text", "json"] = Field("text", description="How an entry of the log looks.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged; debug has a line for every call."
    )
    log_slow_seconds: float = Field(
        1.0, ge=0, description="A call that takes as long is logged, with what took how long."
    )
    log_queries: bool = Field(False, description="Whether the log may hold the texts that were searched for.")

    otlp_endpoint: str = Field(
        "",
        description="Where traces go by OTLP over gRPC, such as http://127.0.0.1:4317; by itself what "
        "$OTEL_EXPORTER_OTLP_ENDPOINT says. Needs earshot[otel].",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then `earshot.toml` of the working folder."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**flags: object) -> Settings:
    """Settings from flags that are not None, the environment and `earshot.toml`.

    Raises InvalidArgument naming the setting and the value that cannot be.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(
            f"setting {name} = {first.get('input')!r}: {first['msg']}", field=name
        ) from error
    except ValueError as error:  # earshot.toml that is not TOML
        raise InvalidArgument(f"earshot.toml: {error}", field="earshot.toml") from error

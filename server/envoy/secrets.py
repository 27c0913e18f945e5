"""Certificates as Envoy takes them up again: by files that name them, and are replaced when they change."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

from ..renewal import certificate_files
from ..settings import Settings

__all__ = ["Secrets"]

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


class Secrets:
    """What `settings` name, in a private `folder`. Envoy calls the mechanism SDS, of paths."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._files = certificate_files(settings)
        self._folder = folder
        self._turns = count(1)

    def write(self) -> None:
        """Let Envoy read the files, again where it did so before.

        It compares names, not contents, so each time they are read by links of another name.
        """
        links = self._folder / f"certificates-{next(self._turns)}"
        links.mkdir()
        named = {}
        for name, path in self._files.items():
            (links / name).symlink_to(path.absolute())
            named[name] = {"filename": str(links / name)}
        pair = {"certificate_chain": named["tls_certificate"], "private_key": named["tls_key"]}
        self._replace("server", {"tls_certificate": pair})
        if "tls_client_ca" in named:
            self._replace("clients", {"validation_context": {"trusted_ca": named["tls_client_ca"]}})

    def use_in(self, socket: dict[str, Any]) -> None:
        """Have a listener's transport socket go by these files, in the place of what it names."""
        typed = socket["typed_config"]
        tls = typed.get("downstream_tls_context", typed)["common_tls_context"]
        del tls["tls_certificates"]
        tls["tls_certificate_sds_secret_configs"] = [self._config("server")]
        if tls.pop("validation_context", None) is not None:
            tls["validation_context_sds_secret_config"] = self._config("clients")

    def _replace(self, name: str, secret: dict[str, Any]) -> None:
        temporary = self._folder / f"{name}.new"
        temporary.write_text(json.dumps({"resources": [{"@type": _TYPE, "name": name, **secret}]}))
        temporary.rename(self._path(name))  # a file that is moved here is what Envoy looks for

    def _config(self, name: str) -> dict[str, Any]:
        source = {"path_config_source": {"path": str(self._path(name))}, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

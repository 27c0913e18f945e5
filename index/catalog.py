"""Which indexes there are, and what was asked of each: `<location>/indexes/<name>/config.json`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from earshot.errors import Aborted, DataLoss, FailedPrecondition, InvalidArgument, NotFound

from .config import FIXED, IndexConfig, checked_config
from .homes import home_of
from .homes.base import CONFIG
from .homes.folder import FolderHome
from .journal import JOURNAL_FILE

__all__ = ["Catalog", "is_name"]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Catalog:
    """A data folder as a list of indexes; `Store` adds their versions and says what the arguments are."""

    def __init__(
        self, location: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
    ) -> None:
        self._home = home_of(location, cache_dir)

    @property
    def location(self) -> str:
        """The data folder, or the address."""
        return self._home.location

    @property
    def poll_seconds(self) -> float:
        """How often to look for a new version, where nobody says: a far home charges for each look."""
        return self._home.poll_seconds

    def indexes(self) -> list[str]:
        """The names of the indexes, sorted."""
        return sorted(
            name for name in self._home.indexes() if is_name(name) and self._home.config(name) is not None
        )

    def create(self, name: str, config: Mapping[str, Any] | IndexConfig | None = None) -> None:
        """Make an index without versions; `config` is kept as `config.json`.

        Raises:
            InvalidArgument: Not a name: a lower-case letter, then up to 62 letters, digits and hyphens.
            AlreadyExists: There is one.
            PermissionDenied, ResourceExhausted: It cannot be written.
        """
        if not is_name(name):
            raise InvalidArgument(
                f"index is {name!r}; a name is a lower-case letter, then up to 62 of a-z, 0-9 and -",
                field="index",
            )
        self._home.create(name, _encoded(config or {}))

    def config(self, name: str) -> dict[str, Any]:
        """What the index was created with.

        Raises:
            NotFound: No such index.
            DataLoss: `config.json` is not JSON.
        """
        try:
            return msgspec.json.decode(self._config(name), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise DataLoss(f"{self._home.where(name)}/{CONFIG} is not JSON: {error}") from error

    def asked(self, name: str) -> IndexConfig:
        """The same in the terms that every job knows; keys that it does not know are passed over.

        Raises:
            NotFound: No such index.
            DataLoss: `config.json` is not JSON, or a value has the wrong type.
        """
        return self._decoded(name, self._config(name))

    def reconfigure(self, name: str, changes: Mapping[str, Any], *, etag: str | None = None) -> IndexConfig:
        """Change some fields of an `IndexConfig`; None unsays one. Keys that are none of its stay.

        Args:
            name: The index.
            changes: New values by field.
            etag: What `etag` said when the caller looked; None changes it in any case.

        Raises:
            NotFound: No such index.
            InvalidArgument: An unknown field or a value that cannot be.
            FailedPrecondition: A field that is fixed once it was said.
            Aborted: The index is not what the caller saw, or another writer changed the config meanwhile.
        """
        before = self._config(name)
        self._check_etag(name, etag)
        old = self._decoded(name, before)
        checked_config(changes)
        for field in FIXED:
            said = getattr(old, field)
            if said is not None and field in changes and changes[field] != said:
                raise FailedPrecondition(
                    f"{field} of index {name} is {said!r} and fixed: create another index", field=field
                )
        merged = {**msgspec.json.decode(before), **changes}
        after = {key: value for key, value in merged.items() if value is not None}
        self._home.replace_config(name, _encoded(after), before)
        return checked_config({key: after.get(key) for key in IndexConfig.__struct_fields__})

    def etag(self, name: str) -> str:
        """Changes with the config and with the version that is current. Raises NotFound."""
        current = self._home.current(name) or ""
        return xxhash.xxh3_64_hexdigest(self._config(name) + current.encode())

    def delete(self, name: str, *, etag: str | None = None) -> None:
        """Remove an index with all its versions. Processes that have it open keep what they have.

        Raises:
            NotFound: No such index.
            Aborted: Another writer is at work, or the index is not what `etag` said of it.
        """
        with self.writer_lock(name):
            self._check_etag(name, etag)
            self._home.delete(name)

    def journal_file(self, name: str) -> Path | None:
        """Where the index's journal lies, or will; None at an address, where no database can."""
        return Path(self._home.where(name)) / JOURNAL_FILE if isinstance(self._home, FolderHome) else None

    @contextmanager
    def writer_lock(self, name: str, *, timeout: float = 0) -> Iterator[None]:
        """Be the only writer of an index; a crashed process does not hold it, or not for long.

        Raises:
            NotFound: No such index.
            Aborted: Another writer is at work and was not done within `timeout` seconds.
        """
        self._config(name)
        with self._home.lock(name, timeout):
            yield

    def _check_etag(self, name: str, etag: str | None) -> None:
        if etag is not None and etag != self.etag(name):
            raise Aborted(
                f"index {name} was changed since its etag was {etag!r}; look at it again", field="etag"
            )

    def _decoded(self, name: str, config: bytes) -> IndexConfig:
        try:
            return msgspec.json.decode(config, type=IndexConfig)
        except msgspec.DecodeError as error:
            raise DataLoss(f"{self._home.where(name)}/{CONFIG} cannot be read: {error}") from error

    def _config(self, name: str) -> bytes:
        found = self._home.config(name) if is_name(name) else None
        if found is not None:
            return found
        known = self.indexes()
        near = difflib.get_close_matches(str(name), known, n=3) or known[:10]
        hint = f"there is {', '.join(near)}" if near else f"there is none in {self.location} yet"
        raise NotFound(f"there is no index {name!r}; {hint}", field="index")


def _encoded(config: Mapping[str, Any] | IndexConfig) -> bytes:
    return msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n"


def is_name(name: Any) -> bool:
    """Whether an index can be called so."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None

"""The seam between the store and where its files lie, and the names that are the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Protocol

from earshot.errors import Aborted

from ..manifest import Manifest

INDEXES = "indexes"
CONFIG = "config.json"
CURRENT = "CURRENT"
VERSIONS = "versions"
LOCK = "writer.lock"

_VERSION = re.compile(r"v(\d{6,})")


class Home(Protocol):
    """Names of indexes and versions have been checked before they come here.

    Every method may raise PermissionDenied, ResourceExhausted or Unavailable. What writes, `create` and
    `replace_config` apart, is called with the index's lock held.
    """

    location: str
    """As the user wrote it."""

    poll_seconds: ClassVar[float]
    """How often a server looks for a new version where nobody says."""

    def indexes(self) -> list[str]:
        """Whatever may be an index, unsorted; `config` knows."""

    def config(self, index: str) -> bytes | None:
        """`config.json`, or None where there is no such index."""

    def create(self, index: str, config: bytes) -> None:
        """Raises AlreadyExists where there is one."""

    def replace_config(self, index: str, content: bytes, expected: bytes) -> None:
        """In one step. Raises Aborted where `config.json` is not `expected` any more."""

    def delete(self, index: str) -> None:
        """From its first step on there is no such index, however far the rest comes."""

    def lock(self, index: str, timeout: float) -> AbstractContextManager[None]:
        """Raises Aborted where another writer is at work; the same thread may enter again."""

    def versions(self, index: str) -> list[str]:
        """Oldest first, whole or not."""

    def current(self, index: str) -> str | None:
        """What CURRENT says; None where nothing was published."""

    def set_current(self, index: str, version: str) -> None:
        """In one step. Raises Aborted where another writer did so since the lock was taken."""

    def where(self, index: str, version: str | None = None) -> str:
        """For messages."""

    def manifest(self, index: str, version: str) -> Manifest:
        """Raises DataLoss where the version was never finished or its manifest is damaged."""

    def sizes(self, index: str, version: str) -> Mapping[str, int]:
        """Bytes of every file of a version, by its path within."""

    def open(
        self, index: str, version: str, *, verify: bool = True, anew: bool = False
    ) -> AbstractContextManager[Path]:
        """A folder of this machine that holds the version, at least until the context ends.

        Args:
            verify: Compare checksums, else sizes alone; a copy that differs is fetched again.
            anew: Fetch it again in any case.

        Raises:
            DataLoss: A file is missing, cut short or changed; the message names it.
            FailedPrecondition: A newer program wrote it.
        """

    def add(self, index: str, version: str, write: Callable[[Path], None]) -> None:
        """A new version, in one step or not at all: `write` fills an empty folder of this machine."""

    def remove(self, index: str, version: str) -> None:
        """From its first step on the version is not whole."""

    def remove_leftovers(self, index: str) -> None:
        """What a writer that died left behind and no other method shows."""


def changed_meanwhile(index: str) -> Aborted:
    """What `replace_config` raises."""
    return Aborted(f"the config of index {index} was changed by another writer meanwhile; look at it again")


def sorted_versions(names: list[str]) -> list[str]:
    """Those that are names of versions, oldest first."""
    return sorted((name for name in names if _VERSION.fullmatch(name)), key=lambda name: int(name[1:]))


def next_version(versions: list[str]) -> str:
    """The name after the newest of `sorted_versions`."""
    return f"v{int(versions[-1][1:]) + 1 if versions else 1:06d}"

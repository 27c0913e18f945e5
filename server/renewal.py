"""Certificates whose files change are taken up without a restart: renewals come every few weeks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from earshot.errors import InvalidArgument

from .settings import Settings
from .tls import check_tls

__all__ = ["certificate_files", "when_renewed"]

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)

_State = tuple[tuple[int, int, int] | None, ...]


def certificate_files(settings: Settings) -> dict[str, Path]:
    """What is served, by the setting that names it; the key may lie in the certificate's file."""
    named = {
        "tls_certificate": settings.tls_certificate,
        "tls_key": settings.tls_key or settings.tls_certificate,
        "tls_client_ca": settings.tls_client_ca,
    }
    return {name: path for name, path in named.items() if path is not None}


async def when_renewed(settings: Settings, take: Callable[[], None]) -> None:
    """Call `take` each time that the files were changed and can be served, until cancelled.

    Certificate and key are written one after the other: while they do not fit, or are still being written,
    what is served stays.
    """
    paths = list(certificate_files(settings).values())
    taken = seen = _state(paths)
    while paths:
        await asyncio.sleep(LOOK_SECONDS)
        before, seen = seen, _state(paths)
        if seen == taken or seen != before:
            continue
        taken = seen
        try:
            check_tls(settings)
            take()
        except (InvalidArgument, OSError) as error:  # OSError: they changed once more in between
            log.error("the certificates changed; those from before are served on: %s", error)
        else:
            log.info("the certificates were renewed")


def _state(paths: list[Path]) -> _State:
    return tuple(_of_one(path) for path in paths)


def _of_one(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

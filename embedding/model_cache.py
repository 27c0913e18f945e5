"""A model's files in the user's cache: built once though many ask, checked on every read, never half written.

An entry is a folder of files beside a `manifest.json` of their sha256; what does not match is built again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from earshot.errors import EarshotError, FailedPrecondition, ResourceExhausted

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_FULL = {errno.ENOSPC, errno.EDQUOT}


def read_or_build(entry: Path, build: Callable[[], Mapping[str, bytes]]) -> dict[str, bytes]:
    """Return the files of the folder `entry`, by name; where it is missing or damaged, `build` it first.

    Two processes that start at once build once: the second waits and reads. Raises `FailedPrecondition` or
    `ResourceExhausted` (field `cache_dir`) where the folder cannot be written, and what `build` raises.
    """
    try:
        if files := _read(entry):
            return files
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(f"{entry.name}.lock")):
            if files := _read(entry):
                return files
            if entry.exists():
                _log.warning("the cached model %s is damaged; building it again", entry)
            built = dict(build())
            _write(entry, built)
            return built
    except OSError as error:
        raise _explained(error, entry.parent) from error


def _read(entry: Path) -> dict[str, bytes] | None:
    try:
        sums: dict[str, str] = json.loads((entry / _MANIFEST).read_bytes())
        files = {name: (entry / name).read_bytes() for name in sums}
    except (FileNotFoundError, ValueError):
        return None
    return files if files and _sums(files) == sums else None


def _write(entry: Path, files: Mapping[str, bytes]) -> None:
    # No fsync: a file that a power cut shortened fails its checksum and is built again. One writer at a time,
    # so what lies at the name was left by a run that was killed.
    new = entry.with_name(f"{entry.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name, content in files.items():
        (new / name).write_bytes(content)
    (new / _MANIFEST).write_text(json.dumps(_sums(files), indent=1))
    shutil.rmtree(entry, ignore_errors=True)
    new.rename(entry)


def _sums(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _explained(error: OSError, folder: Path) -> EarshotError:
    reason = f"cannot keep the model in {folder}: {error.strerror or error}"
    if error.errno in _FULL:
        return ResourceExhausted(f"{reason}; free some space or name another cache folder", field="cache_dir")
    return FailedPrecondition(f"{reason}; make it writable or name another cache folder", field="cache_dir")

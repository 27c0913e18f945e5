"""Writing files so that a crash leaves the old or the new, and reading them so that damage is noticed.

Operating system errors become sentences that say what to do.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from earshot.errors import DataLoss, EarshotError, FailedPrecondition, PermissionDenied, ResourceExhausted

_CHUNK = 1 << 20
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_ADVICE: dict[int, tuple[type[EarshotError], str]] = {
    errno.EACCES: (PermissionDenied, "make it writable for this user, or choose another data folder"),
    errno.EPERM: (PermissionDenied, "make it writable for this user, or choose another data folder"),
    errno.EROFS: (PermissionDenied, "it is mounted read-only; choose another data folder"),
    errno.ENOSPC: (ResourceExhausted, "free some disk space and try again"),
    errno.EDQUOT: (ResourceExhausted, "free some of the quota and try again"),
    errno.ENOTDIR: (FailedPrecondition, "a file stands where a folder is needed; choose another data folder"),
    errno.EFBIG: (ResourceExhausted, "raise the limit on file sizes and try again"),
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn "not writable" and "no space" into errors of ours; other `OSError`s pass.

    Raises:
        PermissionDenied: The system forbids the write.
        ResourceExhausted: The disk, quota or file size limit is used up.
        FailedPrecondition: A file is in the way.
    """
    try:
        yield
    except OSError as error:
        known = explanation(error, path)
        if known is None:
            raise
        raise known from error


def explanation(error: OSError, path: Path) -> EarshotError | None:
    """The error of ours for a refused write at `path`; None where it is something else."""
    if error.errno not in _ADVICE:
        return None
    kind, advice = _ADVICE[error.errno]
    return kind(f"cannot write {error.filename or path}: {error.strerror}; {advice}")


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a C-contiguous array as `.npy`. `numpy.save` would not notice a short write.

    Raises:
        OSError: It cannot be written whole.
    """
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        stream.write(array.data.cast("B"))


def link_files(names: Iterable[str], source: Path, target: Path) -> None:
    """Put files of one folder into another as well: by hard link, or as copies where the system has none.

    Raises:
        DataLoss: One is not there.
        OSError: It cannot be written.
    """
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except FileNotFoundError as error:
            raise DataLoss(f"{source / name} is missing") from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(source / name, target / name)


def checksum(path: Path) -> str:
    """xxh3_128 of a file's bytes, in hex. It guards against damage, not against malice.

    Raises:
        DataLoss: The file is missing or cannot be read.
    """
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise DataLoss(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` every file below `folder`, and every folder, itself included."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(root, name))
        sync(Path(root))


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace a small file in one step: readers see the old content or the new, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)

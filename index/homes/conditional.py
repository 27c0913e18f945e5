"""Writing a small object only if it is still what was read: what leases and CURRENT of a far home stand on.

| file system | create if absent | replace if unchanged |
|---|---|---|
| S3 (`s3fs`) | the store refuses (If-None-Match) | the store refuses (If-Match) |
| others | as their fsspec does: Google's refuses, others look first | compared, written, and read back |

Under "looks first" two writers in different processes may, in a window of milliseconds, both believe to be
first. An S3-compatible store that ignores the two headers is in the same case.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from fsspec.asyn import sync

_CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_one_at_a_time = threading.Lock()


class Changed(Exception):
    """Another writer was first."""


class Conditional(Protocol):
    """`tag` stands for one state of an object; None for its absence."""

    def read(self, path: str) -> tuple[bytes, Any] | None:
        """Content and tag; None where there is no such object."""

    def write(self, path: str, content: bytes, expected: Any) -> Any:
        """Write if the object's tag is `expected`; the new tag. Raises Changed."""


def conditional(filesystem: Any) -> Conditional:
    """The strongest there is for a file system."""
    protocols = filesystem.protocol
    known = {protocols} if isinstance(protocols, str) else set(protocols)
    return S3Conditional(filesystem) if known & {"s3", "s3a"} else PlainConditional(filesystem)


def write_own(store: Conditional, path: str, content: bytes, expected: Any) -> Any:
    """`Conditional.write` of content that no other writer would write: if it is there, we wrote it.

    Libraries send a request again whose answer was lost, and the second one finds the first one's work.
    """
    try:
        return store.write(path, content, expected)
    except Changed:
        found = store.read(path)
        if found is None or found[0] != content:
            raise
        return found[1]


class S3Conditional:
    """The store itself compares the ETag."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def read(self, path: str) -> tuple[bytes, Any] | None:
        """See `Conditional`."""
        try:
            answer = self._call("get_object", path)
        except FileNotFoundError:
            return None
        return sync(self._filesystem.loop, answer["Body"].read), answer["ETag"]

    def write(self, path: str, content: bytes, expected: Any) -> Any:
        """See `Conditional`."""
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            return self._call("put_object", path, Body=content, **condition)["ETag"]
        except OSError as error:
            answer = getattr(error.__cause__, "response", {})
            was_changed = answer.get("Error", {}).get("Code") in _CONFLICTS
            was_removed = expected is not None and isinstance(error, FileNotFoundError)
            if was_changed or was_removed:
                raise Changed from error
            raise

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        bucket, key, _ = self._filesystem.split_path(path)
        return self._filesystem.call_s3(method, Bucket=bucket, Key=key, **arguments)


class PlainConditional:
    """Content is its own tag; threads of this process take turns."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def read(self, path: str) -> tuple[bytes, Any] | None:
        """See `Conditional`."""
        try:
            content = bytes(self._filesystem.cat_file(path))
        except FileNotFoundError:
            return None
        return content, content

    def write(self, path: str, content: bytes, expected: Any) -> Any:
        """See `Conditional`."""
        with _one_at_a_time:
            if expected is None:
                try:
                    self._filesystem.pipe_file(path, content, mode="create")
                except FileExistsError as error:
                    raise Changed from error
            else:
                found = self.read(path)
                if found is None or found[0] != expected:
                    raise Changed
                self._filesystem.pipe_file(path, content)
            written = self.read(path)
            if written is None or written[0] != content:
                raise Changed
        return content

"""What both clients can do with whole indexes and the jobs over them: mixins over `_run`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from earshot.errors import DeadlineExceeded

from . import index_codec
from .codec import Flow
from .results import Index, Operation
from .retry import check_timeout

__all__ = ["AsyncIndexCalls", "IndexCalls"]

R = TypeVar("R")

POLL_SECONDS = 0.9  # below what servers log as slow
LEAST_SECONDS_BETWEEN_POLLS = 0.2


class _Runs(Protocol):
    def _run(self, flow: Flow[R], timeout: float | None) -> R: ...


class _RunsAsync(Protocol):
    async def _run(self, flow: Flow[R], timeout: float | None) -> R: ...


class IndexCalls:
    """Of the blocking client."""

    def create_index(self: _Runs, name: str, *, timeout: float | None = None, **config: Any) -> Index:
        """A new index without a version, which there is nothing to search in yet.

        `config`: `dimensions`, `model`, `distance_measure`, `feature_norm`, `engine`, `shards`,
        `target_recall` and `per_crowding_attribute_neighbor_count`; what is left out is left to whatever
        builds it.

        Raises AlreadyExists, and InvalidArgument naming the field.
        """
        return self._run(index_codec.create_index(name, config), timeout)

    def update_index(
        self: _Runs,
        name: str,
        changes: Mapping[str, Any],
        *,
        etag: str | None = None,
        timeout: float | None = None,
    ) -> Index:
        """Changes fields of the config, such as `{"target_recall": 0.97, "shards": None}`; None unsays one.

        `target_recall` and `per_crowding_attribute_neighbor_count` hold at once, all else from the next build
        on. Raises FailedPrecondition for `dimensions` and `model`, which are fixed once said, Aborted where
        the index is not what `etag` said of it.
        """
        return self._run(index_codec.update_index(name, changes, etag), timeout)

    def delete_index(
        self: _Runs, name: str, *, etag: str | None = None, force: bool = False, timeout: float | None = None
    ) -> None:
        """Removes an index with all its versions, if it is what `etag` said of it, or by `force` anyhow.

        Raises NotFound, InvalidArgument without either, Aborted for an old etag and while a job runs.
        """
        self._run(index_codec.delete_index(name, etag, force), timeout)

    def rollback(
        self: _Runs, index: str, version: str | None = None, *, timeout: float | None = None
    ) -> Index:
        """Makes a version current, the newest whole one before the current by default."""
        return self._run(index_codec.rollback(index, version), timeout)

    def rebuild(
        self: _Runs,
        index: str,
        sources: Iterable[str] = (),
        *,
        transcripts: Iterable[str] = (),
        fields: Iterable[str] = (),
        max_bad: str | None = None,
        keep: int | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> Operation:
        """Has the server build a version from `sources`, or else from those of the current one; see `wait`.

        `sources` and `transcripts` are addresses and paths as the server sees them, which its operator must
        have allowed. `fields`: where a JSON line keeps what, such as `text=body.summary`. `max_bad`: bad
        records to skip, a share or a number. `keep`: versions kept for rollback.

        Raises PermissionDenied for a source that is not allowed, Aborted while another one runs.
        """
        flow = index_codec.rebuild(
            index,
            sources,
            transcripts=transcripts,
            fields=fields,
            max_bad=max_bad,
            keep=keep,
            force=force or None,
        )
        return self._run(flow, timeout)

    def operation(self: _Runs, name: str, *, timeout: float | None = None) -> Operation:
        """How far a job has come, or what came of it. Raises NotFound."""
        return self._run(index_codec.operation(name), timeout)

    def operations(self: _Runs, index: str, *, timeout: float | None = None) -> list[Operation]:
        """The jobs over an index, newest first. Raises NotFound."""
        return self._run(index_codec.operations(index), timeout)

    def cancel(self: _Runs, operation: Operation | str, *, timeout: float | None = None) -> None:
        """Ends a job, if it still runs; what it embedded is kept."""
        self._run(index_codec.cancel(_name(operation)), timeout)

    def wait(
        self: _Runs,
        operation: Operation | str,
        *,
        progress: Callable[[Operation], None] | None = None,
        timeout: float | None = None,
    ) -> Operation:
        """The job when it has ended; `progress` hears how far it has come every few seconds until then.

        `timeout` is in seconds; None waits as long as it takes. The job goes on whoever waits.
        Raises the error with which the job ended, Cancelled where somebody cancelled it, DeadlineExceeded.
        """
        patience = _Patience(operation, timeout)
        while True:
            found = self._run(index_codec.wait(patience.name, patience.next_poll()), None)
            if progress is not None:
                progress(found)
            if found.done:
                found.raise_error()
                return found
            time.sleep(patience.pause())


class AsyncIndexCalls:
    """Of the client for asyncio."""

    async def create_index(
        self: _RunsAsync, name: str, *, timeout: float | None = None, **config: Any
    ) -> Index:
        """As `Client.create_index`."""
        return await self._run(index_codec.create_index(name, config), timeout)

    async def update_index(
        self: _RunsAsync,
        name: str,
        changes: Mapping[str, Any],
        *,
        etag: str | None = None,
        timeout: float | None = None,
    ) -> Index:
        """As `Client.update_index`."""
        return await self._run(index_codec.update_index(name, changes, etag), timeout)

    async def delete_index(
        self: _RunsAsync,
        name: str,
        *,
        etag: str | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> None:
        """As `Client.delete_index`."""
        await self._run(index_codec.delete_index(name, etag, force), timeout)

    async def rollback(
        self: _RunsAsync, index: str, version: str | None = None, *, timeout: float | None = None
    ) -> Index:
        """As `Client.rollback`."""
        return await self._run(index_codec.rollback(index, version), timeout)

    async def rebuild(
        self: _RunsAsync,
        index: str,
        sources: Iterable[str] = (),
        *,
        transcripts: Iterable[str] = (),
        fields: Iterable[str] = (),
        max_bad: str | None = None,
        keep: int | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> Operation:
        """As `Client.rebuild`."""
        flow = index_codec.rebuild(
            index,
            sources,
            transcripts=transcripts,
            fields=fields,
            max_bad=max_bad,
            keep=keep,
            force=force or None,
        )
        return await self._run(flow, timeout)

    async def operation(self: _RunsAsync, name: str, *, timeout: float | None = None) -> Operation:
        """As `Client.operation`."""
        return await self._run(index_codec.operation(name), timeout)

    async def operations(self: _RunsAsync, index: str, *, timeout: float | None = None) -> list[Operation]:
        """As `Client.operations`."""
        return await self._run(index_codec.operations(index), timeout)

    async def cancel(self: _RunsAsync, operation: Operation | str, *, timeout: float | None = None) -> None:
        """As `Client.cancel`."""
        await self._run(index_codec.cancel(_name(operation)), timeout)

    async def wait(
        self: _RunsAsync,
        operation: Operation | str,
        *,
        progress: Callable[[Operation], None] | None = None,
        timeout: float | None = None,
    ) -> Operation:
        """As `Client.wait`."""
        patience = _Patience(operation, timeout)
        while True:
            found = await self._run(index_codec.wait(patience.name, patience.next_poll()), None)
            if progress is not None:
                progress(found)
            if found.done:
                found.raise_error()
                return found
            await asyncio.sleep(patience.pause())


class _Patience:
    """How long the next question may wait at the server, and how long to pause before it."""

    def __init__(self, operation: Operation | str, timeout: float | None) -> None:
        self.name = _name(operation)
        self._timeout = check_timeout(timeout)
        self._began = self._asked = time.monotonic()

    def next_poll(self) -> float:
        """Seconds. Raises DeadlineExceeded when time is up."""
        self._asked = time.monotonic()
        if self._timeout is None:
            return POLL_SECONDS
        left = self._began + self._timeout - self._asked
        if left <= 0:
            raise DeadlineExceeded(f"{self.name} still ran after {self._timeout:g} seconds")
        return min(left, POLL_SECONDS)

    def pause(self) -> float:
        """Seconds; a server that many wait for answers at once, and shall not be asked again at once."""
        return max(0.0, self._asked + LEAST_SECONDS_BETWEEN_POLLS - time.monotonic())


def _name(operation: Operation | str) -> str:
    return operation if isinstance(operation, str) else operation.name

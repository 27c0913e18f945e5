"""What can be done with whole indexes: make, look at, change, roll back and remove them.

Knows no transport. All methods are synchronous, thread-safe and raise only `earshot.errors`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET

from earshot.errors import EarshotError, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from earshot.index import Manifest, checked_config

from . import index_messages as messages
from .auth import current
from .embedders import Embedders
from .names import index_id, index_name, operation_id, version_id, version_name
from .operations import Operations
from .registry import Registry

__all__ = ["IndexService", "measured_recall"]

DEFAULT_PAGE = 100
MAX_PAGE = 1_000
DEFAULT_KEEP = 3

_CONFIG_FIELDS = messages.IndexConfig.__struct_fields__
_UNSPECIFIED = {
    "distance_measure": "DISTANCE_MEASURE_UNSPECIFIED",
    "feature_norm": "FEATURE_NORM_UNSPECIFIED",
}


class IndexService:
    """The indexes of one registry, and the jobs over them where there is something to run them."""

    def __init__(self, registry: Registry, embedders: Embedders, operations: Operations | None) -> None:
        self._registry = registry
        self._embedders = embedders
        self._store = registry.store
        self._operations = operations

    def create(self, request: messages.CreateIndexRequest) -> messages.Index:
        """An index without a version. Raises InvalidArgument, and AlreadyExists where there is one."""
        fields = self._with_dimensions(_asked(request.index.config))
        self._store.create(request.index_id, checked_config(fields))
        self._registry.drop_journal(request.index_id)  # of a namesake whose deletion was cut short
        self._registry.look_at(request.index_id)
        return self._describe(request.index_id)

    def get(self, name: str) -> messages.Index:
        """One index. Raises NotFound."""
        found = index_id(name, field="name")
        self._store.config(found)
        return self._describe(found)

    def list(self, page_size: int, page_token: str) -> messages.ListIndexesResponse:
        """Indexes by name; the token is the last name of the page before."""
        size = _page_size(page_size)
        may_read = current().may_read
        names = [name for name in self._store.indexes() if name > page_token and may_read(name)]
        more = len(names) > size
        return messages.ListIndexesResponse(
            indexes=[self._describe(name) for name in names[:size]],
            next_page_token=names[size - 1] if more else "",
        )

    def update(self, request: messages.UpdateIndexRequest) -> messages.Index:
        """Changes the config.

        Raises NotFound, InvalidArgument for what is no field or cannot be its value, FailedPrecondition for
        what is fixed, Aborted where the index is not what the etag said.
        """
        name = index_id(request.index.name, field="index.name")
        fields = _asked(request.index.config)
        changes = {path: fields[path] for path in _masked(request.update_mask, fields)}
        if changes.get("model") is not None:
            changes = self._with_dimensions(changes)
        self._store.reconfigure(name, changes, etag=request.index.etag or None)
        self._registry.look_at(name)
        return self._describe(name)

    def delete(self, request: messages.DeleteIndexRequest) -> messages.Empty:
        """Removes an index. Searches that run keep what they have until they are done.

        Raises NotFound, InvalidArgument without etag and force, Aborted where the etag is an old one or
        something writes to the index.
        """
        name = index_id(request.name, field="name")
        self._store.config(name)
        if not request.etag and not request.force:
            raise InvalidArgument(
                f"deleting index {name!r} with all its versions wants its etag, as a Get says it, or force",
                field="etag",
            )
        if self._operations is None:
            self._store.delete(name, etag=request.etag or None)
        else:
            with self._operations.none_running(name):
                self._store.delete(name, etag=request.etag or None)
                self._operations.forget(name)
        self._registry.drop_journal(name)
        self._registry.look_at(name)
        return messages.Empty()

    def rollback(self, request: messages.RollbackIndexRequest) -> messages.Index:
        """Another version becomes current. Raises as `Store.rollback`."""
        name = index_id(request.name, field="name")
        self._store.rollback(name, version_id(request.version) or None)
        self._registry.look_at(name)
        return self._describe(name)

    def versions(self, parent: str, page_size: int, page_token: str) -> messages.ListIndexVersionsResponse:
        """Versions on disk, newest first; the token is the last version of the page before."""
        size = _page_size(page_size)
        name = index_id(parent, field="parent")
        rows = sorted(self._store.versions(name), key=lambda row: row.version, reverse=True)
        rows = [row for row in rows if not page_token or row.version < page_token]
        return messages.ListIndexVersionsResponse(
            versions=[
                messages.IndexVersion(
                    name=version_name(name, row.version),
                    current=row.is_current,
                    datapoint_count=row.count,
                    measured_recall=row.recall.value if row.recall else 0.0,
                    size_bytes=row.bytes,
                    create_time=row.created or UNSET,
                    complete=row.problem is None,
                )
                for row in rows[:size]
            ],
            next_page_token=rows[size - 1].version if len(rows) > size else "",
        )

    def rebuild(self, request: messages.RebuildIndexRequest) -> messages.Operation:
        """Starts a rebuild. Raises as `Operations.start`."""
        name = index_id(request.name, field="name")
        self._store.config(name)
        return self._running.start(name, request, self._store)

    def operation(self, name: str) -> messages.Operation:
        """How far one has come, or what came of it. Raises NotFound."""
        return self._running.get(*operation_id(name))

    def operations(self, name: str, page_size: int, page_token: str) -> messages.ListOperationsResponse:
        """Those of one index, newest first."""
        size = _page_size(page_size)
        index = index_id(name, field="name")
        self._store.config(index)
        found = [each for each in self._running.list(index) if not page_token or each.name < page_token]
        return messages.ListOperationsResponse(
            operations=found[:size], next_page_token=found[size - 1].name if len(found) > size else ""
        )

    def cancel(self, name: str) -> messages.Empty:
        """Ends it, if it still runs. Raises NotFound."""
        self._running.cancel(*operation_id(name))
        return messages.Empty()

    def delete_operation(self, name: str) -> messages.Empty:
        """Forgets one that has ended. Raises NotFound, FailedPrecondition while it runs."""
        self._running.delete(*operation_id(name))
        return messages.Empty()

    def wait(self, name: str, seconds: float | None) -> messages.Operation:
        """The same as `operation` when it has ended, or after a few seconds at most. Raises NotFound."""
        return self._running.wait(*operation_id(name), seconds)

    @property
    def _running(self) -> Operations:
        if self._operations is None:
            raise Unimplemented("there is no server here that could run an operation")
        return self._operations

    def _with_dimensions(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A model says the dimensions. Raises InvalidArgument where it is not here or they are others."""
        if fields["model"] is None:
            return fields
        try:
            dimensions = self._embedders.load(fields["model"]).dimensions
        except NotFound as error:
            raise InvalidArgument(error.message, field="model") from error
        if fields.get("dimensions") not in {None, dimensions}:
            raise InvalidArgument(
                f"dimensions is {fields['dimensions']}; vectors of {fields['model']} have {dimensions}",
                field="dimensions",
            )
        return {**fields, "dimensions": dimensions}

    def _describe(self, name: str) -> messages.Index:
        problem, asked = self._registry.problems.get(name, ""), self._store.asked(name)
        told: dict[str, Any] = {
            "name": index_name(name),
            "config": msgspec.convert(asked, messages.IndexConfig, from_attributes=True),
            "etag": self._store.etag(name),
        }
        with suppress(EarshotError):  # the number of datapoints is as of a moment ago then
            self._registry.catch_up(name)
        served = self._registry.peek(name)
        manifest = None
        try:
            manifest = self._registry.manifest(name)
        except FailedPrecondition as error:
            # One whose dimensions are known takes datapoints without a version.
            problem = problem or ("" if asked.dimensions else error.message)
        except EarshotError as error:
            problem = problem or error.message
        if manifest is None or not manifest.version:
            return messages.Index(
                **told,
                dimensions=asked.dimensions or 0,
                distance_measure=asked.distance_measure or _UNSPECIFIED["distance_measure"],
                datapoint_count=len(served.index) if served else 0,
                model=asked.model or "",
                problem=problem,
            )
        return messages.Index(
            **told,
            current_version=version_name(name, manifest.version),
            dimensions=manifest.dimension,
            distance_measure=manifest.distance_measure,
            datapoint_count=len(served.index) if served else manifest.count,
            model=manifest.model.get("name", ""),
            engine=manifest.engine.name,
            target_recall=self._registry.target_recall(name) or manifest.tuning.target_recall,
            measured_recall=measured_recall(manifest),
            update_time=manifest.created,
            problem=problem,
        )


def _asked(config: messages.IndexConfig) -> dict[str, Any]:
    """The fields of a config; a value of an enum that says nothing is None."""
    fields = msgspec.structs.asdict(config)
    return {name: None if value == _UNSPECIFIED.get(name) else value for name, value in fields.items()}


def _masked(mask: list[str], fields: dict[str, Any]) -> list[str]:
    """The fields of a config that an update is about."""
    if not mask:
        return [name for name, value in fields.items() if value is not None]
    names: list[str] = []
    for path in mask:
        name = path.removeprefix("config.")
        if path in {"*", "config"}:
            names += _CONFIG_FIELDS
        elif path != name and name in _CONFIG_FIELDS:
            names.append(name)
        else:
            known = ", ".join(f"config.{field}" for field in _CONFIG_FIELDS)
            raise InvalidArgument(f"update_mask has {path!r}; it may have {known}", field="update_mask")
    return names


def _page_size(given: int) -> int:
    if given < 0:
        raise InvalidArgument(f"page_size is {given}; it must be 0 (the default) or more", field="page_size")
    return min(given or DEFAULT_PAGE, MAX_PAGE)


def measured_recall(manifest: Manifest) -> float:
    """Of the job's evaluation on unseen questions, or else of the tuning."""
    evaluation = manifest.source.get("evaluation")
    return float(evaluation["value"]) if evaluation else manifest.tuning.chosen.recall.value

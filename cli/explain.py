"""`earshot explain`: what an index is made of, and what a query does in it."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import CacheDir, DataDir, IndexName, Json, Where, store_of
from .output import console, parts_table, plain_table, print_json, recall_text
from .where import parse_where

if TYPE_CHECKING:
    from earshot.index import Explanation, Index, Manifest

__all__ = ["explain"]


def explain(
    index: IndexName,
    query: Annotated[
        str | None, typer.Argument(help="A text; without one, the index itself is told.", show_default=False)
    ] = None,
    datapoint_id: Annotated[
        str | None, typer.Option("--id", help="Ask with this datapoint's vector.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    target_recall: Annotated[
        float | None, typer.Option(help="Another recall than the index's own.", show_default=False)
    ] = None,
    crowding: Annotated[
        int | None,
        typer.Option(help="At most so many of a tag; 0 for any number (default: the index's).", min=0),
    ] = None,
    where: Where = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Say what one query does: operating point, leaves, candidates, filter, crowding, time a step.

    The same query is searched exactly as well, so that it is known how many of the true neighbors it
    found. Without a query the operating points of the index are shown, and its bytes a vector by part.
    """
    opened = store_of(data_dir, cache_dir).open(index)
    if query is None and datapoint_id is None:
        _tell_index(opened.manifest, json=json)
        return
    options: dict[str, Any] = {"target_recall": target_recall, "where": parse_where(where) if where else None}
    limit = opened.manifest.config.get("per_crowding_attribute_neighbor_count")
    options["crowding"] = limit if crowding is None else (crowding or None)
    vector = _vector(opened, query, datapoint_id, data_dir, cache_dir)
    opened.search(
        vector, k, **options
    )  # the first search reads pages from disk, which is not the usual price
    said = opened.explain(vector, k, **options)
    if json:
        print_json(_as_json(said))
    else:
        _tell_query(said)


def _vector(index: Index, query: str | None, datapoint_id: str | None, data_dir: Any, cache_dir: Any) -> Any:
    from earshot.errors import FailedPrecondition, InvalidArgument
    from earshot.server import load_settings
    from earshot.server.embedders import Embedders

    if query is not None and datapoint_id is not None:
        raise InvalidArgument("a text and --id are given; one query is explained at a time", field="query")
    if datapoint_id is not None:
        return index.vectors([datapoint_id])[0]
    if not index.manifest.model:
        raise FailedPrecondition("the index was built from vectors and knows no model: ask with --id")
    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir)
    return Embedders(settings.cache_dir).get(index.manifest.model)(str(query))


def _as_json(said: Explanation) -> dict[str, Any]:
    found = {entry.name: getattr(said, entry.name) for entry in fields(said) if entry.name != "result"}
    neighbors = zip(said.result.ids[0], said.result.distances[0].tolist(), strict=True)
    return {**found, "neighbors": [{"id": name, "distance": distance} for name, distance in neighbors]}


def _tell_query(said: Explanation) -> None:
    lines = [f"{said.version}: {said.engine}, {said.datapoints} datapoints, {said.leaves} leaves"]
    if (point := said.point) is not None:
        how = f"{point.leaves} leaves, {point.candidates} candidates" if point.leaves else "exact search"
        lines.append(
            f"recall {said.target_recall:g} asked for: {how}, measured {recall_text(point.recall)} "
            f"at k = {point.k} on {said.tuned_on}"
        )
    if said.filter is not None:
        plan = said.filter
        lines.append(
            f"filter: {plan.path}, {plan.passing} of {plan.total} datapoints pass, {plan.leaves:g} leaves, "
            f"{plan.candidates:g} rows scored{', then another way' if plan.short else ''}; "
            f"recall of {plan.promised:.3f} or more promised"
        )
    if said.crowding is not None:
        lines.append(f"crowding: at most {said.crowding} of a tag, {said.rounds} rounds")
    lines.append(f"found {said.found} of the {said.true} true neighbors in {1000 * said.seconds:.3f} ms")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    rows = [
        (name, neighbors, *("-" if value is None else value for value in how), f"{1000 * seconds:.3f}")
        for name, neighbors, *how, seconds in (astuple(step) for step in said.steps)
    ]
    console.print(plain_table(("step", "neighbors", "leaves", "candidates", "ms"), rows))


def _tell_index(manifest: Manifest, *, json: bool) -> None:
    from earshot.index import sizes

    parts = sizes(manifest)
    if json:
        print_json({"tuning": manifest.tuning, "engine": manifest.engine, "parts": parts})
        return
    console.print(
        f"[bold]{manifest.index} {manifest.version}[/]: {manifest.count} × {manifest.dimension}, "
        f"{manifest.distance_measure}, {manifest.engine.name} ({manifest.engine.reason})\n"
        f"recall {manifest.tuning.target_recall:g} by default, tuned on {_tuned_on(manifest)}\n",
        highlight=False,
        soft_wrap=True,
    )
    rows = [
        (point.k, recall_text(point.recall), point.leaves or "exact", point.candidates or "-", point.cost)
        for point in manifest.tuning.points
    ]
    console.print(plain_table(("k", "recall", "leaves", "candidates", "cost, × exact"), rows))
    console.print()
    console.print(parts_table(parts))


def _tuned_on(manifest: Manifest) -> str:
    from earshot.jobs import tuned_on

    return tuned_on(manifest)

"""What `/metrics` says of the indexes, read off the registry when the page is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from .index_service import measured_recall
from .registry import Registry

__all__ = ["index_metrics"]


def index_metrics(registry: Registry) -> Iterator[Metric]:
    """Each served index: its version, size, recall, and how loading its versions went."""
    info = InfoMetricFamily("earshot_index", "The version that is served.", labels=("index",))
    gauges = {
        name: GaugeMetricFamily(f"earshot_index_{name}", told, labels=("index",))
        for name, told in (
            ("datapoints", "Datapoints that are served."),
            ("changed_datapoints", "Of those, fresh ones, and of the version's, those that are gone."),
            ("update_sequence", "Number of the last update that searches see."),
            (
                "live_recall",
                "Recall of a sample of real queries, asked again exactly; absent until measured.",
            ),
            ("live_recall_low", "The lower end of its 95 % interval."),
            ("live_recall_high", "The upper end of its 95 % interval."),
            ("target_recall", "The recall that the index promises by itself."),
            ("measured_recall", "The recall that was measured for it when it was built."),
            ("created_timestamp_seconds", "When the version that is served was built."),
            ("load_seconds", "How long opening and warming it up took."),
        )
    }
    for name in registry.names():
        served = registry.peek(name)
        if served is None:  # deleted in between
            continue
        manifest = served.index.manifest
        info.add_metric(
            (name,),
            {
                "version": served.version,
                "engine": manifest.engine.name,
                "distance_measure": manifest.distance_measure,
                "model": manifest.model.get("name", ""),
            },
        )
        values = {
            "datapoints": len(served.index),
            "changed_datapoints": served.index.changed,
            "update_sequence": served.index.sequence,
            "target_recall": served.promised,
            "measured_recall": measured_recall(manifest),
            "created_timestamp_seconds": datetime.fromisoformat(manifest.created).timestamp(),
            "load_seconds": registry.load_seconds.get(name, 0.0),
        }
        recall = served.index.watch.recall
        if recall is not None:
            ends = {"live_recall_low": recall.low, "live_recall_high": recall.high}
            values |= {"live_recall": recall.value, **ends}
        for key, value in values.items():
            gauges[key].add_metric((name,), value)
    yield info
    yield from gauges.values()
    yield from _health(registry)


def _health(registry: Registry) -> Iterator[Metric]:
    problem = GaugeMetricFamily(
        "earshot_index_problem",
        "1 where the newest version of an index cannot be served; /readyz says why.",
        labels=("index",),
    )
    problems = registry.problems
    for name in sorted({*registry.names(), *problems}):
        problem.add_metric((name,), float(name in problems))
    yield problem
    loads = CounterMetricFamily(
        "earshot_version_loads", "Versions opened, and attempts that failed.", labels=("index", "result")
    )
    for key, count in list(registry.loads.items()):
        loads.add_metric(key, count)
    yield loads

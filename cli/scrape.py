"""What two readings of `/metrics` say of the time between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["IndexRow", "Reading", "ServerLine", "index_rows", "server_line"]

SEARCHES = frozenset({"Search", "BatchSearch", "StreamSearch"})
# Not errors of the service: the caller's own mistakes and changes of mind.
MISTAKES = frozenset({"OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"})

Labels = frozenset[tuple[str, str]]


class Reading:
    """The samples of one page, taken at `time.monotonic()` = `at`."""

    def __init__(self, page: str, at: float) -> None:
        from prometheus_client.parser import text_string_to_metric_families

        self.at = at
        self._samples: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                self._samples[sample.name][frozenset(sample.labels.items())] = sample.value

    def select(self, name: str, **labels: str) -> Iterable[tuple[dict[str, str], float]]:
        """Samples of that name that have those labels, with all of their labels."""
        wanted = labels.items()
        for given, value in self._samples.get(name, {}).items():
            if wanted <= given:
                yield dict(given), value

    def total(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(value for _, value in self.select(name, **labels))

    def since(self, before: Reading) -> Reading:
        """The same with every counter as the growth since `before`; a server that began anew began at 0."""
        grown = Reading("", self.at)
        for name, samples in self._samples.items():
            is_counter = name.endswith(("_total", "_bucket", "_count", "_sum"))
            earlier = before._samples.get(name, {})
            for labels, value in samples.items():
                start = earlier.get(labels, 0.0) if is_counter else 0.0
                grown._samples[name][labels] = value - start if value >= start else value
        return grown


class IndexRow(NamedTuple):
    """One index between two readings; times are in milliseconds, None where nothing was asked.

    `recall` is that of real searches with its interval, or without one what was measured when it was built.
    """

    name: str
    version: str
    datapoints: int
    queries_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    queue_ms: float | None
    embed_ms: float | None
    engine_ms: float | None
    encode_ms: float | None
    batch: float | None
    waiting: int
    errors_per_second: float
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    target_recall: float | None
    problem: bool


class ServerLine(NamedTuple):
    """The server as a whole."""

    version: str
    transport: str
    in_flight: int
    cpu_percent: float
    memory_megabytes: float
    unnamed_errors_per_second: float


def index_rows(before: Reading, after: Reading) -> list[IndexRow]:
    """A row for each index that is served, or cannot be, by name."""
    grown, seconds = after.since(before), max(after.at - before.at, 1e-9)
    versions = {labels["index"]: labels["version"] for labels, _ in after.select("earshot_index_info")}
    problems = {labels["index"] for labels, value in after.select("earshot_index_problem") if value}
    return [
        _row(name, versions.get(name, ""), name in problems, grown, seconds)
        for name in sorted({*versions, *problems})
    ]


def server_line(before: Reading, after: Reading) -> ServerLine:
    """What does not belong to an index."""
    grown, seconds = after.since(before), max(after.at - before.at, 1e-9)
    build = next((labels for labels, _ in after.select("earshot_build_info")), {})
    return ServerLine(
        build.get("version", "?"),
        build.get("transport", "?"),
        int(after.total("earshot_requests_in_flight")),
        100 * grown.total("process_cpu_seconds_total") / seconds,
        after.total("process_resident_memory_bytes") / 1e6,
        _errors(grown, "") / seconds,
    )


def _row(name: str, version: str, has_problem: bool, grown: Reading, seconds: float) -> IndexRow:
    buckets: dict[float, float] = defaultdict(float)
    for labels, count in grown.select("earshot_request_duration_seconds_bucket", index=name):
        if labels["method"] in SEARCHES:
            buckets[float(labels["le"])] += count
    queue, embed, engine, encode = (
        _milliseconds(_mean(grown, "earshot_stage_duration_seconds", index=name, stage=stage))
        for stage in ("queue", "embed", "engine", "encode")
    )
    live, low, high, measured, target = (
        next((value for _, value in grown.select(f"earshot_index_{which}", index=name)), None)
        for which in (
            *("live_recall", "live_recall_low", "live_recall_high"),
            *("measured_recall", "target_recall"),
        )
    )
    return IndexRow(
        name,
        version,
        int(grown.total("earshot_index_datapoints", index=name)),
        grown.total("earshot_queries_total", index=name) / seconds,
        _milliseconds(quantile(buckets, 0.5)),
        _milliseconds(quantile(buckets, 0.99)),
        *(queue, embed, engine, encode),
        _mean(grown, "earshot_batch_queries", index=name, stage="engine"),
        int(grown.total("earshot_queue_depth", index=name)),
        _errors(grown, name) / seconds,
        measured if live is None else live,
        *(low, high, target),
        has_problem,
    )


def quantile(buckets: dict[float, float], share: float) -> float | None:
    """As Prometheus' `histogram_quantile` reads it off cumulative buckets; None where nothing was counted."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank, lower, below = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / max(buckets[bound] - below, 1e-9)
        lower, below = bound, buckets[bound]
    return lower


def _mean(grown: Reading, name: str, **labels: str) -> float | None:
    count = grown.total(f"{name}_count", **labels)
    return grown.total(f"{name}_sum", **labels) / count if count else None


def _errors(grown: Reading, index: str) -> float:
    return sum(
        count
        for labels, count in grown.select("earshot_requests_total", index=index)
        if labels["code"] not in MISTAKES
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds

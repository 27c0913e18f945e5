"""What `/metrics` says: counted by the faces while they work, read off the registry when it is asked for.

Names and units follow Prometheus' practice: seconds, `_total` for counters, `_info` for what does not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from importlib import metadata

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .histogram import BATCH_BOUNDS, REQUEST_BOUNDS, STAGE_BOUNDS, Histogram
from .record import CallRecord

__all__ = ["Metrics", "Source"]

Source = Callable[[], Iterable[Metric]]
"""Metrics that somebody else keeps, read when the page is asked for."""


class _Series:
    """What is counted of one method on one index."""

    __slots__ = ("codes", "duration", "queries", "stages")

    def __init__(self) -> None:
        self.codes: Counter[tuple[str, str]] = Counter()  # by protocol and status
        self.duration = Histogram(REQUEST_BOUNDS)
        self.stages: dict[str, Histogram] = {}
        self.queries = 0


class Metrics(Collector):
    """The counts of one process. `ended` and `batch` belong to one event loop; the page to any thread."""

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._series: dict[tuple[str, str], _Series] = {}  # by method and index
        self._batches: dict[tuple[str, str], Histogram] = {}  # by stage and index
        self.in_flight: dict[str, int] = {"grpc": 0, "http": 0}
        self.open_streams = 0
        self.queues: dict[str, Callable[[], Mapping[Hashable, int]]] = {}  # by stage: what waits, by index
        self._sources: list[Source] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(self)

    def add(self, source: Source) -> None:
        """From now on the page has the metrics of `source` too."""
        self._sources.append(source)

    def ended(self, record: CallRecord, seconds: float) -> None:
        """Counts a call that is over."""
        key = record.method, record.index
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        calls = record.calls
        series.codes[record.protocol, record.code] += calls
        series.duration.observe(seconds, calls)
        series.queries += record.queries
        for name, took in record.seconds().items():
            stage = series.stages.get(name)
            if stage is None:
                stage = series.stages[name] = Histogram(STAGE_BOUNDS)
            stage.observe(took, calls)

    def batch(self, stage: str, index: Hashable, queries: int) -> None:
        """Counts a batch that goes to the engine, or to the model."""
        key = stage, str(index)
        histogram = self._batches.get(key)
        if histogram is None:
            histogram = self._batches[key] = Histogram(BATCH_BOUNDS)
        histogram.observe(queries)

    def forget(self, index: str) -> None:
        """Drops what was counted of an index that is gone."""
        for counted in (self._series, self._batches):
            for key in [key for key in list(counted) if key[1] == index]:
                counted.pop(key, None)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type, in the format that the `Accept` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: `collect` says it all."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric of ours, as prometheus_client wants them."""
        build = {"version": metadata.version("earshot"), "transport": self._transport}
        yield InfoMetricFamily("earshot_build", "What is running.", value=build)
        yield from self._calls()
        yield from self._work()
        for source in self._sources:
            yield from source()

    def _calls(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "earshot_requests",
            "Requests answered, by status; a stream counts each of its queries.",
            labels=("protocol", "method", "index", "code"),
        )
        queries = CounterMetricFamily(
            "earshot_queries",
            "Queries in those requests; a batch counts each of its own.",
            labels=("method", "index"),
        )
        duration = HistogramMetricFamily(
            "earshot_request_duration_seconds",
            "From a request's arrival to its answer.",
            labels=("method", "index"),
        )
        stages = HistogramMetricFamily(
            "earshot_stage_duration_seconds",
            "Parts of a request: waiting in a queue, embedding text, the engine's search with what it was "
            "batched with, encoding the answer.",
            labels=("method", "index", "stage"),
        )
        for key, series in list(self._series.items()):
            for (protocol, code), count in list(series.codes.items()):
                requests.add_metric((protocol, *key, code), count)
            if series.queries:
                queries.add_metric(key, series.queries)
            duration.add_metric(key, series.duration.buckets(), series.duration.sum)
            for name, histogram in list(series.stages.items()):
                stages.add_metric((*key, name), histogram.buckets(), histogram.sum)
        yield from (requests, queries, duration, stages)

    def _work(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily(
            "earshot_requests_in_flight", "Requests not answered yet.", labels=("protocol",)
        )
        for protocol, count in self.in_flight.items():
            in_flight.add_metric((protocol,), count)
        yield in_flight
        yield GaugeMetricFamily("earshot_open_streams", "StreamSearch calls now open.", self.open_streams)
        batches = HistogramMetricFamily(
            "earshot_batch_queries",
            "Queries that went to the engine, or texts to the model, in one call.",
            labels=("stage", "index"),
        )
        for key, histogram in list(self._batches.items()):
            batches.add_metric(key, histogram.buckets(), histogram.sum)
        yield batches
        depth = GaugeMetricFamily(
            "earshot_queue_depth", "Queries or texts that wait for their turn.", labels=("stage", "index")
        )
        for stage, waiting in self.queues.items():
            for index, count in waiting().items():
                depth.add_metric((stage, str(index)), count)
        yield depth

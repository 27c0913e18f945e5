"""`earshot top` against a real server, and the arithmetic between two readings."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest

from earshot.cli.scrape import Reading, index_rows, quantile, server_line
from earshot.client import Client
from earshot.index import Index, Store
from tests.servers import earshot, serving

BEFORE = """
earshot_build_info{version="1",transport="direct"} 1
earshot_index_info{index="a",version="v000002"} 1
earshot_index_measured_recall{index="a"} 0.97
earshot_index_problem{index="a"} 1
earshot_index_problem{index="broken"} 1
earshot_queries_total{index="a",method="BatchSearch"} 100
earshot_requests_total{index="a",method="Search",code="UNAVAILABLE",protocol="grpc"} 5
earshot_requests_total{index="",method="Search",code="UNAUTHENTICATED",protocol="grpc"} 1
process_cpu_seconds_total 10
"""
AFTER = """
earshot_build_info{version="1",transport="direct"} 1
earshot_index_info{index="a",version="v000002"} 1
earshot_index_measured_recall{index="a"} 0.97
earshot_index_problem{index="a"} 1
earshot_index_problem{index="broken"} 1
earshot_queries_total{index="a",method="BatchSearch"} 300
earshot_requests_total{index="a",method="Search",code="UNAVAILABLE",protocol="grpc"} 9
earshot_requests_total{index="a",method="Search",code="NOT_FOUND",protocol="grpc"} 99
earshot_requests_total{index="",method="Search",code="UNAUTHENTICATED",protocol="grpc"} 3
earshot_request_duration_seconds_bucket{index="a",method="Search",le="0.001"} 50
earshot_request_duration_seconds_bucket{index="a",method="Search",le="0.002"} 100
earshot_request_duration_seconds_bucket{index="a",method="Search",le="+Inf"} 100
earshot_request_duration_seconds_bucket{index="a",method="GetIndex",le="+Inf"} 1000
earshot_stage_duration_seconds_sum{index="a",method="Search",stage="engine"} 0.5
earshot_stage_duration_seconds_count{index="a",method="Search",stage="engine"} 100
process_cpu_seconds_total 11
"""


def test_rates_are_of_the_time_between_and_errors_are_not_the_callers_mistakes() -> None:
    before, after = Reading(BEFORE, 100.0), Reading(AFTER, 102.0)
    row, broken = index_rows(before, after)
    assert (row.name, row.version, row.problem) == ("a", "v000002", True)
    assert row.queries_per_second == 100
    assert row.errors_per_second == 2
    assert row.p50_ms == pytest.approx(1)
    assert row.p99_ms == pytest.approx(1.98)
    assert row.engine_ms == pytest.approx(5)
    assert row.embed_ms is None
    assert row.recall == 0.97
    assert (broken.name, broken.problem, broken.p50_ms) == ("broken", True, None)
    line = server_line(before, after)
    assert (line.cpu_percent, line.unnamed_errors_per_second) == (50, 1)


def test_a_server_that_began_anew_counts_from_its_start() -> None:
    row = index_rows(Reading(AFTER, 0.0), Reading(BEFORE, 1.0))[0]
    assert row.queries_per_second == 100


def test_a_quantile_lies_in_the_bucket_that_holds_it() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0, math.inf: 0}, 0.5) is None
    assert quantile({1.0: 10, 2.0: 10, math.inf: 10}, 0.5) == 0.5
    assert quantile({1.0: 0, math.inf: 10}, 0.99) == 1.0


def test_once_shows_what_is_asked_of_a_running_server(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.create("numbers")
    store.publish("numbers", Index.build(np.eye(8, dtype=np.float32)))
    with serving(tmp_path / "data") as server:
        done = threading.Event()

        def ask() -> None:
            with Client(server.grpc) as client:
                while not done.is_set():
                    client.search("numbers", vector=np.ones(8, np.float32), k=3)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            options = ("--server", server.http, "--interval", "0.5")
            shown = earshot(tmp_path / "data", "top", "--once", *options)
            told = json.loads(earshot(tmp_path / "data", "top", "--json", *options).stdout)
        finally:
            done.set()
            asking.join()
    assert shown.returncode == 0, shown.stderr
    assert "numbers  v000001" in shown.stdout
    row = told["indexes"][0]
    assert row["queries_per_second"] > 1
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert row["engine_ms"] > 0


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    failed = earshot(tmp_path, "top", "--once", "--server", "127.0.0.1:1")
    assert failed.returncode == 1
    assert "http://127.0.0.1:1/metrics" in failed.stderr
    assert "Traceback" not in failed.stderr

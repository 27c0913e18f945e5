"""The job on real files: what it publishes, what it refuses, and that a killed run resumes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from earshot.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from earshot.index import NumericRestrict, Store, TokenRestrict
from earshot.jobs import BadLimit, RebuildReport, RebuildRequest, rebuild
from tests.servers import EARSHOT, environment, write_feed

EPISODES = [
    (f"e{number}", f"Episode {number}", f"About the number {number} and more.") for number in range(60)
]


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    return write_feed(tmp_path / "feed.xml", EPISODES)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, model_cache: Path) -> Path:
    """A cache without embeddings, with the model that all tests share."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "models").symlink_to(model_cache / "models")
    return folder


def run(tmp_path: Path, *sources: Path, **options: object) -> RebuildReport:
    request = RebuildRequest(index="shows", sources=sources, **options)  # type: ignore[arg-type]
    return rebuild(
        request,
        data_dir=tmp_path / "data",
        cache_dir=tmp_path / "cache",
        progress=lambda step, done, total: None,
    )


def test_a_feed_becomes_a_measured_version(tmp_path: Path, feed: Path) -> None:
    report = run(tmp_path, feed)
    assert (report.version, report.published, report.documents, report.embedded) == ("v000001", True, 60, 60)
    assert report.recall == 1.0
    manifest = Store(tmp_path / "data").manifest("shows")
    assert manifest.count == 60
    assert manifest.model["name"] == "all-MiniLM-L6-v2"
    assert len(manifest.model["digest"]) == 64
    assert manifest.source["sources"] == [str(feed)]
    assert manifest.source["documents"] == 60
    assert manifest.tuning.tuned_on.startswith("given queries")


def test_unchanged_sources_publish_nothing_and_force_does(tmp_path: Path, feed: Path) -> None:
    run(tmp_path, feed)
    again = run(tmp_path, feed)
    assert (again.version, again.published) == ("v000001", False)
    forced = run(tmp_path, feed, force=True)
    assert (forced.version, forced.published, forced.embedded) == ("v000002", True, 0)


def test_only_what_changed_is_embedded_again(tmp_path: Path, feed: Path) -> None:
    run(tmp_path, feed)
    write_feed(feed, [*EPISODES, ("new", "A new one", "Freshly recorded.")])
    report = run(tmp_path, feed)
    assert (report.version, report.documents, report.embedded) == ("v000002", 61, 1)


def test_old_versions_are_kept_up_to_the_limit(tmp_path: Path, feed: Path) -> None:
    for number in range(4):
        write_feed(feed, EPISODES[: 50 + number])
        run(tmp_path, feed, keep=2)
    assert [info.version for info in Store(tmp_path / "data").versions("shows")] == ["v000003", "v000004"]


def test_passages_of_a_transcript_are_datapoints_with_their_time(tmp_path: Path) -> None:
    lines = [{"id": "a", "title": "On glass", "show": "Things", "description": "How panes are made."}]
    source = tmp_path / "episodes.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    segments = [
        {
            "start": 10.0 * number,
            "speaker": "host",
            "text": f"Sentence {number} says something about glass. " * 4,
        }
        for number in range(20)
    ]
    transcripts = tmp_path / "transcripts.jsonl.gz"
    with gzip.open(transcripts, "wt") as file:
        file.write(json.dumps({"id": "a", "language": "en", "timing": "exact", "segments": segments}) + "\n")
    report = run(tmp_path, source, transcripts=[transcripts])
    assert report.documents == 1
    assert report.datapoints > 5
    index = Store(tmp_path / "data").open("shows")
    (episode, passage) = index.read(["a", "a#2"])
    assert episode.crowding_tag == passage.crowding_tag == "a"
    assert passage.metadata is not None
    assert passage.metadata["title"] == "On glass"
    assert passage.metadata["start_s"] > 0
    assert "glass" in passage.metadata["snippet"]
    assert episode.restricts == passage.restricts == (TokenRestrict("show", ("Things",)),)


def test_every_datapoint_can_be_filtered_by_what_is_known_of_its_document(tmp_path: Path) -> None:
    known = {
        "title": "On glass",
        "show": "Things",
        "date": "2025-03-09",
        "language": "de-AT",
        "duration_s": 90.5,
    }
    source = tmp_path / "episodes.jsonl"
    records = [{"id": "full", **known}, {"id": "bare", "title": "Nothing else"}]
    records.append({"id": "odd", "title": "Odd", "show": "x" * 1025})
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    run(tmp_path, source)
    index = Store(tmp_path / "data").open("shows")
    full, bare, odd = index.read(["full", "bare", "odd"])
    assert set(full.restricts) == {
        TokenRestrict("language", ("de",)),
        TokenRestrict("show", ("Things",)),
        NumericRestrict("year", 2025),
        NumericRestrict("date", 20250309),
        NumericRestrict("duration_s", 90.5),
    }
    assert bare.restricts == odd.restricts == ()


def write_lines(path: Path, good: int, bad: int) -> Path:
    records = [json.dumps({"id": f"g{number}", "title": f"Title {number}"}) for number in range(good)]
    path.write_text("\n".join([*records, *["{not json"] * bad]) + "\n")
    return path


def test_bad_records_are_skipped_up_to_the_limit_and_named(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "some.jsonl", good=99, bad=1)
    report = run(tmp_path, source)
    assert (report.documents, report.bad_records) == (99, 1)
    assert f"{source}:100" in report.first_bad_records[0]


def test_too_many_bad_records_publish_nothing(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "some.jsonl", good=98, bad=2)
    with pytest.raises(FailedPrecondition, match=r"2 of 100 records are bad, the limit is 1%"):
        run(tmp_path, source)
    assert Store(tmp_path / "data").indexes() == []
    assert run(tmp_path, source, max_bad=BadLimit.parse("2")).published


@pytest.mark.parametrize("text", ["", "much", "-1", "101%", "1.5", "nan%"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="max_bad"):
        BadLimit.parse(text)


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("missing.xml", None, NotFound, "missing.xml"),
        ("empty.jsonl", b"", InvalidArgument, "empty.jsonl"),
        (
            "cut.jsonl.gz",
            gzip.compress(b'{"id": "a", "title": "b"}\n' * 500, mtime=0)[:-20],
            InvalidArgument,
            "cut.jsonl.gz",
        ),
        ("binary.xml", bytes(range(256)) * 8, InvalidArgument, "binary.xml"),
        ("cut.xml", b"<?xml version='1.0'?><rss><channel><item>", FailedPrecondition, "cut.xml"),
    ],
)
def test_a_source_that_cannot_be_read_leaves_the_served_version_alone(
    tmp_path: Path, feed: Path, name: str, content: bytes | None, error: type[Exception], words: str
) -> None:
    run(tmp_path, feed)
    source = tmp_path / name
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(error, match=words):
        run(tmp_path, source)
    store = Store(tmp_path / "data")
    assert store.current("shows") == "v000001"
    assert [info.problem for info in store.versions("shows")] == [None]


def test_two_rebuilds_of_one_index_do_not_run_at_once(tmp_path: Path, feed: Path) -> None:
    run(tmp_path, feed)
    holder = subprocess.Popen(
        [
            EARSHOT.parent / "python",
            "-c",
            "import sys; from earshot.index import Store\n"
            f"with Store({str(tmp_path / 'data')!r}).writer_lock('shows'):\n"
            "    print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Aborted, match=str(holder.pid)):
            run(tmp_path, feed, force=True)
        holder.kill()
    assert run(tmp_path, feed, force=True).published, "a dead writer holds no lock"


def test_a_killed_run_resumes_where_it_was(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "many.jsonl"
    source.write_text(
        "".join(
            json.dumps({"id": str(number), "title": f"Title {number}", "text": f"word{number} " * 100}) + "\n"
            for number in range(500)
        )
    )
    data = tmp_path / "data"
    process = subprocess.Popen(
        [EARSHOT, "rebuild", "shows", "--source", source, "--cache-dir", cache],
        env=environment(data),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while cached(cache) < 64:
        assert process.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = cached(cache)
    report = run(tmp_path, source)
    assert report.published
    assert report.embedded <= 500 - kept
    assert len(Store(data).versions("shows")) == 1


def cached(cache: Path) -> int:
    file = cache / "embeddings.sqlite"
    if not file.exists():
        return 0
    connection = sqlite3.connect(file)
    try:
        return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not laid out yet
    finally:
        connection.close()

import gzip
import json
import os
import tracemalloc

import pytest

from earshot.errors import InvalidArgument, NotFound, PermissionDenied
from earshot.jobs.sources import read_documents

from .conftest import captions, rss


def records(*ids):
    return b"".join(json.dumps({"id": name, "title": f"title {name}"}).encode() + b"\n" for name in ids)


def ids(documents):
    return [document.id for document in documents]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.jsonl", b"", "empty.jsonl is empty"),
        ("blank.xml", b"\xef\xbb\xbf \n\n", "blank.xml is empty"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "empty.jsonl.gz is empty"),
        ("cut.jsonl.gz", gzip.compress(os.urandom(50_000))[:-20_000], "cut.jsonl.gz is cut short"),
        (
            "broken.jsonl.gz",
            b"\x1f\x8b\x08\x00nonsense, not deflate",
            "broken.jsonl.gz is (damaged|cut short)",
        ),
        ("binary.jsonl", bytes(range(256)) * 10, "binary.jsonl is a binary file"),
        ("page.xml", b"<!DOCTYPE html><html></html>", "page.xml is an HTML page"),
        ("notes.txt", b"just words", "notes.txt is neither an RSS feed nor JSON lines"),
        ("array.json", b'[{"id": 1}]', "array.json is one JSON array"),
    ],
)
def test_a_file_that_is_no_source_fails_before_the_first_document(tmp_path, name, data, reason):
    (tmp_path / "good.jsonl").write_bytes(records("1"))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidArgument, match=reason):
        read_documents([tmp_path / "good.jsonl", tmp_path / name], on_bad=print)


def test_a_truncated_gz_is_named_in_the_error_also_when_it_ends_late(tmp_path, read):
    file = tmp_path / "late.jsonl.gz"
    file.write_bytes(gzip.compress(records(*(os.urandom(20).hex() for _ in range(5000))))[:-100])
    with pytest.raises(InvalidArgument, match=r"late\.jsonl\.gz is cut short"):
        read(file)


@pytest.mark.parametrize("field", ["sources", "transcripts"])
def test_a_missing_file_is_named(tmp_path, read, field):
    (tmp_path / "a.jsonl").write_bytes(records("1"))
    given = {"sources": [tmp_path / "a.jsonl"], "transcripts": []}
    given[field].append(tmp_path / "nowhere.jsonl")
    with pytest.raises(NotFound, match=r"nowhere\.jsonl does not exist"):
        read(*given["sources"], transcripts=given["transcripts"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(records("1"))
    (tmp_path / "a.jsonl").chmod(0)
    with pytest.raises(PermissionDenied, match=r"a\.jsonl cannot be read"):
        read(tmp_path / "a.jsonl")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        read(tmp_path / "pipe.jsonl")


@pytest.mark.parametrize("sources", [[], [""]])
def test_no_source_at_all_is_refused(sources, read):
    with pytest.raises(InvalidArgument, match="sources"):
        read(*sources)


def test_a_folder_without_sources_is_refused(tmp_path, read):
    (tmp_path / "one.vtt").write_bytes(captions())
    with pytest.raises(InvalidArgument, match=r"holds no file with one of the extensions \.xml"):
        read(tmp_path)


def test_a_folder_is_searched_in_sorted_order_without_hidden_files(tmp_path, read):
    for name in ("b/x.jsonl", "a/deep/x.json", "a/.hidden.jsonl", ".git/x.jsonl", "c.jsonl.gz", "readme.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = records(name)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (tmp_path / "a" / "feed.rss").write_bytes(rss("<guid>g</guid><title>t</title>"))
    documents, bad = read(tmp_path)
    assert ids(documents) == ["c.jsonl.gz", "g", "a/deep/x.json", "b/x.jsonl"]
    assert bad == []


def test_a_file_given_twice_is_read_once(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(records("1"))
    documents, bad = read(tmp_path, tmp_path / "a.jsonl", str(tmp_path / "." / "a.jsonl"))
    assert (ids(documents), bad) == (["1"], [])


def test_a_duplicate_id_is_a_bad_record_naming_both_places(tmp_path, read):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.xml"
    first.write_bytes(records("0", "1", "1"))
    second.write_bytes(rss("<guid>1</guid><title>t</title>", "<guid>2</guid><title>t</title>"))
    documents, bad = read(first, second)
    assert ids(documents) == ["0", "1", "2"]
    assert [(record.file, record.line) for record in bad] == [(str(first), 3), (str(second), 3)]
    assert all(f"'1' was already read from {first}:2" in record.reason for record in bad)


def transcript(key, words=130):
    text = " ".join(f"w{number}" for number in range(words))
    return json.dumps({"id": key, "segments": [{"start": 5.0, "end": 135.0, "text": text}]}).encode() + b"\n"


def test_transcripts_are_joined_to_documents_by_id_in_any_order(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(records("1", "2", "3"))
    spoken = tmp_path / "t.jsonl.gz"
    spoken.write_bytes(gzip.compress(transcript("3") + b"\n{oops\n" + transcript("1") + transcript("1")))
    documents, bad = read(tmp_path / "a.jsonl", transcripts=[spoken])
    assert [len(document.passages) for document in documents] == [1, 0, 1]
    assert documents[0].passages[0].start_s == 5.0
    assert [(record.line, record.drops_document) for record in bad] == [(3, False), (5, False)]
    assert "was already read from" in bad[1].reason


def test_caption_files_belong_to_the_episode_they_are_named_after(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(records("ep.1", "2"))
    spoken = tmp_path / "captions"
    spoken.mkdir()
    (spoken / "ep.1.vtt").write_bytes(captions())
    (spoken / "2.srt").write_bytes(b"no captions")
    documents, (bad,) = read(tmp_path / "a.jsonl", transcripts=[spoken])
    assert [len(document.passages) for document in documents] == [2, 0]
    assert (bad.file, bad.line, bad.drops_document) == (str(spoken / "2.srt"), None, False)


def test_a_transcripts_file_among_the_sources_is_taken_as_such(tmp_path, read):
    (tmp_path / "episodes.jsonl").write_bytes(records("1"))
    (tmp_path / "transcripts.jsonl").write_bytes(transcript("1"))
    ((document,), bad) = read(tmp_path)
    assert (len(document.passages), bad) == (1, [])
    with pytest.raises(InvalidArgument, match="only transcripts"):
        read(tmp_path / "transcripts.jsonl")


def test_documents_given_as_transcripts_are_refused(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(records("1"))
    with pytest.raises(InvalidArgument, match="JSON lines of documents, not transcripts"):
        read(tmp_path / "a.jsonl", transcripts=[tmp_path / "a.jsonl"])


def test_progress_rises_to_the_size_of_all_files(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(records(*map(str, range(20_000))))
    (tmp_path / "b.xml").write_bytes(rss("<guid>g</guid><title>t</title>"))
    (tmp_path / "t.jsonl").write_bytes(transcript("1"))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    seen = []
    read(tmp_path, progress=lambda done, of: seen.append((done, of)))
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert len(seen) > 5


def test_memory_does_not_grow_with_the_file(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(b'{"id": "%d", "title": "%s"}\n' % (n, b"x" * 2000) for n in range(10_000)))
    tracemalloc.start()
    try:
        for _ in read_documents([file], on_bad=print):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < file.stat().st_size / 3


@pytest.mark.realdata
def test_the_real_podcasts_are_read_without_a_bad_record(shared_data, read):
    documents, bad = read(shared_data / "demo")
    assert len(documents) == 5577
    assert sum(bool(document.passages) for document in documents) == 202
    assert bad == []

import gzip
import json

import pytest

from earshot.errors import InvalidArgument
from earshot.jobs.sources import FieldMapping, document_text, field_mapping


def write(path, *records):
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_an_episode_is_read_with_every_field(tmp_path, read):
    record = {
        "id": "e1",
        "title": "Bread &amp; <b>salt</b>",
        "show": "Crumbs",
        "description": "<p>One</p><p>two</p>",
        "date": "Thu, 05 Jan 2023 10:00:00 GMT",
        "language": "en-GB",
        "url": "https://x.example/e1",
        "duration_s": 61,
        "license": "CC0",
    }
    file = write(tmp_path / "a.jsonl", record)
    ((document,), bad) = read(file)
    assert bad == []
    assert (document.id, document.title, document.show, document.text) == (
        "e1",
        "Bread & salt",
        "Crumbs",
        "One\ntwo",
    )
    assert (document.date, document.language, document.duration_s) == ("2023-01-05", "en", 61.0)
    assert (document.url, document.extra, document.origin) == ("https://x.example/e1", {}, f"{file}:1")
    assert document_text(document) == "Bread & salt\nCrumbs\nOne\ntwo"


def test_a_corpus_of_information_retrieval_needs_no_mapping(tmp_path, read):
    ((first, second), bad) = read(
        write(
            tmp_path / "c.jsonl", {"_id": "1", "title": "", "text": "a"}, {"_id": 2, "title": "t", "text": ""}
        )
    )
    assert bad == []
    assert (first.id, document_text(first)) == ("1", "a")
    assert (second.id, document_text(second)) == ("2", "t")


def test_a_mapping_leads_into_nested_objects_and_prefers_a_literal_key(tmp_path, read):
    record = {
        "meta": {"key": "n1"},
        "show.name": "literal",
        "show": {"name": "nested"},
        "body": "text",
        "n": [1],
    }
    mapping = field_mapping(
        ["id=meta.key", "show=show.name", "text=body", "extra=n", "extra=meta.key", "extra=no"]
    )
    ((document,), _) = read(write(tmp_path / "a.jsonl", record), mapping=mapping)
    assert (document.id, document.show, document.text) == ("n1", "literal", "text")
    assert document.extra == {"n": [1], "meta.key": "n1"}


@pytest.mark.parametrize("pair", ["body", "=body", "text=", "texts=body"])
def test_a_mapping_that_names_no_field_is_refused_by_name(pair):
    with pytest.raises(InvalidArgument, match=f"mapping: '{pair}'"):
        field_mapping([pair])


def test_without_pairs_the_mapping_is_the_default():
    assert field_mapping([]) == FieldMapping()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "x", "title"', "invalid JSON"),
        (b'{"id": "x"} {}', "invalid JSON"),
        (b"[1]", "JSON array where an object"),
        (b'{"id": "\xff", "title": "t"}', "invalid JSON: 'utf-8'"),
        (b'{"id": "\\ud800", "title": "t"}', "invalid JSON"),
        (b'{"title": "t"}', "no id: 'id' or '_id'"),
        (b'{"id": null, "title": "t"}', "no id"),
        (b'{"id": "  ", "title": "t"}', "no id"),
        (b'{"id": true, "title": "t"}', "wrong type: 'id' or '_id' is a JSON boolean"),
        (b'{"id": 1.5, "title": "t"}', "wrong type"),
        (b'{"id": "x"}', "empty text: the record 'x'"),
        (b'{"id": "x", "title": " ", "text": "<p></p>"}', "empty text"),
        (b'{"id": "x", "title": ["t"]}', "wrong type: 'title' is a JSON array"),
        (b'{"id": "x", "title": "t", "text": 5}', "is a JSON number where a string"),
        (b'{"id": "x", "title": "t", "show": {}}', "wrong type: 'show'"),
        (b'{"id": "x", "title": "t", "duration_s": [1]}', "JSON array where a number"),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_reason_and_the_rest_is_read(tmp_path, read, line, reason):
    file = write(tmp_path / "a.jsonl", {"id": "1", "title": "a"}, b"", line, {"id": "2", "title": "b"})
    documents, (bad,) = read(file)
    assert [document.id for document in documents] == ["1", "2"]
    assert (bad.file, bad.line, bad.drops_document) == (str(file), 3, True)
    assert reason in bad.reason
    assert str(bad).startswith(f"{file}:3: ")


@pytest.mark.parametrize(
    "odd", [{"date": {}}, {"date": "soon"}, {"duration_s": "long"}, {"language": "English"}]
)
def test_an_odd_date_duration_or_language_is_unknown_not_wrong(tmp_path, read, odd):
    ((document,), bad) = read(write(tmp_path / "a.jsonl", {"id": "1", "title": "a", **odd}))
    assert bad == []
    assert (document.date, document.duration_s, document.language) == (None, None, None)


def test_gzip_and_byte_order_mark_are_told_by_content(tmp_path, read):
    file = tmp_path / "a.jsonl"
    file.write_bytes(gzip.compress(b'\xef\xbb\xbf{"id": "1", "title": "a"}\r\n'))
    documents, bad = read(file)
    assert ([document.id for document in documents], bad) == (["1"], [])


def test_a_line_over_the_limit_is_a_bad_record(tmp_path, read, monkeypatch):
    monkeypatch.setattr("earshot.jobs.sources.files.MAX_LINE_BYTES", 50)
    file = write(tmp_path / "a.jsonl", {"id": "1", "title": "a" * 200}, {"id": "2", "title": "b"})
    (document,), (bad,) = read(file)
    assert (document.origin, bad.line) == (f"{file}:2", 1)
    assert "longer than" in bad.reason


def test_a_chosen_key_that_no_record_has_is_a_warning(tmp_path, read):
    file = write(tmp_path / "a.jsonl", {"id": "1", "title": "T", "body": "B"}, {"id": "2", "title": "T"})
    documents, bad = read(file, mapping=field_mapping(["text=bdoy", "extra=body"]))
    assert len(documents) == 2
    ((reason, drops),) = [(str(record), record.drops_document) for record in bad]
    assert reason == f"{file}: no record has the key 'bdoy', which the mapping names for text"
    assert not drops

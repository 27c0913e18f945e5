"""The durable cache: nothing embedded twice, nothing lost by a kill, nothing harmed by damage."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.embedding import EmbeddingCache, embed_cached
from earshot.errors import FailedPrecondition, InvalidArgument

DIGEST = "ab" * 32
TEXTS = [f"text {number}" for number in range(600)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "embeddings.sqlite"


def test_a_second_run_embeds_only_what_changed(path, toy) -> None:
    first, second = toy(), toy()
    with EmbeddingCache(path) as cache:
        expected = embed_cached(first, TEXTS, cache)
    with EmbeddingCache(path) as cache:
        again = embed_cached(second, ["new", *TEXTS], cache)
    assert second.asked == ["new"]
    np.testing.assert_array_equal(again[1:], expected)
    np.testing.assert_array_equal(expected, toy().embed(TEXTS))


def test_repeated_texts_are_embedded_once_and_counted_each_time(path, toy) -> None:
    embedder = toy()
    seen: list[int] = []
    texts = ["a", "b", "a", "c", "a"]
    with EmbeddingCache(path) as cache:
        embed_cached(toy(), ["b"], cache)
        vectors = embed_cached(embedder, texts, cache, progress=seen.append)
    assert embedder.asked == ["a", "c"]
    assert sum(seen) == len(texts)
    np.testing.assert_array_equal(vectors, toy().embed(texts))


def test_a_killed_run_resumes(path, toy) -> None:
    killed, resumed = toy(fail_after=520), toy()
    with EmbeddingCache(path) as cache, pytest.raises(KeyboardInterrupt):
        embed_cached(killed, TEXTS, cache)
    with EmbeddingCache(path) as cache:
        embed_cached(resumed, TEXTS, cache)
    assert len(killed.asked) >= 256
    assert resumed.asked == TEXTS[len(killed.asked) :]


def test_another_models_vectors_are_not_taken(path, toy) -> None:
    with EmbeddingCache(path) as cache:
        embed_cached(toy("aa" * 32), ["bread"], cache)
        other = toy("bb" * 32)
        np.testing.assert_array_equal(embed_cached(other, ["bread"], cache), other.embed(["bread"]))
        assert cache.get_many("cc" * 32, ["bread"]) == {}


def test_a_bad_text_is_refused_before_any_is_embedded(path, toy) -> None:
    embedder = toy()
    with EmbeddingCache(path) as cache, pytest.raises(InvalidArgument, match="text 600 of 601 is blank"):
        embed_cached(embedder, [*TEXTS, ""], cache)
    assert embedder.asked == []


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_put_is_got_to_the_bit(tmp_path_factory, texts, seed) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(texts), 3)).astype(np.float32)
    with EmbeddingCache(tmp_path_factory.mktemp("cache") / "c.sqlite") as cache:
        cache.put_many(DIGEST, texts, vectors)
        found = cache.get_many(DIGEST, [*texts, "another one altogether"])
    assert list(found) == texts or set(found) == set(texts)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(found[text], vector)


def test_a_vector_that_changed_on_disk_is_embedded_again(path, toy) -> None:
    with EmbeddingCache(path) as cache:
        expected = embed_cached(toy(), ["a", "b"], cache)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(32) WHERE rowid = 1")
    connection.close()
    embedder = toy()
    with EmbeddingCache(path) as cache:
        np.testing.assert_array_equal(embed_cached(embedder, ["a", "b"], cache), expected)
    assert embedder.asked == ["a"]


def test_a_file_that_is_no_database_is_set_aside_with_one_warning(path, toy, caplog) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\x00\x01 not a database at all" * 500)
    with caplog.at_level(logging.WARNING), EmbeddingCache(path) as cache:
        embed_cached(toy(), ["a"], cache)
    assert len(caplog.records) == 1
    assert "is damaged" in caplog.text
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.read_bytes().startswith(b"\x00\x01 not")


def test_damage_met_midway_is_set_aside_and_the_run_goes_on(path, toy, caplog) -> None:
    with EmbeddingCache(path) as cache:
        expected = embed_cached(toy(), TEXTS, cache)
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)  # the header stands, every other page is wiped
    path.write_bytes(content)
    embedder = toy()
    with caplog.at_level(logging.WARNING), EmbeddingCache(path) as cache:
        np.testing.assert_array_equal(embed_cached(embedder, TEXTS, cache), expected)
    assert len(embedder.asked) == len(TEXTS)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with EmbeddingCache(path) as cache:
        assert len(cache.get_many(embedder.digest, TEXTS)) == len(TEXTS)


def test_another_programs_database_is_left_alone(path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE journal (entry)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(FailedPrecondition, match="another program's database") as caught:
        EmbeddingCache(path)
    assert caught.value.field == "cache"
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FailedPrecondition, match=r"cannot use the embedding cache .*file/c\.sqlite"):
        EmbeddingCache(tmp_path / "file" / "c.sqlite")


def test_a_closed_cache_says_so(path) -> None:
    cache = EmbeddingCache(path)
    cache.close()
    cache.close()
    with pytest.raises(FailedPrecondition, match="closed"):
        cache.get_many(DIGEST, ["a"])


def test_processes_write_side_by_side(path) -> None:
    program = (
        "import sys, pathlib, numpy as np\n"
        "from earshot.embedding import EmbeddingCache\n"
        "path, start = pathlib.Path(sys.argv[1]), int(sys.argv[2])\n"
        "with EmbeddingCache(path) as cache:\n"
        "    for first in range(start, start + 200, 10):\n"
        "        texts = [f'text {n}' for n in range(first, first + 10)]\n"
        "        rows = np.repeat(np.arange(first, first + 10, dtype=np.float32)[:, None], 4, axis=1)\n"
        "        cache.put_many('ab' * 32, texts, rows)\n"
    )
    commands = [[sys.executable, "-c", program, str(path), str(start)] for start in (0, 100, 200)]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    with EmbeddingCache(path) as cache:
        found = cache.get_many(DIGEST, TEXTS)
    assert {text: float(vector[0]) for text, vector in found.items()} == {f"text {n}": n for n in range(400)}

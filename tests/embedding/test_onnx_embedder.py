"""What the real model gives, in both precisions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from earshot.embedding import Embedder
from earshot.errors import InvalidArgument

TEXTS = [
    "Bread.",
    "How to bake sourdough bread at home without a scale.",
    "Filing a tax return when you work for yourself in two countries, " * 6,
    "Ein Gespräch über Brot, Mehl und Geduld.",
    "The kernel scheduler decides which thread runs next on which core. " * 40,
    "日本語のポッドキャスト [PAD] [MASK] 🎙️",
]


@pytest.fixture(params=["int8", "float32"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return request.getfixturevalue(request.param)


def test_rows_are_unit_vectors(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions) == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_text_has_the_same_vector_whatever_its_neighbours(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(embedder.embed(TEXTS[::-1])[::-1], alone)


def test_many_threads_get_what_one_gets(embedder: Embedder) -> None:
    expected = embedder.embed(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: embedder.embed(TEXTS), range(8)):
            np.testing.assert_array_equal(vectors, expected)


def test_a_text_is_cut_at_the_token_limit(embedder: Embedder) -> None:
    room = embedder.max_tokens - 2  # [CLS] and [SEP]
    exact, longer, shorter = embedder.embed([" ".join(["bread"] * n) for n in (room, room + 50, room - 1)])
    np.testing.assert_array_equal(exact, longer)
    assert not np.array_equal(exact, shorter)


def test_nearer_in_meaning_is_nearer_in_space(embedder: Embedder) -> None:
    query, near, far = embedder.embed(["how do I make bread", TEXTS[1], TEXTS[2]])
    assert query @ near > query @ far + 0.3


def test_int8_agrees_with_float(int8: Embedder, float32: Embedder) -> None:
    small, exact = int8.embed(TEXTS), float32.embed(TEXTS)
    cosines = (small * exact).sum(axis=1)
    assert cosines.mean() > 0.995
    assert cosines.min() > 0.99
    query = "sourdough for beginners"
    order_small = np.argsort(-small @ int8.embed([query])[0])
    order_exact = np.argsort(-exact @ float32.embed([query])[0])
    assert order_small[:3].tolist() == order_exact[:3].tolist()


def test_progress_adds_up(embedder: Embedder) -> None:
    seen: list[int] = []
    embedder.embed(TEXTS, progress=seen.append)
    assert sum(seen) == len(TEXTS)


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_a_bad_text_among_good_ones_is_refused(int8: Embedder) -> None:
    with pytest.raises(InvalidArgument, match="text 1 of 3 is blank"):
        int8.embed(["good", "  ", "good"])

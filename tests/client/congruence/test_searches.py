"""Searches, alone and many in one request: every client of either server finds the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.congruence.conftest import (
    COUNT,
    DIMENSIONS,
    LANGUAGES,
    METADATA,
    VECTORS,
    Ask,
    stored,
    the_one,
)

COMPARISONS = {"<": lt, "<=": le, "==": eq, ">=": ge, ">": gt, "!=": ne}
comparisons = st.sampled_from(sorted(COMPARISONS))


def passes(row: int, where: dict[str, Any]) -> bool:
    """Whether a row passes a filter of `test_searches_answer_alike`."""
    own = stored(row)
    return (
        own["language"][0] in where.get("language", LANGUAGES)
        and (row % 2 == 1 or "tags" not in where)
        and all(
            name in own and COMPARISONS[sign](own[name], value)
            for name in ("year", "half")
            for sign, value in where.get(name, {}).items()
        )
    )


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {"k": st.integers(1, 20), "return_full_datapoint": st.booleans()},
        optional={
            "metadata_fields": st.lists(st.sampled_from(["title", "tags", "half", "nosuch", ""]), max_size=3),
            "per_crowding_attribute_neighbor_count": st.integers(0, 3),
            "target_recall": st.floats(0.1, 1.0),
            "where": st.fixed_dictionaries(
                {},
                optional={
                    "language": st.lists(st.sampled_from([*LANGUAGES, "it"]), min_size=1),
                    "year": st.dictionaries(comparisons, st.integers(1985, 2025), min_size=1),
                    "half": st.dictionaries(comparisons, st.floats(-1, 301), min_size=1),
                    "tags": st.fixed_dictionaries({"not": st.just("a")}),
                },
            ),
        },
    ),
    st.sampled_from(["dots", "indexes/squares"]),
    st.integers(0, COUNT - 1),
    st.booleans(),
)
def test_searches_answer_alike(ask: Ask, options: dict[str, Any], index: str, row: int, by_id: bool) -> None:
    query = {"datapoint_id": f"p/{row} é"} if by_id else {"vector": VECTORS[row]}
    results = the_one(ask(lambda client: client.search(index, **query, **options)))
    passing = [each for each in range(COUNT) if passes(each, options.get("where", {}))]
    if not options.get("per_crowding_attribute_neighbor_count"):
        assert len(results) == min(options["k"], len(passing))
    for neighbor in results:
        number = int(neighbor.id.removeprefix("p/").removesuffix(" é"))
        assert number in passing
        wanted = options.get("metadata_fields") or METADATA[number].keys()
        assert neighbor.metadata == {key: METADATA[number][key] for key in METADATA[number] if key in wanted}
        assert neighbor.crowding_tag == (f"show {number % 7}" if number % 2 else None)
        if options["return_full_datapoint"]:
            assert np.array_equal(neighbor.vector, VECTORS[number])
            assert neighbor.restricts == stored(number)
        else:
            assert neighbor.vector is None
            assert neighbor.restricts == {}


def search_of(row: int, options: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda client: client.search("dots", vector=VECTORS[row], **options)


@settings(max_examples=15, deadline=None)
@given(
    st.fixed_dictionaries(
        {"k": st.integers(1, 12), "return_full_datapoint": st.booleans()},
        optional={
            "metadata_fields": st.lists(st.sampled_from(["title", "tags"]), max_size=2),
            "per_crowding_attribute_neighbor_count": st.integers(0, 3),
            "target_recall": st.floats(0.1, 1.0),
            "where": st.fixed_dictionaries(
                {"year": st.dictionaries(comparisons, st.integers(1985, 2025), min_size=1)}
            ),
        },
    ),
    st.lists(st.integers(0, COUNT - 1), max_size=20),
    st.booleans(),
)
def test_a_batch_answers_like_its_queries_one_by_one(
    ask: Ask, options: dict[str, Any], rows: list[int], by_id: bool
) -> None:
    queries = {"datapoint_ids": [f"p/{row} é" for row in rows]} if by_id else {"vectors": VECTORS[rows]}
    together = the_one(ask(lambda client: client.search_batch("dots", **queries, **options)))
    assert len(together) == len(rows)
    for row, results in zip(rows, together, strict=True):
        alone = the_one(ask(search_of(row, options)))
        assert [each.id for each in results] == [each.id for each in alone]
        assert [each.metadata for each in results] == [each.metadata for each in alone]
        np.testing.assert_allclose(
            [each.score for each in results], [each.score for each in alone], 1e-4, 1e-4
        )


@pytest.mark.parametrize("where", [None, {"year": {">=": 2000}}])
def test_an_explained_search_answers_the_same_and_says_how(ask: Ask, where: dict[str, Any] | None) -> None:
    def question(client: Any) -> Any:
        return client.search("dots", vector=VECTORS[3], where=where, explain=True)

    answers = ask(question)
    assert the_one(answers) == the_one(ask(search_of(3, {"where": where})))
    told = [
        replace(
            answer.explanation, steps=tuple(replace(step, seconds=0.0) for step in answer.explanation.steps)
        )
        for answer in answers
    ]
    explanation = the_one(told)
    assert (explanation.datapoint_count, explanation.true_count) == (COUNT, 10)
    assert 0 < explanation.found_count <= 10
    assert explanation.target_recall == 0.95
    assert (explanation.measured_recall is None) == bool(where)
    assert explanation.passing_count == (200 if where else None)
    assert bool(explanation.filter_path) == bool(where)
    # Of so few, exact search may be what was measured to be the cheapest.
    first, *others = [step.name for step in explanation.steps]
    assert first in (("filtered",) if where else (explanation.engine, "exact"))
    assert others == ["rest"]
    assert the_one(ask(search_of(3, {}))).explanation is None


def test_more_queries_than_one_request_takes_are_all_answered(ask: Ask) -> None:
    vectors = np.concatenate([VECTORS] * 4)
    results = the_one(ask(lambda client: client.search_batch("dots", vectors=vectors, k=1)))
    assert [result[0].id for result in results] == [f"p/{row % COUNT} é" for row in range(4 * COUNT)]
    wide = the_one(ask(lambda client: client.search_batch("dots", vectors=VECTORS[:12], k=9_000)))
    assert [len(result) for result in wide] == [COUNT] * 12


def test_a_search_finds_what_brute_force_finds(ask: Ask) -> None:
    query = np.random.default_rng(8).standard_normal(DIMENSIONS)
    results = the_one(ask(lambda client: client.search("dots", vector=query, target_recall=1.0)))
    assert results.index_version == "indexes/dots/versions/v000002"
    distances = ((VECTORS - query) ** 2).sum(1)  # the second version of `dots` was built with this measure
    assert [each.id for each in results] == [f"p/{row} é" for row in np.argsort(distances)[:10]]
    np.testing.assert_allclose([each.distance for each in results], np.sort(distances)[:10], rtol=1e-5)
    assert [each.score for each in results] == [-each.distance for each in results]

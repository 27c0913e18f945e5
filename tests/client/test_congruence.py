"""Both real servers and the data folder, asked by every client: equal results and equal errors everywhere."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.client import AsyncClient, Client
from earshot.errors import EarshotError, InvalidArgument, ResourceExhausted
from earshot.index import Index, Store
from earshot.server import Addresses, load_settings, local_client, running
from earshot.server.hot import running_hot

COUNT, DIMENSIONS = 300, 16
VECTORS = np.random.default_rng(7).standard_normal((COUNT, DIMENSIONS)).astype(np.float32)
METADATA = [
    {
        "title": f"Épisode {row} 🎧",
        "year": 1990 + row % 30,
        "half": row + 0.5,
        "tags": ["a", None, {"b": True}],
    }
    for row in range(COUNT)
]

LANGUAGES = ["de", "en", "fr"]
RESTRICTS: dict[str, list[Any]] = {
    "language": [LANGUAGES[row % 3] for row in range(COUNT)],
    "year": [1990 + row % 30 for row in range(COUNT)],
    "half": [None if row % 5 == 0 else row + 0.5 for row in range(COUNT)],
    "tags": [{"not": "b"} if row % 2 else ["a", "b"] for row in range(COUNT)],
}

COMPARISONS = {"<": lt, "<=": le, "==": eq, ">=": ge, ">": gt, "!=": ne}
comparisons = st.sampled_from(sorted(COMPARISONS))

Ask = Callable[[Callable[[Any], Any]], list[Any]]


def publish(folder: Path) -> None:
    store = Store(folder)
    for name, measure in (("dots", "DOT_PRODUCT_DISTANCE"), ("squares", "SQUARED_L2_DISTANCE")):
        store.create(name)
        index = Index.build(
            VECTORS,
            [f"p/{row} é" for row in range(COUNT)],
            crowding_tags=[f"show {row % 7}" if row % 2 else None for row in range(COUNT)],
            metadata=METADATA,
            restricts=RESTRICTS,
            distance_measure=measure,
        )
        store.publish(name, index)
    store.publish("dots", index)


def serve(server: Any, stack: ExitStack) -> Addresses:
    """The server in a thread with an event loop of its own, until the stack closes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def on_loop(step: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(step, loop).result(60)

    def stop() -> None:
        on_loop(server.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    addresses: Addresses = on_loop(server.__aenter__())
    stack.callback(stop)
    return addresses


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks all clients the same; returns their answers, results or errors, without addresses.

    The last one reads the data folder itself.
    """
    folder = tmp_path_factory.mktemp("data")
    publish(folder)
    with ExitStack() as stack:
        settings = load_settings(data_dir=folder, cache_dir=folder / "cache", port=0, grpc_port=0)
        with (folder.parent / "hot.log").open("w") as log:
            served = [serve(running(settings), stack), serve(running_hot(settings, log_to=log), stack)]
        targets = [target for addresses in served for target in (addresses.grpc, addresses.http)]
        blocking = [stack.enter_context(Client(target)) for target in targets]
        local = stack.enter_context(local_client(settings))
        runner = stack.enter_context(asyncio.Runner())
        awaiting = [AsyncClient(target) for target in targets]

        def close(client: AsyncClient) -> None:
            runner.run(client.close())

        for client in awaiting:
            stack.callback(close, client)

        async def awaited(question: Callable[[Any], Any], client: AsyncClient) -> Any:
            return await question(client)

        def answer(question: Callable[[Any], Any], client: Client | AsyncClient) -> Any:
            try:
                if isinstance(client, AsyncClient):
                    return runner.run(awaited(question, client))
                return question(client)
            except EarshotError as error:
                return type(error), re.sub("|".join(map(re.escape, targets)), "ADDRESS", error.message)

        every: list[Client | AsyncClient] = [*blocking, *awaiting, local]
        yield lambda question: [answer(question, client) for client in every]


def the_one(answers: list[Any]) -> Any:
    assert len(answers) == 9
    assert all(answer == answers[0] for answer in answers), answers
    return answers[0]


def stored(row: int) -> dict[str, Any]:
    """What a client says of a row's restricts."""
    half = {"half": RESTRICTS["half"][row]} if row % 5 else {}
    tags = {"in": [], "not": ["b"]} if row % 2 else ["a", "b"]
    return {"language": [LANGUAGES[row % 3]], "year": 1990 + row % 30, "tags": tags, **half}


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
    assert [step.name for step in explanation.steps] == ["filtered" if where else explanation.engine, "rest"]
    assert the_one(ask(search_of(3, {}))).explanation is None


def test_more_queries_than_one_request_takes_are_all_answered(ask: Ask) -> None:
    vectors = np.concatenate([VECTORS] * 4)
    results = the_one(ask(lambda client: client.search_batch("dots", vectors=vectors, k=1)))
    assert [result[0].id for result in results] == [f"p/{row % COUNT} é" for row in range(4 * COUNT)]
    wide = the_one(ask(lambda client: client.search_batch("dots", vectors=VECTORS[:12], k=9_000)))
    assert [len(result) for result in wide] == [COUNT] * 12


def streamed(**asked: Any) -> Callable[[Any], Any]:
    """The ids that a stream of queries finds, or its errors where those are returned."""

    def seen(result: Any) -> Any:
        if isinstance(result, EarshotError):
            return type(result), result.message
        return [neighbor.id for neighbor in result]

    def question(client: Any) -> Any:
        results = client.search_stream("dots", **asked)
        if not isinstance(client, AsyncClient):
            return [seen(result) for result in results]

        async def collected() -> list[Any]:
            return [seen(result) async for result in results]

        return collected()

    return question


@pytest.mark.parametrize("count", [0, 1, 70])
def test_a_stream_answers_like_its_queries_one_by_one(ask: Ask, count: int) -> None:
    options: dict[str, Any] = {"k": 3, "where": {"year": {">=": 2000}}, "target_recall": 1.0}
    rows = list(range(count))
    found = the_one(ask(streamed(vectors=VECTORS[:count], **options)))
    by_id = the_one(ask(streamed(datapoint_ids=[f"p/{row} é" for row in rows], **options)))
    assert (
        found
        == by_id
        == [
            [each.id for each in results]
            for results in the_one(
                ask(lambda client: client.search_batch("dots", vectors=VECTORS[:count], **options))
            )
        ]
    )


def test_a_query_of_a_stream_that_fails_ends_nothing(ask: Ask) -> None:
    vectors = [VECTORS[0], VECTORS[0][:5], VECTORS[1]]
    good, bad, after = the_one(ask(streamed(vectors=vectors, k=1, return_exceptions=True)))
    assert (good, after) == (["p/0 é"], ["p/1 é"])
    assert bad[0] is InvalidArgument
    assert "dimension 16" in bad[1]
    kind, message = the_one(ask(streamed(vectors=vectors, k=1)))
    assert (kind, message) == bad


def test_what_is_wrong_with_a_stream_is_said_alike(ask: Ask) -> None:
    for asked in (
        {},
        {"texts": ["x"], "datapoint_ids": ["y"]},
        {"texts": "one"},
        {"texts": ["x"], "where": 3},
    ):
        kind, message = the_one(ask(streamed(**asked)))
        assert kind is InvalidArgument, message

    def broken() -> Iterator[np.ndarray]:
        yield VECTORS[0]
        raise InvalidArgument("of my own")

    answer = the_one(ask(lambda client: streamed(vectors=broken(), k=1)(client)))
    assert answer == (InvalidArgument, "of my own")


def test_indexes_live_and_die_alike(ask: Ask) -> None:
    """Each client makes, changes and removes an index of its own; they must all see the same."""

    def life(client: Any) -> Any:
        steps: list[Callable[[Any], Any]] = [
            lambda client: client.create_index("tmp", dimensions=4, distance_measure="COSINE_DISTANCE"),
            lambda client: client.create_index("tmp"),
            lambda client: client.get_index("tmp"),
            lambda client: client.search("tmp", "a text, of which it knows no model"),
            lambda client: client.update_index("tmp", {"shards": 2, "target_recall": 0.9}),
            lambda client: client.update_index("tmp", {"shards": None}),
            lambda client: client.update_index("tmp", {"dimensions": 5}),
            lambda client: client.update_index("tmp", {"colour": "red"}),
            lambda client: client.update_index("tmp", {"shards": 3}, etag="old"),
            lambda client: client.rollback("tmp"),
            lambda client: client.operations("nosuch"),
            lambda client: client.delete_index("tmp"),
            lambda client: client.delete_index("tmp", etag="old"),
            lambda client: client.delete_index("tmp", force=True),
            lambda client: client.get_index("tmp"),
        ]

        def told(answer: Any) -> Any:
            return (type(answer), answer.message) if isinstance(answer, EarshotError) else answer

        if isinstance(client, AsyncClient):

            async def awaited() -> list[Any]:
                answers = []
                for step in steps:
                    try:
                        answers.append(await step(client))
                    except EarshotError as error:
                        answers.append(told(error))
                return answers

            return awaited()
        answers = []
        for step in steps:
            try:
                answers.append(step(client))
            except EarshotError as error:
                answers.append(told(error))
        return answers

    made, twice, got, empty, changed, unsaid, fixed, unknown, late, *rest = the_one(ask(life))
    assert (made.dimensions, made.current_version, made.datapoint_count) == (4, "", 0)
    assert made.config == {"dimensions": 4, "distance_measure": "COSINE_DISTANCE"}
    assert got == made
    assert changed.config == {**made.config, "shards": 2, "target_recall": 0.9}
    assert unsaid.config == {**made.config, "target_recall": 0.9}
    codes = [answer[0].code for answer in (twice, empty, fixed, unknown, late)]
    assert codes == [
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "ABORTED",
    ]
    back, jobs, unguarded, old, gone, after = rest
    assert gone is None
    codes = [answer[0].code for answer in (back, jobs, unguarded, old, after)]
    assert codes == ["FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT", "ABORTED", "NOT_FOUND"]


def test_rolled_back_versions_are_alike(ask: Ask) -> None:
    assert the_one(ask(lambda client: client.rollback("dots", "v000001"))).current_version.endswith("v000001")
    forth = the_one(ask(lambda client: client.rollback("dots", "indexes/dots/versions/v000002")))
    assert forth.current_version == "indexes/dots/versions/v000002"
    kind, message = the_one(ask(lambda client: client.rollback("dots", "v000009")))
    assert kind.code == "NOT_FOUND"
    assert "v000009" in message


def test_a_search_finds_what_brute_force_finds(ask: Ask) -> None:
    query = np.random.default_rng(8).standard_normal(DIMENSIONS)
    results = the_one(ask(lambda client: client.search("dots", vector=query, target_recall=1.0)))
    assert results.index_version == "indexes/dots/versions/v000002"
    distances = ((VECTORS - query) ** 2).sum(1)  # the second version of `dots` was built with this measure
    assert [each.id for each in results] == [f"p/{row} é" for row in np.argsort(distances)[:10]]
    np.testing.assert_allclose([each.distance for each in results], np.sort(distances)[:10], rtol=1e-5)
    assert [each.score for each in results] == [-each.distance for each in results]


def test_reading_and_listing_answer_alike(ask: Ask) -> None:
    points = the_one(ask(lambda client: client.read("dots", ["p/5 é", "p/0 é"])))
    assert [point.id for point in points] == ["p/5 é", "p/0 é"]
    assert np.array_equal(points[0].vector, VECTORS[5])
    assert [point.restricts for point in points] == [stored(5), stored(0)]
    many = the_one(ask(lambda client: client.read("dots", ["p/1 é"] * 1001, metadata_fields=["half"])))
    assert [point.metadata for point in many] == [{"half": 1.5}] * 1001
    dots, squares = the_one(ask(lambda client: client.indexes()))
    assert (dots.name, squares.name) == ("indexes/dots", "indexes/squares")
    assert (squares.datapoint_count, squares.dimensions) == (COUNT, DIMENSIONS)
    assert squares.distance_measure == "SQUARED_L2_DISTANCE"
    assert squares.update_time.tzinfo is not None
    assert the_one(ask(lambda client: client.get_index("squares"))) == squares
    newest, oldest = the_one(ask(lambda client: client.versions("dots")))
    assert (newest.name, newest.current, oldest.current) == ("indexes/dots/versions/v000002", True, False)
    assert oldest.complete
    assert oldest.size_bytes > 0


def test_the_server_is_healthy_and_ready(ask: Ask) -> None:
    assert the_one(ask(lambda client: client.healthy()))
    assert the_one(ask(lambda client: client.ready()))


WRONG: dict[str, Callable[[Any], Any]] = {
    "unknown index": lambda client: client.search("nosuch", "x"),
    "unknown index's versions": lambda client: client.versions("nosuch"),
    "unknown index by name": lambda client: client.get_index("nosuch"),
    "a name no index can have": lambda client: client.get_index("a b?:%"),
    "unknown datapoint": lambda client: client.search("dots", datapoint_id="nosuch"),
    "unknown datapoints": lambda client: client.read("dots", ["p/0 é", "no", "such"]),
    "no ids": lambda client: client.read("dots", []),
    "ids that are one string": lambda client: client.read("dots", "p/0 é"),
    "fields that are one string": lambda client: client.search("dots", "x", metadata_fields="title"),
    "text without a model": lambda client: client.search("dots", "x"),
    "empty text": lambda client: client.search("dots", " "),
    "wrong dimension": lambda client: client.search("dots", vector=[1.0] * 3),
    "NaN": lambda client: client.search("dots", vector=[np.nan] * DIMENSIONS),
    "too large for float32": lambda client: client.search("dots", vector=[1e300] * DIMENSIONS),
    "k of 0": lambda client: client.search("dots", vector=VECTORS[0], k=0),
    "k too large": lambda client: client.search("dots", vector=VECTORS[0], k=10_001),
    "negative crowding": lambda client: client.search(
        "dots", vector=VECTORS[0], per_crowding_attribute_neighbor_count=-1
    ),
    "recall of 0": lambda client: client.search("dots", vector=VECTORS[0], target_recall=0.0),
    "recall above 1": lambda client: client.search("dots", vector=VECTORS[0], target_recall=1.5),
    "recall that is no number": lambda client: client.search("dots", vector=VECTORS[0], target_recall=np.nan),
    "no leaves": lambda client: client.search("dots", vector=VECTORS[0], fraction_leaf_nodes_to_search=0.0),
    "no candidates": lambda client: client.search("dots", vector=VECTORS[0], approximate_neighbor_count=0),
    "an empty batch of nothing": lambda client: client.search_batch("dots"),
    "a batch of two kinds": lambda client: client.search_batch("dots", ["x"], datapoint_ids=["y"]),
    "a batch that is one text": lambda client: client.search_batch("dots", "text"),
    "a batch of one vector": lambda client: client.search_batch("dots", vectors=VECTORS[0]),
    "a batch of wrong dimension": lambda client: client.search_batch("dots", vectors=VECTORS[:3, :5]),
    "NaN in a batch": lambda client: client.search_batch("dots", vectors=VECTORS[:3] * [[1], [np.nan], [1]]),
    "infinity in a batch": lambda client: client.search_batch("dots", vectors=VECTORS[:2] * [[1], [np.inf]]),
    "an empty text in a batch": lambda client: client.search_batch("dots", ["x", " "]),
    "a batch of texts without a model": lambda client: client.search_batch("dots", ["x", "y"]),
    "unknown datapoints in a batch": lambda client: client.search_batch("dots", datapoint_ids=["no"]),
    "a batch with k of 0": lambda client: client.search_batch("dots", vectors=VECTORS, k=0),
    "a batch with a bad filter": lambda client: client.search_batch("dots", vectors=VECTORS, where={"": 1}),
    "a filter without a name": lambda client: client.search("dots", vector=VECTORS[0], where={"": "x"}),
    "a filter that is no mapping": lambda client: client.search("dots", vector=VECTORS[0], where="year=3"),
    "a filter by NaN": lambda client: client.search("dots", vector=VECTORS[0], where={"year": np.nan}),
    "a target and parameters": lambda client: client.search(
        "dots", vector=VECTORS[0], target_recall=0.9, approximate_neighbor_count=10
    ),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_errors_are_alike(ask: Ask, call: Callable[[Any], Any]) -> None:
    kind, message = the_one(ask(call))
    assert issubclass(kind, EarshotError)
    assert kind.code in {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
    assert message


def test_a_request_that_is_too_large_is_refused_and_the_server_serves_on(ask: Ask) -> None:
    # Over gRPC the library refuses it before our code sees it, hence its status.
    answers = ask(lambda client: client.search("dots", "x" * (17 << 20)))
    assert {kind for kind, _ in answers} <= {InvalidArgument, ResourceExhausted}
    assert all("16777216" in message for _, message in answers[:-1])
    assert the_one(ask(lambda client: client.ready()))

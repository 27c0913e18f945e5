"""Both real servers and the data folder, asked by every client, which must all answer the same."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earshot.client import AsyncClient, Client
from earshot.errors import EarshotError
from earshot.index import Index, Store
from earshot.server import Addresses, load_settings, local_client, running
from earshot.server.direct import running_direct

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


@pytest.fixture(scope="package")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks all clients the same; returns their answers, results or errors, without addresses.

    The last one reads the data folder itself.
    """
    folder = tmp_path_factory.mktemp("data")
    publish(folder)
    with ExitStack() as stack:
        settings = load_settings(data_dir=folder, cache_dir=folder / "cache", port=0, grpc_port=0)
        served = [serve(running(settings), stack), serve(running_direct(settings), stack)]
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

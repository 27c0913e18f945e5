"""One page for several workers: each tells the others its own counts, and whoever is asked adds them up.

The kernel decides which worker a scrape reaches, so a page of one alone would jump from one's counts to
another's. Each listens at a socket in a folder that their supervisor made and that nobody else may enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from .metrics import Metrics

__all__ = ["PEERS", "page_of_all", "telling_peers"]

PEERS = "EARSHOT_PEERS"
TIMEOUT_SECONDS = 2.0

# Of these every worker says the same, or the largest is what matters; all else adds up.
_SAME = ("earshot_index", "earshot_build_info", "process_max_fds", "process_start_time")


@contextlib.asynccontextmanager
async def telling_peers(metrics: Metrics) -> AsyncIterator[None]:
    """Within the block, other workers can read this one's page, where there are others."""
    folder = os.environ.get(PEERS)
    if folder is None:
        yield
        return

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(OSError):
            writer.write((await asyncio.to_thread(metrics.page, ""))[0])
            await writer.drain()
        writer.close()

    path = Path(folder, f"{os.getpid()}.sock")
    server = await asyncio.start_unix_server(tell, path)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def page_of_all(metrics: Metrics, accept: str) -> tuple[bytes, str]:
    """The page of this worker and of those beside it, as one, and its content type."""
    folder = os.environ.get(PEERS)
    if folder is None:
        return await asyncio.to_thread(metrics.page, accept)
    ours = f"{os.getpid()}.sock"
    others = [path for path in Path(folder).glob("*.sock") if path.name != ours]
    own, *pages = await asyncio.gather(
        asyncio.to_thread(lambda: metrics.page("")[0]), *(_read(path) for path in others)
    )
    return await asyncio.to_thread(_merged, [own, *pages], accept)


async def _read(path: Path) -> bytes:
    """Its page; nothing where it died and left its socket behind."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


def _merged(pages: Iterable[bytes], accept: str) -> tuple[bytes, str]:
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], float]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page.decode()):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            seen = values.setdefault(family.name, {})
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                is_same = sample.name.startswith(_SAME)
                old = seen.get(key, 0.0)
                seen[key] = max(old, sample.value) if is_same else old + sample.value
    for name, samples in values.items():
        for (sample_name, labels), value in samples.items():
            families[name].add_sample(sample_name, dict(labels), value)
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """What was merged."""
        yield from self._families

"""`rebuild`: source files in, a published and measured version out.

A killed run resumes, because embeddings are kept as they come; a second run over the same sources
does nothing, because the current version's fingerprint says that it would come out the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from earshot.embedding import (
    DEFAULT_MODEL,
    Embedder,
    EmbeddingCache,
    Precision,
    Vectors,
    embed_cached,
    load_embedder,
)
from earshot.errors import DataLoss, FailedPrecondition
from earshot.index import Index, IndexConfig, Manifest, Recall, Store

from .bad_records import BadLimit, BadRecords
from .datapoints import Row, rows_of
from .evaluate import QUESTIONS_FILE, Questions, evaluate, held_out_questions, tuned_on
from .journals import trim_journal
from .overlay import Sourced, overlay_of
from .queries import given_questions
from .sources import FieldMapping, is_url, read_documents
from .steps import arguments, existing, timed

__all__ = ["STEPS", "BadLimit", "Progress", "RebuildReport", "RebuildRequest", "rebuild"]

STEPS = ("read", "embed", "build", "evaluate", "publish")
Progress = Callable[[str, int, int], None]

# Part of the fingerprint: raise it when the same sources shall give another version.
RECIPE = 3

# Of an index of text, where neither call nor config says otherwise.
USUAL = {
    "target_recall": 0.99,
    "shards": 1,
    "distance_measure": "DOT_PRODUCT_DISTANCE",
    "feature_norm": "NONE",
    "engine": "auto",
}

# What searches of such an index do when they say nothing else: an episode is returned once.
CONFIG = {"per_crowding_attribute_neighbor_count": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildRequest:
    """What to build.

    `force` builds although nothing changed; `keep` old versions stay for rollback; `tuning_queries` is a
    file of real queries, in place of the documents' titles; `journal` is its address where one is set.
    Live updates that were acknowledged stay, over the sources, unless `drop_live_updates`. A None is
    what the index's config says, or else recall 0.99 and one shard.
    """

    index: str
    sources: Sequence[str | Path]
    transcripts: Sequence[str | Path] = ()
    mapping: FieldMapping | None = None
    max_bad: BadLimit = field(default_factory=lambda: BadLimit.parse("1%"))
    target_recall: float | None = None
    precision: Precision = "int8"
    shards: int | None = None
    keep: int = 3
    force: bool = False
    tuning_queries: Path | None = None
    journal: str | None = None
    drop_live_updates: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport:
    """What came of it. `published` is false where nothing had changed; seconds are by step.

    `sample_titles` are at most three titles from beginning, middle and end.
    """

    index: str
    version: str
    published: bool
    documents: int
    datapoints: int
    embedded: int
    recall: float
    recall_low: float
    recall_high: float
    tuned_on: str
    engine: str
    bad_records: int
    warnings: int
    first_bad_records: list[str]
    sample_titles: list[str]
    seconds: dict[str, float]


def rebuild(
    request: RebuildRequest, *, data_dir: str | Path, cache_dir: Path, progress: Progress
) -> RebuildReport:
    """Runs the job. `progress` hears (step, done, total); the steps are `STEPS`.

    Raises NotFound or InvalidArgument for sources that are not there or cannot be read,
    FailedPrecondition where too many records are bad or the recall asked for is not reached, Aborted
    where another rebuild of this index is running. The version that serves stays as it was.
    """
    store = Store(data_dir, cache_dir=cache_dir)
    seconds: dict[str, float] = {}
    with existing(store, request.index), store.writer_lock(request.index):
        with timed(seconds, "read"):
            read = _read(request, progress)
        asked = store.asked(request.index)
        embedder = _embedder(asked, request.precision, cache_dir)
        plan = arguments(asked, {"target_recall": request.target_recall, "shards": request.shards}, USUAL)
        fingerprint = _fingerprint(read.rows, embedder, request, plan)
        overlay = overlay_of(store, request.index, request.journal, drop=request.drop_live_updates)
        overlay.check(dimension=embedder.dimensions, model=embedder.digest)
        rebuilt = request.force or request.drop_live_updates
        current = None if rebuilt else _current_manifest(store, request.index)
        if current is not None and current.source.get("fingerprint") == fingerprint:
            return _report(request, current, read, seconds, embedded=0, published=False)
        with timed(seconds, "embed"), EmbeddingCache(cache_dir / "embeddings.sqlite") as cache:
            vectors, embedded = _embed(read.rows, embedder, cache, progress)
            questions = (
                held_out_questions(read.titles, embedder, cache)
                if request.tuning_queries is None
                else given_questions(request.tuning_queries, partial(embed_cached, embedder, cache=cache))
            )
        with timed(seconds, "build"):
            index = _build(plan, overlay.over(_sourced(read.rows, vectors)), questions, progress)
        with timed(seconds, "evaluate"):
            progress("evaluate", 0, 1)
            recall = evaluate(index, questions, target_recall=plan["target_recall"])
            progress("evaluate", 1, 1)
        with timed(seconds, "publish"):
            progress("publish", 0, 1)
            version = store.publish(
                request.index,
                index,
                manifest_extra={
                    "config": CONFIG,
                    "model": {
                        "name": embedder.model_id,
                        "precision": request.precision,
                        "digest": embedder.digest,
                    },
                    "source": _source(request, read, fingerprint, recall, questions),
                    "sequence_number": overlay.sequence,
                },
                files={**overlay.files, **({QUESTIONS_FILE: questions.save} if questions else {})},
            )
            store.prune(request.index, keep=request.keep)
            trim_journal(store, request.index, request.journal)
            progress("publish", 1, 1)
    return _report(
        request, store.manifest(request.index, version), read, seconds, embedded=embedded, published=True
    )


@dataclass(frozen=True, slots=True)
class _Read:
    rows: list[Row]
    titles: list[str]
    documents: int
    bad: BadRecords


def _read(request: RebuildRequest, progress: Progress) -> _Read:
    bad = BadRecords()
    rows: list[Row] = []
    titles: list[str] = []
    for document in read_documents(
        request.sources,
        mapping=request.mapping,
        transcripts=request.transcripts,
        on_bad=bad.add,
        progress=lambda done, total: progress("read", done, total),
    ):
        titles.append(document.title)
        rows.extend(rows_of(document))
    bad.check(request.max_bad, len(titles))
    if not rows:
        names = ", ".join(str(source) for source in request.sources)
        raise FailedPrecondition(f"{names}: no documents in there; nothing was published", field="sources")
    return _Read(rows, titles, len(titles), bad)


def _embedder(asked: IndexConfig, precision: Precision, cache_dir: Path) -> Embedder:
    embedder = load_embedder(asked.model or DEFAULT_MODEL, precision=precision, cache_dir=cache_dir)
    if asked.dimensions not in {None, embedder.dimensions}:
        raise FailedPrecondition(
            f"the index was created with {asked.dimensions} dimensions; vectors of {embedder.model_id} have "
            f"{embedder.dimensions}",
            field="dimensions",
        )
    return embedder


def _fingerprint(
    rows: Sequence[Row], embedder: Embedder, request: RebuildRequest, plan: dict[str, Any]
) -> str:
    """What decides the version: recipe, model, how it is built and every datapoint, in order."""
    decided = [RECIPE, embedder.digest, *plan.values()]
    digest = hashlib.sha256(msgspec.json.encode(decided))
    if request.tuning_queries is not None and request.tuning_queries.is_file():
        digest.update(request.tuning_queries.read_bytes())
    for row in rows:
        digest.update(msgspec.json.encode([row.id, row.text, row.crowding_tag, row.metadata]))
    return digest.hexdigest()


def _embed(
    rows: Sequence[Row], embedder: Embedder, cache: EmbeddingCache, progress: Progress
) -> tuple[Vectors, int]:
    """Vectors, a row each, and how many of them were not in the cache."""
    steps: list[int] = []
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        steps.append(count)
        done += count
        progress("embed", done, len(rows))

    vectors = embed_cached(embedder, [row.text for row in rows], cache, progress=advance)
    return vectors, len(rows) - steps[0]


def _build(plan: dict[str, Any], sourced: Sourced, questions: Questions | None, progress: Progress) -> Index:
    stages = ("build", "tune", "filters")

    def advance(stage: str, done: int, total: int) -> None:
        progress("build", stages.index(stage) * 100 + 100 * done // total, 100 * len(stages))

    return Index.build(
        sourced.vectors,
        sourced.ids,
        crowding_tags=sourced.crowding_tags,
        metadata=sourced.metadata,
        restricts=sourced.restricts,
        **plan,
        tuning_queries=None if questions is None else questions.tuning,
        progress=advance,
    )


def _sourced(rows: Sequence[Row], vectors: Vectors) -> Sourced:
    return Sourced(
        vectors,
        [row.id for row in rows],
        [row.crowding_tag for row in rows],
        [row.metadata for row in rows],
        [row.restricts for row in rows],
    )


def _source(
    request: RebuildRequest, read: _Read, fingerprint: str, recall: Recall, questions: Questions | None
) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "sources": [_lasting(source) for source in request.sources],
        "transcripts": [_lasting(source) for source in request.transcripts],
        "documents": read.documents,
        "bad_records": read.bad.skipped,
        "evaluation": msgspec.to_builtins(recall),
        "tuning_queries": questions.name if questions else "",
    }


def _lasting(source: str | Path) -> str:
    """A source so that another process, in another folder, can read it again."""
    return str(source) if is_url(source) else str(Path(source).absolute())


def _current_manifest(store: Store, name: str) -> Manifest | None:
    try:
        return store.manifest(name)
    except (FailedPrecondition, DataLoss):  # nothing published yet, or nothing that could be served
        return None


def _report(
    request: RebuildRequest,
    manifest: Manifest,
    read: _Read,
    seconds: dict[str, float],
    *,
    embedded: int,
    published: bool,
) -> RebuildReport:
    recall = manifest.source["evaluation"]
    return RebuildReport(
        index=request.index,
        version=manifest.version,
        published=published,
        documents=read.documents,
        datapoints=len(read.rows),
        embedded=embedded,
        recall=recall["value"],
        recall_low=recall["low"],
        recall_high=recall["high"],
        tuned_on=tuned_on(manifest),
        engine=manifest.engine.name,
        bad_records=read.bad.skipped,
        warnings=read.bad.warnings,
        first_bad_records=[str(record) for record in read.bad.kept],
        sample_titles=_spread(read.titles, 3),
        seconds=seconds,
    )


def _spread(titles: Sequence[str], count: int) -> list[str]:
    """At most `count` titles that are not empty, from beginning to end."""
    named = [title for title in titles if title]
    return [named[len(named) * part // count] for part in range(min(count, len(named)))]

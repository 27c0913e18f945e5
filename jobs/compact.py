"""`compact`: a new version from the current one and the updates since, so that the journal can be trimmed.

The version holds every update up to a sequence number, which its manifest names; servers swap to it and go on
with the updates after that. Until it is published nothing has changed, and what is published is whole: a job
that dies at any step loses nothing and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from earshot.errors import FailedPrecondition
from earshot.index import Index, Manifest, Recall, Store
from earshot.index.distance import DistanceMeasure, FeatureNorm
from earshot.index.engines import as_before
from earshot.index.live import LiveIndex, empty_index
from earshot.index.provenance import LIVE_FILE, Provenance
from earshot.index.scratch import rows_a_block, to_scratch

from .evaluate import QUESTIONS_FILE, Questions, evaluate, kept_questions, questions_of, tuned_on
from .journals import read_journal, trim_journal
from .steps import timed
from .tune import tune_with

__all__ = ["CompactReport", "CompactRequest", "compact"]

_REAL_SEARCHES = "a sample of real searches"

Progress = Callable[[str, int, int], None]


class CompactRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to compact.

    `journal` is its address where one is set, None for the file beside the versions; `keep` old versions stay
    for rollback; `threads` None for one a core. `questions` is an npy file of real queries, float32 [n, d],
    to tune and evaluate with from now on; None for those that the current version has. Where there are some
    and no updates, the version is tuned anew and not built anew.
    """

    index: str
    journal: str | None = None
    keep: int = 3
    threads: int | None = None
    questions: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    """What came of it; `published` is false where there was nothing to do.

    `updates` are the journal's entries that came in; `sequence` is the number of the last; the journal is
    `trimmed` up to a number that no version needs. Seconds are by step.
    """

    index: str
    version: str
    published: bool
    updates: int
    sequence: int
    datapoints: int
    trimmed: int
    recall: Recall | None = None
    tuned_on: str = ""
    engine: str = ""
    seconds: dict[str, float]


def compact(request: CompactRequest, *, store: Store, progress: Progress) -> CompactReport:
    """Run the job.

    Raises NotFound for an index that is not there, Aborted where a job over it is running, DataLoss where
    version or journal is damaged or they do not fit, FailedPrecondition where no datapoint is left or the
    recall asked for is not reached. The version that serves stays as it was.
    """
    seconds: dict[str, float] = {}
    name = request.index
    with store.writer_lock(name):
        with timed(seconds, "read"):
            progress("read", 0, 1)
            version = _base(store, name)
            before = version.manifest
            journal = read_journal(store, name, request.journal)
            with nullcontext() if journal is None else closing(journal):
                last = 0 if journal is None else journal.last()
                count = last - before.sequence_number
                if journal is not None and count > 0:
                    provenance = Provenance.of(version)
                    entries = journal.read(before.sequence_number, count)
                    live = LiveIndex(version, provenance.watched(entries))
            if count <= 0:
                trimmed = trim_journal(store, name, request.journal)
                if request.questions is None or not before.version:
                    return _nothing(request, before, trimmed, seconds)
                return _tuned(request, version, trimmed, store, progress, seconds)
            progress("read", 1, 1)
        if not len(live):
            raise FailedPrecondition(
                f"every datapoint of {name} was removed, and an empty index is not built; the journal stays",
                field="index",
            )
        with timed(seconds, "build"):
            questions = _given_questions(request) or kept_questions(version)
            index = _build(live.now(), store, request, questions, progress)
            provenance.settle(set(provenance.parts) & set(_ids(live.now())))
        with timed(seconds, "evaluate"):
            recall = evaluate(index, questions, target_recall=index.manifest.tuning.target_recall)
        with timed(seconds, "publish"):
            progress("publish", 0, 1)
            files: dict[str, Callable[[Path], None]] = {LIVE_FILE: provenance.save}
            if questions is not None:
                files[QUESTIONS_FILE] = questions.save
            published = store.publish(
                name,
                index,
                manifest_extra={
                    "config": before.config if before.version else store.config(name),
                    "model": before.model,
                    "source": {
                        **before.source,
                        "evaluation": msgspec.to_builtins(recall),
                        "tuning_queries": questions.name if questions else "",
                    },
                    "sequence_number": last,
                },
                files=files,
            )
            store.prune(name, keep=request.keep)
            progress("publish", 1, 1)
        with timed(seconds, "trim"):
            trimmed = trim_journal(store, name, request.journal)
    manifest = store.manifest(name, published)
    return CompactReport(
        index=name,
        version=published,
        published=True,
        updates=count,
        sequence=last,
        datapoints=manifest.count,
        trimmed=trimmed,
        recall=recall,
        tuned_on=tuned_on(manifest),
        engine=manifest.engine.name,
        seconds=seconds,
    )


def _base(store: Store, name: str) -> Index:
    """The current version, or where there is none yet an empty one of what the index was created as."""
    if store.versions(name):
        return store.open(name)
    asked = store.asked(name)
    if asked.dimensions is None:
        raise FailedPrecondition(
            f"index {name} has no version and no dimensions yet: rebuild it", field="index"
        )
    return empty_index(
        asked.dimensions,
        asked.distance_measure or DistanceMeasure.DOT_PRODUCT_DISTANCE,
        asked.feature_norm or FeatureNorm.NONE,
        asked.target_recall or 0.95,
    )


def _build(
    now: Index, store: Store, request: CompactRequest, questions: Questions | None, progress: Progress
) -> Index:
    """All datapoints of a moment as an index of its own, asked for as the one before was."""
    shard, manifest = now.shard, now.manifest
    asked = store.asked(request.index)
    rows = shard.rows()
    step = rows_a_block(4 * now.dimension)
    blocks = (now.vectors_of(rows[start : start + step]) for start in range(0, len(rows), step))
    stages = ("build", "tune", "filters")

    def advance(stage: str, done: int, total: int) -> None:
        progress("build", stages.index(stage) * 100 + 100 * done // max(total, 1), 100 * len(stages))

    numbers = rows.tolist()
    restricts = [shard.restricts_of(row) for row in numbers] if now.can_be_filtered else []
    engine = manifest.engine
    return Index.build(
        to_scratch(blocks),
        shard.ids.of(rows).tolist(),
        crowding_tags=[shard.attributes.crowding_tag(row) for row in numbers],
        metadata=(shard.attributes.metadata(row) for row in numbers),
        restricts=list(map(list, restricts)) if manifest.filters is not None or any(restricts) else None,
        shards=asked.shards or manifest.shards,
        distance_measure=manifest.distance_measure,
        feature_norm=manifest.feature_norm,
        engine=asked.engine or as_before(engine.name, engine.parameters, engine.reason),
        target_recall=asked.target_recall or manifest.tuning.target_recall,
        tuning_queries=None if questions is None else questions.tuning,
        threads=request.threads,
        progress=advance,
    )


def _given_questions(request: CompactRequest) -> Questions | None:
    if request.questions is None:
        return None
    return questions_of(np.load(request.questions, allow_pickle=False), _REAL_SEARCHES)


def _ids(index: Index) -> Sequence[str]:
    ids: list[Any] = index.shard.ids.of(index.shard.rows()).tolist()
    return ids


def _tuned(
    request: CompactRequest,
    version: Index,
    trimmed: int,
    store: Store,
    progress: Progress,
    seconds: dict[str, float],
) -> CompactReport:
    """The same version, with the operating points that the questions need."""
    said = tune_with(
        _given_questions(request),
        version,
        store=store,
        target_recall=store.asked(request.index).target_recall,
        progress=progress,
        seconds=seconds,
    )
    store.prune(request.index, keep=request.keep)
    return CompactReport(
        index=request.index,
        version=said.version,
        published=True,
        updates=0,
        sequence=version.manifest.sequence_number,
        datapoints=version.manifest.count,
        trimmed=trimmed,
        recall=said.recall,
        tuned_on=said.tuned_on,
        engine=version.manifest.engine.name,
        seconds=seconds,
    )


def _nothing(
    request: CompactRequest, manifest: Manifest, trimmed: int, seconds: dict[str, float]
) -> CompactReport:
    return CompactReport(
        index=request.index,
        version=manifest.version,
        published=False,
        updates=0,
        sequence=manifest.sequence_number,
        datapoints=manifest.count,
        trimmed=trimmed,
        seconds=seconds,
    )

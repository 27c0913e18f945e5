"""`tune`: the current version's operating points measured anew, on real queries or for another recall.

What comes of it is a new version that shares every file but the manifest with the old one, by hard link: it
is published as any version is, servers swap to it, and a rollback takes it back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from earshot.embedding import EmbeddingCache, embed_cached, load_embedder
from earshot.errors import FailedPrecondition
from earshot.index import Index, OperatingPoint, Recall, Store

from .evaluate import QUESTIONS_FILE, Questions, evaluate, held_out_questions, tuned_on
from .queries import given_questions
from .steps import timed

__all__ = ["TuneReport", "TuneRequest", "tune", "tune_with"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """What to tune.

    `queries` is a file; None for the titles of the documents, or without those a sample of the vectors.
    `target_recall` None keeps the one the index has.
    """

    index: str
    queries: Path | None = None
    target_recall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """What came of it. Recalls are of the default operating point, on the same queries.

    `recall_before` is the former version's, measured now; None where no queries were left to do it with.
    Each operating point is as its own tuning saw it; leaves 0 means exact search.
    """

    index: str
    version: str
    tuned_on: str
    target_recall: float
    recall: Recall
    recall_before: Recall | None
    point: OperatingPoint
    point_before: OperatingPoint
    seconds: dict[str, float]


def tune(request: TuneRequest, *, store: Store, cache_dir: Path, progress: Progress) -> TuneReport:
    """Run the job.

    Raises NotFound for an index or a file that is not there, InvalidArgument for queries that do not fit,
    FailedPrecondition where texts are given and the index has no model, or where the recall asked for is
    not reached, Aborted where a job over this index is running.
    """
    seconds: dict[str, float] = {}
    with store.writer_lock(request.index):
        with timed(seconds, "read"):
            index = store.open(request.index)
            questions = _questions(request, index, cache_dir)
        return tune_with(
            questions,
            index,
            store=store,
            target_recall=request.target_recall,
            progress=progress,
            seconds=seconds,
        )


def tune_with(
    questions: Questions | None,
    index: Index,
    *,
    store: Store,
    target_recall: float | None,
    progress: Progress,
    seconds: dict[str, float],
) -> TuneReport:
    """Publish an open version with points measured on questions, for whoever holds its writer's lock.

    `target_recall` None keeps the one it has; `seconds` takes those of each step. Raises as `tune`.
    """
    name = index.manifest.index
    with timed(seconds, "tune"):
        tuned = index.tuned(
            None if questions is None else questions.tuning, target_recall=target_recall, progress=progress
        )
    target = tuned.manifest.tuning.target_recall
    with timed(seconds, "evaluate"):
        recall = evaluate(tuned, questions, target_recall=target)
        before = (
            evaluate(index, questions, target_recall=0.0)
            if questions is not None and questions.evaluation is not None
            else None
        )
    source = {
        **index.manifest.source,
        "evaluation": msgspec.to_builtins(recall),
        "tuning_queries": questions.name if questions else "",
    }
    with timed(seconds, "publish"):
        version = store.publish(
            name,
            tuned,
            manifest_extra={
                "config": index.manifest.config,
                "model": index.manifest.model,
                "source": source,
                "sequence_number": index.manifest.sequence_number,
            },
            files={QUESTIONS_FILE: questions.save} if questions else None,
        )
    manifest = store.manifest(name, version)
    return TuneReport(
        index=name,
        version=version,
        tuned_on=tuned_on(manifest),
        target_recall=target,
        recall=recall,
        recall_before=before,
        point=manifest.tuning.chosen,
        point_before=index.manifest.tuning.chosen,
        seconds=seconds,
    )


def _questions(request: TuneRequest, index: Index, cache_dir: Path) -> Questions | None:
    model = index.manifest.model
    if not model and request.queries is not None:
        return given_questions(request.queries, None)
    if not model and (before := index.manifest.source.get("tuning_queries")):
        raise FailedPrecondition(
            f"{request.index} was tuned on {before}; a sample of its own vectors would promise too much, "
            "so name queries",
            field="tuning_queries",
        )
    if not model:
        return None
    embedder = load_embedder(model["name"], precision=model["precision"], cache_dir=cache_dir)
    if embedder.digest != model["digest"]:
        raise FailedPrecondition(
            f"the index was made with {model['name']} {model['digest'][:12]}, "
            f"here is {embedder.digest[:12]}: rebuild it",
            field="tuning_queries",
        )
    with EmbeddingCache(cache_dir / "embeddings.sqlite") as cache:
        if request.queries is None:
            titles = [title for title in index.metadata_field("title") if isinstance(title, str)]
            return held_out_questions(titles, embedder, cache)
        return given_questions(request.queries, partial(embed_cached, embedder, cache=cache))

"""`build`: a file of vectors in, a published and measured version out; for those who embed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from earshot.errors import FailedPrecondition, InvalidArgument, NotFound
from earshot.index import Index, Part, Recall, Store, open_vectors, sizes

from .evaluate import QUESTIONS_FILE, Questions, evaluate, questions_of, tuned_on
from .journals import trim_journal
from .overlay import Sourced, overlay_of
from .queries import given_questions
from .steps import arguments, existing, timed

__all__ = ["BuildReport", "BuildRequest", "build"]

# Where neither call, config nor file says otherwise.
USUAL = {
    "target_recall": 0.95,
    "shards": 1,
    "distance_measure": "DOT_PRODUCT_DISTANCE",
    "feature_norm": "NONE",
    "engine": "auto",
}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build.

    Attributes:
        index: Its name; made where there is none.
        vectors: A file as `open_vectors` reads it.
        vector_column: The column or array of vectors in it, where that is not plain.
        id_column: The column of ids in it.
        crowding_column: The column of crowding tags in it.
        restricts: Columns of it that searches can filter by.
        ids: A text file, an id a line, in place of those.
        distance_measure: None for the one of the index's config, or that the file names, or the dot product.
        feature_norm: As in `Index.build`, like the next three; None is what the config says, or the default.
        engine: As in `Index.build`.
        target_recall: As in `Index.build`.
        shards: As in `Index.build`.
        tuning_queries: A file of vectors; None for the queries that lie beside the vectors, or else a sample.
        keep: Old versions that stay for rollback.
        journal: Its address where one is set.
        drop_live_updates: Whether acknowledged live updates go; otherwise they stay, over the file's vectors.
    """

    index: str
    vectors: Path
    vector_column: str | None = None
    id_column: str | None = None
    crowding_column: str | None = None
    restricts: Sequence[str] = ()
    ids: Path | None = None
    distance_measure: str | None = None
    feature_norm: str | None = None
    engine: str | None = None
    target_recall: float | None = None
    shards: int | None = None
    tuning_queries: Path | None = None
    keep: int = 3
    journal: str | None = None
    drop_live_updates: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What came of it; seconds are by step, parts are bytes on disk."""

    index: str
    version: str
    datapoints: int
    dimension: int
    distance_measure: str
    engine: str
    recall: Recall
    tuned_on: str
    parts: list[Part]
    seconds: dict[str, float]


def build(request: BuildRequest, *, store: Store, progress: Progress) -> BuildReport:
    """Run the job.

    Raises NotFound for a file that is not there, InvalidArgument for one that cannot be read or does not fit
    the others, FailedPrecondition where the recall asked for is not reached, Aborted where a job over this
    index is running. The version that serves stays as it was.
    """
    seconds: dict[str, float] = {}
    with existing(store, request.index), store.writer_lock(request.index):
        asked = store.asked(request.index)
        with timed(seconds, "read"):
            source = open_vectors(
                request.vectors,
                vectors=request.vector_column,
                ids=request.id_column,
                crowding_tag=request.crowding_column,
                restricts=request.restricts,
            )
            questions: Questions | None = None
            if request.tuning_queries is not None:
                questions = given_questions(request.tuning_queries, None)
            elif source.queries is not None:
                questions = questions_of(source.queries, f"queries of {request.vectors.name}")
            overlay = overlay_of(store, request.index, request.journal, drop=request.drop_live_updates)
            overlay.check(dimension=source.vectors.shape[1])
        plan = arguments(
            asked,
            {
                "distance_measure": request.distance_measure,
                "feature_norm": request.feature_norm,
                "engine": request.engine,
                "target_recall": request.target_recall,
                "shards": request.shards,
            },
            {**USUAL, "distance_measure": source.distance_measure or USUAL["distance_measure"]},
        )
        dimension = source.vectors.shape[1]
        if asked.dimensions not in {None, dimension}:
            raise FailedPrecondition(
                f"index {request.index} was created with {asked.dimensions} dimensions; "
                f"{request.vectors} has {dimension}",
                field="vectors",
            )
        with timed(seconds, "build"):
            sourced = overlay.over(
                Sourced(
                    source.vectors,
                    source.ids if request.ids is None else _lines(request.ids),
                    source.crowding_tags,
                    source.metadata,
                    source.restricts,
                )
            )
            index = Index.build(
                sourced.vectors,
                sourced.ids,
                crowding_tags=sourced.crowding_tags,
                metadata=sourced.metadata,
                restricts=sourced.restricts,
                **plan,
                tuning_queries=None if questions is None else questions.tuning,
                progress=progress,
            )
        with timed(seconds, "evaluate"):
            recall = evaluate(index, questions, target_recall=plan["target_recall"])
        with timed(seconds, "publish"):
            described = {
                "sources": [str(request.vectors)],
                "evaluation": msgspec.to_builtins(recall),
                "tuning_queries": questions.name if questions else "",
            }
            version = store.publish(
                request.index,
                index,
                manifest_extra={
                    "config": {},
                    "model": {},
                    "source": described,
                    "sequence_number": overlay.sequence,
                },
                files={**overlay.files, **({QUESTIONS_FILE: questions.save} if questions else {})},
            )
            store.prune(request.index, keep=request.keep)
            trim_journal(store, request.index, request.journal)
    manifest = store.manifest(request.index, version)
    return BuildReport(
        index=request.index,
        version=version,
        datapoints=manifest.count,
        dimension=manifest.dimension,
        distance_measure=manifest.distance_measure,
        engine=manifest.engine.name,
        recall=recall,
        tuned_on=tuned_on(manifest),
        parts=sizes(manifest),
        seconds=seconds,
    )


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise NotFound(f"{path} is not there", field="ids") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read as UTF-8 text: {error}", field="ids") from error

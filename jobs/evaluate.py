"""Questions to tune and to measure an index with: the titles of its own documents, as a listener would ask.

A title is short and in plain words, unlike the passages that the index holds; points tuned on the
passages themselves would promise too much for queries of that kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.embedding import Embedder, EmbeddingCache, Vectors, embed_cached
from earshot.errors import DataLoss, FailedPrecondition
from earshot.index import Index, Manifest, Recall

__all__ = [
    "MAX_QUESTIONS",
    "QUESTIONS_FILE",
    "Questions",
    "evaluate",
    "held_out_questions",
    "kept_questions",
    "questions_of",
    "tuned_on",
]

MAX_QUESTIONS = 1000
QUESTIONS_FILE = "questions.npy"
MIN_QUESTIONS = 40
EVALUATED_AT = 10


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Vectors of questions, float32 [q, d] each, none in both; too few of them are for tuning alone."""

    name: str
    tuning: Vectors
    evaluation: Vectors | None

    def save(self, path: Path) -> None:
        """Write them as `kept_questions` reads them."""
        parts = [self.tuning] if self.evaluation is None else [self.tuning, self.evaluation]
        np.save(path, np.concatenate(parts))


def kept_questions(version: Index) -> Questions | None:
    """The questions that a version was tuned and evaluated with; None where a sample of its vectors asked.

    Raises DataLoss where its file is damaged.
    """
    path = version.file(QUESTIONS_FILE)
    if path is None:
        return None
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataLoss(f"{path} cannot be read: {error}") from error
    return _halves(vectors, str(version.manifest.source.get("tuning_queries") or path.name))


def questions_of(vectors: Vectors, name: str) -> Questions:
    """A half to tune with and one to evaluate, always the same; `name` says what they are."""
    vectors = vectors[np.random.default_rng(0).permutation(len(vectors))[:MAX_QUESTIONS]]
    return _halves(vectors, name)


def _halves(vectors: Vectors, name: str) -> Questions:
    if len(vectors) < MIN_QUESTIONS:
        return Questions(name, vectors, None)
    half = len(vectors) // 2
    return Questions(name, vectors[:half], vectors[half:])


def held_out_questions(titles: Sequence[str], embedder: Embedder, cache: EmbeddingCache) -> Questions | None:
    """Questions from titles, always the same; None where there are too few to say anything."""
    distinct = sorted({title for title in titles if title.strip()})
    if len(distinct) < MIN_QUESTIONS:
        return None
    order = np.random.default_rng(0).permutation(len(distinct))[:MAX_QUESTIONS]
    vectors = embed_cached(embedder, [distinct[position] for position in order], cache)
    return questions_of(vectors, "titles of its documents")


def tuned_on(manifest: Manifest) -> str:
    """What the operating points of a version were measured with, in words."""
    queries = manifest.source.get("tuning_queries")
    return f"{manifest.tuning.tuned_on}: {queries}" if queries else manifest.tuning.tuned_on


def evaluate(index: Index, questions: Questions | None, *, target_recall: float) -> Recall:
    """The index's recall at k = 10 against exact search, on questions that it was not tuned on.

    Where there were too few questions, what the tuning measured counts. Raises FailedPrecondition
    where even the upper end of the interval lies under the target.
    """
    measured = (
        index.manifest.tuning.chosen.recall
        if questions is None or questions.evaluation is None
        else index.measure_recall(questions.evaluation, k=min(EVALUATED_AT, len(index)))
    )
    if measured.high < target_recall:
        raise FailedPrecondition(
            f"recall is {measured.value:.4f} (at most {measured.high:.4f}), {target_recall} was asked for; "
            "nothing was published. Lower --target-recall, or report this as a bug",
            field="target_recall",
        )
    return measured

"""Questions to tune and to measure an index with: the titles of its own documents, as a listener would ask.

A title is short and in plain words, unlike the passages that the index holds; points tuned on the
passages themselves would promise too much for queries of that kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earshot.embedding import Embedder, EmbeddingCache, Vectors, embed_cached
from earshot.errors import FailedPrecondition
from earshot.index import Index, Recall

__all__ = ["Questions", "evaluate", "held_out_questions"]

MAX_QUESTIONS = 1000
MIN_QUESTIONS = 40
EVALUATED_AT = 10


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Vectors of questions, float32 [q, d] each, no text in both."""

    tuning: Vectors
    evaluation: Vectors


def held_out_questions(titles: Sequence[str], embedder: Embedder, cache: EmbeddingCache) -> Questions | None:
    """Questions from titles, always the same; None where there are too few to say anything."""
    distinct = sorted({title for title in titles if title.strip()})
    if len(distinct) < MIN_QUESTIONS:
        return None
    order = np.random.default_rng(0).permutation(len(distinct))[:MAX_QUESTIONS]
    vectors = embed_cached(embedder, [distinct[position] for position in order], cache)
    half = len(vectors) // 2
    return Questions(vectors[:half], vectors[half:])


def evaluate(index: Index, questions: Questions | None, *, target_recall: float) -> Recall:
    """The index's recall at k = 10 against exact search, on questions that it was not tuned on.

    Where there were too few questions, what the tuning measured counts. Raises FailedPrecondition
    where even the upper end of the interval lies under the target.
    """
    measured = (
        index.manifest.tuning.chosen.recall
        if questions is None
        else index.measure_recall(questions.evaluation, k=min(EVALUATED_AT, len(index)))
    )
    if measured.high < target_recall:
        raise FailedPrecondition(
            f"recall is {measured.value:.4f} (at most {measured.high:.4f}), {target_recall} was asked for; "
            "nothing was published. Lower --target-recall, or report this as a bug",
            field="target_recall",
        )
    return measured

"""Real queries from a file, to tune and to measure with: vectors, or texts that the index's model embeds."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from earshot.embedding import Vectors
from earshot.errors import FailedPrecondition, InvalidArgument, NotFound
from earshot.index import VECTOR_FORMATS, open_vectors

from .evaluate import MAX_QUESTIONS, Questions, questions_of

__all__ = ["given_questions"]

Embed = Callable[[Sequence[str]], Vectors]


def given_questions(path: Path, embed: Embed | None) -> Questions:
    """The queries of a file, half of them kept for the evaluation; a sample where there are very many.

    Args:
        path: A vector file (its queries, where it has some beside its vectors), `.jsonl` with the key
            `text`, or a text file of a query a line; these may end in `.gz` too.
        embed: The index's model; None where it has none.

    Raises:
        NotFound: No such file.
        InvalidArgument: Damaged, or without a query.
        FailedPrecondition: Texts, and there is no model.
    """
    if path.suffix.lower() in VECTOR_FORMATS:
        source = open_vectors(path)
        vectors = source.vectors if source.queries is None else source.queries
        return questions_of(vectors, path.name)
    if not path.is_file():
        raise NotFound(f"{path} is not there, or not a file", field="tuning_queries")
    if embed is None:
        raise FailedPrecondition(
            f"{path} holds texts, and the index has no model: name a file of vectors", field="tuning_queries"
        )
    texts = sorted(set(_texts(path)))
    if not texts:
        raise InvalidArgument(f"{path} holds no query", field="tuning_queries")
    order = np.random.default_rng(0).permutation(len(texts))[:MAX_QUESTIONS]
    return questions_of(embed([texts[place] for place in order]), path.name)


class _Line(msgspec.Struct):
    text: str


def _texts(path: Path) -> Iterator[str]:
    packed = path.suffix == ".gz"
    as_json = Path(path.stem if packed else path.name).suffix in (".jsonl", ".ndjson")
    number = 0
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            for line in stream:
                number += 1
                if line.strip():
                    yield msgspec.json.decode(line, type=_Line).text if as_json else line.decode().strip()
    except (OSError, EOFError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"{path}, line {number}: {error}", field="tuning_queries") from error

"""What every embedding model looks like to the rest of the house: text in, unit vectors out.

Models differ in where they run; the rules on input and output are the same and stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from earshot.errors import InvalidArgument

Vectors: TypeAlias = NDArray[np.float32]
Advance: TypeAlias = Callable[[int], None]
"""Called with the number of texts finished since the last call, in the thread that asked."""


class Embedder(Protocol):
    """A model that turns text into vectors. Safe to call from several threads."""

    @property
    def model_id(self) -> str:
        """The model's name as people know it, such as `all-MiniLM-L6-v2`."""
        ...

    @property
    def digest(self) -> str:
        """Hex sha256 of everything that decides a vector; equal digests may share a cache."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """A longer text is cut to so many tokens, special tokens included."""
        ...

    def embed(self, texts: Sequence[str], *, progress: Advance | None = None) -> Vectors:
        """Return one L2-normalised float32 row a text, shape (len(texts), dimensions).

        Raises `InvalidArgument` (field `text`) for a text that `check_texts` refuses.
        """
        ...


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what has no embedding: blank text, what is not text, and lone surrogates.

    Raises `InvalidArgument` (field `text`) naming the first bad one.
    """
    if isinstance(texts, str):
        raise InvalidArgument("texts must be a sequence of strings, not one string", field="text")
    for position, text in enumerate(texts):
        where = "text" if len(texts) == 1 else f"text {position} of {len(texts)}"
        if not isinstance(text, str):
            raise InvalidArgument(f"{where} must be a string, not {type(text).__name__}", field="text")
        if not text.strip():
            raise InvalidArgument(f"{where} is blank ({text[:20]!r}); give at least one word", field="text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"{where} is not valid Unicode: lone surrogate at character {error.start}", field="text"
            ) from None

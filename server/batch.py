"""The queries of a BatchSearch: checked one by one, so that an error names the one it is about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earshot.errors import InvalidArgument

from . import messages
from .search import SearchPlan, query_text, query_vector
from .served_index import ServedIndex

__all__ = ["batch_kind", "batch_texts", "batch_vectors"]

MAX_QUERIES = 1_000
MAX_NEIGHBORS_IN_ALL = 100_000
_KINDS = ("texts", "vectors", "datapoint_ids")


def batch_kind(request: messages.BatchSearchRequest, plan: SearchPlan) -> str:
    """`texts`, `vectors` or `datapoint_ids`.

    Raises InvalidArgument unless exactly one has entries, and no more of them than can be answered.
    """
    given = [kind for kind in _KINDS if getattr(request, kind)]
    if len(given) != 1:
        raise InvalidArgument(
            f"queries: {' and '.join(given) or 'nothing'} given; give exactly one of {', '.join(_KINDS)}",
            field="queries",
        )
    count = len(getattr(request, given[0]))
    if count > MAX_QUERIES:
        raise InvalidArgument(
            f"{given[0]} has {count} entries; at most {MAX_QUERIES} are taken at a time", field=given[0]
        )
    if count * plan.k > MAX_NEIGHBORS_IN_ALL:
        raise InvalidArgument(
            f"{count} queries want {plan.k} neighbors each; at most {MAX_NEIGHBORS_IN_ALL} are returned at a "
            "time, so ask with fewer queries",
            field="neighbor_count",
        )
    return given[0]


def batch_texts(texts: list[str]) -> list[str]:
    """The texts, checked. Raises InvalidArgument naming the first that is empty or too long."""
    return [query_text(text, field=f"texts[{place}]") for place, text in enumerate(texts)]


def batch_vectors(vectors: list[messages.Vector], served: ServedIndex) -> NDArray[np.float32]:
    """float32 [q, dimension]. Raises InvalidArgument naming the first that is no query of this index."""
    rows = [query_vector(vector, served, field=f"vectors[{place}]") for place, vector in enumerate(vectors)]
    matrix = np.stack(rows)
    # The index says what is wrong with a row, but not which entry of the request the row was.
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        place = int(finite.argmin())
        what = "NaN" if np.isnan(matrix[place]).any() else "infinity"
        raise InvalidArgument(f"vectors[{place}] holds {what}", field=f"vectors[{place}]")
    return matrix

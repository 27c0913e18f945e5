"""The restricts of datapoints, read from what users bring into lists of rows by token and by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from earshot.errors import InvalidArgument

from .restricts import NumericRestrict, TokenRestrict, as_number, check_namespace
from .where import as_restrict

TokenKey = tuple[str, str, str]
"""(namespace, token, "allow" or "deny")"""


class Collected:
    """Rows by token, and values by row and namespace.

    Attributes:
        tokens: Ascending rows of each token.
        numbers: (rows, values) of each namespace and NumPy type: ints and floats are kept apart, so that
            both compare exactly.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.tokens: dict[TokenKey, list[int]] = {}
        self.numbers: dict[tuple[str, str], tuple[list[int], list[int | float]]] = {}

    def split(self, numbers: npt.NDArray[np.int64], shards: int) -> list[Collected]:
        """The restricts of each shard, rows counted anew in each; `numbers` is the shard of each row."""
        within = np.empty(self.count, np.int64)
        for shard in range(shards):
            mine = np.flatnonzero(numbers == shard)
            within[mine] = np.arange(len(mine))
        parts = [Collected(int((numbers == shard).sum())) for shard in range(shards)]
        for key, rows in self.tokens.items():
            for row in rows:
                parts[numbers[row]].tokens.setdefault(key, []).append(int(within[row]))
        for owner, (rows, values) in self.numbers.items():
            for row, value in zip(rows, values, strict=True):
                column = parts[numbers[row]].numbers.setdefault(owner, ([], []))
                column[0].append(int(within[row]))
                column[1].append(value)
        return parts

    def add(self, row: int, restrict: TokenRestrict | NumericRestrict) -> None:
        """One restrict of one row.

        Raises:
            InvalidArgument: It has an op, which is the query's, or a second number of its namespace.
        """
        if isinstance(restrict, TokenRestrict):
            for token in restrict.allow:
                self.add_token(row, restrict.namespace, token, "allow")
            for token in restrict.deny:
                self.add_token(row, restrict.namespace, token, "deny")
        elif restrict.op is not None:
            raise InvalidArgument(
                f"restricts, row {row}, has op {restrict.op} in namespace {restrict.namespace!r}; "
                "an op belongs to a query",
                field="restricts",
            )
        else:
            self.add_number(row, restrict.namespace, restrict.value)

    def add_token(self, row: int, namespace: str, token: str, side: str) -> None:
        """One token of one row; rows come in ascending order."""
        rows = self.tokens.get((namespace, token, side))
        if rows is None:
            TokenRestrict(namespace, (token,))  # checks both names, once a token
            rows = self.tokens[(namespace, token, side)] = []
        if not rows or rows[-1] != row:
            rows.append(row)

    def add_number(self, row: int, namespace: str, value: Any) -> None:
        """One number of one row; rows come in ascending order."""
        number = as_number(value, namespace)
        kind = "int64" if isinstance(number, int) else "float64"
        other = self.numbers.get((namespace, "float64" if kind == "int64" else "int64"))
        rows, values = self.numbers.setdefault((namespace, kind), ([], []))
        if (rows and rows[-1] == row) or (other and other[0] and other[0][-1] == row):
            raise InvalidArgument(
                f"restricts, row {row}, has two numbers in namespace {namespace!r}; one is possible",
                field="restricts",
            )
        rows.append(row)
        values.append(number)


def collect(restricts: Any, count: int) -> Collected:
    """Read the restricts of `count` datapoints.

    Args:
        restricts: Columns, a mapping (or data frame) of namespace to one cell a datapoint:
            `{"language": ["de", "fr"], "year": np.array([2020, 2021]), "tags": [["a", "b"], None]}`. Or an
            entry for each datapoint: None, a mapping of namespace to cell, or a list of restricts
            (`TokenRestrict`, `NumericRestrict`, or mappings with Google's field names). A cell is a token, a
            list of tokens, `{"not": token or tokens}` (denied), a number, or None.
        count: How many datapoints there are.

    Raises:
        InvalidArgument: Anything else; the message names row and namespace.
    """
    collected = Collected(count)
    if hasattr(restricts, "items"):
        for namespace, column in restricts.items():
            check_namespace(namespace)
            _check_length(f"restricts[{namespace!r}]", column, count)
            for row, cell in enumerate(_cells(column)):
                _add_cell(collected, row, namespace, cell)
        return collected
    entries = list(restricts)
    _check_length("restricts", entries, count)
    for row, entry in enumerate(entries):
        for restrict in _entry(entry, row):
            if isinstance(restrict, tuple):
                _add_cell(collected, row, *restrict)
            else:
                collected.add(row, restrict)
    return collected


def _cells(column: Any) -> Iterable[Any]:
    """A column's cells as Python objects, which are far faster to walk than NumPy's."""
    if hasattr(column, "to_pylist"):
        return list(column.to_pylist())
    array = column.to_numpy() if hasattr(column, "to_numpy") else column
    return list(array.tolist()) if isinstance(array, np.ndarray) else list(array)


def _entry(entry: Any, row: int) -> Sequence[Any]:
    if entry is None:
        return ()
    if isinstance(entry, Mapping) and "namespace" not in entry:
        for namespace in entry:
            check_namespace(namespace)
        return tuple(entry.items())
    if isinstance(entry, (list, tuple)):
        return [as_restrict(restrict) for restrict in entry]
    raise InvalidArgument(
        f"restricts, row {row}, is {entry!r}; it must be None, a mapping of namespaces "
        "or a list of restricts",
        field="restricts",
    )


def _add_cell(collected: Collected, row: int, namespace: str, cell: Any) -> None:
    if cell is None:
        return
    side, tokens = "allow", cell
    if isinstance(cell, Mapping) and cell.keys() == {"not"}:
        side, tokens = "deny", cell["not"]
    if isinstance(tokens, str):
        collected.add_token(row, namespace, tokens, side)
    elif isinstance(tokens, (list, tuple, set, frozenset, np.ndarray)):
        for token in tokens:
            collected.add_token(row, namespace, token, side)
    elif tokens is cell:
        try:
            collected.add_number(row, namespace, cell)
        except InvalidArgument as error:
            raise InvalidArgument(f"restricts, row {row}: {error.message}", field="restricts") from None
    else:
        raise InvalidArgument(
            f"restricts, row {row}, denies {tokens!r} in namespace {namespace!r}; only tokens can be denied",
            field="restricts",
        )


def _check_length(name: str, column: Any, count: int) -> None:
    if isinstance(column, str) or not hasattr(column, "__len__"):
        raise InvalidArgument(f"{name} is {column!r}; it must be a list", field="restricts")
    if len(column) != count:
        raise InvalidArgument(f"{name} has {len(column)} entries for {count} vectors", field="restricts")


def as_slots(rows: list[int], slot_of_row: npt.NDArray[np.uint32] | None) -> npt.NDArray[np.uint32]:
    """Rows as slot numbers, in the order given."""
    array = np.array(rows, np.uint32)
    return array if slot_of_row is None else slot_of_row[array]

"""Parquet and Arrow IPC: a column of vectors, one of ids, and the others as metadata.

Only the vectors are converted; ids and metadata are read when the index asks for them, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from earshot.errors import InvalidArgument

from ..scratch import to_scratch
from .raw import check_matrix
from .source import CROWDING_TAG, IDS, VECTORS, Columns, Reread, VectorSource, named, unreadable

_BATCH_ROWS = 4096
_BUFFER_BYTES = 1 << 20
Batches = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
"""The named columns of a file, from its start."""


def read_parquet(path: Path, columns: Columns) -> VectorSource:
    """A Parquet file."""

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # Buffered, not whole column chunks, which may be as large as all of the vectors.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=list(columns))

    return _read(path, lambda: pq.read_schema(path), batches, columns)


def read_arrow(path: Path, columns: Columns) -> VectorSource:
    """An Arrow IPC file (`.arrow`, `.feather`), mapped."""

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            for number in range(file.num_record_batches):
                yield file.get_batch(number).select(list(columns))

    def schema() -> pa.Schema:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            return file.schema

    return _read(path, schema, batches, columns)


def _read(
    path: Path, read_schema: Callable[[], pa.Schema], batches: Batches, columns: Columns
) -> VectorSource:
    try:
        schema = read_schema()
        lists = [field.name for field in schema if _is_vector(field.type)]
        column = named("column of lists of numbers", columns.vectors, lists, VECTORS, path)
        named_columns = [("ids", columns.ids), ("crowding_tag", columns.crowding_tag)]
        for field, wanted in [*named_columns, *(("restricts", name) for name in columns.restricts)]:
            if wanted is not None and wanted not in schema.names:
                raise InvalidArgument(f"{path} has no column {wanted!r}; it has {schema.names}", field=field)
        for name in columns.restricts:
            _check_restrict(path, schema.field(name))
        key = columns.ids or next((name for name in IDS if name in schema.names), None)
        tag = columns.crowding_tag or (CROWDING_TAG if CROWDING_TAG in schema.names else None)
        rest = [name for name in schema.names if name not in (column, key, tag)]
        matrix = to_scratch(_matrices(batches([column]), path))
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error
    check_matrix(path, matrix.shape, matrix.dtype)
    return VectorSource(
        path,
        matrix,
        ids=Reread(lambda: _texts(batches, key)) if key else None,
        crowding_tags=Reread(lambda: _texts(batches, tag)) if tag else None,
        metadata=Reread(lambda: _objects(batches, rest)) if rest else None,
        restricts=Reread(lambda: _cells(batches, columns.restricts)) if columns.restricts else None,
    )


def _check_restrict(path: Path, column: Any) -> None:
    kind: Any = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        is_known = _is_text(kind.value_type)
    else:
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        is_known = numeric or _is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_date(kind)
    if not is_known:
        raise InvalidArgument(
            f"{path}, column {column.name!r}, holds {kind}; searches filter by texts, lists of texts, "
            "numbers, dates and booleans",
            field="restricts",
        )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_vector(kind: Any) -> bool:
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _matrices(batches: Iterator[pa.RecordBatch], path: Path) -> Iterator[npt.NDArray[Any]]:
    row = 0
    for batch in batches:
        column: Any = batch.column(0)
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        if len(lengths) == 0:
            continue
        if (lengths != lengths[0]).any():
            other = int((lengths != lengths[0]).argmax())
            number, length = (row + other, lengths[other]) if lengths[0] >= 0 else (row, lengths[0])
            what = "is null" if length < 0 else f"has {length} values, the rows before {lengths[0]}"
            raise unreadable(path, f"vector {number} {what}")
        values = column.flatten()
        if lengths[0] <= 0 or values.null_count:
            raise unreadable(path, f"vectors {row} to {row + len(lengths) - 1} hold nulls, or nothing")
        yield values.to_numpy(zero_copy_only=False).reshape(-1, int(lengths[0]))
        row += len(batch)


def _values(batches: Batches, name: str) -> Iterator[Any]:
    for batch in batches([name]):
        yield from batch.column(0).to_pylist()


def _texts(batches: Batches, name: str) -> Iterator[Any]:
    """Ids; numbers, which many tables have there, as text."""
    for value in _values(batches, name):
        yield str(value) if isinstance(value, int | np.integer) else value


def _cells(batches: Batches, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The columns to filter by as one mapping a row."""
    for batch in batches(names):
        for row in batch.to_pylist():
            yield {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date):
        return 10_000 * value.year + 100 * value.month + value.day
    if isinstance(value, list):
        return [token for token in value if token is not None]
    return value


def _objects(batches: Batches, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The other columns as one mapping a row, without those that are null."""
    for batch in batches(names):
        for row in batch.to_pylist():
            yield {key: value for key, value in row.items() if value is not None}

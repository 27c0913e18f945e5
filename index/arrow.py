"""Arrow IPC files, memory-mapped: the only tables on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from earshot.errors import DataLoss


def write_table(table: pa.Table, path: Path) -> None:
    """Write `table` uncompressed, so that it can be mapped and read without a copy."""
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Map the table at `path`.

    Raises:
        DataLoss: The file is missing, cut short, or has other columns.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataLoss(f"{path} cannot be read: {error}") from error
    if table.schema != schema:
        raise DataLoss(f"{path} has columns {table.schema.names}; it must have {schema.names}")
    return table

"""What belongs to a datapoint besides its vector and id: crowding tag and metadata, in one Arrow table.

Restricts will be further columns of the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from earshot.errors import InvalidArgument

from .arrow import read_table, write_table

Metadata = dict[str, Any]
Codes = npt.NDArray[np.int64]

_DECODER = msgspec.json.Decoder(Metadata)

_SCHEMA = pa.schema(
    [
        ("crowding_tag", pa.dictionary(pa.int32(), pa.large_string())),
        ("metadata", pa.large_binary()),  # JSON
    ]
)


class Attributes:
    """One row a datapoint, in the order of the vectors."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._metadata = table.column("metadata").combine_chunks()

    @classmethod
    def build(
        cls,
        count: int,
        crowding_tags: Iterable[str | None] | None,
        metadata: Iterable[Mapping[str, Any] | None] | None,
    ) -> Self:
        """Check and encode; None stands for no tag, or no metadata, anywhere.

        Raises:
            InvalidArgument: A wrong number of entries, a tag that is not a string, metadata that is not
                an object of JSON.
        """
        tags = [None] * count if crowding_tags is None else list(crowding_tags)
        # Encoded as they come: a source on disk never has all of its objects in memory.
        objects = (
            [None] * count
            if metadata is None
            else [encode_metadata(value, f", row {row},") for row, value in enumerate(metadata)]
        )
        for field, values in (("crowding_tags", tags), ("metadata", objects)):
            if len(values) != count:
                raise InvalidArgument(f"{field} has {len(values)} entries for {count} vectors", field=field)
        for row, tag in enumerate(tags):
            if tag is not None and not isinstance(tag, str):
                raise InvalidArgument(
                    f"crowding_tags, row {row}, is {tag!r}; a tag is a string or None", field="crowding_tags"
                )
        columns = [
            pa.array(tags, pa.large_string()).dictionary_encode(),
            pa.array(objects, pa.large_binary()),
        ]
        return cls(pa.table(columns, schema=_SCHEMA))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map `attributes.arrow`."""
        return cls(read_table(folder / "attributes.arrow", _SCHEMA))

    def save(self, folder: Path) -> None:
        """Write `attributes.arrow`."""
        write_table(self._table, folder / "attributes.arrow")

    def __len__(self) -> int:
        return len(self._table)

    def take(self, rows: npt.NDArray[np.intp]) -> Self:
        """The attributes of some rows, in their order."""
        taken = self._table.take(rows)
        tags = taken.column("crowding_tag").cast(pa.large_string()).combine_chunks().dictionary_encode()
        return type(self)(pa.table([tags, taken.column("metadata")], schema=_SCHEMA))

    @property
    def tags_table(self) -> pa.Table:
        """The column of crowding tags alone."""
        return self._table.select(["crowding_tag"])

    @cached_property
    def crowding_codes(self) -> Codes:
        """One small number a tag, −1 where there is none; int64 [n]."""
        indices = self._tags.indices
        return np.asarray(indices.fill_null(-1), np.int64)

    def tag_names(self) -> list[str]:
        """The tag of each number of `crowding_codes`."""
        names: list[str] = self._tags.dictionary.to_pylist()
        return names

    def reachable(self, limit: int) -> int:
        """How many datapoints remain where no tag may have more than `limit`."""
        return len(self) + int(np.minimum(self._tag_counts, limit).sum() - self._tag_counts.sum())

    @cached_property
    def _tag_counts(self) -> Codes:
        codes = self.crowding_codes
        return np.bincount(codes[codes >= 0])

    @cached_property
    def _tags(self) -> Any:
        return self._table.column("crowding_tag").unify_dictionaries().combine_chunks()

    def crowding_tag(self, row: int) -> str | None:
        """The datapoint's tag."""
        tag: str | None = self._tags[row].as_py()
        return tag

    def metadata(self, row: int, fields: Sequence[str] | None = None) -> Metadata | None:
        """The datapoint's metadata, decoded: all of it, or those of `fields` that it has."""
        encoded = self.metadata_json(row)
        if encoded is None:
            return None
        found = _DECODER.decode(encoded)
        return found if fields is None else {key: found[key] for key in fields if key in found}

    def metadata_json(self, row: int) -> bytes | None:
        """The datapoint's metadata as it is stored: one JSON object."""
        encoded: bytes | None = self._metadata[row].as_py()
        return encoded


def encode_metadata(value: Any, where: str = "") -> bytes | None:
    """A mapping as JSON, None for None; `where` is put into messages.

    Raises:
        InvalidArgument: It is no mapping, or JSON cannot hold it.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f"metadata{where} is a {type(value).__name__}; it must be a mapping", field="metadata"
        )
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"metadata{where} cannot be written as JSON: {error}", field="metadata"
        ) from error

"""What an index on a GPU is built with, and how many bytes it takes there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Self

from earshot.errors import InvalidArgument

from ..distance import DistanceMeasure

_EXACT_UP_TO = 1 << 31  # numbers that a query reads: 4 GiB of float16, one or two milliseconds of bandwidth
_CODES = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)  # a vector, that Faiss's kernels know
_COARSEST = 8  # dimensions a code; beyond, 8 bits a dimension are better
_PAGE = 256 << 20  # Faiss adds so much at a time
_ROW_NUMBER = 8
_SLACK = 1.25  # lists grow by halves and are padded to 32 vectors
_SQ_BYTES = {"Flat": 4.0, "SQfp16": 2.0, "SQ8": 1.0}
_LAYOUT = re.compile(
    r"(?P<flat>Flat)|CAGRA(?P<degree>\d+)"
    r"|IVF(?P<leaves>\d+),(?P<codec>Flat|SQfp16|SQ8|PQ(?P<codes>\d+))(,(?P<refinement>RFlat|Refine\(SQfp16\)))?"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """A factory string taken apart.

    Attributes:
        leaves: Partitions of an IVF index, else 0.
        codec: How it stores vectors: Flat, SQfp16, SQ8 or PQ and the number of codes.
        codes: That number, else 0.
        refinement: What scores candidates again, on the CPU: RFlat, Refine(SQfp16) or nothing.
        degree: Links a vector of a CAGRA graph, else 0.
    """

    leaves: int = 0
    codec: str = ""
    codes: int = 0
    refinement: str = ""
    degree: int = 0

    @property
    def core(self) -> str:
        """The factory string of what lies on the GPU; np: not trained to be polysemous, which no GPU uses."""
        return f"IVF{self.leaves},{self.codec}{'np' if self.codes else ''}"


@dataclass(frozen=True, slots=True)
class FaissGpuParameters:
    """What a Faiss index on GPUs is built with.

    Attributes:
        factory: "Flat" is exact; "IVF2000,Flat", "IVF2000,SQfp16" and "IVF2000,SQ8" visit partitions of
            vectors in 4, 2 or 1 bytes a dimension; "IVF2000,PQ64,RFlat" (or "…,Refine(SQfp16)") keeps 64
            bytes a vector on the GPU, and the vectors, with which candidates are scored again, in the
            computer's memory; "CAGRA32" is a graph, where Faiss was built with cuVS.
        precision: Of Flat, FLOAT32 or FLOAT16; half the memory and time, distances to three digits.
        devices: How many GPUs to use, the first ones; 0 for all.
        replicate: Every GPU holds the whole index and answers queries of its own; else each holds a part.
    """

    factory: str = "Flat"
    precision: str = "FLOAT32"
    devices: int = 0
    replicate: bool = False

    @classmethod
    def ivf(cls, count: int, codec: str = "Flat") -> Self:
        """4·√count partitions: many centroids cost a GPU little, and short lists spare it much."""
        leaves = min(4 * ceil(sqrt(count)), max(1, count // 40))
        return cls(f"IVF{leaves},{codec}")

    @classmethod
    def ivf_pq(cls, count: int, dimension: int) -> Self:
        """As many codes as the GPU knows up to one for two dimensions, and float32 vectors beside the CPU."""
        codes = next(codes for codes in _CODES if dimension % codes == 0 and 2 * codes <= max(2, dimension))
        codec = f"PQ{codes}" if _COARSEST * codes >= dimension else "SQ8"
        return cls.ivf(count, f"{codec},RFlat")

    @classmethod
    def choices(cls, count: int, dimension: int, measure: DistanceMeasure) -> list[Self]:
        """What suits so many vectors, finest first."""
        flat = [cls(), cls(precision="FLOAT16")]
        if measure is DistanceMeasure.L1_DISTANCE:
            return flat
        partitioned = [cls.ivf(count, codec) for codec in ("Flat", "SQfp16")] + [cls.ivf_pq(count, dimension)]
        return (flat if count * dimension <= _EXACT_UP_TO else []) + partitioned

    @property
    def layout(self) -> Layout:
        """The factory string taken apart.

        Raises:
            InvalidArgument: It is none that a GPU can search, or precision is unknown.
        """
        if self.precision not in ("FLOAT32", "FLOAT16"):
            raise InvalidArgument(
                f"precision is {self.precision!r}; it must be FLOAT32 or FLOAT16", field="precision"
            )
        found = _LAYOUT.fullmatch(self.factory)
        if found is None:
            raise InvalidArgument(
                f"factory is {self.factory!r}; a GPU searches Flat, CAGRAn, and IVFn,Flat, IVFn,SQfp16, "
                "IVFn,SQ8 and IVFn,PQm, these also followed by ,RFlat or ,Refine(SQfp16)",
                field="factory",
            )
        if found["codes"] and int(found["codes"]) not in _CODES:
            known = ", ".join(map(str, sorted(_CODES)))
            raise InvalidArgument(
                f"factory is {self.factory!r}; a GPU knows {known} codes a vector", field="factory"
            )
        return Layout(
            leaves=int(found["leaves"] or 0),
            codec=found["codec"] or "",
            codes=int(found["codes"] or 0),
            refinement=found["refinement"] or "",
            degree=int(found["degree"] or 0),
        )

    def memory(self, count: int, dimension: int) -> int:
        """Bytes on the GPU at the peak of moving there: of all parts together, or of one replica."""
        layout = self.layout
        if layout.degree:
            return count * (4 * dimension + 4 * layout.degree)
        if layout.leaves:
            vector = layout.codes or _SQ_BYTES[layout.codec] * dimension
            return int(_SLACK * count * (vector + _ROW_NUMBER)) + 4 * layout.leaves * (dimension + 32)
        if self.precision == "FLOAT16":  # it is added in pages, and each time the whole moves once
            return 2 * 2 * count * dimension + 4 * count + min(_PAGE, 4 * count * dimension)
        return 4 * count * (dimension + 1)

"""Shards are built side by side, each engine in a process of its own, which brings nothing but files.

Vectors go there through a file that is mapped, and come back the same way: nothing is pickled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from earshot.errors import EarshotError, ResourceExhausted, from_code

from .attributes import Attributes
from .distance import DistanceMeasure, Floats
from .engines import ENGINES, Engine, ExactEngine
from .files import explained, save_array
from .ids import Ids
from .scratch import rows_a_block, scratch_folder
from .shard import ENGINE_FOLDER, NORMS_FILE, VECTORS_FILE, Shard, mapped, mapped_vectors
from .vectors import unit_norm

MIN_DATAPOINTS_A_SHARD = 1000


class Order(msgspec.Struct):
    """What one process builds, in the folder that holds the vectors."""

    folder: str
    engine: str
    parameters: dict[str, Any]
    measure: DistanceMeasure
    threads: int


class Failure(msgspec.Struct):
    """How a process says that it could not."""

    code: str
    message: str


class ScratchFolder:
    """A folder that goes with the last index that uses it, or with the process."""

    def __init__(self) -> None:
        parent = scratch_folder()
        with explained(parent):
            self.path = Path(tempfile.mkdtemp(prefix="earshot-", dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def build_parts(
    vectors: Floats,
    ids: Ids,
    attributes: Attributes,
    numbers: npt.NDArray[np.int64],
    *,
    scaled: bool,
    measure: DistanceMeasure,
    engine: type[Engine],
    parameters: Any,
    threads: int,
    progress: Callable[[int, int], None],
) -> list[Shard]:
    """Build every shard; a single one needs no process and no file.

    Args:
        vectors: float32 [n, dimension].
        ids: Of all rows.
        attributes: Of all rows.
        numbers: The shard of each row, int64 [n], from 0 without a gap.
        scaled: Whether vectors are scaled to unit length.
        measure: As the engine sees it.
        engine: Which one.
        parameters: Its build parameters, for each shard.
        threads: For all shards together.
        progress: Called with (shards done, shards).

    Raises:
        InvalidArgument: Parameters that the engine refuses.
        ResourceExhausted: The scratch folder is full, or the system killed a process, mostly for want of
            memory.
    """
    count = int(numbers.max()) + 1
    progress(0, count)
    if count == 1:
        shard = Shard.build(
            vectors,
            ids,
            attributes,
            scaled=scaled,
            measure=measure,
            engine=engine,
            parameters=parameters,
            threads=threads,
        )
        progress(1, 1)
        return [shard]
    scratch = ScratchFolder()
    side_by_side = min(count, threads)
    done = 0

    def build(number: int) -> Shard:
        nonlocal done
        rows, folder = np.flatnonzero(numbers == number), scratch.path / f"shard-{number:05d}"
        norms = _write_vectors(vectors, rows, folder, scaled=scaled)
        _run(Order(str(folder), engine.name, asdict(parameters), measure, max(1, threads // side_by_side)))
        matrix = mapped_vectors(folder, vectors.shape[1])
        built = engine.load(folder / ENGINE_FOLDER, folder / VECTORS_FILE, matrix, measure, parameters)
        done += 1
        progress(done, count)
        return Shard(
            matrix,
            norms,
            built,
            ExactEngine(matrix, measure),
            ids.take(rows),
            attributes.take(rows),
            written=(scratch, folder),
        )

    with ThreadPoolExecutor(side_by_side, thread_name_prefix="earshot-build") as pool:
        return list(pool.map(build, range(count)))


def _write_vectors(
    vectors: Floats, rows: npt.NDArray[np.intp], folder: Path, *, scaled: bool
) -> Floats | None:
    """The rows of one shard as its vectors file, block by block; their norms where they were scaled."""
    norms = np.empty(len(rows), np.float32)
    shape = (len(rows), vectors.shape[1])
    step = rows_a_block(4 * vectors.shape[1])
    with explained(folder):
        (folder / ENGINE_FOLDER).mkdir(parents=True)
        with (folder / VECTORS_FILE).open("wb") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, len(rows), step):
                block = vectors[rows[start : start + step]]
                if scaled:
                    block, norms[start : start + step] = unit_norm(block)
                stream.write(np.ascontiguousarray(block, "<f4").data.cast("B"))
        if scaled:
            save_array(folder / NORMS_FILE, norms)
    return norms if scaled else None


def _run(order: Order) -> None:
    """One process, to its end."""
    child = subprocess.run(
        [sys.executable, "-c", f"import sys; from {__name__} import main; sys.exit(main())"],
        input=msgspec.json.encode(order),
        capture_output=True,
        check=False,
    )
    if child.returncode == 0:
        return
    try:
        failure = msgspec.json.decode(child.stdout, type=Failure)
    except msgspec.DecodeError:
        reason = child.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "no word"
        raise ResourceExhausted(
            f"a shard's build ended with exit status {child.returncode} ({reason}); "
            "free some memory, or build fewer datapoints at a time, and try again"
        ) from None
    raise from_code(failure.code, failure.message)


def main() -> int:
    """The process: an `Order` on standard input, the engine's files in the folder, or a `Failure`."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    folder = Path(order.folder)
    # ScaNN writes to the standard output of the process, which is kept for the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    kind = ENGINES[order.engine]
    try:
        parameters = msgspec.convert(order.parameters, kind.parameters_type)
        vectors = mapped(folder / VECTORS_FILE, 2)
        with explained(folder):
            built = kind.build(vectors, order.measure, parameters, threads=order.threads)
            built.save(folder / ENGINE_FOLDER, folder / VECTORS_FILE)
    except EarshotError as error:
        answer.write(msgspec.json.encode(Failure(error.code, error.message)))
        answer.close()
        return 1
    return 0

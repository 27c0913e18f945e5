"""One file an engine; the table below is all that the index knows of them."""

from __future__ import annotations

from typing import Any

import msgspec

from earshot.errors import InvalidArgument

from ..distance import DistanceMeasure
from .base import Engine, QueryParameters, Rows
from .exact import ExactEngine, ExactParameters
from .faiss_cpu import FaissEngine, FaissParameters
from .faiss_gpu import FaissGpuEngine
from .gpu_parameters import FaissGpuParameters
from .scann import ScannEngine, ScannParameters

__all__ = [
    "ENGINES",
    "Engine",
    "ExactEngine",
    "ExactParameters",
    "FaissEngine",
    "FaissGpuEngine",
    "FaissGpuParameters",
    "FaissParameters",
    "QueryParameters",
    "Rows",
    "ScannEngine",
    "ScannParameters",
    "as_before",
    "select",
]

ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (ExactEngine, ScannEngine, FaissEngine, FaissGpuEngine)
}
_AUTO = ScannEngine
ASKED_FOR = "asked for by name"
PARAMETERS_GIVEN = "its parameters were given"


def as_before(name: str, parameters: dict[str, Any], reason: str) -> Any:
    """What to give `select` so that a build is asked for the same as the one that a manifest tells of."""
    if reason.startswith(PARAMETERS_GIVEN):
        return msgspec.convert(parameters, ENGINES[name].parameters_type)
    return name if reason.startswith(ASKED_FOR) else "auto"


def select(
    engine: Any,
    count: int,
    dimension: int,
    measure: DistanceMeasure,
    memory_budget: int | None = None,
    target_recall: float = 0.95,
) -> tuple[type[Engine], Any, str]:
    """The engine to build, its parameters, and one sentence that says why.

    Args:
        engine: "auto", a name in `ENGINES`, or build parameters of one of them.
        count: Vectors.
        dimension: Of each.
        measure: As engines see it (COSINE is DOT_PRODUCT over unit vectors).
        memory_budget: Bytes that an engine chosen here may take; None for as many as it likes.
        target_recall: What will mostly be asked for.

    Raises:
        InvalidArgument: No such engine, it does not know the measure, or the budget is too small.
    """
    if isinstance(engine, str):
        chosen = _AUTO if engine == "auto" else ENGINES.get(engine)
        parameters = None
    else:
        chosen = next(
            (known for known in ENGINES.values() if isinstance(engine, known.parameters_type)), None
        )
        parameters = engine
    if chosen is None:
        known = ", ".join(["auto", *sorted(ENGINES)])
        raise InvalidArgument(
            f"engine is {engine!r}; it must be one of {known}, or an engine's build parameters",
            field="engine",
        )
    if measure not in chosen.measures:
        if engine == "auto":
            return ExactEngine, ExactParameters(), f"{measure} is searched exactly"
        raise InvalidArgument(f"engine {chosen.name} does not know {measure}", field="engine")
    if parameters is not None:
        if memory_budget is not None:
            raise InvalidArgument(
                "memory_budget chooses an engine's parameters: give it, or the parameters",
                field="memory_budget",
            )
        return chosen, parameters, PARAMETERS_GIVEN
    parameters = chosen.choose(count, dimension, measure, memory_budget, target_recall)
    if parameters is None:
        return ExactEngine, ExactParameters(), f"{count} datapoints are too few for {chosen.name}"
    return chosen, parameters, "chosen for so many datapoints" if engine == "auto" else ASKED_FOR

"""The scenario of tests/index/test_congruence.py through every layout of the GPU engine."""

from __future__ import annotations

from typing import Any

import pytest

from earshot.index import FaissGpuParameters, Index
from tests.index.test_congruence import (
    IS_GERMAN,
    TAGS,
    YEARS,
    measure,
    test_every_engine_finds_what_brute_force_finds,
    vectors,
)

__all__ = ["measure", "test_every_engine_finds_what_brute_force_finds", "vectors"]

pytestmark = pytest.mark.gpu
LAYOUTS: dict[str, Any] = {
    "chosen": "faiss_gpu",
    "float16": FaissGpuParameters(precision="FLOAT16"),
    "ivf": FaissGpuParameters("IVF30,Flat"),
    "ivf float16": FaissGpuParameters("IVF30,SQfp16"),
    "ivf pq": FaissGpuParameters("IVF30,PQ4,RFlat"),
    "cagra": FaissGpuParameters("CAGRA32"),
    "replicas": FaissGpuParameters("IVF30,Flat", replicate=True),
    "float16 replicas": FaissGpuParameters(precision="FLOAT16", replicate=True),
}


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS))
def index(request, vectors, measure, gpus):
    if request.param == LAYOUTS["cagra"] and not gpus.has_cagra:
        pytest.skip("this Faiss was built without cuVS: install faiss-gpu-cuvs in the place of faiss-gpu")
    return Index.build(
        vectors,
        crowding_tags=[f"show {tag}" for tag in TAGS],
        restricts={"language": ["de" if german else "en" for german in IS_GERMAN], "year": YEARS},
        distance_measure=measure,
        engine=request.param,
    )

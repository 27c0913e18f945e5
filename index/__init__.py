"""Vectors in, neighbors out: engines, build, tuning, and versions on disk. Knows no network and no text."""

from .config import IndexConfig, checked_config
from .diff import Change, VersionDiff
from .distance import DistanceMeasure, FeatureNorm
from .engines import ExactParameters, FaissGpuParameters, FaissParameters, QueryParameters, ScannParameters
from .explain import Explanation, Step
from .filters import NumericRestrict, Operator, Plan, TokenRestrict
from .index import Index
from .manifest import Manifest
from .planner import MAX_NEIGHBORS
from .result import Datapoint, SearchResult
from .sizes import Part, sizes
from .sources import VECTOR_FORMATS, VectorSource, open_vectors
from .store import Store, Verification, VersionInfo
from .tuning import OperatingPoint, Progress, Recall, Tuning
from .vectors import MAX_DIMENSIONS

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_NEIGHBORS",
    "VECTOR_FORMATS",
    "Change",
    "Datapoint",
    "DistanceMeasure",
    "ExactParameters",
    "Explanation",
    "FaissGpuParameters",
    "FaissParameters",
    "FeatureNorm",
    "Index",
    "IndexConfig",
    "Manifest",
    "NumericRestrict",
    "OperatingPoint",
    "Operator",
    "Part",
    "Plan",
    "Progress",
    "QueryParameters",
    "Recall",
    "ScannParameters",
    "SearchResult",
    "Step",
    "Store",
    "TokenRestrict",
    "Tuning",
    "VectorSource",
    "Verification",
    "VersionDiff",
    "VersionInfo",
    "checked_config",
    "open_vectors",
    "sizes",
]

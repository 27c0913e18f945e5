"""Leaves of our own: a k-means partition of the vectors, and what is known of each leaf.

Filtered search needs to know which rows lie in a leaf and how their scores spread. ScaNN tells neither before
it is serialised; this partition serves any engine. Everything is a dot product here: see `Lift`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from earshot.errors import DataLoss

from ..distance import DistanceMeasure, Floats
from ..engines.accelerate import nearest

Slots = npt.NDArray[np.uint32]

ROWS_A_LEAF_AT_LEAST = 40
_SAMPLE_A_LEAF = 64
_ITERATIONS = 6
_BLOCK = 16_384
_STEP = 0.125
_LOWEST, _HIGHEST = -6.0, 12.0
BINS = int((_HIGHEST - _LOWEST) / _STEP)
_TINY = 1e-20  # a variance: of equal vectors
_LEAST_SPREAD = 1e-3  # of a leaf of one vector
_UNMEASURED = np.empty((2, 0), np.float32)


@dataclass(frozen=True)
class Lift:
    """Turns nearness under a measure into a dot product, higher is closer.

    The squared L2 distance is ‖q‖² − 2 (q·x − ‖x‖²/2), so with one more dimension, x ↦ (x, −‖x‖²/2) and
    q ↦ (q, 1), the dot product orders alike (Bachrach et al., RecSys 2014, the other way). Vectors are
    centred first, which changes no distance and keeps float32 accurate far from the origin.

    Attributes:
        origin: The mean under SQUARED_L2, float32 [dimension]; None under dot product, where nothing is done.
    """

    origin: Floats | None

    @classmethod
    def of(cls, vectors: Floats, measure: DistanceMeasure) -> Self:
        """For the vectors of one index."""
        if measure is DistanceMeasure.DOT_PRODUCT_DISTANCE:
            return cls(None)
        return cls(vectors.mean(axis=0, dtype=np.float64).astype(np.float32))

    def vectors(self, vectors: Floats) -> Floats:
        """float32 [m, dimension] → [m, dimension or dimension + 1]."""
        if self.origin is None:
            return vectors
        centred = vectors - self.origin
        return np.column_stack((centred, -0.5 * np.einsum("md,md->m", centred, centred)))

    def queries(self, queries: Floats) -> Floats:
        """float32 [q, dimension] → [q, dimension or dimension + 1]."""
        if self.origin is None:
            return queries
        return np.column_stack((queries - self.origin, np.ones(len(queries), np.float32)))

    def distances(self, scores: Floats, queries: Floats, vectors: Floats) -> Floats:
        """The measure's own values of winners: scores [q, k], or ‖q − x‖² from vectors [q, k, dimension]."""
        if self.origin is None:
            return scores
        apart = vectors - queries[:, np.newaxis]
        squares: Floats = np.einsum("qkd,qkd->qk", apart, apart)
        return squares


@dataclass(frozen=True, eq=False)
class Partition:
    """Rows sorted by leaf; a slot is a place in that order.

    Attributes:
        row_of_slot: uint32 [n].
        bounds: Leaf l holds the slots bounds[l] to bounds[l + 1]; int64 [leaves + 1].
        centroids: Mean of each leaf's lifted vectors, float32 [leaves, d].
        spread: Root mean squared residual of each leaf, as a multiple of all vectors' own, float32 [leaves].
        covariance: Of the residuals of all lifted vectors, float32 [d, d].
        tail: Share of rows whose score exceeds their leaf's mean by z standard deviations or more, at z =
            −6, −5.875, … as measured on queries; float32 [2, BINS], for leaves that are near the query (see
            `near`), where a query's own cluster fattens the tail, and for all others.
    """

    row_of_slot: Slots
    bounds: npt.NDArray[np.int64]
    centroids: Floats
    spread: Floats
    covariance: Floats
    tail: Floats

    @property
    def leaves(self) -> int:
        """How many."""
        return len(self.centroids)

    @classmethod
    def build(cls, vectors: Floats, lift: Lift, queries: Floats, seed: int) -> Self:
        """Lloyd's algorithm on a sample, then one pass over all vectors.

        Args:
            vectors: float32 [n, dimension], not lifted; n is at least 80.
            queries: A sample of queries, not lifted, to measure the tail on.
            seed: Of the samples.
        """
        generator = np.random.default_rng(seed)
        count = len(vectors)
        leaves = max(2, min(ceil(sqrt(count)), count // ROWS_A_LEAF_AT_LEAST))
        leaf = nearest_leaf(vectors, kmeans(vectors, leaves, generator))
        slots = np.argsort(leaf, kind="stable").astype(np.uint32)
        bounds = np.searchsorted(leaf[slots], np.arange(leaves + 1))
        bounds = np.unique(bounds)  # k-means may leave a leaf empty
        width = lift.vectors(vectors[:1]).shape[1]
        centroids = np.empty((len(bounds) - 1, width), np.float32)
        squares = np.empty(len(centroids))
        covariance = np.zeros((width, width))
        for place, (start, end) in enumerate(pairwise(bounds.tolist())):
            members = lift.vectors(vectors[slots[start:end]])
            centroids[place] = members.mean(axis=0)
            members = members - centroids[place]
            scatter = members.T @ members
            covariance += scatter
            squares[place] = np.trace(scatter) / (end - start)
        covariance /= count
        spread = np.sqrt(squares / max(float(np.trace(covariance)), _TINY))
        bare = cls(
            slots,
            bounds,
            centroids,
            np.maximum(spread, _LEAST_SPREAD).astype(np.float32),
            covariance.astype(np.float32),
            _UNMEASURED,
        )
        sample = np.sort(generator.choice(count, min(count, 20_000), replace=False))
        tail = bare._measure_tail(lift.vectors(vectors[slots[sample]]), sample, lift.queries(queries))
        return cls(slots, bounds, centroids, bare.spread, bare.covariance, tail)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `save` wrote.

        Raises:
            DataLoss: A file is missing or damaged.
        """
        arrays = {}
        for field in fields(cls):
            path = folder / f"{field.name}.npy"
            try:
                arrays[field.name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            except (OSError, ValueError) as error:
                raise DataLoss(f"{path} cannot be read: {error}") from error
        return cls(**arrays)

    def save(self, folder: Path) -> None:
        """One `.npy` an attribute."""
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)

    @cached_property
    def slot_of_row(self) -> Slots:
        """The inverse of `row_of_slot`, uint32 [n]; made when first asked for."""
        slots = np.empty(len(self.row_of_slot), np.uint32)
        slots[self.row_of_slot] = np.arange(len(slots), dtype=np.uint32)
        return slots

    def scale(self, queries: Floats) -> Floats:
        """Standard deviation of a residual's score, for lifted queries [q, d]; float32 [q]."""
        variance = np.einsum("qd,qd->q", queries @ self.covariance, queries)
        deviation: Floats = np.sqrt(np.maximum(variance, _TINY))
        return deviation

    def _measure_tail(self, vectors: Floats, slots: npt.NDArray[np.int64], queries: Floats) -> Floats:
        leaf = np.searchsorted(self.bounds, slots, side="right") - 1
        means = queries @ self.centroids.T
        z = (queries @ vectors.T - means[:, leaf]) / (self.scale(queries)[:, np.newaxis] * self.spread[leaf])
        away = ~self.near(means)[:, leaf]
        tails = []
        for side in (~away, away):
            counts = np.bincount(bin_of(z[side]), minlength=BINS)
            tails.append(counts[::-1].cumsum()[::-1] / max(1, int(counts.sum())))
        return np.array(tails, np.float32)

    def near(self, means: Floats) -> npt.NDArray[np.bool_]:
        """Which leaves are among the nearest twentieth, by the score of their centroids [q, leaves]."""
        place = self.leaves - max(1, self.leaves // 20)
        flags: npt.NDArray[np.bool_] = means >= np.partition(means, place, axis=1)[:, place, np.newaxis]
        return flags


def bin_of(z: Floats) -> npt.NDArray[np.intp]:
    """The place in `Partition.tail` of deviations z; all beyond its ends fall into the last bins."""
    return ((np.clip(z, _LOWEST, _HIGHEST - _STEP) - _LOWEST) * (1 / _STEP)).astype(np.intp)


def kmeans(
    vectors: Floats, leaves: int, generator: np.random.Generator, iterations: int = _ITERATIONS
) -> Floats:
    """Centres by Lloyd's algorithm on a sample of the vectors, float32 [leaves, dimension]."""
    size = min(len(vectors), max(_SAMPLE_A_LEAF * leaves, 1000))
    sample = vectors[np.sort(generator.choice(len(vectors), size, replace=False))]
    centres = sample[np.sort(generator.choice(size, leaves, replace=False))]
    for _ in range(iterations):
        leaf = nearest_leaf(sample, centres)
        order = np.argsort(leaf, kind="stable")
        counts = np.bincount(leaf, minlength=leaves)
        kept = counts > 0
        starts = (np.cumsum(counts) - counts)[kept]
        centres = centres.copy()
        centres[kept] = np.add.reduceat(sample[order], starts, axis=0) / counts[kept, np.newaxis]
        lost = np.flatnonzero(~kept)
        centres[lost] = sample[generator.choice(size, len(lost), replace=False)]
    return centres


def nearest_leaf(vectors: Floats, centres: Floats) -> npt.NDArray[np.uint16]:
    """The centre nearest to each vector by L2, uint16 [n]."""
    found = nearest(centres, vectors, 1, DistanceMeasure.SQUARED_L2_DISTANCE)
    if found is not None:
        return found[0][:, 0].astype(np.uint16)
    half = 0.5 * np.einsum("ld,ld->l", centres, centres)
    leaf = np.empty(len(vectors), np.uint16)
    for start in range(0, len(vectors), _BLOCK):
        scores = vectors[start : start + _BLOCK] @ centres.T
        scores -= half
        leaf[start : start + _BLOCK] = scores.argmax(axis=1)
    return leaf

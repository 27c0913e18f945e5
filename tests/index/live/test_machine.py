"""A live index with its journal on disk against a dictionary, through updates, compactions and restarts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from earshot.index import Index
from earshot.index.distance import DistanceMeasure, FeatureNorm
from earshot.index.journal import Entry, Journal, Put, Remove, open_journal
from earshot.index.live import LiveIndex, empty_index
from tests.index.live.conftest import Oracle

DIMENSION = 4
VECTORS = np.random.default_rng(1).standard_normal((50, DIMENSION)).astype(np.float32)
NAMES = st.sampled_from([f"id-{n}" for n in range(12)])
PUTS = st.builds(
    Put, NAMES, st.integers(0, 49).map(VECTORS.__getitem__), st.sampled_from([None, "t"]), st.just({"x": 1})
)


class LiveMachine(RuleBasedStateMachine):
    """Whatever happens, in whatever order, everything acknowledged is there and nothing else is."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.oracle = Oracle("SQUARED_L2_DISTANCE")
        self.journal: Journal = open_journal(self.folder / "journal.sqlite", "v")
        self.requests = 0

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)

    @initialize()
    def create(self) -> None:
        self.version = empty_index(DIMENSION, DistanceMeasure.SQUARED_L2_DISTANCE, FeatureNorm.NONE)
        self.live = LiveIndex(self.version)

    @rule(entries=st.lists(PUTS | st.builds(Remove, NAMES), min_size=1, max_size=6), twice=st.booleans())
    def write(self, entries: list[Entry], twice: bool) -> None:
        self.requests += 1
        last = self.journal.append(entries, request_id=str(self.requests))
        if twice:
            assert self.journal.append(entries, request_id=str(self.requests)) == last
        self.live.replay(self.journal.read(self.live.sequence))
        for entry in entries:
            self.oracle.apply(entry)

    @precondition(lambda self: self.oracle.held)
    @rule(trims=st.booleans())
    def compact(self, trims: bool) -> None:
        now, sequence = self.live.now(), self.live.sequence
        stored = now.read(now.sample_ids(len(now)))
        built = Index.build(
            np.stack([each.vector for each in stored]),
            [each.id for each in stored],
            crowding_tags=[each.crowding_tag for each in stored],
            metadata=[each.metadata for each in stored],
            distance_measure="SQUARED_L2_DISTANCE",
        )
        folder = self.folder / f"v{self.requests}-{sequence}-{len(list(self.folder.iterdir()))}"
        built.save(folder, sequence_number=sequence)
        self.version = Index.open(folder)
        self.live = LiveIndex(self.version, self.journal.read(sequence))
        if trims:
            self.journal.trim(sequence)

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = open_journal(self.folder / "journal.sqlite", "v")
        self.live = LiveIndex(self.version, self.journal.read(self.version.manifest.sequence_number))

    @invariant()
    def holds_what_it_should(self) -> None:
        if not hasattr(self, "live"):
            return
        held = self.oracle.held
        assert len(self.live) == len(held)
        answer = self.live.search(VECTORS[7], 30)
        assert sorted(answer.ids[0]) == sorted(held)
        expected = [distance for _, distance in self.oracle.search(VECTORS[7], 30)]
        np.testing.assert_allclose(answer.distances[0], expected, atol=1e-5)
        for stored in self.live.read(list(held)):
            np.testing.assert_array_equal(stored.vector, held[stored.id].vector)
            assert stored.crowding_tag == held[stored.id].crowding_tag


LiveMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestLiveMachine = LiveMachine.TestCase

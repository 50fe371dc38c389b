"""Random streams in shards, as in ``test_shards``, under a replica that keeps itself in a directory and is killed now and then, and new
ones that go to whatever cut is retained.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from pipeline.replica import Replica
from tests.replica.test_shards import ShardsMachine
from tests.replica.trainer import assert_shows
from tests.replica.training import PROBES

TARGETS = st.sampled_from(["memory", "rowlog"])
MEMORY = Path("/dev/shm")
"""Where there is one: syncs cost nothing there, and nobody pulls the plug here."""


class LivesMachine(ShardsMachine):
    """``kept`` lives in ``directory``; what it shows never falls behind what it had committed when it was killed."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
        self.kept: Replica | None = None

    @initialize(holds=TARGETS)
    def begin_kept(self, holds: str) -> None:
        self.target = holds

    @precondition(lambda self: hasattr(self, "trainer"))
    @rule(follows=st.booleans())
    def follow_kept(self, follows: bool) -> None:
        replica = self.kept or self._start()
        if follows:
            replica.apply_available()
        self._check(replica)

    @precondition(lambda self: self.kept is not None)
    @rule(holds=TARGETS, epoch=st.booleans())
    def kill_kept(self, holds: str, epoch: bool) -> None:
        """``epoch``: the streams are another life's, so places in them say nothing."""
        assert self.kept is not None
        durable, held = self.kept.durable_position, self.shown.get(self.kept)
        self.kept._held.close()  # what a kill leaves: nothing is committed on the way out
        self.target = holds
        if epoch:
            for transport in self.transports:
                transport.epoch += "x"
        again = self._start()
        assert again.position == durable
        if held is not None and held[0] == durable:
            self.shown[again] = held
        self._check(again)

    @precondition(lambda self: hasattr(self, "trainer"))
    @rule(which=st.integers(0, 99))
    def go_to_a_retained_cut(self, which: int) -> None:
        with Replica(self.transports) as replica:  # type: ignore[arg-type]
            retained = replica.retained()
            assert [cut.position for cut in retained] == sorted({cut.position for cut in retained})
            for cut in retained[which % max(len(retained), 1) :][:1]:
                replica.rollback(cut.position)
                assert replica.step == cut.step
                with replica.view() as view:
                    assert_shows(view, self.trainer, cut.position, PROBES)
                replica.resume()
                replica.apply_available()
                if not replica.lag.waiting and not self.near.lag.waiting:
                    assert replica.position == self.near.position
                with replica.view() as view:
                    assert_shows(view, self.trainer, view.position, PROBES)

    def teardown(self) -> None:
        try:
            super().teardown()
            if self.kept is not None:
                self.kept.apply_available()
                self._check(self.kept)
                assert self.kept.ended
                self.kept.close()
        finally:
            shutil.rmtree(self.directory)

    def _start(self) -> Replica:
        self.kept = Replica(self.transports, path=self.directory, target=self.target, commit_every_s=0)  # type: ignore[arg-type]
        return self.kept


TestLives: Any = LivesMachine.TestCase
TestLives.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)

"""The row log beside a dict: whatever is done to it, in whatever sizes, it holds the same rows, in bounded space."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from pipeline.files import Files, RealFiles
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rows import TableSpec
from tests.files.recording import RecordingFiles
from tests.rowlog import logs
from tests.rowlog.files_reads import FilesReads
from tests.rowlog.logs import SPECS, Model

EXTREMES = [-(2**63), 2**63 - 1, -1, 0, 1]
IDS = st.integers(0, 40) | st.sampled_from(EXTREMES) | st.integers(-(2**63), 2**63 - 1)
OPTIONS = st.builds(
    RowLogOptions,
    segment_bytes=st.sampled_from([4096, 4097, 9000, 20_000]),
    extent_bytes=st.sampled_from([4096, 6000, 1 << 20]),
    write_behind_bytes=st.sampled_from([4096, 1 << 20]),
    max_space=st.sampled_from([1.01, 1.5, 4.0]),
    compaction_share=st.sampled_from([0.01, 0.5, 10.0]),
)


class AgainstDict(RuleBasedStateMachine):
    """On a disk in memory."""

    log: RowLog
    files: Files

    @initialize(options=OPTIONS)
    def open(self, options: RowLogOptions) -> None:
        self.model = Model()
        self.make(options)

    def make(self, options: RowLogOptions) -> None:
        recording = RecordingFiles()
        self.files, self.log = recording, logs.log_in_memory(recording, options)

    @rule(spec=st.sampled_from(SPECS), ids=st.sets(IDS, max_size=12))
    def put(self, spec: TableSpec, ids: set[int]) -> None:
        self.model.put(self.log, spec, sorted(ids))

    @rule(spec=st.sampled_from(SPECS), first=st.integers(0, 60), count=st.integers(1, 60))
    def put_many(self, spec: TableSpec, first: int, count: int) -> None:
        self.model.put(self.log, spec, range(first, first + count))

    @rule(spec=st.sampled_from(SPECS), ids=st.lists(IDS, max_size=12))
    def delete(self, spec: TableSpec, ids: list[int]) -> None:
        self.model.delete(self.log, spec, ids)

    @rule(spec=st.sampled_from(SPECS), first=st.integers(0, 60), count=st.integers(1, 60))
    def delete_many(self, spec: TableSpec, first: int, count: int) -> None:
        self.model.delete(self.log, spec, range(first, first + count))

    @rule(spec=st.sampled_from(SPECS), ids=st.lists(IDS, max_size=20))
    def get(self, spec: TableSpec, ids: list[int]) -> None:
        self.model.check(self.log, spec, ids)

    @rule()
    def get_all(self) -> None:
        self.model.check_all(self.log)

    @rule()
    def flush(self) -> None:
        """What the footers tell is what ``get`` tells: nothing is lost, and what was forgotten stays forgotten."""
        with logs.standing_still(self.log):
            for spec in SPECS:
                assert logs.read_footers(self.log, self.files, spec) == self.model.versions[spec.name]
            logs.check_disk(self.log, self.files)

    @rule()
    def compact(self) -> None:
        self.log.compact()
        logs.check_space(self.log)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            with logs.closing(self.log):
                self.log.flush()
                self.model.check_all(self.log)
                self.log.compact()
                with logs.standing_still(self.log):
                    logs.check_disk(self.log, self.files)
                for held in self.log.tables.values():
                    logs.check_counts(held)
                self.model.check_all(self.log)


class AgainstDictOnDisk(AgainstDict):
    def make(self, options: RowLogOptions) -> None:
        self.directory = tempfile.mkdtemp()
        self.files, self.log = RealFiles(), logs.log_on_disk(self.directory, options)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)


@pytest.mark.parametrize(("machine", "examples"), [(AgainstDict, 60), (AgainstDictOnDisk, 15)])
def test_it_behaves_like_a_dict(machine: type[AgainstDict], examples: int) -> None:
    few = settings(max_examples=examples, stateful_step_count=30, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=few)


def test_rows_are_found_before_the_disk_has_them() -> None:
    files, model = RecordingFiles(), Model()
    options = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=1 << 20)
    with logs.closing(logs.log_in_memory(files, options)) as log:
        with files.lock:  # the writing thread waits at its first call
            for spec in SPECS:
                model.put(log, spec, range(60))
                model.put(log, spec, range(0, 60, 3))
            model.check_all(log)
        log.flush()
        model.check_all(log)


def test_random_calls_end_with_the_same_rows_and_footers() -> None:
    """The same as the state machine, in one go: for sabotages."""
    files, model, rng = RecordingFiles(), Model(), np.random.default_rng(3)
    with logs.closing(logs.log_in_memory(files)) as log:
        for step in range(80):
            spec = SPECS[step % 2]
            some = rng.choice(60, int(rng.integers(1, 25)), replace=False).tolist()
            if rng.random() < 0.3:
                model.delete(log, spec, some)
            else:
                model.put(log, spec, some)
            model.check(log, spec, range(60))
            if step % 9 == 8:
                with logs.standing_still(log):
                    for spec in SPECS:
                        assert logs.read_footers(log, files, spec) == model.versions[spec.name]
        log.compact()
        logs.check_space(log)
        model.check_all(log)


def test_a_directory_given_by_mistake_keeps_what_is_not_ours(tmp_path: Path) -> None:
    """A stream's segments, say. Segments of a log that lived here go."""
    for name in ("0000000001.seg", "notes.txt", "users-0000000001.seg"):
        (tmp_path / name).write_bytes(b"x")
    files = RealFiles()
    log = RowLog([str(tmp_path)], files, lambda: FilesReads(files), RowLogOptions())
    log.open([])
    log.close()
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["0000000001.seg", "notes.txt"]

"""One recorded run, the disks that crashes at any of its calls would leave, and what each of them has to hold."""

from __future__ import annotations

import io
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pipeline.models.arrays import dense_arrays
from pipeline.replica import Replica
from pipeline.rowlog import CheckpointReader
from pipeline.rows.version import steps_of
from pipeline.session.checkpoints import Checkpoints
from pipeline.session.disk import Disk
from pipeline.session.resources import Resources
from pipeline.session.resume import Resume
from pipeline.wire import CommitFrame, FileTransport, StreamCorrupt, decode_frame
from pipeline.wire.file_shards import list_shards
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, one_thread_reads, run_job
from tests.files.journal import Entry, Image, JournalFiles

STEPS = 60
OFTEN = (
    f"run.steps={STEPS}",
    "stages.source.batches=100",
    "checkpoint.every='6 steps'",
    "checkpoint.keep=2",
    "stages.stream.every='2 steps'",
    "stages.stream.snapshot_every='15 steps'",
    "stages.stream.segment_bytes=16384",
)
TIERS = {
    "memory": (),
    "disk": ("store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096", "store.l1_rows=150"),
    "memory over disk": (
        "store.ssd.segment_bytes=8192",
        "store.ssd.extent_bytes=4096",
        "store.l1_rows=150",
        "store.dram_bytes=40000",
    ),
    "shards": ("stages.stream.shards=2",),
}


@dataclass(frozen=True)
class Rows:
    """Rows of one table, sorted by id."""

    ids_n: np.ndarray[Any, Any]
    weights_nd: np.ndarray[Any, Any]
    steps_n: np.ndarray[Any, Any]
    packed_nb: np.ndarray[Any, Any] | None = None
    """Weights and states; a replica has none."""

    def assert_same(self, other: Rows, what: str) -> None:
        assert self.ids_n.tolist() == other.ids_n.tolist(), f"{what}: other ids"
        assert self.weights_nd.tobytes() == other.weights_nd.tobytes(), f"{what}: other weights"
        assert self.steps_n.tolist() == other.steps_n.tolist(), f"{what}: other versions"
        if self.packed_nb is not None and other.packed_nb is not None:
            assert self.packed_nb.tobytes() == other.packed_nb.tobytes(), f"{what}: other states"


@dataclass(frozen=True)
class State:
    """Everything at the end of one step."""

    tables: dict[str, Rows]
    dense: dict[str, np.ndarray[Any, Any]]

    def assert_same(self, other: State, what: str) -> None:
        assert self.tables.keys() == other.tables.keys(), what
        for name, rows in self.tables.items():
            rows.assert_same(other.tables[name], f"{what}: table {name}")
        assert self.dense.keys() == other.dense.keys(), what
        for name, values in self.dense.items():
            assert values.tobytes() == other.dense[name].tobytes(), f"{what}: dense {name}"


class Oracle:
    """A run of the same job that nothing disturbs, in memory: ``states`` by step, as its store holds them."""

    def __init__(self, directory: Path) -> None:
        self.states: dict[int, State] = {}
        self.job = run_job(directory, RAGGED, f"run.steps={STEPS}", "stages.source.batches=100", on_open=self._watch)

    def _watch(self, resources: Resources) -> None:
        def keep(step: int, _plan: Any) -> None:
            with resources.store.freeze("all", blocking=True, reason="oracle") as snapshot:
                tables = {}
                for spec in resources.store.specs:
                    ids_n = snapshot.ids(spec.name)
                    read = snapshot.read(spec.name, ids_n)
                    tables[spec.name] = _rows(spec, ids_n, read.rows_nb, read.versions_n)
            self.states[step] = State(tables, dense_arrays(resources.model))

        resources.store.on_step(keep)


def _rows(spec: Any, ids_n: Any, rows_nb: Any, versions_n: Any) -> Rows:
    order = np.argsort(ids_n)
    packed_nb = rows_nb[order][:, : spec.layout.row_bytes].copy()
    return Rows(ids_n[order], packed_nb[:, : 4 * spec.dim].view(np.float32), steps_of(versions_n[order]), packed_nb)


def record(directory: Path, tiers: Sequence[str], *, resume: bool = False) -> tuple[list[Entry], Job]:
    """The calls of a run in ``directory``/run, and what it was told is durable: "checkpoint" and "cut", with their steps."""
    files = JournalFiles(directory)
    write, publish = Checkpoints.write, FileTransport.publish
    shards, acknowledged = 2 if tiers == TIERS["shards"] else 1, Counter[object]()

    def write_and_note(self: Checkpoints, marker: Any) -> Path | None:
        path = write(self, marker)
        if path is not None:
            files.note("checkpoint", marker.attachments["step"])
        return path

    def publish_and_note(self: FileTransport, frames: Sequence[bytes], *, sync: bool) -> Any:
        end = publish(self, frames, sync=sync)
        for frame in map(decode_frame, frames):
            if sync and isinstance(frame, CommitFrame):
                acknowledged[frame.position, frame.snapshot] += 1
                if acknowledged[frame.position, frame.snapshot] == shards:
                    files.note("cut", frame.step)
        return end

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "write", write_and_note)
        patched.setattr(FileTransport, "publish", publish_and_note)
        job = run_job(directory / "run", RAGGED, *OFTEN, *tiers, resume=resume, disk=Disk(files))
    return files.entries, job


Part = Literal["checkpoints", "stream"]


class Checked:
    """Which parts of the images of one run were looked at: most images differ from one before in one part alone. So do checkpoints:
    of one whose files are those of one before only the way to it is new.
    """

    def __init__(self) -> None:
        self._seen: set[object] = set()

    def is_new(self, image: Image, reader: CheckpointReader, run: Path) -> bool:
        """Whether no image before had this checkpoint, with these bytes in its own files and in the segments that it names."""
        segments = {
            os.path.relpath(segment.path, os.path.abspath(run.parent)) for segment in reader.saved.all_segments()
        }
        assert segments <= image.files.keys()
        own = f"run/checkpoints/{reader.name}/"
        key = image.part(lambda name: name in segments or name.startswith(own))
        new = key not in self._seen
        self._seen.add(key)
        return new

    def new_parts(self, image: Image) -> list[Part]:
        """Those that no image before had, with what was told of them."""
        keys: dict[Part, object] = {
            "checkpoints": (image.noted.get("checkpoint"), image.part(lambda name: not name.startswith("run/stream"))),
            "stream": (image.noted.get("cut"), image.has_holes, image.part(lambda name: name.startswith("run/stream"))),
        }
        new: list[Part] = [part for part, key in keys.items() if (part, key) not in self._seen]
        self._seen.update(keys.items())
        return new


class Reopened:
    """An image on the real disk. ``replica`` has followed the stream that is there, if any."""

    def __init__(self, image: Image, directory: Path) -> None:
        image.write_to(directory)
        self.image, self.run = image, directory / "run"
        self.replica = Replica(str(self.run / "stream")) if list_shards(str(self.run / "stream")) else None
        self._shown = 0

    @cached_property
    def resume(self) -> Resume:
        return Resume.newest(self.run, reads=one_thread_reads)

    def check(
        self, oracle: Oracle, parts: Sequence[Part] = ("checkpoints", "stream"), checked: Checked | None = None
    ) -> None:
        """What was told is there, and all that is there is the state at the end of a step. ``checked`` need not be read again."""
        if "checkpoints" in parts:
            self._check_checkpoints(oracle, checked or Checked())
        if "stream" in parts:
            self.follow(oracle)

    def _check_checkpoints(self, oracle: Oracle, checked: Checked) -> None:
        assert self.resume.step >= self.image.noted.get("checkpoint", 0), "an older checkpoint than was told"
        for reader in self.resume.checkpoints:
            if not checked.is_new(self.image, reader, self.run):
                continue
            tables = {}
            for spec in reader.tables:
                chunks = list(reader.rows(spec.name))
                ids_n = np.concatenate([one.ids_n for one in chunks])
                rows_nb = np.concatenate([one.rows_nb for one in chunks])
                tables[spec.name] = _rows(spec, ids_n, rows_nb, np.concatenate([one.versions_n for one in chunks]))
            with np.load(io.BytesIO(reader.blob("dense.npz"))) as arrays:
                state = State(tables, {name: arrays[name] for name in arrays.files})
            oracle.states[reader.manifest.step].assert_same(state, f"checkpoint of step {reader.manifest.step}")
        assert not self.resume.damaged

    def follow(self, oracle: Oracle) -> None:
        """The replica shows no step before the one it showed, none before the one that was told, and a whole state."""
        if self.replica is None:
            assert not self.image.noted.get("cut", 0)
            return
        try:
            self.replica.apply_available()
        except StreamCorrupt:
            assert self.image.has_holes, "a torn end is waited for"
            self._follow_recovered(oracle)
            return
        self._check_shown(self.replica, oracle)

    def _follow_recovered(self, oracle: Oracle) -> None:
        """Holes in an end that was never durable look like damage to who only reads. A writer cuts them off when it begins; here one
        does it to a copy, so that the run that goes on finds them as the crash left them.
        """
        assert self.replica is not None
        self.replica.close()
        self.replica = None
        shutil.copytree(self.run / "stream", self.run.parent / "stream")
        for path in list_shards(str(self.run.parent / "stream")):
            transport = FileTransport(path)
            transport.claim()
            transport.close()
        with Replica(str(self.run.parent / "stream")) as replica:
            replica.apply_available()
            self._check_shown(replica, oracle)

    def _check_shown(self, replica: Replica, oracle: Oracle) -> None:
        step = replica.step
        assert step >= max(self._shown, self.image.noted.get("cut", 0)), "a replica shows an older step than was told"
        self._shown = step
        if step:
            with replica.view() as view:
                tables = {}
                for name in view.tables:
                    ids_n = np.sort(view.ids(name))
                    weights_nd, versions_n = view.lookup_versions(name, ids_n)
                    tables[name] = Rows(ids_n, weights_nd, steps_of(versions_n))
                state = State(tables, dict(view.dense()))
            oracle.states[step].assert_same(state, f"replica at step {step}")

    def go_on(self, oracle: Oracle, tiers: Sequence[str]) -> Job:
        """To the end, from the newest checkpoint; there all is as if nothing had happened. A run that never was begins."""
        began, born = self.resume.step, (self.run / "run.json").exists()
        job = run_job(self.run, RAGGED, *OFTEN, *tiers, resume=True)
        assert job.summary["resumed_from"] == (began if born else None)
        assert_same_bits(oracle.job, job)
        if self.replica is None:
            self.replica = Replica(str(self.run / "stream"))
        self.follow(oracle)
        assert self.replica.step == STEPS
        return job

    def close(self) -> None:
        if self.replica is not None:
            self.replica.close()

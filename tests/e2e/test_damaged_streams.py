"""A stream that is not what was written: the replica says where, exits 1, and applies nothing of that cut."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.files import DirectoryLock
from pipeline.replica import Refused, Replica
from pipeline.wire import envelope
from pipeline.wire.errors import StreamCorrupt
from tests.e2e.command import here
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.small import good_job
from tests.e2e.test_replica import Recorder


@dataclass(frozen=True)
class Published:
    """A run that cut at every step, and what the trainer was at each step's end."""

    dir: Path
    recorder: Recorder

    def copy(self, to: Path) -> Path:
        """A copy of the run's directory; returns its one segment."""
        shutil.copytree(self.dir, to)
        (segment,) = (to / "stream").glob("*.seg")
        return segment

    def assert_at_a_step(self, replica: Replica) -> int:
        with replica.view() as view:
            assert view.digest() == self.recorder.digests[view.step], f"no state of the trainer at step {view.step}"
            return view.step


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    recorder = Recorder()
    directory = tmp_path_factory.mktemp("published") / "run"
    run_job(directory, RAGGED, "stages.stream.every='1 steps'", on_open=recorder.attach)
    return Published(directory, recorder)


def caught_up(run: Path) -> tuple[Replica, str]:
    """A replica that applied what it could, and what it then said."""

    def apply(replica: Replica) -> None:
        replica.apply_available()
        replica.check_end()

    replica = Replica(str(run / "stream"))
    with pytest.raises(StreamCorrupt) as raised:
        apply(replica)
    return replica, str(raised.value)


@pytest.mark.parametrize("part", range(5))
def test_a_flipped_bit_is_named_and_nothing_of_its_cut_is_applied(
    tmp_path: Path, published: Published, part: int
) -> None:
    """One bit at random, in each fifth of the segment behind its header."""
    segment = published.copy(tmp_path / "run")
    data, draw = bytearray(segment.read_bytes()), np.random.default_rng()
    at = len(data) * (part + 1) // 6 + int(draw.integers(len(data) // 6))
    data[at] ^= 1 << int(draw.integers(8))
    segment.write_bytes(data)
    replica, said = caught_up(tmp_path / "run")
    step = published.assert_at_a_step(replica)
    assert step < 50, f"byte {at}"
    replica.close()
    out = tmp_path / "wide.npz"
    outcome = here("replica", tmp_path / "run", "--table", "wide", "--export", out)
    assert outcome.code == 1
    assert said in outcome.text
    assert "(segment 1) at offset" in said
    assert "Traceback" not in outcome.text
    assert not out.exists() or exported_step(out) <= step


def exported_step(path: Path) -> int:
    with np.load(path) as rows:
        return int(rows["version"][:, 1].max())


def test_a_segment_cut_short_is_named_and_what_lies_before_is_a_whole_cut(tmp_path: Path, published: Published) -> None:
    segment = published.copy(tmp_path / "run")
    size = int(np.random.default_rng().integers(segment.stat().st_size // 4, segment.stat().st_size - 1))
    with segment.open("r+b") as file:
        file.truncate(size)
    replica, said = caught_up(tmp_path / "run")
    step = published.assert_at_a_step(replica)
    assert step < 50
    replica.close()
    out = tmp_path / "wide.npz"
    outcome = here("replica", tmp_path / "run", "--table", "wide", "--export", out, "--json")
    assert outcome.code == 1
    assert said in outcome.text
    assert f"{segment} (segment 1) at offset" in said
    figures = json.loads(outcome.out)
    assert (figures["step"], figures["ended"]) == (step, False)
    assert exported_step(out) <= step


def test_a_stream_cut_short_between_two_records_is_not_called_ended(tmp_path: Path, published: Published) -> None:
    segment = published.copy(tmp_path / "run")
    replica = Replica(str(tmp_path / "run" / "stream"))
    frames = replica._place.require()[0].subscribe(None).next(0)
    assert frames is not None
    end = frames[len(frames) // 2][0].offset
    replica.close()
    with segment.open("r+b") as file:
        file.truncate(end)
    outcome = here("replica", tmp_path / "run")
    assert outcome.code == 0
    assert "run: no end seen" in outcome.text
    replica = Replica(str(tmp_path / "run"))
    replica.apply_available()
    assert published.assert_at_a_step(replica) < 50
    replica.close()


def test_a_segment_that_a_run_still_writes_is_no_damage(tmp_path: Path, published: Published) -> None:
    """The same bytes as a torn end, but somebody holds the stream."""
    segment = published.copy(tmp_path / "run")
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 5)
    with DirectoryLock(str(tmp_path / "run" / "stream")):
        assert here("replica", tmp_path / "run").code == 0
    assert here("replica", tmp_path / "run").code == 1


def test_a_stream_of_another_format_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "FORMAT_VERSION", envelope.FORMAT_VERSION + 1)
    run_job(tmp_path / "run", RAGGED)
    monkeypatch.undo()
    outcome = here("replica", tmp_path / "run")
    assert outcome.code == 1
    known = " and ".join(map(str, envelope.READS))
    assert f"format version {envelope.FORMAT_VERSION + 1}; this build reads versions {known}" in outcome.text
    assert "stream position 1:" in outcome.text


def test_a_run_writes_into_no_stream_of_another(tmp_path: Path) -> None:
    job, stream = good_job(tmp_path), tmp_path / "stream"
    assert here("run", job, f"stages.stream.path={stream}").code == 0
    before = {path.name: path.read_bytes() for path in stream.iterdir()}
    refused = here("run", job, "--overwrite", f"stages.stream.path={stream}")
    assert refused.code == 1
    assert f"{stream} already holds a stream" in refused.text
    assert {path.name: path.read_bytes() for path in stream.iterdir()} == before


def test_a_replica_refuses_the_frames_of_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs wrote into one place, as no trainer does any more."""
    config = {**RAGGED, "stages": {**RAGGED["stages"]}}
    config["stages"]["stream"] = {**RAGGED["stages"]["stream"], "path": str(tmp_path / "stream")}
    first = run_job(tmp_path / "first", config)
    monkeypatch.setattr("stages.stream.check_taken", lambda *_: None)
    second = run_job(tmp_path / "second", config)
    outcome = here("replica", tmp_path / "stream")
    assert outcome.code == 1
    assert f"the stream of run {second.summary['run_id']}" in outcome.text
    assert f"follows run {first.summary['run_id']}" in outcome.text
    replica: Any = Replica(str(tmp_path / "stream"))
    with pytest.raises(Refused):
        replica.apply_available()
    with replica.view() as view:
        assert view.step == first.summary["last_step"]
    replica.close()

"""A replica beside a real stream of segments, in this process and in another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.replica import NoStartingPoint, Replica, UnknownTable, command
from pipeline.replica.command import UsageError
from pipeline.wire import FileTransport, FileTransportOptions, StreamAbsent, StreamCorrupt
from tests.replica.trainer import DictTrainer, assert_equal

DIMS = {"item": 4, "user": 3}
ROOT = Path(__file__).resolve().parents[2]


class Writer:
    """A trainer that writes to a directory of segments."""

    def __init__(self, path: Path, segment_bytes: int = 64 << 20) -> None:
        self.trainer = DictTrainer(DIMS, seed=3)
        self.trainer.share = 0.5
        self.transport = FileTransport(str(path), options=FileTransportOptions(segment_bytes=segment_bytes))
        self.transport.claim()
        self.transport.begin(self.trainer.header())

    def publish(self, *, rows: int = 40, end: bool = False) -> None:
        self.trainer.update({"item": list(range(rows)), "user": [1, 2]})
        self.transport.publish(self.trainer.cut(chunk=16, end=end), sync=True)


@pytest.fixture
def written(tmp_path: Path) -> Writer:
    """Three cuts in tmp_path/run/stream."""
    writer = Writer(tmp_path / "run" / "stream")
    for _ in range(3):
        writer.publish()
    return writer


@pytest.mark.parametrize("source", ["run", "run/stream"])
def test_a_run_directory_and_its_stream_are_both_a_source(written: Writer, tmp_path: Path, source: str) -> None:
    with Replica(tmp_path / source) as replica:
        assert replica.apply_available() == 3
        assert_equal(replica, written.trainer, range(50))
        written.publish()
        assert replica.apply_available() == 1
        assert_equal(replica, written.trainer, range(50))


def test_it_may_be_started_before_its_run_and_ends_with_it(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "run")
    assert replica.apply_available() == 0
    seen = threading.Event()
    thread = threading.Thread(
        target=replica.follow, args=(threading.Event(),), kwargs={"until_end": True, "on_progress": seen.set}
    )
    thread.start()
    assert seen.wait(30)
    writer = Writer(tmp_path / "run" / "stream", segment_bytes=4096)
    for number in range(20):
        writer.publish(end=number == 19)
    thread.join(60)
    assert not thread.is_alive()
    assert replica.ended
    assert_equal(replica, writer.trainer)
    replica.close()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("{}/run", "{}/run: no stream there yet; waiting for one"),
        ("redis://127.0.0.1:1/run", "no connection to a Redis server"),
    ],
)
def test_who_follows_what_is_not_there_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, told: str
) -> None:
    if "redis" in place:
        pytest.importorskip("redis", reason="the package redis is not installed")
    stop, looks = threading.Event(), 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            stop.set()

    with Replica(place.format(tmp_path)) as replica:
        replica.follow(stop, on_progress=look)
    assert looks == 5
    assert [record.getMessage().count(told.format(tmp_path)) for record in caplog.records] == [1]


def test_a_replica_started_late_on_trimmed_segments_loads_the_snapshot_cut(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "stream", segment_bytes=4096)
    for _ in range(10):
        writer.publish()
    start = writer.transport.end
    writer.publish()
    snapshot = writer.trainer.snapshot()
    writer.publish()
    writer.transport.publish(snapshot, sync=True)
    assert writer.transport.retain_from(start) > 0
    writer.publish()
    with Replica(tmp_path / "stream") as replica:
        replica.apply_available()
        assert_equal(replica, writer.trainer)
        assert replica.counters.snapshot_cuts == 1


def test_a_damaged_segment_is_named_with_its_place(written: Writer, tmp_path: Path) -> None:
    path = next((tmp_path / "run" / "stream").glob("*.seg"))
    with Replica(tmp_path / "run") as replica:
        replica.apply_available()
        size = path.stat().st_size
        written.publish()
        data = bytearray(path.read_bytes())
        data[size + 100] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(StreamCorrupt, match=rf"{path.name}.*offset {size}:"):
            replica.apply_available()
        assert replica.position.cut == 3


def test_two_exports_of_the_same_rows_are_the_same_bytes(written: Writer, tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        with Replica(tmp_path / "run") as replica:
            replica.apply_available()
            replica.export("item", tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as held:
        rows = written.trainer.model["item"]
        assert sorted(held.files) == ["ids", "version", "weights"]
        assert held["ids"].tolist() == sorted(rows)
        assert held["weights"].tobytes() == b"".join(rows[i][0] for i in sorted(rows))
        assert held["version"].dtype == np.int64
        assert held["version"].tolist() == [[1, rows[i][1] & (1 << 40) - 1] for i in sorted(rows)]


# The command.


def test_the_command_catches_up_exports_and_prints_rows(
    written: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "item.npz"
    assert command.follow(str(tmp_path / "run"), table="item", export=out, lookup=[5, -9]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()[:2]]
    held, version = written.trainer.model["item"][5]
    assert rows[0]["weights"] == np.frombuffer(held, np.float32).tolist()
    assert (rows[0]["generation"], rows[0]["step"]) == (1, version & (1 << 40) - 1)
    assert (rows[1]["id"], rows[1]["step"]) == (-9, 0)
    assert f"wrote {out}" in printed.out
    assert "cut 3 of generation 1, step 3" in printed.err
    with np.load(out) as exported:
        assert len(exported["ids"]) == 40


def test_the_command_prints_its_figures_as_one_line_of_json(
    written: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written.publish(end=True)
    assert command.follow(str(tmp_path / "run"), follow=True, until_end=True, as_json=True) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (figures["position"], figures["step"], figures["ended"]) == ([1, 4], 4, True)
    assert figures["counters"]["cuts"] == 4
    assert figures["lag"]["cuts"] == 0
    assert figures["freshness_ms"]["earlier_steps"] == 4


@pytest.mark.usefixtures("written")
def test_the_command_says_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(StreamAbsent, match="no stream here"):
        command.follow(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="--table"):
        command.follow(str(tmp_path / "run"), export="out.npz")
    with pytest.raises(UnknownTable, match="did you mean 'item'"):
        command.follow(str(tmp_path / "run"), table="items", export=str(tmp_path / "out.npz"))
    trimmed = Writer(tmp_path / "late", segment_bytes=4096)
    for _ in range(12):
        trimmed.publish()
    trimmed.transport.retain_from(trimmed.transport.end)
    with pytest.raises(NoStartingPoint, match="--follow"):
        command.follow(str(tmp_path / "late"))


FOLLOW = """
import sys
from pipeline.replica.command import follow
sys.exit(follow(sys.argv[1], follow=True, until_end=len(sys.argv) > 2, as_json=True))
"""


@pytest.mark.parametrize(("until_end", "code"), [(False, 0), (True, 130)])
def test_a_signal_ends_a_follower_in_another_process_at_a_whole_cut(tmp_path: Path, until_end: bool, code: int) -> None:
    writer = Writer(tmp_path / "run" / "stream")
    writer.publish()
    arguments = [sys.executable, "-c", FOLLOW, str(tmp_path / "run"), *(["until"] if until_end else [])]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stderr is not None
        assert "cut 1 of generation 1" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code, errors
    assert json.loads(out)["position"] == [1, 1]
    assert "Traceback" not in errors

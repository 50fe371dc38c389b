"""What is streamed of whole runs: left-out tables, states that ride along through deaths, and streams that keep their selection."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import EmbeddingBags
from pipeline.flow import StageError
from pipeline.modules.errors import BadSettings
from pipeline.replica import Replica
from pipeline.rows.version import steps_of
from pipeline.session.resources import Resources
from pipeline.stream import SelectionChanged
from pipeline.wire import CommitFrame, FileTransport, HeaderFrame, RowsFrame, encode_frame
from pipeline.wire.digest import MASK, extra_digest
from pipeline.wire.reading import FrameReader
from stages.errors import StreamDiverged
from tests.contracts.streamed import frames_of
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.test_resume import EVERY, die_behind_a_checkpoint, published

LEFT_OUT = "stages.stream.tables={shared: {enabled: false}}"
STATES = "stages.stream.tables={wide: {states: true}}"
CUTS = "stages.stream.every='1 steps'"


def frames(directory: Path) -> list[Any]:
    reader = FrameReader()
    with closing(FileTransport(str(directory))) as transport:
        return [reader.read(data) for data in frames_of(transport)]


def test_a_table_that_is_left_out_is_nowhere_and_counts_nowhere(tmp_path: Path) -> None:
    rows = Counter[str]()

    def count(resources: Resources) -> None:
        resources.store.add_hook("after_update", lambda table, ids, _: rows.update({table: len(ids)}))

    job = run_job(tmp_path / "run", RAGGED, LEFT_OUT, "store.l1_rows=4000", "stages.stream.dense=false", on_open=count)
    for frame in frames(job.dir / "stream"):
        if isinstance(frame, HeaderFrame):
            assert [table.spec.name for table in frame.tables] == ["wide"]
        elif isinstance(frame, RowsFrame):
            assert {head.table for head in frame.rows.heads} <= {"wide"}
    assert job.summary["bytes_if_raw"] == 4 * 16 * rows["wide"]
    assert rows["shared"] > 0
    assert job.summary["unpublished_rows"] == 0
    with Replica(str(job.dir / "stream")) as replica:
        replica.apply_available()
        assert replica.tables == ("wide",)
        assert replica.num_rows == len(job.tables()["wide"]["ids"])


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ((), (LEFT_OUT,), "would carry no table 'shared'"),
        ((LEFT_OUT,), (), "would carry table 'shared' with nothing"),
        ((), (STATES,), "'wide' with momentum beside its weights"),
        ((STATES,), (), "'wide' with nothing beside its weights"),
    ],
)
def test_a_stream_keeps_its_selection_and_another_begins_with_every_row(
    tmp_path: Path, before: tuple[str, ...], now: tuple[str, ...], what: str
) -> None:
    directory = tmp_path / "run"
    run_job(directory, RAGGED, "run.steps=20", *before)
    there = published(directory)
    with pytest.raises(StageError, match=what) as caught:
        run_job(directory, RAGGED, *now, resume=True)
    assert isinstance(caught.value.__cause__, SelectionChanged)
    assert published(directory) == there
    other = tmp_path / "other"
    job = run_job(directory, RAGGED, *now, f"stages.stream.path={other}", resume=True)
    with Replica(str(other)) as replica:
        replica.apply_available()
        with replica.view() as view:
            for table in replica.tables:
                ids, weights = job.tables()[table]["ids"], job.tables()[table]["weights"]
                assert np.array_equal(view.ids(table), ids)
                assert view.lookup(table, ids).tobytes() == weights.tobytes()
    job = run_job(directory, RAGGED, *before, resume=True)
    if not before:
        assert_replica_equals(job)


def test_states_that_ride_along_are_part_of_the_proof(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    last = die_behind_a_checkpoint(directory, STATES)
    job = run_job(directory, RAGGED, EVERY, CUTS, STATES, resume=True)
    assert job.summary["proof"] == f"the rows of step {last} are those that were published"


def test_one_bit_of_a_state_that_was_published_and_is_another_stops_the_run(tmp_path: Path) -> None:
    """A stream whose last cut says another momentum, and is else whole: as of a run that came to other states and the same weights."""
    directory = tmp_path / "run"
    die_behind_a_checkpoint(directory, STATES, "stages.stream.dense=false")
    change_a_state(directory / "stream")
    there = published(directory)
    with pytest.raises(StageError) as caught:
        run_job(directory, RAGGED, EVERY, CUTS, STATES, "stages.stream.dense=false", resume=True)
    assert isinstance(caught.value.__cause__, StreamDiverged)
    assert published(directory) == there


def change_a_state(stream: Path) -> None:
    """Write the stream anew, one bit of a state in its last rows frame changed, and the digest of its cut with it."""
    said = frames(stream)
    at = max(n for n, frame in enumerate(said) if isinstance(frame, RowsFrame) and frame.rows.columns)
    frame = said[at]
    run, columns = next(iter(frame.rows.columns.items()))
    changed = columns["momentum"].copy()
    changed[0, 0] ^= 1
    other = replace(frame.rows, columns={**frame.rows.columns, run: {**columns, "momentum": changed}})
    said[at] = replace(frame, rows=other)
    commit = next(n for n in range(at, len(said)) if isinstance(said[n], CommitFrame))
    digest = (said[commit].digest - extra_digest(frame.rows) + extra_digest(other)) & MASK
    said[commit] = replace(said[commit], digest=digest)
    assert commit == len(said) - 1, "it is the last cut"
    for path in stream.glob("*.seg"):
        path.unlink()
    with closing(FileTransport(str(stream))) as transport:
        epoch = transport.claim()
        transport.begin(encode_frame(replace(said[0], epoch=epoch)))
        transport.publish([encode_frame(frame) for frame in said[1:] if not isinstance(frame, HeaderFrame)], sync=True)


def test_a_replica_refuses_a_cut_whose_state_was_changed_on_the_way(tmp_path: Path) -> None:
    run_job(tmp_path / "run", RAGGED, STATES, "run.steps=5", "stages.stream.dense=false")
    stream = tmp_path / "run" / "stream"
    said = frames(stream)
    at = next(n for n, frame in enumerate(said) if isinstance(frame, RowsFrame) and frame.rows.columns)
    changed = copy.deepcopy(said[at].rows.columns)
    next(iter(changed.values()))["momentum"].flags.writeable = True
    next(iter(changed.values()))["momentum"][-1, -1] ^= 0x80
    said[at] = replace(said[at], rows=replace(said[at].rows, columns=changed))
    with closing(FileTransport(str(tmp_path / "changed"))) as transport:
        transport.claim()
        transport.begin(encode_frame(said[0]))
        transport.publish([encode_frame(frame) for frame in said[1:]], sync=True)
    with Replica(str(tmp_path / "changed")) as replica, pytest.raises(Exception, match="the digest of its rows is"):
        replica.apply_available()


def test_a_module_streams_what_is_selected(tmp_path: Path) -> None:
    tables = {"user": {"dim": 4}, "item": {"dim": 4}}
    stream = {"tables": {"user": {"enabled": False}, "item": {"states": True}}}
    with EmbeddingBags(tables, dir=tmp_path / "run", stream=stream) as rows:
        for _ in range(3):
            pooled = rows({name: torch.arange(6).view(2, 3) for name in tables})
            torch.cat(list(pooled.values())).sum().backward()  # type: ignore[no-untyped-call]
    said = frames(tmp_path / "run" / "stream")
    assert [(table.spec.name, table.carries) for table in said[0].tables] == [("item", ("momentum",))]
    parts = [part for frame in said if isinstance(frame, RowsFrame) for part in frame.rows]
    assert {part.table for part in parts} == {"item"}
    assert max(steps_of(part.versions_n).max() for part in parts) == 3
    assert all(part.columns["momentum"].any() for part in parts)
    with pytest.raises(BadSettings, match=r"stream.tables.usr: no such table; the tables are user, item"):
        EmbeddingBags(tables, dir=tmp_path / "other", stream={"tables": {"usr": {}}})

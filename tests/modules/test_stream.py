"""G2 and G3 for modules: a replica of the stream equals the module at a named step, and when it is closed the replica has everything."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.replica import Replica
from pipeline.session.errors import RunDirTaken
from pipeline.stream import ChangedSet, RowStreamer
from tests.modules.followed import assert_holds, follow
from tests.modules.small import bags, train

STEPS = 30


@pytest.mark.parametrize("every", ["1 step", "7 steps", "1ms"])
def test_a_replica_equals_the_module_at_each_step_it_comes_to_and_in_the_end(tmp_path: Path, every: str) -> None:
    steps: dict[int, dict[str, Any]] = {}
    with bags() as plain:
        for number in range(STEPS):
            train(plain, number)
            steps[plain.step] = plain.state_dict()
    module = bags(dir=tmp_path / "run", stream={"every": every, "snapshot_every": "9 steps"})
    follow(module, tmp_path / "run", steps, [partial(train, module, number) for number in range(STEPS)])


def test_a_replica_has_the_rows_that_a_module_was_loaded_with(tmp_path: Path) -> None:
    with bags() as first:
        for number in range(8):
            train(first, number)
        first.save(tmp_path / "saved")
        state = first.state_dict()
    for name in ("save", "state"):
        with bags(dir=tmp_path / name, stream={"every": "1 step"}) as module:
            module.load(tmp_path / "saved") if name == "save" else module.load_state_dict(state)
            train(module, 8)
            now = module.state_dict()
        with Replica(str(tmp_path / name / "stream")) as replica:
            replica.apply_available()
            assert_holds(replica, now)


def test_a_directory_that_is_taken_is_refused(tmp_path: Path) -> None:
    with bags(dir=tmp_path / "run", stream={}) as module:
        train(module, 1)
    with pytest.raises(RunDirTaken):
        bags(dir=tmp_path / "run", stream={})


def test_an_error_of_the_stream_stops_the_loop_and_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: RowStreamer) -> None:
        raise OSError("no space left")

    module = bags(dir=tmp_path / "run", stream={"every": "1 step"})
    streaming = module._engine.streaming
    assert streaming is not None
    monkeypatch.setattr(RowStreamer, "cut", full)
    train(module, 1)
    streaming._thread.join()
    with pytest.raises(OSError, match="no space left"):
        train(module, 2)
    with pytest.raises(OSError, match="no space left"):
        module.close()
    assert module.step == 1


def test_what_waits_for_a_cut_is_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cut is due; the ids of many steps are joined, and all are published at the end."""
    monkeypatch.setattr("pipeline.stream.changed.ChangedSet.crowded", property(lambda changed: changed.num_steps > 4))
    with bags(dir=tmp_path / "run", stream={"every": "100000 steps"}) as module:
        compacted, compact = [], ChangedSet.compact

        def count(changed: ChangedSet) -> None:
            compacted.append(changed.num_steps)
            compact(changed)

        monkeypatch.setattr(ChangedSet, "compact", count)
        for number in range(20):
            train(module, number)
        now = module.state_dict()
    assert len(compacted) > 3
    with Replica(str(tmp_path / "run" / "stream")) as replica:
        replica.apply_available()
        assert_holds(replica, now)

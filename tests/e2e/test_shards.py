"""A run whose stream has several shards: the same rows for who trains and who follows, resumed and forked too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.replica import Replica
from pipeline.wire.file_shards import read_header
from pipeline.wire.opening import FileOptions
from pipeline.wire.places import find_places
from tests.e2e.command import here
from tests.e2e.small import good_job

SHARDS = 3


def sharded(directory: Path, shards: int = SHARDS) -> Path:
    directory.mkdir()
    config = good_job(directory)
    tree = yaml.safe_load(config.read_text())
    tree["stages"]["stream"] |= {"shards": shards, "snapshot_every": "5 steps"}
    tree["checkpoint"] = {"every": "4 steps"}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    return config


def exported(run: Path, table: str, command: str, out: Path) -> dict[str, Any]:
    flag = "--out" if command == "export" else "--export"
    outcome = here(command, run, "--table", table, flag, out)
    assert outcome.code == 0, outcome.text
    with np.load(out) as arrays:
        return {name: arrays[name] for name in ("ids", "weights", "version")}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert np.array_equal(one["ids"], other["ids"])
    assert one["weights"].tobytes() == other["weights"].tobytes()
    assert np.array_equal(one["version"][:, 1], other["version"][:, 1])


def test_a_replica_joins_the_shards_of_a_run(tmp_path: Path) -> None:
    """Resumed once: the last published cut, put together from all shards, has the digest that they published."""
    config, whole = sharded(tmp_path / "shards"), sharded(tmp_path / "whole", 1)
    run = tmp_path / "shards" / "run"
    assert here("run", whole).code == 0
    assert here("run", config, "run.steps=7").code == 0
    outcome = here("run", config, "--resume")
    assert outcome.code == 0, outcome.text
    summary = json.loads((run / "summary.json").read_text())
    assert "are those that were published" in str(summary["proof"])
    transports = find_places(FileOptions(), run / "stream")
    assert transports is not None
    headers = [read_header(transport) for transport in transports]
    assert [(header.shard, header.num_shards) for header in headers if header] == [(k, SHARDS) for k in range(SHARDS)]
    for table in ("user", "item"):
        rows = exported(run, table, "export", tmp_path / "trained.npz")
        assert_same(rows, exported(run, table, "replica", tmp_path / "followed.npz"))
        assert_same(rows, exported(tmp_path / "whole" / "run", table, "export", tmp_path / "whole.npz"))
    with Replica(str(run)) as replica, Replica([*transports]) as given:
        for follows in (replica, given):
            follows.apply_available()
            assert follows.ended
        with replica.view() as view, given.view() as same:
            assert view.dense().keys() == same.dense().keys() != set()
            assert view.digest() == same.digest()
    for transport in transports:
        transport.close()
    assert here("verify", run).code == 0


def test_a_fork_takes_back_the_rows_of_all_shards(tmp_path: Path) -> None:
    config, run = sharded(tmp_path / "shards"), tmp_path / "shards" / "run"
    assert here("run", config, "run.steps=6").code == 0
    with Replica(str(run)) as replica:
        replica.apply_available()
        assert replica.step == 6
        forked = here("run", config, "--resume", "--accept", "dense_optimizer.lr", "dense_optimizer.lr=0.5")
        assert forked.code == 0, forked.text
        replica.apply_available()
        for table in ("user", "item"):
            rows = exported(run, table, "export", tmp_path / "trained.npz")
            with replica.view() as view:
                weights_nd, versions_n = view.lookup_versions(table, rows["ids"])
                assert np.array_equal(view.ids(table), rows["ids"])
            assert weights_nd.tobytes() == rows["weights"].tobytes()
            assert (versions_n > 0).all()


@pytest.mark.parametrize(("before", "after"), [(3, 2), (1, 2), (2, 1)])
def test_another_number_of_shards_is_refused(tmp_path: Path, before: int, after: int) -> None:
    config = sharded(tmp_path / "shards", before)
    assert here("run", config, "run.steps=3").code == 0
    outcome = here("run", config, "--resume", f"stages.stream.shards={after}")
    assert outcome.code == 1
    assert f"a stream of {before} shard" in outcome.text
    assert "stages.stream.path" in outcome.text
    elsewhere = tmp_path / "elsewhere"
    outcome = here("run", config, "--resume", f"stages.stream.shards={after}", f"stages.stream.path={elsewhere}")
    assert outcome.code == 0, outcome.text
    rows = exported(tmp_path / "shards" / "run", "user", "export", tmp_path / "trained.npz")
    with Replica(str(elsewhere)) as replica:
        replica.apply_available()
        with replica.view() as view:
            assert np.array_equal(view.ids("user"), rows["ids"])


def test_one_shard_alone_is_no_stream(tmp_path: Path) -> None:
    config = sharded(tmp_path / "shards")
    assert here("run", config, "run.steps=3").code == 0
    outcome = here("replica", tmp_path / "shards" / "run" / "stream" / "shard-0001")
    assert outcome.code == 1
    assert "name the directory that holds them" in outcome.text

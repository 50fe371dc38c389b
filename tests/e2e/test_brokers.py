"""Whole runs over brokers: what a replica holds, through kills of the trainer and the broker, resumes and forks."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.replica import Replica
from pipeline.replica.errors import Refused
from tests.e2e.command import finish, here, start
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, assert_same_bits, run_job
from tests.e2e.patience import until
from tests.e2e.small import config_file, good_job, lines, text
from tests.support.servers import SERVERS, Server


@pytest.fixture(params=["nats", "redis"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip(request.param)
    with SERVERS[request.param](tmp_path / "server") as running:
        yield running


def over(config: dict[str, Any], server: Server, **transport: Any) -> dict[str, Any]:
    """The same job, streamed over ``server``."""
    stream = {**config["stages"]["stream"], "transport": {"kind": server.scheme, "url": server.url, **transport}}
    return {**config, "stages": {**config["stages"], "stream": stream}}


def over_file(config: Path, server: Server, **changes: Any) -> Path:
    config.write_text(yaml.safe_dump({**over(yaml.safe_load(config.read_text()), server), **changes}, sort_keys=False))
    return config


@pytest.mark.parametrize("shards", [1, 2])
def test_a_replica_equals_the_trainer(tmp_path: Path, server: Server, shards: int) -> None:
    config = over(RAGGED, server, stream="ragged") | {"replica": {"embedded": True}}
    config["stages"]["stream"] |= {"shards": shards, "snapshot_every": "20 steps"}
    job = run_job(tmp_path / "run", config)
    assert job.summary["freshness_ms"]["steps"] > 0, "the replica inside the run followed it"
    assert not (tmp_path / "run" / "stream").exists()
    for source in (f"{server.url}/ragged", str(tmp_path / "run")):
        assert_replica_equals(job, source=source)
    assert here("verify", tmp_path / "run").code == 0


def test_a_signed_run_is_read_by_who_has_the_key(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_KEY", "a key of more than sixteen bytes")
    config = over(RAGGED, server, signing_key="env:STREAM_KEY") | {"replica": {"embedded": True}}
    job = run_job(tmp_path / "run", config, "run.steps=10")
    url = f"{server.url}/rowstream"
    assert_replica_equals(job, source=f"{url}?signing_key=env:STREAM_KEY")
    assert_replica_equals(job, source=str(tmp_path / "run"))
    outcome = here("replica", url)
    assert outcome.code == 1
    assert "this stream is signed; give the key" in outcome.text
    assert "more than sixteen" not in outcome.text + here("show", tmp_path / "run.yaml").text
    monkeypatch.setenv("STREAM_KEY", "another key of sixteen bytes")
    outcome = here("replica", f"{url}?signing_key=env:STREAM_KEY")
    assert outcome.code == 1
    assert "signed with another key" in outcome.text


def test_a_signed_file_stream_is_read_by_who_has_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_KEY", "a key of more than sixteen bytes")
    stream = {**RAGGED["stages"]["stream"], "transport": {"kind": "file", "signing_key": "env:STREAM_KEY"}}
    config = {**RAGGED, "stages": {**RAGGED["stages"], "stream": stream}, "replica": {"embedded": True}}
    job = run_job(tmp_path / "run", config, "run.steps=10", "stages.stream.shards=2")
    for source in (tmp_path / "run", f"file:{tmp_path}/run?signing_key=env:STREAM_KEY"):
        assert_replica_equals(job, source=str(source))
    assert here("verify", tmp_path / "run").code == 0
    assert "this stream is signed" in here("replica", f"file:{tmp_path}/run/stream").text


@pytest.mark.parametrize("lives", [1, pytest.param(8, marks=pytest.mark.long)])
def test_a_killed_trainer_goes_on_behind_the_last_published_step(tmp_path: Path, server: Server, lives: int) -> None:
    """And its broker is killed, too, behind its last life; a replica follows all of it and never goes back."""
    config, whole = job_file(tmp_path, server), tmp_path / "whole"
    whole.mkdir()
    assert here("run", paced_job(whole, 0.0)).code == 0
    replica, rng = Replica(f"{server.url}/rowstream"), random.Random()
    with replica:

        def shows(step: int) -> bool:
            before = replica.step
            replica.advance(0.05)
            assert replica.step >= before, "a replica went back"
            return replica.step >= step

        for life in range(lives):
            process = start("run", config, *(["--resume"] if life else []))
            target = replica.step + rng.randrange(1, 100 // lives)
            until(lambda: shows(target) or process.poll() is not None)  # noqa: B023
            outcome = finish(process, signal.SIGKILL)
            assert outcome.code == -signal.SIGKILL, outcome.text
        server.restart()
        outcome = finish(start("run", config, "--resume"))
        assert outcome.code == 0, outcome.text
        until(lambda: shows(0) and replica.ended)
        for table in ("user", "item"):
            exports = []
            for number, (source, command, flag) in enumerate(
                [
                    (str(tmp_path / "run"), "export", "--out"),
                    (str(whole / "run"), "export", "--out"),
                    (f"{server.url}/rowstream", "replica", "--export"),
                ]
            ):
                out = tmp_path / f"{table}-{number}.npz"
                assert here(command, source, "--table", table, flag, out).code == 0
                with np.load(out) as arrays:
                    exports.append((arrays["ids"].tobytes(), arrays["weights"].tobytes()))
            assert exports[0] == exports[1] == exports[2]
            replica.export(table, tmp_path / "follower.npz")
            with np.load(tmp_path / "follower.npz") as arrays:
                assert (arrays["ids"].tobytes(), arrays["weights"].tobytes()) == exports[0]


def paced_job(directory: Path, pace_s: float) -> Path:
    log = directory / "log.csv"
    log.write_text(text(lines(16 * 150)))
    config = config_file(directory, log)
    tree = yaml.safe_load(config.read_text())
    tree |= {"checkpoint": {"every": "20 steps"}, "replica": {"embedded": False}}
    if pace_s:
        source = {"source": tree["stages"].pop("source")}
        tree["stages"] = {**source, "paced": {"use": "tests.e2e.paced:Paced"}, **tree["stages"]}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    return config


def job_file(directory: Path, server: Server) -> Path:
    return over_file(paced_job(directory, 0.01), server)


def test_a_fork_takes_replicas_back_over_a_broker(tmp_path: Path, server: Server) -> None:
    config = over(RAGGED, server)
    run_job(tmp_path / "run", config, "run.steps=12", "checkpoint.every='5 steps'")
    with Replica(f"{server.url}/rowstream") as replica:
        replica.apply_available()
        assert replica.step == 12
        job = run_job(
            tmp_path / "run",
            config,
            "run.steps=20",
            "dense_optimizer.lr=0.2",
            resume=True,
            accept=["dense_optimizer.lr"],
        )
        replica.apply_available()
        assert replica.step == job.summary["last_step"] == 20
    assert_replica_equals(job, source=f"{server.url}/rowstream")


def test_a_second_run_does_not_write_into_the_stream_of_the_first(tmp_path: Path, server: Server) -> None:
    job = run_job(tmp_path / "one", over(RAGGED, server), "run.steps=5")
    (tmp_path / "two").mkdir()
    outcome = here("run", over_file(good_job(tmp_path / "two"), server))
    assert outcome.code == 1
    assert f"{server.url}/rowstream already holds a stream" in outcome.text
    assert "choose another stages.stream.transport.stream" in outcome.text
    assert_replica_equals(job, source=f"{server.url}/rowstream")
    with Replica(f"{server.url}/rowstream") as replica:
        replica.apply_available()
        anew = run_job(tmp_path / "three", over(RAGGED, server, replace=True), "run.steps=5")
        assert_replica_equals(anew, source=f"{server.url}/rowstream")
        with pytest.raises(Refused, match=f"the stream of run {anew.summary['run_id']}"):
            replica.apply_available()


def test_a_run_over_a_broker_comes_to_the_same_bits(tmp_path: Path, server: Server) -> None:
    assert_same_bits(run_job(tmp_path / "a", over(RAGGED, server)), run_job(tmp_path / "b", RAGGED))


def test_a_broker_that_is_not_there_costs_a_run_nothing_but_its_stream(tmp_path: Path, server: Server) -> None:
    server.stop()
    config = over_file(good_job(tmp_path), server)
    assert here("check", config).code == 0, "check runs nothing"
    outcome = here("run", config, "stages.stream.drain_timeout=10ms")
    assert outcome.code == 1
    assert f"{server.url}/rowstream: no connection" in outcome.text
    outcome = here("replica", f"{server.url}/rowstream")
    assert outcome.code == 1
    assert "start one with" in outcome.text
    server.start()
    outcome = here("run", config, "--resume")
    assert outcome.code == 0, outcome.text
    for table in ("user", "item"):
        assert here("export", tmp_path / "run", "--table", table, "--out", tmp_path / "a.npz").code == 0
        assert here("replica", f"{server.url}/rowstream", "--table", table, "--export", tmp_path / "b.npz").code == 0
        with np.load(tmp_path / "a.npz") as ours, np.load(tmp_path / "b.npz") as theirs:
            assert ours["weights"].tobytes() == theirs["weights"].tobytes()


def test_a_broker_that_loses_its_data_gets_all_rows_again(tmp_path: Path, server: Server) -> None:
    """While the run goes on: its replica takes the snapshot cut, and ends as the trainer."""
    config = over(RAGGED, server)
    lost = []

    def lose(step: int) -> None:
        time.sleep(0.005)
        if step == 20:
            server.restart(keep_data=False)
            lost.append(step)

    with Replica(f"{server.url}/rowstream") as replica:
        stop = threading.Event()
        following = threading.Thread(target=replica.follow, args=(stop,), kwargs={"until_end": True})
        following.start()
        try:
            job = run_job(tmp_path / "run", config, on_step=lose)
            following.join(60)
            assert not following.is_alive()
        finally:
            stop.set()
            following.join()
        assert lost
        assert replica.ended
        assert replica.step == job.summary["last_step"]
    assert_replica_equals(job, source=f"{server.url}/rowstream")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.stream.transport.stream=a.b", "stages.stream.transport.stream"),
        ("stages.stream.transport.url=nats://u:sesame@h", "give them as credentials"),
        ("stages.stream.transport.credentials=sesame", "env:NAME of a variable"),
        ("stages.stream.transport.signing_key=sesame", "stages.stream.transport.signing_key: a secret is named"),
        ("stages.stream.transport.kind=kafka", "'file', 'nats', 'redis' would do"),
        ("stages.stream.transport.windw_bytes=1MB", "did you mean 'window_bytes'"),
        ("stages.stream.path=somewhere", "path is a directory, and transport is nats"),
    ],
)
def test_settings_that_are_no_good_are_refused_and_no_secret_shown(tmp_path: Path, override: str, told: str) -> None:
    pytest.importorskip("nats")
    config = good_job(tmp_path)
    outcome = here("check", config, "stages.stream.transport.kind=nats", override)
    assert outcome.code == 2
    assert told in outcome.text
    assert "sesame" not in outcome.text

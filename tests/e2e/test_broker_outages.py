"""Real brokers that are killed, restarted with and without their data, and stopped under a run: training goes on, nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.replica import Replica
from pipeline.session.resources import Resources
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.gate import CONDITIONS
from tests.e2e.jobs import Job, run_job
from tests.e2e.patience import until
from tests.e2e.test_brokers import over
from tests.e2e.test_outages import SOON, STEPS, job
from tests.support.servers import SERVERS, RedisServer, Server
from tests.wire.test_nats_transport import limit_stream


@pytest.fixture(params=["nats", "redis"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip(request.param)
    with SERVERS[request.param](tmp_path / "server") as running:
        yield running


IMPATIENT = ("stages.stream.transport.timeout_s=0.3",)


class Watched:
    """A run that is gated at two of its steps: at the first something happens to the broker, at the second it has come to an end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: Server, begin: Callable[[], object]) -> None:
        self._monkeypatch, self._server, self._begin = monkeypatch, server, begin
        self._began = False
        self.opened: list[Resources] = []

    def config(self, end: Callable[[], object] | None, **stream: Any) -> dict[str, Any]:
        config = over(job(**stream), self._server)
        stages = config["stages"]
        gates = {"begins": {"use": "tests.e2e.gate:Gate", "at": 20, "name": "begins"}}
        self._monkeypatch.setitem(CONDITIONS, "begins", self.begins)
        if end is not None:
            gates["ends"] = {"use": "tests.e2e.gate:Gate", "at": 40, "name": "ends"}
            self._monkeypatch.setitem(CONDITIONS, "ends", lambda: self.ends(end))
        config["stages"] = {"source": stages.pop("source"), **gates, **stages}
        return config

    def begins(self) -> bool:
        """Once something was published."""
        if not self.opened or "lag_steps" not in self.opened[0].stream_report:
            return False
        if not self._began:
            self._began = True
            self._begin()
        return True

    def ends(self, end: Callable[[], object]) -> bool:
        """Once the run has noticed."""
        if self.opened[0].stream_report["stream"]["state"] == "ok":
            return False
        end()
        return True


def equals(done: Job, server: Server) -> None:
    assert done.summary["lost"] == 0
    assert done.summary["stream"]["state"] == "ok"
    assert done.summary["stream"]["failures"] > 0, "nobody noticed"
    assert_replica_equals(done, source=f"{server.url}/rowstream")


@pytest.mark.parametrize("keep_data", [True, False], ids=["with its data", "without its data"])
def test_a_broker_that_was_killed_and_comes_back_gets_everything(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, keep_data: bool
) -> None:
    watched = Watched(monkeypatch, server, server.kill)
    config = watched.config(lambda: server.restart(keep_data=keep_data))
    done = run_job(tmp_path / "run", config, *SOON, on_open=watched.opened.append)
    equals(done, server)


def test_a_broker_that_is_full_gets_everything_once_there_is_room(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, server, lambda: leave_room(server, 10_000))
    config = watched.config(lambda: leave_room(server, 1 << 30))
    done = run_job(tmp_path / "run", config, *SOON, on_open=watched.opened.append)
    equals(done, server)


def leave_room(server: Server, nbytes: int) -> None:
    """So many bytes for the stream of the run."""
    if isinstance(server, RedisServer):
        import redis

        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + nbytes)
    else:
        limit_stream(server.url, nbytes, "rowstream")


@pytest.mark.long
def test_a_broker_that_stands_still_stops_no_training(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, server, server.pause)
    config = watched.config(server.resume)
    done = run_job(tmp_path / "run", config, *SOON, *IMPATIENT, on_open=watched.opened.append)
    equals(done, server)


@pytest.mark.long
def test_a_broker_that_is_absent_at_the_start_gets_everything_once_it_is_there(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kill()
    watched = Watched(monkeypatch, server, lambda: None)
    monkeypatch.setattr(watched, "begins", lambda: True)
    done = run_job(tmp_path / "run", watched.config(server.start), *SOON, on_open=watched.opened.append)
    equals(done, server)


def test_a_broker_that_is_gone_at_the_end_gets_the_rest_by_publish(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, run = Watched(monkeypatch, server, server.kill), tmp_path / "run"
    config = watched.config(None, drain_timeout="100ms")
    with Replica(f"{server.url}/rowstream") as replica:
        done = run_job(run, config, *SOON, on_open=watched.opened.append)
        assert done.summary["stream"]["state"] == "behind"
        assert done.summary["last_step"] == STEPS
        assert here("publish", run, "--timeout=200ms").code == 1, "the broker is still gone"
        server.start()
        outcome = here("publish", run)
        assert outcome.code == 0, outcome.text

        def caught_up() -> bool:
            replica.advance(0.05)
            return replica.step == STEPS

        until(caught_up)
    assert json.loads((run / "summary.json").read_text())["lost"] == 0
    assert_replica_equals(done, source=f"{server.url}/rowstream")
    assert "nothing is left" in here("publish", run).out

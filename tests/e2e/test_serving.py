"""G3 over the socket: whatever is killed, every answer is the trainer at some step, for all tables and the dense weights together."""

from __future__ import annotations

import copy
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.flow import StageError
from tests.e2e.command import finish, here, start
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.patience import until
from tests.e2e.served import Hammer, Server, Truth, asked, assert_consistent

LONG_KILLS, LEAST_KILLS = 24, 6


def config(batches: int, *, slow: bool) -> dict[str, Any]:
    tree = copy.deepcopy(RAGGED)
    tree["stages"]["source"] |= {"batches": batches, "seed": 20}
    if slow:
        source = {"source": tree["stages"].pop("source")}
        tree["stages"] = {**source, "paced": {"use": "tests.e2e.paced:Paced", "seconds": 0.02}, **tree["stages"]}
    tree["stages"]["stream"]["every"] = "1 steps"
    tree["checkpoint"] = {"every": "10 steps"}
    return tree


class Killed(Exception):
    pass


def test_readers_over_the_socket_see_only_steps_of_a_trainer_and_a_server_that_are_killed(tmp_path: Path) -> None:
    truth = Truth(tmp_path, config(50, slow=False))
    run, socket = tmp_path / "run", tmp_path / "replica.sock"
    with (
        Server(run, socket, "--http", "127.0.0.1:0", "--dir", str(tmp_path / "held")) as server,
        Hammer(str(socket), truth.probes) as one,
        Hammer(str(socket), truth.probes) as two,
    ):

        def die(step: int) -> None:
            if step == 28:
                raise Killed

        with pytest.raises(StageError):
            run_job(run, config(50, slow=True), on_step=die)
        reach(one, server, 20)
        reach(two, server, 20)
        assert asked(server.port, "/readyz")[0] == 200
        failures = one.failures
        server.kill_and_restart()
        until(lambda: one.failures > failures)  # the readers are told
        run_job(run, config(50, slow=True), resume=True)
        reach(one, server, truth.steps)
        reach(two, server, truth.steps)
    assert not socket.exists()
    for hammer in (one, two):
        assert_consistent(hammer, truth)
        assert len({step for step, _, _ in hammer.seen}) > 6, "too few states were seen to show anything"
    verified = here("replica", run, "--verify", run)
    assert verified.code == 0, verified.text


def test_a_command_that_cannot_serve_says_why(tmp_path: Path) -> None:
    for words, told in [
        (["--serve", "--http", "0.0.0.0:1"], "could read every row; give --public too"),
        (["--serve", "--http", "nonsense"], "give HOST:PORT"),
        (["--serve", "--socket", str(tmp_path / "no" / "s")], "give a --socket in a directory that exists"),
        (["--serve", "--follow"], "--serve goes with"),
        (["--socket", "s"], "say where --serve listens"),
    ]:
        outcome = here("replica", tmp_path, *words)
        assert outcome.code == 2, words
        assert told in outcome.text


@pytest.mark.long
def test_the_same_through_many_kills_of_processes(tmp_path: Path) -> None:
    """SIGKILL of the trainer or of the server, whichever comes, at moments nobody chose."""
    rng = random.Random(7)
    truth = Truth(tmp_path, config(2500, slow=False))
    run, socket, job = tmp_path / "run", tmp_path / "replica.sock", tmp_path / "job.yaml"
    job.write_text(
        yaml.safe_dump(config(2500, slow=True) | {"run": RAGGED["run"] | {"dir": str(run)}}, sort_keys=False)
    )
    trainer = start("run", job)
    with (
        Server(run, socket) as server,
        Hammer(str(socket), truth.probes) as one,
        Hammer(str(socket), truth.probes) as two,
    ):
        for kill in range(LONG_KILLS):
            reach(one, server, min(one.step + rng.randrange(1, 60), truth.steps))
            if one.step == truth.steps:
                break
            if kill % 2:
                reached = one.step
                server.kill_and_restart()
                reach(one, server, reached)
            else:
                finish(trainer, signal.SIGKILL)
                trainer = start("run", job, "--resume")
        assert kill >= LEAST_KILLS, "the run was over too soon"
        assert finish(trainer).code == 0
        reach(one, server, truth.steps)
        reach(two, server, truth.steps)
    for hammer in (one, two):
        assert_consistent(hammer, truth)
        assert len({step for step, _, _ in hammer.seen}) > 200
    assert here("replica", run, "--verify", run).code == 0


def reach(hammer: Hammer, server: Server, step: int) -> None:
    until(lambda: hammer.step >= step, alive=server.lives)

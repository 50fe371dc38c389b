"""A trainer, a broker and two replicas, each a process, to which everything happens that happens: kills, pauses, cut and slow
connections, a full disk, a broker that comes back with and without its data.

Afterwards both replicas hold what the trainer holds, bit for bit; neither ever went back or applied a cut twice; memory stayed in
bounds; and training went on while the broker was away. The long form goes on for minutes; with ``ROWSTREAM_CHAOS_SEED`` it is repeated.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.e2e.chaos.actors import Actor, ReplicaProcess, TrainerProcess, wait_until
from tests.e2e.command import pipeline
from tests.e2e.jobs import RAGGED
from tests.support.road import Road
from tests.support.servers import SERVERS, Server

PEAK_MB = 1500
"""Of any process: torch and compiled kernels are most of it, and nothing here may come to the rest."""
SMALL_DISK = "size=64m"
SOON_S = 240.0


def job(directory: Path, url: str, kind: str) -> Path:
    """Endless batches at a pace that processes which die all the time can follow, checkpoints all the while."""
    stages = dict(RAGGED["stages"])
    source = stages.pop("source") | {"batches": 10_000_000, "vocabulary": 3000}
    config: dict[str, Any] = {
        **RAGGED,
        "run": {"seed": 3, "threads": 1, "dir": str(directory / "run"), "progress_s": 0.2},
        "store": {"l1_rows": 400},
        "checkpoint": {"every": "100 steps"},
        "stages": {"source": source, "paced": {"use": "tests.e2e.paced:Paced", "seconds": 0.004}, **stages},
    }
    config["stages"]["stream"] = {
        "every": "25ms",
        "dense": True,
        "snapshot_every": "2s",
        "transport": {"kind": kind, "url": url, "stream": "chaos", "timeout_s": 2},
        "drain_timeout": "120s",
    }
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


class Chaos:
    """Who takes part, and what may happen to them. Each happening is over when its method returns."""

    def __init__(
        self, rng: random.Random, trainer: TrainerProcess, replicas: list[ReplicaProcess], server: Server, road: Road
    ) -> None:
        self.rng, self.trainer, self.replicas, self.server, self.road = rng, trainer, replicas, server, road
        self.happened: list[str] = []
        self.small_disk: Path | None = None

    @property
    def actors(self) -> list[Actor]:
        return [self.trainer, *self.replicas]

    def happenings(self) -> list[Callable[[], None]]:
        found = [self.trainer_dies, self.replica_dies, self.pause, self.cut, self.slow, self.road_closed]
        found += [self.broker_dies, self.broker_stands_still, self.broker_loses_its_data]
        return found + ([self.disk_full] if self.small_disk is not None else [])

    def live(self, seconds: float) -> None:
        """Each happening once, in any order, then any of them; all start again what died."""
        end, left = time.monotonic() + seconds, self.happenings()
        self.rng.shuffle(left)
        while left or time.monotonic() < end:
            happening = left.pop() if left else self.rng.choice(self.happenings())
            self.happened.append(happening.__name__)
            happening()
            time.sleep(self.rng.uniform(0, 0.7))
            self.revive()

    def revive(self) -> None:
        for actor in self.actors:
            actor.look()
            if not actor.runs:
                actor.start()

    def trainer_dies(self) -> None:
        self.trainer.kill()

    def replica_dies(self) -> None:
        self.rng.choice(self.replicas).kill()

    def pause(self) -> None:
        actor = self.rng.choice(self.actors)
        actor.pause()
        time.sleep(self.rng.uniform(0.1, 1.5))
        actor.go_on()

    def cut(self) -> None:
        self.road.cut()

    def slow(self) -> None:
        self.road.delay_s = 0.05
        time.sleep(self.rng.uniform(0.2, 1))
        self.road.delay_s = 0

    def road_closed(self) -> None:
        self.road.close()
        self.training_goes_on()
        self.road.open()

    def broker_dies(self) -> None:
        self.server.kill()
        self.training_goes_on()
        self.server.start()

    def broker_stands_still(self) -> None:
        self.server.pause()
        self.training_goes_on()
        self.server.resume()

    def broker_loses_its_data(self) -> None:
        self.server.restart(keep_data=False)

    def disk_full(self) -> None:
        """Of one replica: it ends with an error, or waits; what it had made durable stays."""
        assert self.small_disk is not None
        ballast = self.small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 14))
        time.sleep(self.rng.uniform(0.5, 2))
        ballast.unlink()

    def training_goes_on(self) -> None:
        """Steps end while nobody takes what they changed."""
        if not self.trainer.trains:
            return
        said = len(self.trainer.said)
        more = wait_until(lambda: len(set(self._steps(said))) >= 3 or not self.trainer.runs, SOON_S)
        assert more, f"training stands still without a broker: {self.trainer.said[-2000:]}"

    def _steps(self, since: int) -> list[str]:
        return [line.split()[1] for line in self.trainer.said[since:].splitlines() if line.startswith("step ")]

    def end(self) -> None:
        """Everything works again; the trainer is asked to end, and everybody gets to the end of the stream."""
        self.road.open()
        self.revive()
        began = self.trainer.step
        assert wait_until(lambda: self.trainer.step != began or not self.trainer.runs, SOON_S), self.trainer.said[
            -3000:
        ]
        self.trainer.send(signal.SIGINT)
        code = self.trainer.wait()
        assert code == 130, f"exit code {code}: {self.trainer.said[-4000:]}"
        for replica in self.replicas:
            assert wait_until(lambda one=replica: self._ended(one), SOON_S), replica.said[-3000:]

    def _ended(self, replica: ReplicaProcess) -> bool:
        if replica.runs:
            return False
        if replica.wait() == 0:
            return True
        replica.start()
        return False


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path | None]:
    """A file system of a few megabytes, where this process may make one."""
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", SMALL_DISK, "tmpfs", str(path)], capture_output=True, check=False
    ).returncode
    try:
        yield path if made == 0 else None
    finally:
        if made == 0:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def assert_equals(trainer: TrainerProcess, replica: ReplicaProcess) -> None:
    for table in RAGGED["tables"]:
        out = trainer.directory / f"{table}.npz"
        if not out.exists():
            done = pipeline("export", trainer.run_dir, "--table", table, "--out", out)
            assert done.code == 0, done.text
        with np.load(out) as mine, np.load(replica.exports / f"{table}.npz") as theirs:
            trained_n = mine["version"][:, 1] > 0
            assert np.array_equal(mine["ids"][trained_n], theirs["ids"])
            assert mine["weights"][trained_n].tobytes() == theirs["weights"].tobytes()
            assert np.array_equal(mine["version"][trained_n, 1], theirs["version"][:, 1])


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("nats", 30), pytest.param("redis", 30, marks=LONG), *(pytest.param(k, 240, marks=LONG) for k in SERVERS)],
)
def test_whatever_happens_every_replica_equals_the_trainer(tmp_path: Path, kind: str, seconds: int) -> None:
    pytest.importorskip(kind)
    seed = int(os.environ.get("ROWSTREAM_CHAOS_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"ROWSTREAM_CHAOS_SEED={seed}")
    with (
        SERVERS[kind](tmp_path / "server") as server,
        Road(server.port) as road,
        small_disk(tmp_path / "disk") as disk,
    ):
        url = f"{kind}://127.0.0.1:{road.port}"
        trainer = TrainerProcess(tmp_path, job(tmp_path, url, kind))
        homes = [tmp_path / "home", tmp_path / "other" if disk is None else disk / "home"]
        replicas = [ReplicaProcess(f"replica{n}", tmp_path, f"{url}/chaos", home) for n, home in enumerate(homes)]
        chaos = Chaos(random.Random(seed), trainer, replicas, server, road)
        chaos.small_disk = disk
        try:
            chaos.revive()
            assert wait_until(lambda: trainer.step > 0, SOON_S), trainer.said
            chaos.live(seconds)
            chaos.end()
        finally:
            for actor in chaos.actors:
                if actor.runs:
                    actor.go_on()
                    actor.kill()
        for replica in replicas:
            assert_equals(trainer, replica)
            assert replica.check_journal() > 0
        peaks = {actor.name: actor.peak_mb for actor in chaos.actors}
        assert all(0 < peak < PEAK_MB for peak in peaks.values()), peaks
        lives = {actor.name: actor.lives for actor in chaos.actors}
        print(f"{len(chaos.happened)} happenings, lives {lives}, peaks {peaks}")

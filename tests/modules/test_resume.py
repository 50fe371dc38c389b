"""G5 for modules: whatever ended the process, ``resume`` goes on from the newest checkpoint, and replicas follow it back there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.modules import EmbeddingBags
from pipeline.replica import Replica
from pipeline.session.errors import OtherCheckpoint
from tests.conftest import ROOT
from tests.e2e.command import TIMEOUT_S, environment, here
from tests.modules.followed import assert_holds
from tests.modules.small import TABLES, assert_same_rows, bags, train

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.modules.small import bags, train
module = bags(dir=Path(sys.argv[1]), store={"l1_rows": 64, "ssd": {}}, stream={"every": "1 step"})
for number in range(10):
    train(module, number)
    if number == 5:
        module.save()
os.kill(os.getpid(), signal.SIGKILL)
"""


def life(path: Path, ends: str, steps: int = 10, saves: int = 6) -> None:
    """A module that trains ``steps`` steps, saves behind step ``saves``, and ends by a close or a kill."""
    if ends == "kill":
        done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, env=environment(), check=False)
        assert done.returncode == -signal.SIGKILL
        return
    with bags(dir=path, resume=True, **DISK) as module:
        for number in range(module.step, steps):
            train(module, number)
            if module.step == saves:
                module.save()


DISK: dict[str, Any] = {"store": {"l1_rows": 64, "ssd": {}}, "stream": {"every": "1 step"}}


@pytest.mark.parametrize("ends", ["close", "kill"])
def test_it_goes_on_from_the_checkpoint_and_replicas_follow_it_back(tmp_path: Path, ends: str) -> None:
    with bags() as whole:
        for number in range(6):
            train(whole, number)
        at_6 = whole.state_dict()
        for number in range(6, 15):
            train(whole, number)
        life(tmp_path / "run", ends)
        with Replica(str(tmp_path / "run" / "stream")) as replica:
            replica.apply_available()
            assert ends == "kill" or replica.step == 10
            with bags(dir=tmp_path / "run", resume=True, **DISK) as module:
                assert module.step == 6
                replica.apply_available()
                assert_holds(replica, at_6)
                for number in range(6, 15):
                    train(module, number)
                assert_same_rows(whole, module)
                module.save()
            replica.apply_available()
            assert_holds(replica, whole.state_dict())
    assert here("verify", tmp_path / "run").code == 0


LEFT_OPEN = """
import sys
from pathlib import Path
from tests.modules.small import bags, train
module = bags(dir=Path(sys.argv[1]), stream={"every": "1000 steps"})
for number in range(10):
    train(module, number)
raise SystemExit(3)
"""


def test_a_module_left_open_is_closed_when_the_interpreter_ends(tmp_path: Path) -> None:
    """It neither hangs nor leaves the last steps unpublished."""
    command = [sys.executable, "-c", LEFT_OPEN, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=False, timeout=TIMEOUT_S)
    assert done.returncode == 3
    with Replica(str(tmp_path / "run" / "stream")) as replica:
        replica.apply_available()
        assert replica.step == 10


def test_without_a_checkpoint_it_begins_again_and_so_do_replicas(tmp_path: Path) -> None:
    life(tmp_path / "run", "close", saves=99)
    with bags() as whole, Replica(str(tmp_path / "run" / "stream")) as replica:
        train(whole, 40)
        replica.apply_available()
        with bags(dir=tmp_path / "run", resume=True, **DISK) as module:
            assert module.step == 0
            train(module, 40)
            assert_same_rows(whole, module)
        replica.apply_available()
        assert_holds(replica, whole.state_dict())


def test_other_tables_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    life(tmp_path / "run", "close")
    other = {**TABLES, "item": {**TABLES["item"], "dim": 8}}
    with pytest.raises(OtherCheckpoint, match="dim was 4 and is 8"):
        EmbeddingBags(other, seed=5, threads=2, dir=tmp_path / "run", resume=True)
    with bags(dir=tmp_path / "run", resume=True, **DISK) as module:
        assert module.step == 6

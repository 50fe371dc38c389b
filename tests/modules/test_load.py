"""``load_rows``: rows from outside in the middle of a user's loop, as a step that streams, checkpoints and replicas know like any other."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.modules import BackwardAwaited, EmbeddingBags
from pipeline.replica import Replica
from pipeline.session.inspect_rows import describe_rows
from pipeline.store import BadLoad, UnknownTable
from tests.conftest import ROOT
from tests.e2e.command import environment, here
from tests.modules.followed import assert_holds, follow
from tests.modules.loops import assert_same_tables, tables_of
from tests.modules.small import assert_same_rows, bags, batch, loss, rows_of, train

LOADS = {4: "item", 5: "user", 11: "item"}
"""By step: which table's rows are loaded then."""
STEPS = 16
DISK: dict[str, Any] = {"store": {"l1_rows": 64, "ssd": {}}, "stream": {"every": "1 step"}}


def loaded(number: int) -> tuple[str, torch.Tensor, torch.Tensor, dict[str, torch.Tensor] | None]:
    """What step ``number`` loads: more rows than L1 holds, some of them of the log, some with states."""
    rng, table = np.random.default_rng([7, number]), LOADS[number]
    ids = torch.from_numpy(rng.permutation(600)[:150] - 250)
    rows = torch.from_numpy(rng.standard_normal((150, 4 if table == "item" else 8)).astype(np.float32))
    states = {"exp_avg": rows.clone(), "exp_avg_sq": rows.square()} if number == 4 else None
    return table, ids, rows, states


def step(module: EmbeddingBags, number: int) -> None:
    """The ``number``-th step of the loop."""
    if number in LOADS:
        assert module.load_rows(*loaded(number)) == number
    else:
        train(module, number)


def loop(module: EmbeddingBags, until: int = STEPS) -> None:
    while module.step < until:
        step(module, module.step + 1)


@pytest.mark.parametrize("every", ["1 step", "3 steps", "1ms"])
def test_a_replica_equals_the_module_behind_each_load(tmp_path: Path, every: str) -> None:
    steps: dict[int, dict[str, Any]] = {}
    with bags(store={"l1_rows": 4096}) as plain:
        for number in range(1, STEPS + 1):
            step(plain, number)
            steps[number] = plain.state_dict()
    module = bags(dir=tmp_path / "run", stream={"every": every, "snapshot_every": "5 steps"})
    follow(module, tmp_path / "run", steps, [partial(step, module, number) for number in range(1, STEPS + 1)])


@pytest.mark.parametrize("store", [{"l1_rows": 50}, {"l1_rows": 64, "ssd": {}}, {"l1_rows": 1 << 16}])
@pytest.mark.parametrize("lookahead", [1, 6])
def test_the_bits_depend_neither_on_the_tiers_nor_on_what_is_announced(store: dict[str, Any], lookahead: int) -> None:
    with bags() as plain, bags(store=store, lookahead=lookahead) as module:
        loop(plain)
        ahead = [number for number in range(1, STEPS + 1) if number not in LOADS]
        for number in range(1, STEPS + 1):
            while ahead and module.prefetch(batch(ahead[0])):
                del ahead[0]
            step(module, number)
        assert_same_rows(plain, module)


def test_batches_announced_stay_announced() -> None:
    with bags(store={"l1_rows": 64}, lookahead=3) as module, bags() as plain:
        for number in (1, 2, 3):
            assert module.prefetch(batch(number))
        table, ids, rows, _ = loaded(5)
        module.load_rows(table, ids, rows)
        with pytest.raises(BadLoad, match="comes twice"):
            module.load_rows(table, [1, 1], rows[:2])
        assert not module.prefetch(batch(4)), "three batches wait still"
        plain.load_rows(table, ids, rows)
        for number in (1, 2, 3):
            train(module, number)
            train(plain, number)
        assert module._engine.counters == {"dropped": 0, "late": 0}
        assert_same_rows(plain, module)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.modules.small import bags
from tests.modules.test_load import DISK, loop
module = bags(dir=Path(sys.argv[1]), **DISK)
loop(module, int(sys.argv[2]))
module.save()
loop(module, int(sys.argv[3]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("saved", "died"), [(2, 7), (4, 9), (5, 13), (10, 11)])
def test_killed_and_resumed_the_loop_loads_again_and_comes_to_the_same_bits(
    tmp_path: Path, saved: int, died: int
) -> None:
    with bags(dir=tmp_path / "whole", **DISK) as whole:
        loop(whole)
        whole.save()
        expected = whole.state_dict()
        command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(saved), str(died)]
        done = subprocess.run(command, cwd=ROOT, env=environment(), check=False)
        assert done.returncode == -signal.SIGKILL
        with Replica(str(tmp_path / "run" / "stream")) as replica:
            replica.apply_available()
            with bags(dir=tmp_path / "run", resume=True, **DISK) as module:
                assert module.step == saved
                loop(module)
                assert_same_rows(whole, module)
                module.save()
            replica.apply_available()
            assert_holds(replica, expected)
    assert_same_tables(tables_of(tmp_path / "whole"), tables_of(tmp_path / "run"))
    assert here("verify", tmp_path / "run").code == 0


def test_a_load_is_seen_by_eval_fetch_and_rows_of_the_command_line(tmp_path: Path) -> None:
    table, ids, rows, states = loaded(4)
    with bags(dir=tmp_path / "run") as module:
        assert module.load_rows(table, ids.int(), rows.numpy(), states) == 1
        found = module.fetch_rows(table, ids)
        assert found.weights_nd.tobytes() == rows.numpy().tobytes()
        assert states is not None
        assert found.states["exp_avg_sq"].tobytes() == states["exp_avg_sq"].numpy().tobytes()
        module.eval()
        out = module({"user": ids[:0].view(1, 0), "item": ids[:1].view(1, 1)})["item"]
        assert torch.equal(out, rows[:1])
        module.train()
        assert describe_rows(tmp_path / "run", table, ids[:2].tolist())["rows"][1]["weight"] == rows[1].tolist()
        train(module, 1)
        module.save()
    assert describe_rows(tmp_path / "run", table, ids[:2].tolist())["rows"][0]["updated"]


@pytest.mark.parametrize("kept", ["fp16", "bf16"])
def test_tensors_of_16_bits(kept: str) -> None:
    tables = {"user": {"dim": 8, "weights": kept}}
    dtype = torch.float16 if kept == "fp16" else torch.bfloat16
    rows = torch.randn(5, 8).to(dtype).requires_grad_()
    with EmbeddingBags(tables, store={"l1_rows": 16}, threads=2) as module:
        with pytest.raises(BadLoad, match="lacks 'momentum'"):
            module.load_rows("user", range(5), rows, {})
        module.load_rows("user", range(5), rows)
        found = module.fetch_rows("user", range(5)).weights_nd
    assert found.tobytes() == rows.detach().float().numpy().tobytes()


def test_what_cannot_be_loaded_leaves_the_loop_as_it_was(tmp_path: Path) -> None:
    with bags(dir=tmp_path / "run", stream={"every": "1 step"}) as module, bags() as plain:
        train(module, 1)
        train(plain, 1)
        before = rows_of(module)
        out = module(batch(2))
        with pytest.raises(BackwardAwaited, match="between the forward of step 2 and its backward"):
            module.load_rows("user", [1], torch.zeros(1, 8))
        loss(out).backward()  # type: ignore[no-untyped-call]
        train(plain, 2)
        with pytest.raises(UnknownTable, match="the tables are"):
            module.load_rows("nobody", [1], torch.zeros(1, 8))
        with pytest.raises(BadLoad, match=r"float32 of \(1, 8\) is needed"):
            module.load_rows("user", [1], torch.zeros(1, 4))
        with pytest.raises(BadLoad, match="NaN"):
            module.load_rows("user", [1], torch.full((1, 8), torch.nan))
        assert module.step == 2
        train(module, 3)
        train(plain, 3)
        assert rows_of(module).keys() == before.keys()
        assert_same_rows(plain, module)
        now = module.state_dict()
    with Replica(str(tmp_path / "run" / "stream")) as replica:
        replica.apply_available()
        assert_holds(replica, now)

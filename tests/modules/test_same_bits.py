"""G1 across the two ways to train: a plain loop with a module gives the bits of the pipeline on the same batches."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.modules import EmbeddingBags, Embeddings
from stages.items import RawBatch
from stages.prefetch import Prefetch
from tests.conftest import real_data
from tests.e2e.jobs import RAGGED, Job, run_job
from tests.e2e.ragged import RaggedOptions, make_batch
from tests.modules.loops import Loop, as_mapping, assert_same_tables, tables_of

STEPS = 40


def config_of(pooling: str, weighted: bool) -> dict[str, Any]:
    config = copy.deepcopy(RAGGED)
    config["features"] = {name: {**feature, "pooling": pooling} for name, feature in config["features"].items()}
    config["stages"]["source"] |= {"weighted": weighted, "batches": STEPS}
    return config


def batches_of(config: dict[str, Any]) -> list[Any]:
    options = RaggedOptions(**{key: value for key, value in config["stages"]["source"].items() if key != "use"})
    return [make_batch(options, number) for number in range(STEPS)]


def module_of(config: dict[str, Any], **settings: Any) -> EmbeddingBags | Embeddings:
    poolings = {feature["pooling"] for feature in config["features"].values()}
    make = Embeddings if poolings == {"none"} else EmbeddingBags
    given = {"seed": config["run"]["seed"], "threads": config["run"]["threads"], "store": config["store"]}
    return make(config["tables"], config["features"], include_last_offset=True, **{**given, **settings})


@pytest.fixture(scope="module", params=[("sum", False), ("mean", True), ("none", True)], ids=str)
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Job]:
    config = config_of(*request.param)
    return config, run_job(tmp_path_factory.mktemp("job") / "run", config)


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_plain_loop_gives_the_bits_of_the_pipeline(
    tmp_path: Path, job: tuple[dict[str, Any], Job], ahead: int
) -> None:
    """With an L1 too small for what is announced ahead, and evaluations in between."""
    config, run = job
    torch.set_num_threads(config["run"]["threads"])
    loop, batches = Loop(run.trainer.plan), batches_of(config)
    l1_rows = run.least_l1() + 4
    with module_of(config, dir=tmp_path / "module", store={"l1_rows": l1_rows}) as module:
        for number, raw in enumerate(batches):
            for later in batches[number + 1 : number + 1 + ahead] if number % 3 == 0 else ():
                module.prefetch({name: (bags.ids_n, bags.offsets_b) for name, bags in later.features.items()})
            if number % 5 == 2 and raw.num_samples:
                module.eval()
                loop.logits(module, batches[number // 2])
                module.train()
            loop.train(module, raw)
        assert module.step == STEPS == run.summary["last_step"]
        assert module._engine.store.counters.evictions > 0
        module.save()
    assert_same_tables(tables_of(tmp_path / "module"), run.tables())
    for name, value in run.dense().items():
        assert loop.model.state_dict()[name].numpy().tobytes() == value.tobytes(), name


@pytest.mark.parametrize("name", ["quickstart", "movielens"])
def test_a_shipped_job_and_a_plain_loop_on_its_batches_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """DLRM, its dense optimizer, and an L1 that does not hold all rows."""
    if name == "movielens":
        real_data("ml-1m-half")
    batches, process = [], Prefetch.process

    async def watched(self: Prefetch, raw: RawBatch) -> Any:
        batches.append(raw)
        return await process(self, raw)

    monkeypatch.setattr(Prefetch, "process", watched)
    run = run_job(tmp_path / "run", name, "run.steps=12", "run.threads=2", "stages.eval.enabled=false")
    torch.set_num_threads(2)
    loop, settings = Loop(run.trainer.plan), {"dir": tmp_path / "module", "store": {"l1_rows": run.least_l1() + 100}}
    with EmbeddingBags.from_config(name, overrides=["run.threads=2"], include_last_offset=True, **settings) as module:
        for number, raw in enumerate(batches[:12]):
            for later in batches[number + 1 : number + 2]:
                module.prefetch(as_mapping(later))
            loop.train(module, raw)
        assert module._engine.store.counters.evictions > 0
        module.save()
    assert_same_tables(tables_of(tmp_path / "module"), run.tables())
    for key, value in run.dense().items():
        assert loop.model.state_dict()[key].numpy().tobytes() == value.tobytes(), key

"""What is no batch is named with what would have worked; nothing is lost by it: the next forward works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import ConfigError
from pipeline.modules import BadFeatures, BadSettings, EmbeddingBags, Embeddings, NeedsDir
from tests.modules.small import TABLES, bags, batch, train


@pytest.fixture(scope="module")
def module() -> Iterator[EmbeddingBags]:
    with bags() as made:
        yield made


IDS, OFFSETS = torch.tensor([1, 2, 3]), torch.tensor([0, 1])
GOOD = {"user": (IDS, OFFSETS), "item": (IDS, OFFSETS)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([IDS], "a mapping from feature"),
        ({"user": (IDS, OFFSETS)}, "lacks 'item'"),
        ({**GOOD, "tag": (IDS, OFFSETS)}, "unknown 'tag'; the features of this module are user, item"),
        ({**GOOD, "user": (IDS, torch.tensor([1, 2]))}, "'user': offsets begin with 1"),
        ({**GOOD, "user": (IDS, torch.tensor([0, 2, 1]))}, "offsets fall: 2 is followed by 1 at position 2"),
        ({**GOOD, "user": (IDS, torch.tensor([0, 4]))}, "offsets fall: 4 is followed by 3, the number of ids, at"),
        ({**GOOD, "user": (IDS, torch.tensor([[0, 1]]))}, "offsets of shape"),
        ({**GOOD, "user": (IDS.float(), OFFSETS)}, "ids: they are torch.float32; int64 or int32"),
        ({**GOOD, "user": (IDS, OFFSETS.float())}, "offsets: they are torch.float32"),
        ({**GOOD, "user": (IDS, OFFSETS, torch.ones(2))}, r"weights are torch.float32 of shape \(2,\)"),
        ({**GOOD, "user": (IDS, OFFSETS, torch.ones(3).double())}, "weights are torch.float64"),
        ({**GOOD, "user": (IDS.to("meta"), OFFSETS)}, "ids: they are on meta, and the rows are on the host"),
        ({**GOOD, "user": (IDS, OFFSETS, torch.ones(3, device="meta"))}, "weights: they are on meta"),
        ({**GOOD, "user": (IDS, torch.tensor([0, 1, 2]))}, r"different numbers of samples: \{'user': 3, 'item': 2\}"),
        ({**GOOD, "user": IDS}, "give a matrix, or one dimension with offsets"),
        ({**GOOD, "user": (IDS[None], OFFSETS)}, "no offsets to give"),
        ({**GOOD, "user": "abc"}, "a tensor is needed, not str"),
    ],
)
def test_what_is_no_batch_is_named_and_the_next_forward_works(module: EmbeddingBags, given: Any, said: str) -> None:
    step = module.step
    with pytest.raises(BadFeatures, match=said):
        module(given)
    with pytest.raises(BadFeatures, match=said):
        module.prefetch(given)
    assert module.step == step
    train(module, 1)
    assert module.step == step + 1


def test_ids_may_be_arrays_narrow_integers_and_matrices(module: EmbeddingBags) -> None:
    module.eval()
    plain = module({name: (IDS, torch.arange(3)) for name in TABLES})
    read_only = np.arange(1, 4)
    read_only.flags.writeable = False
    forms: list[Any] = [
        (read_only, np.arange(3)),
        (read_only, np.arange(3), np.ones(3, np.float32)),
        (IDS.int(), torch.arange(3, dtype=torch.int32)),
        IDS[:, None],
    ]
    for form in forms:
        for name, out in module(dict.fromkeys(TABLES, form)).items():
            assert torch.equal(out, plain[name])
    module.train()


def test_offsets_may_end_with_the_number_of_ids() -> None:
    with bags(include_last_offset=True) as module:
        assert module({name: (IDS, torch.tensor([0, 1, 3])) for name in TABLES})["user"].shape == (2, 8)
        with pytest.raises(BadFeatures, match="offsets end with 2, and there are 3 ids"):
            module({name: (IDS, torch.tensor([0, 1, 2])) for name in TABLES})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EmbeddingBags({"t": {"dmi": 8}}), "tables.t.dmi"),
        (lambda: EmbeddingBags({"t": {}}, stroe={}), "stroe"),
        (lambda: EmbeddingBags({"t": {}}, {"f": {"table": "u"}}), "reads table 'u'"),
        (lambda: EmbeddingBags({"a b": {}}), "does not match"),
        (lambda: EmbeddingBags({}), "no table is named"),
    ],
)
def test_what_cannot_be_built_is_named(make: Any, said: str) -> None:
    with pytest.raises((ConfigError, BadSettings), match=said):
        make()


def test_poolings_belong_to_one_of_the_modules() -> None:
    with pytest.raises(BadSettings, match="Embeddings takes none"):
        EmbeddingBags(TABLES, {"user": {"pooling": "none"}})
    with pytest.raises(BadSettings, match="EmbeddingBags takes mean"):
        Embeddings(TABLES, {"user": {"pooling": "mean"}})
    with pytest.raises(NeedsDir, match="a stream needs a directory"):
        bags(stream={})


def test_a_part_of_a_jobs_config_is_enough(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "include: quickstart\nrun: {seed: 9, threads: 1, dir: nowhere}\nstore: {l1_rows: 100}\n"
    )
    with EmbeddingBags.from_config(str(tmp_path / "job.yaml"), overrides=["tables.user.dim=16"]) as module:
        assert list(module.settings.features) == ["user", "item", "tags"]
        assert module.settings.features["tags"].pooling == "mean"
        assert (module.settings.seed, module.settings.threads, module.settings.dir) == (9, 1, None)
        ids = torch.tensor([[1, 2]])
        shapes = {name: tuple(out.shape) for name, out in module(dict.fromkeys(module.settings.features, ids)).items()}
        assert shapes == {"user": (1, 16), "item": (1, 32), "tags": (1, 32)}
    assert not (tmp_path / "nowhere").exists()
    assert batch(1).keys() == TABLES.keys()


@pytest.mark.parametrize("part", [{"admission": {"after": 2}}, {"expiry": {"steps": 9}}])
def test_a_dynamic_table_is_for_jobs(part: dict[str, Any]) -> None:
    with pytest.raises(BadSettings, match="tables t have an admission or an expiry, which only jobs count for"):
        EmbeddingBags({"t": {"dim": 8, **part}})

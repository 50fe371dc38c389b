"""Identities and metadata given to a module: kept by the rows of a step, and by nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.modules import EmbeddingBags, Embeddings
from pipeline.modules.errors import BadFeatures
from tests.modules.small import assert_same_rows, batch, loss

TABLES: dict[str, Any] = {
    "user": {"dim": 8, "optimizer": {"kind": "sgd", "lr": 0.5}, "identities": 2},
    "item": {"dim": 4, "optimizer": {"kind": "adam", "lr": 0.1}, "metadata": {"dtype": "float32", "width": 3}},
}
BAGS = {"user": (torch.tensor([1, 2, 1]), torch.tensor([0, 2])), "item": (torch.tensor([5, 6]), torch.tensor([0, 1]))}
IDENTITIES = {"user": torch.tensor([[10, 11], [20, 21], [12, 13]])}
METADATA = {"item": torch.tensor([[0.5, 1, 2], [3, 4, 5]])}


def bags(**settings: Any) -> EmbeddingBags:
    return EmbeddingBags(TABLES, **{"store": {"l1_rows": 64}, "threads": 2, "seed": 5, **settings})


def kept(module: Any, table: str, name: str, ids: list[int]) -> list[Any]:
    found: list[Any] = module.fetch_rows(table, ids).meta[name].tolist()
    return found


def train(module: Any, *given: Any) -> None:
    loss(module(*given)).backward()  # type: ignore[no-untyped-call]


def test_rows_keep_what_the_last_occurrence_of_a_step_brought() -> None:
    with bags() as module:
        train(module, BAGS, IDENTITIES, METADATA)
        assert kept(module, "user", "identity", [1, 2, 3]) == [[12, 13], [20, 21], [0, 0]]
        assert kept(module, "item", "metadata", [6, 5]) == [[3, 4, 5], [0.5, 1, 2]]
        train(module, BAGS, None, {"item": np.zeros((2, 3), np.float32)})
        assert kept(module, "user", "identity", [1]) == [[12, 13]], "a batch that brings none leaves it"
        assert kept(module, "item", "metadata", [5]) == [[0, 0, 0]]


def test_a_forward_without_backward_and_eval_keep_nothing() -> None:
    with bags() as module:
        module(BAGS, IDENTITIES)
        train(module, {name: (torch.tensor([9]), torch.tensor([0])) for name in BAGS})
        module.eval()
        module(BAGS, IDENTITIES, METADATA)
        assert kept(module, "user", "identity", [1]) == [[0, 0]]


def test_what_was_announced_is_kept_as_its_forward_gives_it() -> None:
    """With whatever the announcement was given, or without."""
    other = {"user": IDENTITIES["user"] + 100}
    for announced in ((), (IDENTITIES,), (IDENTITIES, METADATA)):
        with bags() as module:
            assert module.prefetch(BAGS, *announced)
            train(module, BAGS, other)
            assert module._engine.counters == {"dropped": 0, "late": 0}
            assert kept(module, "user", "identity", [1, 2]) == [[112, 113], [120, 121]]


def test_ids_in_a_matrix_take_lines_in_a_matrix() -> None:
    tables = {"user": TABLES["user"]}
    with Embeddings(tables, store={"l1_rows": 64}, threads=2) as module:
        given = torch.arange(8).reshape(2, 2, 2)
        train(module, {"user": torch.tensor([[1, 2], [2, 3]])}, {"user": given})
        assert kept(module, "user", "identity", [1, 2, 3]) == [[0, 1], [4, 5], [6, 7]]


def test_a_state_dict_has_them_and_so_has_a_checkpoint(tmp_path: Path) -> None:
    with bags() as module, bags() as other, bags() as third:
        train(module, BAGS, IDENTITIES, METADATA)
        state = module.state_dict()
        assert state["user.identity"].tolist() == [[12, 13], [20, 21]]
        other.load_state_dict(state)
        assert_same_rows(module, other)
        module.save(tmp_path / "copy")
        third.load(tmp_path / "copy")
        assert_same_rows(module, third)
        given = {"identity": torch.tensor([[7, 8]])}
        other.load_rows("user", [1], torch.ones(1, 8), meta=given)
        assert kept(other, "user", "identity", [1, 2]) == [[7, 8], [20, 21]]


def test_they_change_no_weight() -> None:
    with bags() as module, bags() as other:
        for number in range(4):
            made = batch(number)
            count = made["user"][0].shape[0]
            train(module, made, {"user": torch.full((count, 2), number)})
            train(other, made)
        for table in TABLES:
            ids = list(range(-200, 200))
            assert np.array_equal(module.fetch_rows(table, ids).weights_nd, other.fetch_rows(table, ids).weights_nd)


@pytest.mark.parametrize(
    ("identities", "metadata", "what"),
    [
        (
            {"user": torch.zeros(2, 2, dtype=torch.int64)},
            None,
            "feature 'user': values for identity are int64 [2, 2]; int64 [3, 2]",
        ),
        (
            {"user": torch.zeros(3, 2)},
            None,
            "feature 'user': values for identity are float32 [3, 2]; int64 [3, 2] is needed",
        ),
        ({"user": [1, 2, 3]}, None, "feature 'user': values for identity are int64 [3]; int64 [3, 2] is needed"),
        (
            {"item": torch.zeros(2, 1, dtype=torch.int64)},
            None,
            "feature 'item': values for identity came (int64 [2, 1])",
        ),
        (None, {"item": np.zeros((2, 3))}, "feature 'item': values for metadata are float64 [2, 3]; float32 [2, 3]"),
        ({"usr": torch.zeros(3, 2)}, None, "has the unknown 'usr'"),
        ({"user": [[1], [2, 3]]}, None, "feature 'user': values for identity are no array"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_has_happened(identities: Any, metadata: Any, what: str) -> None:
    with bags() as module:
        for call in (module, module.prefetch):
            with pytest.raises(BadFeatures) as caught:
                call(BAGS, identities, metadata)
            assert what in str(caught.value)
        train(module, BAGS, IDENTITIES)
        assert module.step == 1
        assert kept(module, "user", "identity", [1]) == [[12, 13]]

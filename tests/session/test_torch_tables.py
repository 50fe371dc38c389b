"""State dicts of torch and TorchRec as rows to import: which key becomes which column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.optim import AdagradOptions, AdamOptions, RowwiseAdagradOptions, layout_of
from pipeline.rowlog.errors import ImportFailed
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.session.importing import TableImport
from pipeline.session.torch_tables import open_rows


def spec_of(options: Any) -> TableSpec:
    return TableSpec("user", layout_of(options, 8), Initializer(), seed=0)


def packed(path: Path, spec: TableSpec) -> tuple[Any, Any]:
    one = TableImport(spec, open_rows(str(path), spec))
    one.check()
    one.check_values(lambda _: None)
    pieces = list(one.packed())
    return np.concatenate([ids for ids, _, _ in pieces]), np.concatenate([rows for _, rows, _ in pieces])


def saved(directory: Path, **content: Any) -> Path:
    torch.save(content, directory / "model.pt")
    return directory / "model.pt"


WEIGHTS = torch.arange(40, dtype=torch.float32).reshape(5, 8)
KINDS: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "adam": (torch.optim.Adam, AdamOptions(), {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}),
    "adagrad": (torch.optim.Adagrad, AdagradOptions(), {"momentum": "sum"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_torch_optimizer_has_come_to(tmp_path: Path, kind: str) -> None:
    make, options, names = KINDS[kind]
    user, item = torch.nn.EmbeddingBag(5, 8), torch.nn.EmbeddingBag(3, 8)
    bags = torch.nn.ModuleDict({"user": user, "item": item})
    optimizer = make(bags.named_parameters())
    (user(torch.tensor([[1, 3]])).square().sum() + item(torch.tensor([[1]])).sum()).backward()
    optimizer.step()
    spec = spec_of(options)
    ids_n, rows_nb = packed(saved(tmp_path, model=bags.state_dict(), optimizer=optimizer.state_dict()), spec)
    assert ids_n.tolist() == [0, 1, 2, 3, 4]
    state = optimizer.state[user.weight]
    assert spec.layout.view(rows_nb, "weight").tobytes() == user.weight.detach().numpy().tobytes()
    for ours, theirs in names.items():
        assert state[theirs].any()
        assert spec.layout.view(rows_nb, ours).tobytes() == state[theirs].numpy().tobytes()


def test_the_row_wise_state_of_a_fused_torchrec_optimizer(tmp_path: Path) -> None:
    key, momentum = "ebc.embedding_bags.user.weight", torch.rand(5)
    path = saved(tmp_path, **{key: WEIGHTS}, optimizer={"state": {key: {"user.momentum1": momentum}}})
    spec = spec_of(RowwiseAdagradOptions())
    _, rows_nb = packed(path, spec)
    assert spec.layout.view(rows_nb, "weight").tobytes() == WEIGHTS.numpy().tobytes()
    assert spec.layout.view(rows_nb, "momentum").tobytes() == momentum.numpy().tobytes()


def test_what_fits_no_column_is_named(tmp_path: Path) -> None:
    spec = spec_of(RowwiseAdagradOptions())
    state = {"state": {"user.weight": {"exp_avg": WEIGHTS, "momentum1": torch.rand(5)}}}
    with pytest.raises(ImportFailed, match="state_exp_avg is unknown"):
        packed(saved(tmp_path, **{"user.weight": WEIGHTS}, optimizer=state), spec)
    with pytest.raises(ImportFailed, match=r"state_momentum is missing.*--fresh-states"):
        packed(saved(tmp_path, **{"user.weight": WEIGHTS}), spec)
    with pytest.raises(ImportFailed, match=r"0 of its keys are those of user.weight.*'super_user.weight'"):
        packed(saved(tmp_path, **{"super_user.weight": WEIGHTS}), spec)


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="weights_only"):
        packed(saved(tmp_path, path=tmp_path), spec_of(AdamOptions()))

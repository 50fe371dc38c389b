"""State dicts of torch and TorchRec as rows to import: which key becomes which column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.modules import EmbeddingBags
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


@pytest.mark.parametrize("count", [7, torch.tensor(7.0), torch.tensor([7])], ids=["number", "scalar", "tensor"])
def test_the_count_of_steps_goes_on_where_rows_count_theirs_and_is_told_of_elsewhere(
    tmp_path: Path, count: Any
) -> None:
    states = {"exp_avg": torch.rand(5, 8), "exp_avg_sq": torch.rand(5, 8), "step": count}
    path = saved(tmp_path, **{"user.weight": WEIGHTS}, optimizer={"state": {"user.weight": states}})
    counting, plain = spec_of(AdamOptions(rowwise_bias_correction=True)), spec_of(AdamOptions())
    _, rows_nb = packed(path, counting)
    assert counting.layout.view(rows_nb, "row_counter").ravel().tolist() == [7.0] * 5
    assert not TableImport(counting, open_rows(str(path), counting)).notes
    (note,) = TableImport(plain, open_rows(str(path), plain)).notes
    assert "counts 7 steps" in note
    assert "begins anew" in note
    assert not TableImport(plain, open_rows(str(path), plain), fresh_states=True).notes
    none = spec_of(AdagradOptions())
    assert not TableImport(none, open_rows(str(path), none)).notes, "nothing is corrected by a count there"
    del states["step"]
    path = saved(tmp_path, **{"user.weight": WEIGHTS}, optimizer={"state": {"user.weight": states}})
    with pytest.raises(ImportFailed, match="state_row_counter is missing"):
        packed(path, counting)


def test_adam_goes_on_as_torch_does(tmp_path: Path) -> None:
    """A few steps there, and the next ones here on the same gradients."""
    torch.manual_seed(int(np.random.default_rng().integers(1 << 30)))
    user = torch.nn.Embedding(5, 8)
    optimizer = torch.optim.Adam(user.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        (user.weight * torch.randn(5, 8)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    path = saved(tmp_path, **{"user.weight": user.weight}, state={"user.weight": optimizer.state[user.weight]})
    adam = {"kind": "adam", "lr": 0.05, "rowwise_bias_correction": True}
    spec = spec_of(AdamOptions(lr=0.05, rowwise_bias_correction=True))
    ids_n, rows_nb = packed(path, spec)
    columns = {column.name: spec.layout.view(rows_nb, column.name) for column in spec.layout.columns}
    with EmbeddingBags({"user": {"dim": 8, "optimizer": adam}}, store={"l1_rows": 8}, threads=2) as module:
        module.load_rows("user", ids_n, columns.pop("weight"), columns)
        for _ in range(3):
            grads = torch.randn(5, 8)
            optimizer.zero_grad()
            (user.weight * grads).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            (module({"user": torch.arange(5).view(5, 1)})["user"] * grads).sum().backward()
        found = module.fetch_rows("user", ids_n).weights_nd
    np.testing.assert_allclose(found, user.weight.detach().numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_tensors_in_bfloat16(tmp_path: Path, weights: str) -> None:
    brain, moments = torch.randn(5, 8).to(torch.bfloat16), torch.rand(5, 8).to(torch.bfloat16)
    spec = TableSpec("user", layout_of(AdagradOptions(), 8, weights), Initializer(), seed=0)
    path = saved(tmp_path, **{"user.weight": brain}, optimizer={"user.weight": {"sum": moments}})
    _, rows_nb = packed(path, spec)
    assert spec.layout.singles(rows_nb, "weight").tobytes() == brain.float().numpy().tobytes()
    assert spec.layout.view(rows_nb, "momentum").tobytes() == moments.float().numpy().tobytes()


def test_what_is_no_tensor_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=r"optimizer/user.weight/sum is no plain tensor"):
        packed(
            saved(tmp_path, **{"user.weight": WEIGHTS}, optimizer={"user.weight": {"sum": 3}}),
            spec_of(AdagradOptions()),
        )
    with pytest.raises(ImportFailed, match=r"step is no count of steps"):
        packed(
            saved(tmp_path, **{"user.weight": WEIGHTS}, o={"user.weight": {"step": torch.rand(2)}}),
            spec_of(AdamOptions()),
        )
    torch.save(WEIGHTS, tmp_path / "bare.pt")
    with pytest.raises(ImportFailed, match=r"0 of its keys are those of user.weight"):
        packed(tmp_path / "bare.pt", spec_of(AdamOptions()))


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

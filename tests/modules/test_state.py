"""State dicts and checkpoints: both come back bit for bit, and training goes on from them to the same bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.modules import BadState, EmbeddingBags, NotFresh, StateTooLarge
from tests.e2e.command import here
from tests.modules.loops import assert_same_tables, tables_of
from tests.modules.small import TABLES, assert_same_rows, bags, batch, rows_of, train


def trained(steps: int, **settings: Any) -> EmbeddingBags:
    module = bags(**settings)
    for number in range(steps):
        train(module, number)
    return module


def through_a_file(state: Any) -> Any:
    """As people keep it, with nothing but tensors and plain values in it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("used", [False, True])
def test_a_state_dict_comes_back_bit_for_bit_and_training_goes_on_to_the_same_bits(used: bool) -> None:
    """As part of a model of the user's; into a fresh module, or one that has trained on something else."""
    with trained(12) as whole, trained(7) as first, bags() as second:
        kept = through_a_file(torch.nn.ModuleDict({"rows": first}).state_dict())
        if used:
            for number in range(3):
                train(second, 100 + number)
        torch.nn.ModuleDict({"rows": second}).load_state_dict(kept)
        assert second.step == 7
        assert_same_rows(first, second)
        for number in range(7, 12):
            train(second, number)
        assert_same_rows(whole, second)


def test_a_state_dict_taken_between_a_forward_and_its_backward_is_of_the_last_step() -> None:
    with trained(5) as plain, trained(5) as module:
        outs = module(batch(5))
        assert_same_rows(plain, module)
        sum(out.sum() for out in outs.values()).backward()
        assert module.step == 6


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    with trained(6) as source, trained(4) as module, bags(seed=6) as other_seed:
        good, before = source.state_dict(), rows_of(module)
        wrong: list[tuple[dict[str, Any], str]] = [
            ({key: value for key, value in good.items() if key != "user.weight"}, "Missing key"),
            ({**good, "user.weight": good["user.weight"].double()}, "torch.float64 of shape"),
            ({**good, "user.weight": good["user.weight"][1:]}, "user: weight is"),
            ({**good, "user.ids": good["user.ids"] * 0}, "an id occurs twice"),
            ({**good, "item.steps": good["item.steps"] + 6}, r"outside 1 .. 6"),
            ({**good, "user.more": good["user.ids"]}, "Unexpected key"),
        ]
        for state, said in wrong[:-1]:
            with pytest.raises(RuntimeError, match=said):
                module.load_state_dict(state)
            assert all(torch.equal(value, before[key]) for key, value in rows_of(module).items())
        with pytest.raises(RuntimeError, match="Unexpected key"):
            module.load_state_dict(wrong[-1][0])
        with pytest.raises(RuntimeError, match="rows never updated would differ"):
            other_seed.load_state_dict(good)


def test_more_rows_than_a_state_dict_holds_are_refused_and_saved() -> None:
    with trained(3, state_bytes=100) as module, pytest.raises(StateTooLarge, match=r"use save\(path\)"):
        module.state_dict()


def test_what_was_saved_comes_back_bit_for_bit_and_commands_take_it(tmp_path: Path) -> None:
    with trained(12) as whole, trained(7) as first, bags() as second:
        first.save(tmp_path / "saved")
        train(first, 50)
        second.load(tmp_path / "saved")
        assert second.step == 7
        for number in range(7, 12):
            train(second, number)
        assert_same_rows(whole, second)
        with pytest.raises(NotFresh, match="at step 12"):
            second.load(tmp_path / "saved")
    with EmbeddingBags({**TABLES, "item": {**TABLES["item"], "dim": 8}}, seed=5) as other:
        with pytest.raises(BadState, match="dim was 4 and is 8"):
            other.load(tmp_path / "saved")
        with pytest.raises(BadState, match="holds no"):
            other.load(tmp_path)
        assert other.step == 0
    assert here("verify", tmp_path / "saved").code == 0
    assert here("rows", tmp_path / "saved", "--table", "user", "--ids", "1", "2").code == 0
    assert here("export", tmp_path / "saved", "--table", "item", "--out", tmp_path / "item.npz").code == 0


def test_a_module_with_a_directory_saves_what_changed_and_answers_while_it_lives(tmp_path: Path) -> None:
    with bags(dir=tmp_path / "run", store={"l1_rows": 64, "ssd": {}}) as module:
        for number in range(10):
            train(module, number)
            if number % 3 == 2:
                module.save()
        module.save(tmp_path / "copy")
        shown = here("rows", tmp_path / "run", "--table", "user", "--ids", "1", "--json")
        assert shown.code == 0
        assert '"step": 10' in shown.text
        state = module.state_dict()
    assert_same_tables(tables_of(tmp_path / "run"), tables_of(tmp_path / "copy"))
    held = tables_of(tmp_path / "run")["item"]
    assert held["ids"].tobytes() == state["item.ids"].numpy().tobytes()
    assert held["weights"].tobytes() == state["item.weight"].numpy().tobytes()
    assert np.array_equal(held["version"][:, 1], state["item.steps"].numpy())
    assert here("verify", tmp_path / "run").code == 0

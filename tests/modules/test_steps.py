"""A step is one training forward and its backward; all else changes no row, counts as nothing and pins no more than one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline.modules import BackwardTwice, Closed, EmbeddingBags, Embeddings, GivenUp
from pipeline.store import L1TooSmall
from tests.modules.small import L1_ROWS, TABLES, assert_same_rows, bags, batch, loss, train


@pytest.fixture
def module() -> Iterator[EmbeddingBags]:
    with bags() as made:
        yield made


@pytest.fixture
def trained() -> Iterator[EmbeddingBags]:
    """Ten steps, nothing else."""
    with bags() as made:
        for number in range(10):
            train(made, number)
        yield made


def test_forwards_without_backward_change_nothing_and_leak_no_pins(
    module: EmbeddingBags, trained: EmbeddingBags
) -> None:
    """So many that their pins would fill L1."""
    for number in range(10):
        for skipped in range(6):
            outs = module(batch(1000 * number + skipped))
        train(module, number)
    assert outs["user"].requires_grad
    assert module.step == 10
    assert_same_rows(module, trained)
    module(batch(1))
    module.close()
    assert module._engine.store._residency.machine.num_pinned == 0


def test_backward_twice_is_an_error_and_updates_once(module: EmbeddingBags, trained: EmbeddingBags) -> None:
    for number in range(10):
        total = loss(module(batch(number)))
        total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        with pytest.raises(BackwardTwice, match=f"step {number + 1} a second time"):
            total.backward()  # type: ignore[no-untyped-call]
    assert_same_rows(module, trained)


def test_backward_behind_the_next_forward_is_an_error_and_the_next_one_trains(
    module: EmbeddingBags, trained: EmbeddingBags
) -> None:
    for number in range(10):
        first = loss(module(batch(number + 77)))
        second = loss(module(batch(number)))
        with pytest.raises(GivenUp, match="accumulate"):
            first.backward()  # type: ignore[no-untyped-call]
        second.backward()  # type: ignore[no-untyped-call]
    assert_same_rows(module, trained)


def test_evaluation_may_come_anywhere_and_reads_the_last_steps_end(
    module: EmbeddingBags, trained: EmbeddingBags
) -> None:
    for number in range(10):
        module.eval()
        before = module(batch(number))
        module.train()
        outs = module(batch(number))
        admitted = module._engine.store.counters.misses
        module.eval()
        between = module(batch(number))
        module(batch(number + 500))
        module.train()
        with torch.no_grad():
            module(batch(number + 600))
        assert module._engine.store.counters.misses == admitted
        loss(outs).backward()  # type: ignore[no-untyped-call]
        for name in TABLES:
            assert torch.allclose(before[name], outs[name], rtol=0, atol=1e-6)
            assert torch.equal(before[name], between[name])
            assert not between[name].requires_grad
    assert_same_rows(module, trained)


def test_announced_batches_change_no_bit_whatever_comes_instead(trained: EmbeddingBags) -> None:
    """In order, out of order, passed over, never used: and more of them than L1 has room for."""
    with bags(lookahead=3) as module:
        for number in range(10):
            taken = [module.prefetch(batch(number + later)) for later in (1, 0, 50 + number, 2)]
            assert module._engine.num_ahead <= 3
            assert number or taken == [True, True, True, False]
            if number % 4 == 3:
                module(batch(900 + number))
            train(module, number)
        assert_same_rows(module, trained)
        assert module._engine.counters["dropped"] > 0
        assert module._engine.counters["late"] > 0
        module.close()
        assert module._engine.store._residency.machine.num_pinned == 0


def test_an_announced_batch_is_found_in_l1(module: EmbeddingBags) -> None:
    assert module.prefetch(batch(3))
    module._engine._prefetch.run(lambda: None)
    misses = module._engine.store.counters.misses
    assert misses > 0
    train(module, 3)
    assert module._engine.store.counters.misses == misses


def test_a_batch_that_does_not_fit_is_an_error_and_the_next_one_trains(
    module: EmbeddingBags, trained: EmbeddingBags
) -> None:
    for number in range(10):
        assert module.prefetch(batch(number, samples=4 * L1_ROWS, ids=10**6))
        with pytest.raises(L1TooSmall):
            module(batch(number, samples=4 * L1_ROWS, ids=10**6))
        train(module, number)
    assert_same_rows(module, trained)


def test_weights_get_their_gradients_and_rows_those_of_weights(module: EmbeddingBags) -> None:
    ids, offsets = torch.tensor([3, 4, 3, -9]), torch.tensor([0, 2, 3])
    weights = torch.tensor([0.5, -2.0, 1.5, 3.0], requires_grad=True)
    rows_nd = torch.from_numpy(module.fetch_rows("user", ids.numpy()).weights_nd).requires_grad_()
    mine = weights.detach().clone().requires_grad_()
    bag_n = torch.tensor([0, 0, 1, 2])
    loss({"user": torch.zeros(3, 8).index_add(0, bag_n, rows_nd * mine[:, None])}).backward()  # type: ignore[no-untyped-call]
    one = torch.tensor([1])
    loss(
        {"user": module({"user": (ids, offsets, weights), "item": (one.expand(3), torch.arange(3))})["user"]}
    ).backward()  # type: ignore[no-untyped-call]
    assert mine.grad is not None
    assert weights.grad is not None
    assert rows_nd.grad is not None
    assert torch.allclose(weights.grad, mine.grad, rtol=0, atol=1e-6)
    gradient_of_3 = rows_nd.grad[0] + rows_nd.grad[2]
    after = module.fetch_rows("user", [3]).weights_nd[0]
    assert np.abs(after - (rows_nd.detach()[0] - 0.5 * gradient_of_3).numpy()).max() <= 1e-6


def test_it_agrees_with_torch(module: EmbeddingBags) -> None:
    """``nn.EmbeddingBag`` with the same initial rows and plain SGD, on the same calls."""
    known = np.arange(50)
    theirs = torch.nn.EmbeddingBag(50, 8, mode="sum")
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(module.fetch_rows("user", known).weights_nd))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    for number in range(20):
        rng = np.random.default_rng(number)
        ids, offsets = torch.from_numpy(rng.integers(0, 50, 12)), torch.tensor([0, 3, 3, 7])
        optimizer.zero_grad()
        expected = theirs(ids, offsets)
        out = module({"user": (ids, offsets), "item": (ids, offsets)})["user"]
        assert torch.allclose(out, expected, rtol=0, atol=1e-6)
        (0.01 * loss({"user": expected})).backward()  # type: ignore[no-untyped-call]
        (0.01 * loss({"user": out})).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = module.fetch_rows("user", known).weights_nd
    assert np.abs(after - theirs.weight.detach().numpy()).max() <= 1e-5


def test_rows_that_are_not_pooled_come_in_the_shape_of_their_ids() -> None:
    with Embeddings(TABLES, threads=2, store={"l1_rows": L1_ROWS}) as module:
        matrix = torch.tensor([[1, 2], [2, 5], [1, 1]])
        outs = module({"user": matrix, "item": torch.tensor([7, 8, 7])})
        assert {name: tuple(out.shape) for name, out in outs.items()} == {"user": (3, 2, 8), "item": (3, 4)}
        first = module.fetch_rows("user", matrix.reshape(-1).numpy()).weights_nd
        assert outs["user"].detach().reshape(-1, 8).numpy().tobytes() == first.tobytes()
        outs["user"].sum().backward()
        moved = first - module.fetch_rows("user", matrix.reshape(-1).numpy()).weights_nd
        assert np.allclose(moved[0], 3 * moved[3], rtol=0, atol=1e-3), "three occurrences, and one"
        assert module.step == 1


async def test_it_works_under_a_running_event_loop(module: EmbeddingBags, trained: EmbeddingBags) -> None:
    """As in a notebook."""
    assert asyncio.get_running_loop().is_running()
    for number in range(10):
        module.prefetch(batch(number + 1))
        train(module, number)
    assert_same_rows(module, trained)


def test_it_has_no_parameters_and_leaves_the_threads_of_others_alone() -> None:
    before = torch.get_num_threads()
    with bags(threads=1) as module:
        train(module, 1)
        assert list(module.parameters()) == []
    assert torch.get_num_threads() == before


def test_a_closed_module_says_so(module: EmbeddingBags) -> None:
    total = loss(module(batch(1)))
    module.close()
    module.close()
    with pytest.raises(GivenUp):
        total.backward()  # type: ignore[no-untyped-call]
    with pytest.raises(Closed):
        module(batch(1))

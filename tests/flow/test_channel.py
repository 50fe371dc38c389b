"""The channel: bounds, ends, cancellation, figures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from pipeline.flow import Channel, ClosedChannel, EndOfChannel
from tests.flow.samples import until

T = TypeVar("T")


@dataclass(frozen=True)
class Sized:
    nbytes: int


async def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has run up to its first wait."""
    task = asyncio.create_task(work)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_items_come_out_in_the_order_they_went_in() -> None:
    channel: Channel[int] = Channel("c", 10)
    for number in range(5):
        await channel.send(number)
    assert [await channel.receive() for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_a_full_channel_makes_the_sender_wait_for_a_receiver() -> None:
    channel: Channel[int] = Channel("c", 1)
    await channel.send(1)
    sender = await start(channel.send(2))
    assert not sender.done()
    assert await channel.receive() == 1
    await sender
    assert await channel.receive() == 2


async def test_the_byte_bound_holds_where_the_item_bound_does_not() -> None:
    channel: Channel[Sized] = Channel("c", 10, 100)
    await channel.send(Sized(60))
    sender = await start(channel.send(Sized(50)))
    assert not sender.done()
    await channel.receive()
    await sender
    assert channel.stats().bytes == 50


async def test_an_item_above_the_byte_bound_passes_alone() -> None:
    channel: Channel[Sized] = Channel("c", 10, 100)
    await channel.send(Sized(1000))
    sender = await start(channel.send(Sized(1)))
    assert not sender.done()
    assert (await channel.receive()).nbytes == 1000
    await sender


async def test_a_large_item_that_waits_is_not_overtaken_by_small_ones() -> None:
    channel: Channel[Sized] = Channel("c", 10, 100)
    await channel.send(Sized(60))
    large = await start(channel.send(Sized(90)))
    small = await start(channel.send(Sized(1)))
    assert not small.done()
    assert [(await channel.receive()).nbytes for _ in range(3)] == [60, 90, 1]
    await asyncio.gather(large, small)


async def test_a_small_sender_goes_on_when_the_large_one_before_it_is_cancelled() -> None:
    channel: Channel[Sized] = Channel("c", 10, 100)
    await channel.send(Sized(60))
    large = await start(channel.send(Sized(90)))
    small = await start(channel.send(Sized(1)))
    large.cancel()
    await small
    assert channel.stats().depth == 2


async def test_close_lets_what_was_sent_be_received_and_then_ends() -> None:
    channel: Channel[int] = Channel("c", 3)
    await channel.send(1)
    channel.close()
    channel.close()
    assert [item async for item in channel] == [1]
    with pytest.raises(EndOfChannel, match="'c'"):
        await channel.receive()


async def test_close_wakes_a_waiting_receiver_with_the_end() -> None:
    channel: Channel[int] = Channel("c", 3)
    receiver = await start(channel.receive())
    channel.close()
    with pytest.raises(EndOfChannel):
        await receiver


async def test_sending_into_a_closed_channel_is_refused_also_for_one_who_waits() -> None:
    channel: Channel[int] = Channel("c", 1)
    await channel.send(1)
    waiting = await start(channel.send(2))
    channel.close()
    with pytest.raises(ClosedChannel, match="closed"):
        await waiting
    with pytest.raises(ClosedChannel, match="closed"):
        await channel.send(3)
    assert [item async for item in channel] == [1]


async def test_abort_ends_both_sides_and_is_not_taken_for_an_end() -> None:
    channel: Channel[int] = Channel("c", 1)
    receiver = await start(channel.receive())
    channel.abort()
    with pytest.raises(ClosedChannel, match="aborted"):
        await receiver
    with pytest.raises(ClosedChannel, match="aborted"):
        await channel.send(1)
    with pytest.raises(ClosedChannel, match="aborted"):
        await channel.receive()


async def test_a_cancelled_receive_takes_nothing_even_when_it_was_woken_already() -> None:
    channel: Channel[int] = Channel("c", 3)
    first = await start(channel.receive())
    second = await start(channel.receive())
    await channel.send(1)
    first.cancel()
    assert await second == 1
    assert first.cancelled()


async def test_a_cancelled_send_sends_nothing() -> None:
    channel: Channel[int] = Channel("c", 1)
    await channel.send(1)
    sender = await start(channel.send(2))
    assert await channel.receive() == 1
    sender.cancel()
    await until(sender.done)
    await channel.send(3)
    assert await channel.receive() == 3


async def test_figures_count_waits_depth_and_items() -> None:
    channel: Channel[int] = Channel("c", 2)
    receiver = await start(channel.receive())
    assert channel.stats().receive_wait_s > 0, "a wait that has not ended counts"
    await channel.send(1)
    await receiver
    await channel.send(2)
    await channel.send(3)
    sender = await start(channel.send(4))
    assert channel.stats().send_wait_s > 0
    for _ in range(3):
        await channel.receive()
        await asyncio.sleep(0)
    await sender
    stats = channel.stats()
    assert (stats.items, stats.depth, stats.depth_max) == (4, 0, 2)
    assert 1 <= stats.depth_mean <= 2


@pytest.mark.parametrize(("items", "nbytes"), [(0, None), (1, 0)])
def test_a_bound_below_one_is_refused(items: int, nbytes: int | None) -> None:
    with pytest.raises(ValueError, match="least bound"):
        Channel("c", items, nbytes)

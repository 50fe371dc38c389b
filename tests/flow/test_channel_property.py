"""The channel against plain deques, under random senders, receivers, cancellations and closing."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import given, settings

from pipeline.flow import Channel, ClosedChannel, EndOfChannel

MAX_ITEMS, MAX_BYTES = 3, 100
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 150)),
        st.tuples(st.just("receive"), st.just(0)),
        st.tuples(st.just("cancel sender"), st.integers(0, 5)),
        st.tuples(st.just("cancel receiver"), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=60,
)


@dataclass(frozen=True)
class Item:
    number: int
    nbytes: int


class Model:
    """Drives one channel and keeps what a plain deque would hold."""

    def __init__(self) -> None:
        self.channel: Channel[Item] = Channel("c", MAX_ITEMS, MAX_BYTES)
        self.senders: list[tuple[Item, asyncio.Task[None]]] = []
        self.receivers: list[asyncio.Task[Item]] = []

    async def step(self, kind: str, value: int) -> None:
        if kind == "send":
            item = Item(len(self.senders), value)
            self.senders.append((item, asyncio.create_task(self.channel.send(item))))
        elif kind == "receive":
            self.receivers.append(asyncio.create_task(self.channel.receive()))
        elif kind == "cancel sender" and value < len(self.senders):
            self.senders[-1 - value][1].cancel()
        elif kind == "cancel receiver" and value < len(self.receivers):
            self.receivers[-1 - value].cancel()
        else:
            for _ in range(value):
                await asyncio.sleep(0)
        self.check_bounds()

    def check_bounds(self) -> None:
        held = list(self.channel.queue)
        assert self.channel.stats().bytes == sum(item.nbytes for item in held)
        assert len(held) <= MAX_ITEMS
        assert len(held) <= 1 or sum(item.nbytes for item in held) <= MAX_BYTES

    async def settle(self) -> None:
        """Let everything run that can. Then nobody may wait for what is there."""
        for _ in range(30):
            await asyncio.sleep(0)
        if any(not task.done() for task in self.receivers):
            assert not self.channel.queue, "a receiver waits beside items"
        waiting = [item for item, task in self.senders if not task.done()]
        held = list(self.channel.queue)
        if waiting:
            full = len(held) == MAX_ITEMS or sum(i.nbytes for i in held) + waiting[0].nbytes > MAX_BYTES
            assert held, "a sender waits before an empty channel"
            assert full, "a sender waits beside room"

    async def finish(self) -> None:
        """Receive what is left, close, and compare: every item that was sent came out once, in the order of sending."""
        rest: list[Item] = []
        while self.channel.queue or any(not task.done() for _, task in self.senders):
            rest.append(await self.channel.receive())
            await asyncio.sleep(0)
        self.channel.close()
        got = await asyncio.gather(*self.receivers, return_exceptions=True)
        await asyncio.gather(*(task for _, task in self.senders), return_exceptions=True)
        received = [item for item in got if isinstance(item, Item)] + rest
        assert all(isinstance(item, (Item, EndOfChannel, asyncio.CancelledError)) for item in got)
        sent = deque(item for item, task in self.senders if not task.cancelled())
        assert sorted(item.number for item in received) == [item.number for item in sent]


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_no_item_is_lost_doubled_or_held_up_whatever_the_interleaving(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        model = Model()
        for kind, value in steps:
            await model.step(kind, value)
        await model.settle()
        await model.finish()

    asyncio.run(main())


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(0, 150), max_size=40), turns=st.lists(st.integers(0, 2), min_size=80, max_size=80))
def test_one_sender_and_one_receiver_keep_the_order(sizes: list[int], turns: list[int]) -> None:
    items = [Item(number, size) for number, size in enumerate(sizes)]

    async def main() -> list[Item]:
        channel: Channel[Item] = Channel("c", MAX_ITEMS, MAX_BYTES)
        pauses = iter(turns)

        async def send() -> None:
            for item in items:
                for _ in range(next(pauses)):
                    await asyncio.sleep(0)
                await channel.send(item)
            channel.close()

        sender = asyncio.create_task(send())
        received = []
        async for item in channel:
            received.append(item)
            for _ in range(next(pauses)):
                await asyncio.sleep(0)
        await sender
        return received

    assert asyncio.run(main()) == items


@settings(max_examples=50, deadline=None)
@given(waiting=st.integers(1, 5), held=st.integers(0, MAX_ITEMS))
def test_abort_leaves_nobody_waiting(waiting: int, held: int) -> None:
    async def main() -> None:
        channel: Channel[Item] = Channel("c", MAX_ITEMS, MAX_BYTES)
        for number in range(held):
            await channel.send(Item(number, 1))
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(channel.receive()) for _ in range(held + waiting)]
        await asyncio.sleep(0)
        channel.abort()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, ClosedChannel) for result in got) == waiting

    asyncio.run(main())

"""One reader's connection to JetStream: a consumer that lives as long as it is asked. See ``broker.Reader``.

It asks for one message first, and with that learns how many wait; then for so many at once as `read_bytes` surely hold. So each request
ends by itself, and what was published before it is in its answer. Where none comes it makes another consumer, behind the last message that
came: server 2.9 now and then leaves a consumer without answers from a request on that runs out just when a message comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from pipeline.wire.broker.broker import StreamState
from pipeline.wire.broker.entries import Entry
from pipeline.wire.errors import BrokerUnreachable, TransportError
from pipeline.wire.nats.connection import START, Failures, connect, explain_api, is_absent, jetstream, place_of
from pipeline.wire.nats.loop import LoopThread
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.nats.stream import look, state_of

MOST_MESSAGES = 1024
LONGEST_REQUEST_S = 30.0
CONSUMER_S = 120.0
"""A consumer that nobody asks for so long is removed by the server; the reader then makes another."""
ANSWER_S, ANSWERS = 0.25, 4
"""A consumer is given up whose answer has not come so long behind a request's own end, and so many times what an answer took at first."""
LEAVE_S = 1.0
ENDS = ("404", "408")
TOO_LARGE = "exceeds"


class NatsReader:
    def __init__(self, loop: LoopThread, options: NatsOptions) -> None:
        self._loop, self._options, self._place = loop, options, place_of(options)
        self._client: Client | None = None
        self._consumer, self._inbox = "", ""
        self._requests = 0
        self._stamp = 0
        self._after: int | None = None
        self._subject: str | None = None
        self._heard: Subscription | None = None
        self._answer_s = ANSWER_S
        self._silent = False
        """No answer came to the last request."""
        self._most_bytes = 1
        """Of a message, as the server lets them be."""
        self._came: list[Msg] = []
        self._changed: asyncio.Event | None = None
        self._lost = self._woken = False

    def open(self, after: int | None) -> StreamState | None:
        return self._loop.run(self._open(after, None))

    def open_part(self, subject: str) -> None:
        """Read the messages of one subject, from the oldest."""
        self._loop.run(self._open(None, subject))

    def read(self, timeout: float) -> list[Entry]:
        return self._loop.run(self._read(timeout))

    def wake(self) -> None:
        self._loop.call(self._wake)

    def close(self) -> None:
        try:
            self._loop.run(self._disconnect())
        except TransportError:
            return  # the loop was closed, and with it the connection

    def _wake(self) -> None:
        self._woken = True
        if self._changed is not None:
            self._changed.set()

    def _lose(self) -> None:
        self._lost = True
        if self._changed is not None:
            self._changed.set()

    async def _open(self, after: int | None, subject: str | None) -> StreamState | None:
        await self._disconnect()
        self._lost, self._came, self._changed = False, [], asyncio.Event()
        self._after, self._subject, self._silent = after, subject, False
        client = self._client = await connect(self._options, self._lose)
        js = jetstream(client, self._options)
        asked_s = time.monotonic()
        info = await look(js, self._options, self._place)
        self._answer_s = min(ANSWER_S + ANSWERS * (time.monotonic() - asked_s), self._options.timeout_s)
        if info is None:
            await self._disconnect()
            return None
        state = state_of(info)
        self._most_bytes, self._stamp = max(1, client.max_payload), state.stamp
        return state if await self._consume(js, state.last) else None

    async def _consume(self, js: JetStreamContext, last: int) -> bool:
        """Make a consumer that begins behind what came; False, and disconnected, where the stream is gone."""
        assert self._client is not None
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL if self._after is None else DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=None if self._after is None else min(self._after, last) + 1,
            ack_policy=AckPolicy.NONE,
            filter_subject=self._subject,
            inactive_threshold=CONSUMER_S,
            mem_storage=True,
            num_replicas=1,
        )
        try:
            self._consumer = (await js.add_consumer(self._options.stream, config)).name
            self._inbox = self._client.new_inbox()
            self._heard = await self._client.subscribe(f"{self._inbox}.*", cb=self._take)
        except Failures as error:
            if is_absent(error):
                await self._disconnect()
                return False
            raise explain_api(error, self._place) from None
        return True

    async def _renew(self) -> None:
        """Give the consumer up that does not answer, and make another. Raises BrokerUnreachable."""
        client, consumer, heard = self._client, self._consumer, self._heard
        if client is None or heard is None or self._lost:
            raise BrokerUnreachable(self._place, "the connection was lost", START)
        with contextlib.suppress(*Failures):  # else the server removes it by itself
            await heard.unsubscribe()
            await client.jetstream(timeout=LEAVE_S).delete_consumer(self._options.stream, consumer)
        js = jetstream(client, self._options)
        info = await look(js, self._options, self._place)
        state = None if info is None else state_of(info)
        if state is None or state.stamp != self._stamp or not await self._consume(js, state.last):
            raise BrokerUnreachable(self._place, "the stream is not the one that was read", "the reader looks again")

    async def _take(self, message: Msg) -> None:
        assert self._changed is not None
        self._came.append(message)
        if message.reply:
            self._after = message.metadata.sequence.stream
        self._changed.set()

    async def _read(self, patience_s: float) -> list[Entry]:
        if self._silent:
            await self._renew()
        found = await self._ask({"batch": 1, "no_wait": True}, 0)
        deadline = time.monotonic() + self._options.timeout_s
        while self._silent and not self._woken:
            # Only an answer says that nothing is there.
            if time.monotonic() >= deadline:
                raise BrokerUnreachable(self._place, "no answer to a reader's request", START)
            await self._renew()
            found = await self._ask({"batch": 1, "no_wait": True}, 0)
        if not found:
            wait_s = min(patience_s, LONGEST_REQUEST_S)
            if wait_s <= 0 or self._woken:
                return []
            found = await self._ask({"batch": 1, "expires": int(wait_s * 1e9)}, wait_s)
        if not found:
            return []
        waiting = found[-1].metadata.num_pending
        if waiting:
            # Not by `max_bytes`: server 2.9 lets a request that has used them up go without an answer.
            most = max(1, int(self._options.read_bytes) // self._most_bytes)
            found += await self._ask({"batch": min(waiting, MOST_MESSAGES, most), "expires": int(1e9)}, 1)
        return [_entry(message) for message in found]

    async def _ask(self, request: dict[str, Any], wait_s: float) -> list[Msg]:
        """The messages that one request brings. Raises BrokerUnreachable."""
        client = self._client
        if client is None or self._lost:
            raise BrokerUnreachable(self._place, "the connection was lost", START)
        self._requests += 1
        inbox = f"{self._inbox}.{self._requests}"
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._options.stream}.{self._consumer}"
        try:
            await client.publish(subject, json.dumps(request).encode(), reply=inbox)
        except Failures as error:
            raise explain_api(error, self._place) from None
        return await self._gather(inbox, request["batch"], time.monotonic() + wait_s)

    async def _gather(self, inbox: str, batch: int, end_s: float) -> list[Msg]:
        """``end_s``: when the server has to answer, whatever comes."""
        assert self._changed is not None
        answer_s = end_s + self._answer_s
        self._silent = False
        found: list[Msg] = []
        while True:
            came, self._came = self._came, []
            for message in came:
                if message.reply:  # a message of the stream, under its own subject
                    found.append(message)
                elif message.subject == inbox:
                    self._judge(message)
                    return found
            if len(found) >= batch:
                return found
            if self._lost:
                raise BrokerUnreachable(self._place, "the connection was lost", START)
            if self._woken:
                return found
            self._changed.clear()
            if self._came:
                continue
            try:
                await asyncio.wait_for(self._changed.wait(), max(answer_s - time.monotonic(), 0.001))
            except TimeoutError:
                self._silent = True
                return found

    def _judge(self, message: Msg) -> None:
        """A message that ends a request: what it waited for did not come, or the consumer is gone."""
        status, said = ((message.headers or {}).get(name, "") for name in ("Status", "Description"))
        if status in ENDS or TOO_LARGE in said.lower():
            return
        raise BrokerUnreachable(self._place, f"JetStream says: {said or status}", "the reader asks again")

    async def _disconnect(self) -> None:
        client, consumer, self._client, self._consumer = self._client, self._consumer, None, ""
        if client is None:
            return
        if consumer and client.is_connected and not self._lost:
            with contextlib.suppress(*Failures):  # else the server removes it by itself
                js = client.jetstream(timeout=LEAVE_S)
                await js.delete_consumer(self._options.stream, consumer)
        with contextlib.suppress(*Failures):
            await client.close()


def _entry(message: Msg) -> Entry:
    label = ".".join((message.headers or {}).get("Nats-Msg-Id", "").split(".")[3:])
    return Entry(message.metadata.sequence.stream, label, message.data)

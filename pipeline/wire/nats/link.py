"""The writer's connection to JetStream. See ``broker.Link``.

How order is kept. A message says which message must be the last of the stream, and which the last of its subject, the part. So it is
stored right behind the one before it, or not at all; a message that an earlier connection still carries finds another last message, or,
where numbers happen to fit, another last message of its part: each ``resync`` begins a new part, and a part begins only when everything
before it is acknowledged. A claim is a message too: of two writers that claim at once one finds another last message.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg, StreamInfo
from nats.js.errors import APIError

from pipeline.wire.broker.broker import Resynced, StreamState
from pipeline.wire.broker.entries import CLAIM, Entry, split
from pipeline.wire.errors import BrokerUnreachable, StreamLost, TransportError, WriterFenced
from pipeline.wire.nats.acks import Acks, NotTaken, OutOfStep
from pipeline.wire.nats.connection import WRONG_LAST, Failures, connect, explain_api, is_absent, jetstream, place_of
from pipeline.wire.nats.loop import LoopThread
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.nats.stream import Owner, find_or_make, look, owner_of, state_of, subject_of

HEADER_BYTES = 1024
"""More than the headers of a message take, which count towards the server's limit."""
CLAIM_ATTEMPTS = 20
NO_MESSAGE = 10037


class NatsLink:
    def __init__(self, loop: LoopThread, options: NatsOptions, generation: int, token: str) -> None:
        """``generation`` 0: claims whoever has claimed before. ``token`` tells this writer's own claims from others."""
        self.payload_bytes = 0
        self._loop, self._options, self._generation = loop, options, generation
        self._token = token
        self._place = place_of(options)
        self._client: Client | None = None
        self._acks: Acks | None = None
        self._reply = ""
        self._owner = Owner(0, generation, 0)
        self._subject, self._subject_last = "", 0
        self._acknowledged, self._stamp = 0, 0

    @property
    def acknowledged(self) -> int:
        return self._acknowledged if self._acks is None else self._acks.acknowledged

    def claim(self, *, lost: StreamState | None = None) -> StreamState:
        return self._loop.run(self._claim(lost))

    def begin_part(self) -> None:
        self._owner = self._owner._replace(part=self._owner.part + 1)
        self._subject, self._subject_last = subject_of(self._options.stream, self._owner), 0

    def send(self, entries: Sequence[Entry]) -> None:
        self._loop.run(self._send(entries))

    def wait(self, number: int) -> None:
        if self.acknowledged < number:
            self._loop.run(self._wait(number))

    def resync(self) -> Resynced:
        return self._loop.run(self._resync())

    def trim(self, number: int) -> int:
        return self._loop.run(self._trim(number))

    def abort(self) -> None:
        self._loop.call(self._lose)

    def close(self) -> None:
        self._loop.run(self._disconnect())

    async def _claim(self, lost: StreamState | None) -> StreamState:
        js = await self._connect()
        if lost is not None:
            await self._remove(js, lost)
        for _ in range(CLAIM_ATTEMPTS):
            info = await find_or_make(js, self._options, self._place)
            state = state_of(info)
            await self._refuse_older(js, state.last)
            self._owner = Owner(state.last + 1, self._generation, 0)
            if await self._record(js, state.last):
                self._stamp, self._acknowledged = state.stamp, state.last + 1
                await self._hear()
                return StreamState(state.epoch, state.stamp, state.first, state.last + 1)
        raise BrokerUnreachable(self._place, "others keep writing", "one trainer writes a stream: stop the others")

    async def _remove(self, js: JetStreamContext, lost: StreamState) -> None:
        """A stream that lost entries is no stream for anybody any more; unless another writer has claimed it since."""
        info = await look(js, self._options, self._place)
        if info is None or state_of(info).stamp != lost.stamp:
            return
        await self._refuse_older(js, info.state.last_seq)
        try:
            await js.delete_stream(self._options.stream)
        except Failures as error:
            raise explain_api(error, self._place) from None

    async def _refuse_older(self, js: JetStreamContext, last: int) -> None:
        """A claim of this writer's own, whose acknowledgement was lost, is none of another."""
        found = await self._message(js, last)
        owner = None if found is None else owner_of(self._place, found.subject or "")
        if owner is None or not self._generation or owner.generation < self._generation:
            return
        record = await self._message(js, owner.claim)
        if record is None or self._token.encode() not in (record.data or b""):
            raise WriterFenced(
                self._place, f"generation {owner.generation} has claimed this stream, and this is {self._generation}"
            )

    async def _record(self, js: JetStreamContext, last: int) -> bool:
        """Append the record of a claim, or of coming back; False where message ``last`` is not the last one any more."""
        self._subject, self._subject_last = subject_of(self._options.stream, self._owner), 0
        who = {"host": socket.gethostname(), "pid": os.getpid(), "generation": self._generation, "token": self._token}
        (entry,) = split(CLAIM, json.dumps(who).encode(), last, 1024)
        try:
            ack = await js.publish(self._subject, entry.payload, headers=self._headers(entry))
        except APIError as error:
            if error.err_code == WRONG_LAST:
                return False
            raise explain_api(error, self._place) from None
        except Failures as error:
            raise explain_api(error, self._place) from None
        self._subject_last = ack.seq
        return True

    async def _hear(self) -> None:
        """Acknowledgements of what is sent from here on go to a place of their own."""
        assert self._client is not None
        acks = self._acks = Acks(self._place, self._acknowledged)
        self._reply = self._client.new_inbox()
        await self._client.subscribe(f"{self._reply}.*", cb=acks.take)

    def _headers(self, entry: Entry) -> dict[str, str]:
        owner = self._owner
        return {
            "Nats-Msg-Id": f"{owner.claim}.{owner.part}.{entry.number}.{entry.label}",
            "Nats-Expected-Last-Sequence": str(entry.number - 1),
            "Nats-Expected-Last-Subject-Sequence": str(self._subject_last),
        }

    async def _send(self, entries: Sequence[Entry]) -> None:
        client, acks = self._client, self._acks
        if client is None or acks is None:
            raise BrokerUnreachable(self._place, "the connection was lost", "it is made again")
        for entry in entries:
            if acks.error is not None:
                raise await self._told(acks.error)
            headers = self._headers(entry)
            try:
                await client.publish(
                    self._subject, entry.payload, reply=f"{self._reply}.{entry.number}", headers=headers
                )
            except Failures as error:
                raise explain_api(error, self._place) from None
            self._subject_last = entry.number

    async def _wait(self, number: int) -> None:
        if self._acks is None:
            raise BrokerUnreachable(self._place, "the connection was lost", "it is made again")
        try:
            await self._acks.reach(number, self._options.timeout_s)
        except TransportError as error:
            raise await self._told(error) from None

    async def _told(self, error: TransportError) -> TransportError:
        """What an error is about, where another writer or a lost stream may be behind it."""
        if self._client is None or not isinstance(error, (OutOfStep, NotTaken)):
            return error
        try:
            js = jetstream(self._client, self._options)
            await self._check_ours(js, await self._known(js))
        except TransportError as found:
            return found
        return error

    async def _known(self, js: JetStreamContext) -> StreamInfo:
        """The stream that was claimed. Raises StreamLost."""
        info = await look(js, self._options, self._place)
        if info is None:
            raise StreamLost(self._place, "the broker has no such stream any more")
        state = state_of(info)
        if state.stamp != self._stamp:
            raise StreamLost(self._place, "the broker has another stream of this name")
        if state.last < self.acknowledged:
            raise StreamLost(self._place, f"the stream ends at {state.last}; {self.acknowledged} was acknowledged")
        return info

    async def _check_ours(self, js: JetStreamContext, info: StreamInfo) -> None:
        found = await self._message(js, info.state.last_seq)
        if found is None:
            raise StreamLost(self._place, "somebody removed the stream's messages")
        owner = owner_of(self._place, found.subject or "")
        if owner.claim != self._owner.claim:
            raise WriterFenced(
                self._place, f"generation {owner.generation} has claimed this stream at message {owner.claim}"
            )

    async def _message(self, js: JetStreamContext, number: int) -> RawStreamMsg | None:
        """None where it is not there."""
        if not number:
            return None
        try:
            return await js.get_msg(self._options.stream, seq=number)
        except Failures as error:
            if is_absent(error) or getattr(error, "err_code", 0) == NO_MESSAGE:
                return None
            raise explain_api(error, self._place) from None

    async def _resync(self) -> Resynced:
        self._acknowledged = self.acknowledged
        await self._disconnect()
        js = await self._connect()
        for _ in range(CLAIM_ATTEMPTS):
            info = await self._known(js)
            await self._check_ours(js, info)
            last = info.state.last_seq
            self._owner = self._owner._replace(part=self._owner.part + 1)
            if await self._record(js, last):
                self._acknowledged = last + 1
                await self._hear()
                return Resynced(last, last + 1)
        raise BrokerUnreachable(self._place, "messages sent before keep arriving", "try again")

    async def _trim(self, number: int) -> int:
        client = self._client
        if client is None:
            raise BrokerUnreachable(self._place, "the connection was lost", "it is made again")
        js = jetstream(client, self._options)
        before = await self._known(js)
        if before.state.first_seq >= number:
            return 0
        try:
            await js.purge_stream(self._options.stream, seq=number)
        except Failures as error:
            raise explain_api(error, self._place) from None
        return before.state.bytes - (await self._known(js)).state.bytes

    async def _connect(self) -> JetStreamContext:
        client = self._client = await connect(self._options, self._lose)
        self.payload_bytes = client.max_payload - HEADER_BYTES
        return jetstream(client, self._options)

    def _lose(self) -> None:
        if self._acks is not None:
            self._acks.lose()

    async def _disconnect(self) -> None:
        client, self._client, self._acks = self._client, None, None
        if client is not None:
            with contextlib.suppress(*Failures):  # it was lost already
                await client.close()

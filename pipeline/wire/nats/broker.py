"""NATS JetStream as a ``broker.Broker``: what a transport is made of."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from pipeline.wire.broker.broker import StreamState
from pipeline.wire.broker.entries import Entry
from pipeline.wire.nats.connection import Failures, connect, explain_api, is_absent, jetstream, place_of
from pipeline.wire.nats.link import NatsLink
from pipeline.wire.nats.loop import LoopThread
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.nats.reader import NatsReader
from pipeline.wire.nats.stream import Owner, look, owner_of, root, state_of, subject_of


class NatsBroker:
    kind = "nats"

    def __init__(self, options: NatsOptions, generation: int = 0) -> None:
        """``generation`` of the trainer that may claim; 0: of nobody, who claims from anybody."""
        self.place = place_of(options)
        self._options, self._generation = options, generation
        self._loop, self._token = LoopThread(self.place), uuid.uuid4().hex

    def look(self) -> StreamState | None:
        return self._loop.run(self._look())

    async def _look(self) -> StreamState | None:
        client = await connect(self._options, lambda: None)
        try:
            info = await look(jetstream(client, self._options), self._options, self.place)
            return None if info is None else state_of(info)
        finally:
            await client.close()

    def link(self) -> NatsLink:
        return NatsLink(self._loop, self._options, self._generation, self._token)

    def reader(self) -> NatsReader:
        return NatsReader(self._loop, self._options)

    def parts(self) -> Iterator[list[Entry]]:
        for owner in sorted(self._loop.run(self._owners()), reverse=True):
            with contextlib.closing(NatsReader(self._loop, self._options)) as reader:
                reader.open_part(subject_of(self._options.stream, owner))
                entries: list[Entry] = []
                while some := reader.read(0):
                    entries += some
            yield entries

    async def _owners(self) -> list[Owner]:
        client = await connect(self._options, lambda: None)
        try:
            js = jetstream(client, self._options)
            if await look(js, self._options, self.place) is None:
                return []
            info = await js.stream_info(self._options.stream, subjects_filter=f"{root(self._options.stream)}.>")
            return [owner_of(self.place, subject) for subject in info.state.subjects or ()]
        finally:
            await client.close()

    def remove(self) -> None:
        self._loop.run(self._remove())

    async def _remove(self) -> None:
        client = await connect(self._options, lambda: None)
        try:
            await jetstream(client, self._options).delete_stream(self._options.stream)
        except Failures as error:
            if not is_absent(error):
                raise explain_api(error, self.place) from None
        finally:
            await client.close()

    def close(self) -> None:
        self._loop.close()

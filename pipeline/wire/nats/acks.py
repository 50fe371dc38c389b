"""The acknowledgements of one writer's messages, as they come: in order, or the first error."""

from __future__ import annotations

import asyncio
import json

from nats.aio.msg import Msg

from pipeline.wire.errors import BrokerUnreachable, TransportError
from pipeline.wire.nats.connection import START, WRONG_LAST, explain_code


class OutOfStep(BrokerUnreachable):
    """A message was not the next one of the stream: one before it failed, or somebody else has written."""


class NotTaken(BrokerUnreachable):
    """Nobody takes messages for this stream."""


class Acks:
    """Lives on the loop. ``acknowledged`` may be read anywhere."""

    def __init__(self, place: str, acknowledged: int) -> None:
        self.acknowledged = acknowledged
        self.error: TransportError | None = None
        self._place = place
        self._changed = asyncio.Event()

    async def take(self, message: Msg) -> None:
        """A reply to the message whose number ends the reply's subject."""
        number = int(message.subject.rpartition(".")[2])
        if message.headers is not None and message.headers.get("Status") == "503":
            self._fail(
                BrokerUnreachable(self._place, "JetStream took no message", "see whether the stream is still there")
            )
            return
        reply = json.loads(message.data)
        if "error" in reply:
            code, description = int(reply["error"].get("err_code", 0)), str(reply["error"].get("description", ""))
            if code == WRONG_LAST:
                self._fail(OutOfStep(self._place, f"message {number} is not the next one of the stream", "try again"))
            else:
                self._fail(explain_code(code, description, self._place))
        elif int(reply["seq"]) != number:
            self._fail(OutOfStep(self._place, f"message {number} was stored as {reply['seq']}", "try again"))
        else:
            self.acknowledged = max(self.acknowledged, number)
            self._changed.set()

    def lose(self) -> None:
        """The connection is gone."""
        self._fail(BrokerUnreachable(self._place, "the connection was lost", START))

    def _fail(self, error: TransportError) -> None:
        self.error = self.error or error  # the first one tells why the others came
        self._changed.set()

    async def reach(self, number: int, patience_s: float) -> None:
        """Wait until ``number`` is acknowledged, ``patience_s`` for each step on the way. Raises the first error."""
        while self.acknowledged < number:
            if self.error is not None:
                raise self.error
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), patience_s)
            except TimeoutError:
                raise BrokerUnreachable(
                    self._place, f"no acknowledgement for {patience_s:g} s", "see whether the server is well"
                ) from None

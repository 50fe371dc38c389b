"""The JetStream stream of a transport: its name and subjects, how it is made, and what it must be like.

One stream for each shard of a run. Its messages lie under ``rowstream.STREAM.CLAIM.GENERATION.PART``: CLAIM is the number of the
message with which their writer claimed the stream, PART counts the parts of that writer. So the last message tells who may write, and
the subjects tell the parts.
"""

from __future__ import annotations

import datetime
import uuid
from typing import NamedTuple

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError

from pipeline.wire.broker.broker import StreamState
from pipeline.wire.errors import BrokerRefuses, NotDurable, StreamCorrupt
from pipeline.wire.nats.connection import Failures, explain_api, is_absent
from pipeline.wire.nats.options import NatsOptions

EPOCH = "rowstream epoch "
BEGINNING = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MICROSECOND = datetime.timedelta(microseconds=1)


class Owner(NamedTuple):
    """Who wrote a message."""

    claim: int
    generation: int
    part: int


def root(stream: str) -> str:
    return f"rowstream.{stream}"


def subject_of(stream: str, owner: Owner) -> str:
    return f"{root(stream)}.{owner.claim}.{owner.generation}.{owner.part}"


def owner_of(place: str, subject: str) -> Owner:
    """Raises StreamCorrupt."""
    parts = subject.split(".")[-3:]
    if len(parts) == 3 and all(part.isdecimal() for part in parts):
        return Owner(*map(int, parts))
    raise StreamCorrupt(place, 0, 0, f"the subject {subject[:80]!r} is no writer's", unit="message")


def state_of(info: StreamInfo) -> StreamState:
    created = info.created or BEGINNING
    stamp = (created - BEGINNING) // MICROSECOND
    epoch = (info.config.description or "").removeprefix(EPOCH)[:64] or f"{stamp}"
    state = info.state
    return StreamState(f"{epoch}.{stamp}", stamp, max(state.first_seq, 1), state.last_seq)


async def look(js: JetStreamContext, options: NatsOptions, place: str) -> StreamInfo | None:
    """None where there is none. Raises BrokerUnreachable and others."""
    try:
        return await js.stream_info(options.stream)
    except Failures as error:
        if is_absent(error):
            return None
        raise explain_api(error, place) from None


async def find_or_make(js: JetStreamContext, options: NatsOptions, place: str) -> StreamInfo:
    """The stream, checked. Raises NotDurable, BrokerRefuses and what ``look`` raises."""
    info = await look(js, options, place)
    if info is None:
        try:
            await js.add_stream(_wanted(options))
        except Failures as error:
            if isinstance(error, APIError) and error.err_code not in (None, 10058):  # made by somebody else meanwhile
                raise BrokerRefuses(place, f"the stream cannot be made: {error.description}", _hint(options)) from None
            if not isinstance(error, APIError):
                raise explain_api(error, place) from None
        info = await look(js, options, place)
        assert info is not None
    _check(info.config, options, place)
    return info


def _wanted(options: NatsOptions) -> StreamConfig:
    return StreamConfig(
        name=options.stream,
        description=EPOCH + uuid.uuid4().hex[:16],
        subjects=[f"{root(options.stream)}.>"],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        max_bytes=-1 if options.max_bytes is None else int(options.max_bytes),
        num_replicas=options.replicas,
    )


def _hint(options: NatsOptions) -> str:
    return f"a stream has files (nats-server -js -sd DIR) and the subjects {root(options.stream)}.>"


def _check(config: StreamConfig, options: NatsOptions, place: str) -> None:
    wanted = [f"{root(options.stream)}.>"]
    if list(config.subjects or ()) != wanted:
        raise BrokerRefuses(
            place, f"the stream there has the subjects {config.subjects}", f"name another one; ours has {wanted}"
        )
    if config.retention not in (None, RetentionPolicy.LIMITS):
        raise BrokerRefuses(place, f"the stream's retention is {config.retention}", "make it one of limits")
    limited = [
        name
        for name, value in (("max_age", config.max_age), ("max_msgs", config.max_msgs), ("max_bytes", config.max_bytes))
        if value is not None and value > 0
    ]
    if config.discard != DiscardPolicy.NEW and (limited or (config.max_msgs_per_subject or 0) > 0):
        raise BrokerRefuses(
            place,
            f"the stream drops its oldest messages beyond {', '.join(limited) or 'max_msgs_per_subject'}",
            "make it discard new ones instead, or have no limit: retention is the writer's business",
        )
    if config.max_age is not None and config.max_age > 0:
        raise BrokerRefuses(
            place, "the stream drops messages by age", "have no max_age: retention is the writer's business"
        )
    if config.storage == StorageType.MEMORY and options.durability != "any":
        raise NotDurable(place, "the stream is kept in memory", "make one with files")

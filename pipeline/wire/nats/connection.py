"""A connection to a NATS server, and what its errors mean. It is made once and not again by itself: who uses it decides."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.errors import (
    AuthorizationError,
    ConnectionClosedError,
    MaxPayloadError,
    NoServersError,
    SecureConnRequiredError,
)
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from pipeline.wire.broker.secrets import read_secret
from pipeline.wire.errors import (
    BrokerRefuses,
    BrokerUnreachable,
    StreamFull,
    StreamLost,
    TransportError,
)
from pipeline.wire.nats.options import NatsOptions

START = "start one with `nats-server -js -sd DIR`, or say where it is in the transport's url"
PING_S = 5
WRONG_LAST = 10071
FULL = (10077, 10047, 10023, 10048)
"""Maximum bytes exceeded; no storage, no resources, no memory left on the server."""
ABSENT = 10059
Failures = (nats.errors.Error, OSError, TimeoutError)
"""What a call of the client may raise."""


def place_of(options: NatsOptions) -> str:
    """Where a stream is, for people."""
    parts = urlsplit(options.url)
    return f"nats://{parts.hostname}:{parts.port or 4222}/{options.stream}"


async def connect(options: NatsOptions, on_lost: Callable[[], None]) -> Client:
    """``on_lost`` is called on the loop when the connection is gone. Raises BrokerUnreachable, BrokerRefuses, TransportError."""
    place = place_of(options)
    said: list[Exception] = []

    async def note(error: Exception) -> None:
        said.append(error)

    async def lost() -> None:
        on_lost()

    client = Client()
    try:
        await asyncio.wait_for(
            client.connect(
                options.url,
                allow_reconnect=False,
                connect_timeout=max(1, round(options.timeout_s)),
                max_reconnect_attempts=1,  # 0 means without end
                reconnect_time_wait=0,
                ping_interval=PING_S,
                max_outstanding_pings=2,
                error_cb=note,
                disconnected_cb=lost,
                closed_cb=lost,
                name="rowstream",
                **_credentials(options, place),
                **_tls(options, place),
            ),
            options.timeout_s + 1,
        )
    except TransportError:
        raise
    except (TimeoutError, OSError, nats.errors.Error) as error:
        await _forget(client)
        raise _explain([error, *said], place) from None
    return client


async def _forget(client: Client) -> None:
    try:
        await asyncio.wait_for(client.close(), 1)
    except (TimeoutError, OSError, nats.errors.Error, AttributeError):
        return  # it never was a connection


def _explain(errors: list[Exception], place: str) -> TransportError:
    text = " ".join(f"{type(error).__name__} {error}" for error in errors).lower()
    if (
        any(isinstance(error, AuthorizationError) for error in errors)
        or "authorization" in text
        or "authentication" in text
    ):
        return BrokerRefuses(
            place, "the server refuses these credentials", "name the right ones in the transport's credentials"
        )
    if any(isinstance(error, SecureConnRequiredError) for error in errors) or "tls" in text or "secure" in text:
        return BrokerRefuses(place, f"no encrypted connection ({errors[0]})", "see the transport's tls")
    if any(isinstance(error, ssl.SSLError) for error in errors):
        return BrokerRefuses(place, f"no encrypted connection ({errors[0]})", "see the transport's tls")
    told = [error for error in errors if str(error) and not isinstance(error, (asyncio.TimeoutError, NoServersError))]
    what = str(told[0]) if told else "no answer"
    return BrokerUnreachable(place, f"no connection to a NATS server ({what})", START)


def _credentials(options: NatsOptions, place: str) -> dict[str, Any]:
    name = options.credentials
    if name is None:
        return {}
    if name.startswith("file:") and name.endswith(".creds"):
        return {"user_credentials": name.removeprefix("file:")}
    text = read_secret(name, f"{place}: credentials").decode()
    user, colon, password = text.partition(":")
    return {"user": user, "password": password} if colon else {"token": text}


def _tls(options: NatsOptions, place: str) -> dict[str, Any]:
    tls = options.tls
    if tls is None:
        return {}
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        if tls.cert is not None:
            context.load_cert_chain(str(tls.cert), None if tls.key is None else str(tls.key))
    except OSError as error:
        raise TransportError(f"{place}: tls: {error}; name files of certificates and keys in PEM") from None
    return {"tls": context}


def explain_api(error: Exception, place: str) -> TransportError:
    """What an error of JetStream, or of the connection below it, means for a stream that is there."""
    if isinstance(error, ServiceUnavailableError) and getattr(error, "err_code", None) is None:
        return BrokerUnreachable(
            place, "JetStream does not answer", "start the server with -js, or wait until it is up"
        )
    if isinstance(error, APIError):
        return explain_code(error.err_code or 0, str(error.description), place)
    if isinstance(error, MaxPayloadError):
        return BrokerUnreachable(place, "the server takes less in one message than it said", "try again")
    if isinstance(error, ConnectionClosedError):
        return BrokerUnreachable(place, "the connection was lost", START)
    what = (
        "no answer" if isinstance(error, (TimeoutError, asyncio.TimeoutError)) else str(error) or type(error).__name__
    )
    return BrokerUnreachable(place, f"the connection was lost ({what})", START)


def explain_code(code: int, description: str, place: str) -> TransportError:
    """As ``explain_api``, for the error in an acknowledgement."""
    if code in FULL:
        return StreamFull(
            place, description, "give the stream more (max_bytes, the server's max_file_store), or trim it"
        )
    if code == ABSENT:
        return StreamLost(place, "the broker has no such stream any more")
    return BrokerUnreachable(place, f"JetStream says: {description} (error {code})", "look at the server's log")


def is_absent(error: Exception) -> bool:
    return isinstance(error, NotFoundError) or getattr(error, "err_code", None) == ABSENT


def jetstream(client: Client, options: NatsOptions) -> JetStreamContext:
    return client.jetstream(timeout=options.timeout_s)

"""A client of a Redis server, and what its errors mean. It is made once and not again by itself: who uses it decides."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from pipeline.wire.broker.secrets import read_secret
from pipeline.wire.errors import (
    BrokerRefuses,
    BrokerUnreachable,
    StreamFull,
    StreamLost,
    TransportError,
    WriterFenced,
)
from pipeline.wire.redis.options import RedisOptions

START = "start one with `redis-server --appendonly yes`, or say where it is in the transport's url"
SCRIPTS = {name: (Path(__file__).parent / f"{name}.lua").read_text() for name in ("claim", "append", "resync", "trim")}


class OutOfStep(BrokerUnreachable):
    """Entries were not the next ones of the stream: some before them had failed."""


def place_of(options: RedisOptions) -> str:
    """Where a stream is, for people."""
    parts = urlsplit(options.url)
    return f"redis://{parts.hostname}:{parts.port or 6379}/{options.stream}"


def keys_of(options: RedisOptions) -> tuple[str, str, str]:
    """Of the entries, of what is known about the stream, of its parts. In a cluster they lie on one server."""
    return tuple(f"rowstream:{{{options.stream}}}:{name}" for name in ("frames", "meta", "parts"))  # type: ignore[return-value]


def connect(options: RedisOptions) -> redis.Redis:
    """A client that has reached its server. Raises BrokerUnreachable, BrokerRefuses, TransportError."""
    place, parts = place_of(options), urlsplit(options.url)
    client = redis.Redis(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 6379,
        socket_timeout=options.timeout_s,
        socket_connect_timeout=options.timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        **_credentials(options, place),
        **_tls(options, place, parts.scheme),
    )
    try:
        client.ping()
    except (RedisError, OSError) as error:
        client.close()
        raise explain(error, place) from None
    return client


def _credentials(options: RedisOptions, place: str) -> dict[str, Any]:
    if options.credentials is None:
        return {}
    user, colon, password = read_secret(options.credentials, f"{place}: credentials").decode().partition(":")
    return {"username": user, "password": password} if colon else {"password": user}


def _tls(options: RedisOptions, place: str, scheme: str) -> dict[str, Any]:
    tls = options.tls
    if tls is None and scheme != "rediss":
        return {}
    given = {} if tls is None else {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    for path in given.values():
        if path is not None and not path.exists():
            raise TransportError(f"{place}: tls: there is no file {path}; name files of certificates and keys in PEM")
    return {"ssl": True, **{name: str(path) for name, path in given.items() if path is not None}}


def explain(error: Exception, place: str) -> TransportError:
    """What an error of Redis, or of the connection below it, means."""
    text = str(error)
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)) or text.startswith(
        ("NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password", "Authentication")
    ):
        return BrokerRefuses(
            place, "the server refuses these credentials", "name the right ones in the transport's credentials"
        )
    if isinstance(error, ssl.SSLError) or "SSL" in text or "certificate" in text:
        return BrokerRefuses(place, f"no encrypted connection ({text})", "see the transport's tls")
    if isinstance(error, ResponseError):
        return explain_reply(text, place)
    what = "no answer" if isinstance(error, (TimeoutError, redis.TimeoutError)) else text or type(error).__name__
    return BrokerUnreachable(place, f"no connection to a Redis server ({what})", START)


def explain_reply(text: str, place: str) -> TransportError:
    """What an error in a reply means; those of our scripts among them."""
    word, _, rest = text.removeprefix("ERR ").partition(" ")
    if word == "LOST":
        return StreamLost(place, "the broker has no such stream any more, or another one")
    if word == "FENCED":
        return WriterFenced(place, f"generation {rest.split()[0]} has claimed this stream")
    if word == "LAST":
        return OutOfStep(place, "these are not the next entries of the stream", "try again")
    if "OOM" in text or "maxmemory" in text:
        return StreamFull(place, "Redis has no memory left", "give it more (maxmemory), or less to hold")
    if "MISCONF" in text:
        return StreamFull(place, "Redis cannot write its files", "look at its disk and its log")
    return BrokerUnreachable(place, f"Redis says: {text}", "look at the server's log")

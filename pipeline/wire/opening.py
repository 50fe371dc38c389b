"""Which transport: from settings, or from a URL, to one that can be used. Nothing is connected yet.

    open_transport(NatsOptions(url="nats://127.0.0.1:4222", stream="clicks"))
    open_transport("nats://127.0.0.1:4222/clicks?credentials=env:NATS_LOGIN&tls.ca=ca.pem")
    open_transport("file:runs/quickstart/stream")

The keys of a URL's query are those of the settings.
"""

from __future__ import annotations

from os import fspath
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.files import Files
from pipeline.wire.broker.broker import Broker
from pipeline.wire.broker.options import SigningKey
from pipeline.wire.broker.secrets import check_url
from pipeline.wire.errors import TransportError
from pipeline.wire.file_transport import FileTransport, FileTransportOptions
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.redis.options import RedisOptions
from pipeline.wire.signing import SignedTransport, read_key
from pipeline.wire.transport import Transport

SCHEMES = {"nats": "nats", "tls": "nats", "redis": "redis", "rediss": "redis", "file": "file"}
"""Kinds by scheme of a URL."""


class FileOptions(BaseModel):
    """A directory: where it is, who opens it says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["file"] = "file"
    signing_key: SigningKey = None


TransportOptions = Annotated[FileOptions | NatsOptions | RedisOptions, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[FileOptions | NatsOptions | RedisOptions] = TypeAdapter(TransportOptions)


def is_url(source: str) -> bool:
    """Whether ``source`` names a transport by URL, and is no path."""
    return urlsplit(source).scheme in SCHEMES


def open_transport(
    options: FileOptions | NatsOptions | RedisOptions | str,
    *,
    path: Path | None = None,
    files: Files | None = None,
    file_options: FileTransportOptions | None = None,
    generation: int = 0,
) -> Transport:
    """``options``: settings, a URL, or a directory. ``path``, ``files`` and ``file_options`` are of the ``file`` transport.

    ``generation`` of the trainer that will claim: one that is not newer than the last is refused by a broker; 0: whoever it is.
    Raises TransportError where a URL or a key is no good.
    """
    if isinstance(options, str):
        options, path = parse_url(options) if is_url(options) else (FileOptions(), Path(options))
    inner = _open(options, path, files, file_options, generation)
    if options.signing_key is None:
        return inner
    return SignedTransport(inner, read_key(options.signing_key))


def _open(
    options: FileOptions | NatsOptions | RedisOptions,
    path: Path | None,
    files: Files | None,
    file_options: FileTransportOptions | None,
    generation: int,
) -> Transport:
    if isinstance(options, FileOptions):
        assert path is not None, "a file transport has a directory"
        return FileTransport(fspath(path), files, file_options)
    from pipeline.wire.broker.transport import BrokerTransport

    return BrokerTransport(make_broker(options, generation), options)


def make_broker(options: NatsOptions | RedisOptions, generation: int = 0) -> Broker:
    """Loads the package of its client."""
    if isinstance(options, NatsOptions):
        from pipeline.wire.nats.broker import NatsBroker

        return NatsBroker(options, generation)
    from pipeline.wire.redis.broker import RedisBroker

    return RedisBroker(options, generation)


def parse_options(tree: Any) -> FileOptions | NatsOptions | RedisOptions:
    """From the plain values of a config. Raises ValidationError."""
    return _ADAPTER.validate_python(tree)


def parse_url(url: str) -> tuple[FileOptions | NatsOptions | RedisOptions, Path | None]:
    """The settings that a URL tells, and the directory of a ``file:`` one. Raises TransportError, without showing credentials."""
    parts = urlsplit(url)
    kind = SCHEMES.get(parts.scheme)
    try:
        if kind is None:
            raise ValueError(f"a scheme is one of {', '.join(SCHEMES)}")
        tree = _query(parts.query)
        if kind == "file":
            return FileOptions.model_validate(tree), Path(parts.path or ".")
        check_url(url)
        tree = {"kind": kind, "url": f"{parts.scheme}://{parts.netloc}", **tree}
        if name := parts.path.strip("/"):
            tree["stream"] = name
        return _ADAPTER.validate_python(tree), None
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        raise TransportError(f"{_shown(url)}: {told}") from None
    except ValueError as error:
        raise TransportError(f"{_shown(url)}: {error}") from None


def _query(query: str) -> dict[str, Any]:
    """``a=1&tls.ca=2`` as ``{"a": "1", "tls": {"ca": "2"}}``."""
    tree: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        outer, _, inner = key.partition(".")
        if inner:
            tree.setdefault(outer, {})[inner] = value
        else:
            tree[key] = value
    return tree


def _shown(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

"""Secrets by name: where they come from. No secret is part of an option, a message or a repr."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.wire.errors import TransportError

SOURCES = ("env:", "file:")


def is_named_secret(text: str) -> bool:
    return text.startswith(SOURCES) and len(text.partition(":")[2]) > 0


def read_secret(name: str, what: str) -> bytes:
    """What ``env:NAME`` or ``file:PATH`` holds, without a line break at its end. Raises TransportError."""
    source, _, where = name.partition(":")
    if source == "env":
        value = os.environ.get(where)
        if value is None:
            raise TransportError(f"{what}: the environment variable {where} is not set; set it, or name another")
        return value.encode()
    try:
        return Path(where).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise TransportError(f"{what}: the file {where} cannot be read ({error.strerror}); name another") from None


def check_url(url: str) -> str:
    """``url`` itself. Raises ValueError, without naming what it holds, where that has credentials or no host."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise ValueError("not a URL; one reads like nats://127.0.0.1:4222") from None
    if parts.username or parts.password or "@" in parts.netloc:
        raise ValueError(
            "a URL with credentials would be shown and logged; give them as credentials: env:NAME or file:PATH"
        )
    if not host:
        raise ValueError("a URL names a host, as in nats://127.0.0.1:4222")
    return url

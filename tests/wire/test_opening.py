"""Settings and URLs of transports: what they mean, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.wire import TransportError
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.opening import FileOptions, is_url, open_transport, parse_options, parse_url
from pipeline.wire.redis.options import RedisOptions


def test_a_url_says_what_settings_say() -> None:
    options, path = parse_url("nats://10.0.0.1:4333/clicks?credentials=env:LOGIN&tls.ca=ca.pem&window_bytes=1MB")
    assert path is None
    assert options == parse_options(
        {
            "kind": "nats",
            "url": "nats://10.0.0.1:4333",
            "stream": "clicks",
            "credentials": "env:LOGIN",
            "tls": {"ca": "ca.pem"},
            "window_bytes": "1MB",
        }
    )
    assert parse_url("redis://here/s")[0] == RedisOptions(url="redis://here", stream="s")
    assert parse_url("tls://here/s")[0] == NatsOptions(url="tls://here", stream="s")
    assert parse_url("nats://here")[0].stream == "rowstream"  # type: ignore[union-attr]
    assert parse_url("file:runs/x?signing_key=env:K") == (FileOptions(signing_key="env:K"), Path("runs/x"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nats://user:sesame@here/s", "give them as credentials"),
        ("redis://:sesame@here/s", "give them as credentials"),
        ("nats://here/s?credentials=sesame", "env:NAME of a variable, or file:PATH"),
        ("nats:///s", "names a host"),
        ("nats://here:port/s", "not a URL"),
        ("nats://here/a.b", "stream: String should match pattern"),
        ("redis://here/s?windowbytes=1", "windowbytes: Extra inputs"),
        ("kafka://here/s", "one of nats, tls, redis"),
    ],
)
def test_a_url_that_is_no_good_is_refused_and_no_secret_shown(url: str, told: str) -> None:
    with pytest.raises(TransportError, match=told) as caught:
        parse_url(url)
    assert "sesame" not in str(caught.value)


def test_paths_are_no_urls() -> None:
    assert not any(map(is_url, ("runs/quickstart", "/data/stream", "C:\\runs", "a:b")))
    assert all(map(is_url, ("nats://h/s", "redis://h", "file:runs/x")))


def test_a_kind_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.wire.broker.options.find_spec", lambda _name: None)
    for kind, package in (("nats", "nats-py"), ("redis", "redis")):
        with pytest.raises(ValueError, match=rf"needs the package {package}: pip install 'rowstream\[{kind}\]'"):
            parse_options({"kind": kind})


@pytest.mark.parametrize("scheme", ["", "file:"])
def test_a_path_and_a_file_url_open_a_directory(tmp_path: Path, scheme: str) -> None:
    transport = open_transport(f"{scheme}{tmp_path}/s")
    transport.claim()
    transport.close()
    assert (tmp_path / "s" / "epoch").exists()

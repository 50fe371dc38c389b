"""Brokers that encrypt, with a certificate that the test makes for itself."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.wire import BrokerRefuses, TransportError
from pipeline.wire.opening import open_transport
from tests.contracts.transport import HEADER, Reading, frame
from tests.support.servers import NatsServer, RedisServer, Server


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *extra], check=True, capture_output=True)
    return cert, key


class TlsRedis(RedisServer):
    """Says nothing to who does not encrypt."""

    def command(self) -> list[str]:
        plain = super().command()
        at = plain.index("--port")
        return [*plain[:at], "--port", "0", "--tls-port", str(self.port), *plain[at + 2 :]]

    def answers(self, _connection: socket.socket) -> bool:
        return "Ready to accept connections" in self.log


def server_of(kind: str, directory: Path, cert: Path, key: Path) -> Server:
    if kind == "nats":
        return NatsServer(directory, "--tls", "--tlscert", str(cert), "--tlskey", str(key))
    files = ["--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert)]
    return TlsRedis(directory, *files, "--tls-auth-clients", "no")


@pytest.mark.parametrize("kind", ["nats", "redis"])
def test_a_stream_over_an_encrypted_connection(tmp_path: Path, kind: str, certificate: tuple[Path, Path]) -> None:
    pytest.importorskip(kind)
    with server_of(kind, tmp_path / "server", *certificate) as server:
        url = f"{kind}://127.0.0.1:{server.port}/safe"
        transport = open_transport(f"{url}?tls.ca={certificate[0]}")
        transport.claim()
        transport.begin(HEADER)
        transport.publish([frame(1), frame(2, 100_000)], sync=True)
        assert Reading(transport.subscribe(None)).take(2) == [frame(1), frame(2, 100_000)]
        transport.close()
        for wrong in (
            f"{url.replace(kind, {'nats': 'tls', 'redis': 'rediss'}[kind], 1)}",
            f"{url}?tls.ca={tmp_path}/absent",
        ):
            refused: Any = open_transport(f"{wrong}{'&' if '?' in wrong else '?'}timeout_s=5")
            with pytest.raises(TransportError, match="tls") as caught:
                refused.claim()
            assert ("absent" in wrong) != isinstance(caught.value, BrokerRefuses)
            refused.close()

"""A TCP proxy between a client and a server, for tests: connections through it can be held back, let go again, and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any


class _Pair:
    """One connection through the proxy. What the client says while it is held waits, and reaches the server later, or never."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self._lock = threading.Lock()
        self._held = False
        self._waiting = b""
        self._heard = threading.Condition()
        self._said = b""

    @property
    def waiting(self) -> bytes:
        """What the client has said since it was held."""
        with self._lock:
            return self._waiting

    def hold(self) -> None:
        with self._lock:
            self._held = True

    def release(self, more: bytes = b"") -> None:
        """Everything that waits, and ``more``, goes to the server; what comes later does, too."""
        with self._lock:
            self._held = False
            with contextlib.suppress(OSError):
                self.server.sendall(self._waiting + more)
            self._waiting = b""

    def wait_for(self, answer: bytes, timeout: float = 20.0) -> bool:
        """Until the server has said ``answer``."""
        with self._heard:
            return self._heard.wait_for(lambda: answer in self._said, timeout)

    def upwards(self) -> None:
        """Until the client has closed. The server's side stays open while something is held for it."""
        with contextlib.suppress(OSError):
            while data := self.client.recv(65536):
                with self._lock:
                    if self._held:
                        self._waiting += data
                    else:
                        self.server.sendall(data)
        with self._lock:
            if not self._held:
                self._shut(self.server)

    def downwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.server.recv(65536):
                with self._heard:
                    self._said = (self._said + data)[-65536:]
                    self._heard.notify_all()
                with contextlib.suppress(OSError):
                    self.client.sendall(data)
        self._shut(self.client)

    def cut(self) -> None:
        self._shut(self.client)
        self._shut(self.server)

    def close(self) -> None:
        self.cut()
        self.client.close()
        self.server.close()

    @staticmethod
    def _shut(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Proxy:
    """A context manager. ``port`` is its own."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._pairs: list[_Pair] = []
        self._start(self._accept)

    def hold(self) -> list[_Pair]:
        """Hold the connections there are; later ones pass."""
        pairs = list(self._pairs)
        for pair in pairs:
            pair.hold()
        return pairs

    def cut(self) -> None:
        """Close the connections there are, on both sides."""
        for pair in list(self._pairs):
            pair.cut()

    def _start(self, target: Any) -> None:
        thread = threading.Thread(target=target)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._to_port), 10)
                    server.settimeout(None)
                except OSError:
                    client.close()
                    continue
                pair = _Pair(client, server)
                self._pairs.append(pair)
                self._start(pair.upwards)
                self._start(pair.downwards)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            pair.close()
        for thread in self._threads:
            thread.join()

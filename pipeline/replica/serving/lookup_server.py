"""The lookup socket: a thread for each connection, which reads a request, answers it and reads the next.

Rules.

1. A connection has one request and one answer in memory, each bounded, and each takes room of what all together may take. One
   that needs room which others hold waits ``wait_s`` for it, and then is told so (BUSY).
2. A message that has begun must come, and an answer must be taken, within ``client_s``, or the connection ends. Between two
   messages a connection may be idle for ever; there are at most ``connections``.
3. Answers come in the order of their requests. Requests that were sent ahead wait in the kernel.
4. Rows are found and copied while no room of a client is waited for, so a slow one holds no view but the one that it pinned.
5. ``close`` ends what has not begun: requests that have come are answered, within ``drain_s``.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from pipeline.replica.replica import Replica
from pipeline.replica.serving.answers import CODES, Answers, Watch
from pipeline.replica.serving.errors import BadMessage, NoRoom, TooLarge
from pipeline.replica.serving.messages import receive_body, receive_header, send
from pipeline.replica.serving.protocol import Code, Limits, pack_error
from pipeline.replica.serving.room import Room
from pipeline.replica.serving.socket_place import ListeningSocket

INFLIGHT_BYTES = 256 << 20
REFUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class ServerOptions:
    limits: Limits = field(default_factory=Limits)
    connections: int = 64
    inflight_bytes: int = INFLIGHT_BYTES
    """Of all answers together; requests may take a quarter of it besides."""
    wait_s: float = 5.0
    client_s: float = 30.0
    drain_s: float = 10.0


class LookupServer:
    """Serves from ``start`` to ``close``. See the module docstring."""

    def __init__(self, replica: Replica, path: str, watch: Watch, options: ServerOptions) -> None:
        self._replica, self._watch, self._options = replica, watch, options
        self._place = ListeningSocket(path)
        self.requests = Room(max(options.inflight_bytes // 4, options.limits.request_bytes), options.wait_s)
        self.answers = Room(options.inflight_bytes, options.wait_s)
        self._accepting = threading.Thread(target=self._accept, name="lookup-accept")
        self._open: dict[socket.socket, threading.Thread] = {}
        self._opening = threading.Lock()
        self._closing = False

    @property
    def path(self) -> str:
        return self._place.path

    @property
    def num_connections(self) -> int:
        return len(self._open)

    def start(self) -> None:
        """Raises SocketTaken, NoSocketPath."""
        self._listening = self._place.__enter__()
        self._accepting.start()

    def close(self) -> None:
        """See rule 5. May be called twice, and before ``start``."""
        if not self._accepting.is_alive():
            return
        self._closing = True
        self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._place.__exit__()
        deadline = time.monotonic() + self._options.drain_s
        for how, until in ((socket.SHUT_RD, deadline), (socket.SHUT_RDWR, None)):
            self._end(how, until)

    def _end(self, how: int, deadline: float | None) -> None:
        with self._opening:
            threads = list(self._open.values())
            for connection in self._open:
                _shut(connection, how)
        for thread in threads:
            thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                # Shut by `close`; else out of files for a moment: whoever connects waits.
                if self._closing:
                    return
                time.sleep(0.05)
                continue
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        with self._opening:
            full = len(self._open) >= self._options.connections
            if not full:
                thread = threading.Thread(target=self._serve, args=(connection,), name="lookup-connection")
                self._open[connection] = thread
                thread.start()
        if full:
            most = self._options.connections
            refused = f"{most} connections are open, which is all there may be; share them, or raise --connections"
            with connection:
                self._refuse(connection, Code.BUSY, refused)

    def _serve(self, connection: socket.socket) -> None:
        answers = Answers(self._replica, self._options.limits, self.answers, self._watch)
        try:
            while self._serve_one(connection, answers):
                pass
        except OSError:
            pass  # who asked is gone, or too slow: the connection ends
        except (BadMessage, TooLarge, NoRoom) as error:
            # Where the next message begins is not known any more.
            self._refuse(connection, CODES[type(error)], str(error))
        finally:
            answers.close()
            with self._opening:
                del self._open[connection]
            connection.close()

    def _serve_one(self, connection: socket.socket, answers: Answers) -> bool:
        """Returns False where the other end has closed."""
        client_s = self._options.client_s
        header = receive_header(connection, self._options.limits.request_bytes, None, client_s)
        if header is None:
            return False
        with ExitStack() as answered:
            with self.requests.take(header.length):
                body_b = receive_body(connection, header.length, client_s)
                pieces = answered.enter_context(answers.answer(header, body_b.data))
                del body_b
            send(connection, pieces, client_s)
        return True

    def _refuse(self, connection: socket.socket, code: Code, message: str) -> None:
        """Tell the client why its connection ends, if it can be told at once."""
        self._watch.refused(code)
        with suppress(OSError):
            send(connection, [pack_error(0, code, message)], REFUSE_S)


def _shut(connection: socket.socket, how: int) -> None:
    with suppress(OSError):  # the other end has closed it
        connection.shutdown(how)

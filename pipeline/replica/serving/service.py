"""``replica SOURCE --serve``: follows a stream and answers from it, until SIGINT or SIGTERM.

On a signal it says that it is not ready, answers the requests that have come, and ends. Where the following ends early (a frame was
refused, a segment is damaged), it says why, is not ready any more, and goes on answering from the last whole cut: who may use that is
the caller's to decide. Where half a cut was applied there is no such cut, and it ends at once.
"""

from __future__ import annotations

import re
import sys
import threading
from contextlib import ExitStack

from pipeline.replica.command import stop_on_signals
from pipeline.replica.replica import PINNED_BYTES, Replica
from pipeline.replica.report import lines
from pipeline.replica.serving.follower import Follower
from pipeline.replica.serving.health import READY_LAG_S, why_not_ready
from pipeline.replica.serving.http_server import Address, HttpServer, parse_address
from pipeline.replica.serving.lookup_server import LookupServer, ServerOptions
from pipeline.replica.serving.metrics import Metrics
from pipeline.replica.serving.pages import Pages
from pipeline.replica.targets.choose import MEMORY
from pipeline.rows.memory import keep_freed_memory

DONE, FAILED = 0, 1
HTTP = "127.0.0.1:8787"
LOOK_S = 0.25
LOGIN = re.compile(r"(?<=:)//.*@")


def serve(
    source: str,
    *,
    http: str | None = None,
    public: bool = False,
    socket: str | None = None,
    ready_lag_s: float = READY_LAG_S,
    pinned_bytes: int = PINNED_BYTES,
    path: str | None = None,
    target: str = MEMORY,
    checkpoint: str | None = None,
) -> int:
    """Run the command; returns the exit code: 0, or 1 where the following of the stream had ended early.

    ``path``, ``target`` and ``checkpoint``: as of ``Replica``. Without ``http`` and ``socket`` it listens on ``HTTP``. Raises
    ServingError where it cannot listen, and what left half a cut.
    """
    address = parse_address(http or HTTP, public=public) if http or not socket else None
    keep_freed_memory()
    with (
        stop_on_signals() as stop,
        Replica(source, path=path, target=target, checkpoint=checkpoint, pinned_bytes=pinned_bytes) as replica,
    ):
        service = Service(replica, source, address, socket, ready_lag_s)
        with service:
            for line in service.places:
                _say(line)
            service.wait(stop)
        _say("; ".join(f"{name}: {text}" for name, text in lines(replica).items()))
        error = service.follower.error
    if error is not None and service.follower.torn:
        raise error
    return DONE if error is None else FAILED


class Service:
    """A context manager: all that listens and follows."""

    def __init__(
        self, replica: Replica, source: str, http: Address | None, socket: str | None, ready_lag_s: float
    ) -> None:
        self.replica, self.follower = replica, Follower(replica)
        self._ready_lag_s = ready_lag_s
        self.lookups: LookupServer | None = None
        metrics = Metrics(replica, lambda: self.why_not_ready() is None, self._connections, self._inflight)
        if socket is not None:
            self.lookups = LookupServer(replica, socket, metrics, ServerOptions())
        pages = Pages(replica, self.why_not_ready, metrics.page, without_login(source))
        self.http = None if http is None else HttpServer(http, pages.answer)
        self._stack = ExitStack()

    def why_not_ready(self) -> str | None:
        return why_not_ready(self.follower.facts, self._ready_lag_s)

    @property
    def places(self) -> list[str]:
        """Where it listens, for people."""
        told = []
        if self.http is not None:
            everybody = "" if self.http.address.is_loopback else ", for everybody who reaches this machine (--public)"
            told.append(f"pages, health and metrics: {self.http.address.url}{everybody}")
        if self.lookups is not None:
            told.append(f"lookups: {self.lookups.path}")
        return told

    def wait(self, stop: threading.Event) -> None:
        """Until ``stop``; says when it becomes ready, and when and why it no longer is."""
        was: str | None = "starting"
        while not stop.wait(LOOK_S) and not self.follower.torn:
            now = self.why_not_ready()
            if (now is None) != (was is None) or (now is not None and self.follower.error is not None and now != was):
                _say("ready" if now is None else f"not ready: {now}")
                was = now

    def __enter__(self) -> Service:
        """Raises ServingError; then nothing listens."""
        with ExitStack() as stack:
            # In the reverse of this order all ends: first it is not ready, then nobody new is answered.
            stack.callback(self.follower.close)
            if self.lookups is not None:
                self.lookups.start()
                stack.callback(self.lookups.close)
            if self.http is not None:
                self.http.start()
                stack.callback(self.http.close)
            stack.callback(self.follower.announce_end)
            self.follower.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _connections(self) -> int:
        return 0 if self.lookups is None else self.lookups.num_connections

    def _inflight(self) -> int:
        return 0 if self.lookups is None else self.lookups.answers.used_bytes


def without_login(source: str) -> str:
    """A URL as it may be shown: without user and password."""
    return LOGIN.sub("//...@", source)


def _say(text: str) -> None:
    print(f"replica: {text}", file=sys.stderr, flush=True)

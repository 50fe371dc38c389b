"""HTTP for people and health, on a thread with an event loop of its own; pages are made on two other threads."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import uvloop
from aiohttp import web

from pipeline.replica.serving.errors import BadAddress
from pipeline.replica.serving.pages import Page

THREADS: Final = 2
MOST_AT_ONCE: Final = 64
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class Address(NamedTuple):
    host: str
    port: int
    """0: any that is free."""

    @property
    def is_loopback(self) -> bool:
        return _is_loopback(self.host)

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"


def parse_address(text: str, *, public: bool) -> Address:
    """``HOST:PORT``, ``[V6]:PORT`` or ``:PORT``, which is on loopback. Raises BadAddress, for one that others reach too unless
    ``public``.
    """
    try:
        parts = urlsplit(f"//{text}")
        address = Address(parts.hostname or "127.0.0.1", -1 if parts.port is None else parts.port)
    except ValueError:
        address = Address("", -1)
    if address.port < 0 or parts.path or parts.query or parts.username is not None:
        raise BadAddress(f"--http {text}: not an address to listen on; give HOST:PORT, such as 127.0.0.1:8787")
    if not address.is_loopback and not public:
        raise BadAddress(
            f"--http {text}: whoever reaches this machine at {address.host} could read every row; give --public too, or "
            f"listen on 127.0.0.1:{address.port}"
        )
    return address


class HttpServer:
    """From ``start`` to ``close``. ``answer``: from a path and its query to a page; it is called on threads."""

    def __init__(self, address: Address, answer: Callable[[str, Mapping[str, str]], Page]) -> None:
        self._asked, self._answer = address, answer
        self.address = address
        """Where it listens, once started: with the port it was given."""
        self._thread = threading.Thread(target=self._run, name="http")
        self._started, self._error = threading.Event(), list[OSError]()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._at_once = 0

    def start(self) -> None:
        """Raises BadAddress where it cannot listen."""
        self._thread.start()
        self._started.wait()
        if self._error:
            self._thread.join()
            why = self._error[0].strerror or str(self._error[0])
            raise BadAddress(f"--http {self._asked.host}:{self._asked.port}: {why}; give another port, or 0 for any")

    def close(self) -> None:
        """May be called twice, and before ``start``."""
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1024)
        app.router.add_get("/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        with ThreadPoolExecutor(THREADS, "http-page") as self._threads:
            await runner.setup()
            try:
                await web.TCPSite(runner, self._asked.host, self._asked.port).start()
                self.address = Address(self._asked.host, runner.addresses[0][1])
                self._started.set()
                await self._stop.wait()
            except OSError as error:
                self._error.append(error)
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        if self._asked.is_loopback and not _is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            # A page from elsewhere whose name was made to lead here.
            return web.Response(status=403, text="this listens on loopback; ask for it by 127.0.0.1 or localhost\n")
        if self._at_once >= MOST_AT_ONCE:
            return web.Response(status=503, text="too many requests at once; try again\n")
        self._at_once += 1
        try:
            page = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._answer, request.path, dict(request.query)
            )
        finally:
            self._at_once -= 1
        return web.Response(body=page.body, status=page.status, headers={**HEADERS, "Content-Type": page.content_type})


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

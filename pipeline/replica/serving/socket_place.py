"""The path of a unix socket: who may listen there, and how a client comes to it."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pipeline.replica.serving.errors import NoSocketPath, SocketTaken

BACKLOG = 128


class ListeningSocket:
    """A context manager: a socket that listens at ``path``, for its owner alone (mode 0600), and is gone afterwards.

    A file that a dead server left there is replaced, in one step, so that a client finds either; a live server's is not. Who
    is alive holds a lock on ``PATH.lock``, a file that stays. Raises SocketTaken, NoSocketPath.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._stack = ExitStack()

    def __enter__(self) -> socket.socket:
        try:
            with ExitStack() as stack:
                stack.enter_context(_lock(self.path))
                _check_free(self.path)
                listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                _bind(listening, self.path)
                stack.callback(_unlink, self.path)
                self._stack = stack.pop_all()
                return listening
        except OSError as error:
            raise NoSocketPath(self.path, error.strerror or str(error)) from None

    def __exit__(self, *_error: object) -> None:
        self._stack.close()


def connect(path: str | os.PathLike[str], timeout_s: float | None) -> socket.socket:
    """A connection to who listens at ``path``. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with _short(os.path.abspath(os.fspath(path))) as short:
            connection.connect(short)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _lock(path: str) -> Iterator[None]:
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SocketTaken(path) from None
    finally:
        os.close(descriptor)


def _check_free(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise NoSocketPath(path, "a file that is no socket stands here")
    try:
        connect(path, 1.0).close()
    except ConnectionRefusedError:
        return  # its server is dead
    raise SocketTaken(path)


def _bind(listening: socket.socket, path: str) -> None:
    """Under a name of its own first, in a directory that nobody else may enter: there is no moment with a wider mode."""
    directory, name = os.path.split(path)
    with tempfile.TemporaryDirectory(prefix=f".{name[:32]}-", dir=directory) as private:
        made = os.path.join(private, "socket")
        with _short(made) as short:
            listening.bind(short)
        os.chmod(made, 0o600)
        listening.listen(BACKLOG)
        os.rename(made, path)


@contextmanager
def _short(path: str) -> Iterator[str]:
    """The path, short enough for a socket (108 bytes) however long that of the directory is."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def _unlink(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)

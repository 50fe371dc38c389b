"""Errors to messages and exit codes: one message without a traceback where the error says all there is to say."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

FAILED, INTERRUPTED = 1, 130
DEBUG = "ROWSTREAM_DEBUG"
OUR_ROOMS = {"pipeline", "stages", "cuda", "tools"}


def guarded(work: Callable[[], int]) -> int:
    """The exit code of ``work``; what it raises is printed to stderr. With ROWSTREAM_DEBUG=1 the traceback is, too."""
    try:
        return work()
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. The interpreter would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _report(error)


def is_debug() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def _report(error: Exception) -> int:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if is_debug():
        traceback.print_exception(error)
    _say(str(error) if _speaks_for_itself(error) else _unforeseen(error))
    code = getattr(type(error), "exit_code", FAILED)
    return code if isinstance(code, int) else FAILED


def _speaks_for_itself(error: Exception) -> bool:
    """Our own errors say where and what would have worked; the system's name the file and the reason."""
    ours = type(error).__module__.partition(".")[0] in OUR_ROOMS
    return bool(str(error)) and (ours or hasattr(type(error), "exit_code") or isinstance(error, OSError))


def _unforeseen(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"\n  in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    hint = "" if is_debug() else f"\n  This was not foreseen. --debug (or {DEBUG}=1) shows how it came to it."
    return f"{type(error).__name__}: {error}{place}{hint}"


def _say(message: str) -> None:
    # Never wrapped or cut: a message names files and keys, which people copy.
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("rowstream: ", "bold red"), message))

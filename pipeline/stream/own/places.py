"""Where a loop's stream lies: a directory or a URL, opened here, or transports that are the caller's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.stream.errors import OtherStream
from pipeline.wire.opening import FileOptions, is_url, parse_url
from pipeline.wire.places import open_places
from pipeline.wire.transport import Transport

Given = Transport | Sequence[Transport] | str | os.PathLike[str]


class Places:
    """``shards``: of a directory or URL; of transports there are as many as are given. Touches nothing yet. Raises TransportError for a
    URL that is none.
    """

    def __init__(self, given: Given, shards: int) -> None:
        self._opened = None
        if isinstance(given, str | os.PathLike):
            place = os.fspath(given)
            options, path = parse_url(place) if is_url(place) else (FileOptions(), Path(place))
            self._opened = open_places(options, path or Path(), shards)
            self.transports: tuple[Transport, ...] = tuple(self._opened.transports)
            self.name = self._opened.place
            return
        self.transports = tuple(given) if isinstance(given, list | tuple) else (given,)  # type: ignore[assignment]
        self.name = f"transport {self.transports[0].name}"

    def check(self) -> None:
        """Raises OtherStream where a stream of another number of shards lies there."""
        found = [] if self._opened is None else self._opened.list_found()
        if found and sorted(found) != sorted(self._opened.names):  # type: ignore[union-attr]
            raise OtherStream(self.name, f"it has {len(found)} shards, not {len(self.transports)}")

    def close(self) -> None:
        """Those that were opened here. May be called twice."""
        if self._opened is not None:
            self._opened.close()

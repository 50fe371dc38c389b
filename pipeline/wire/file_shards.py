"""Where the shards of a stream lie in the ``file`` transport.

    DIR                the segments of a stream of one shard
    DIR/shard-0000     those of shard 0 of several, DIR/shard-0001 those of the next, and so on

How many there are, each header says.
"""

from __future__ import annotations

import os
import re

from pipeline.files import Files, RealFiles
from pipeline.wire.encoding import decode_frame
from pipeline.wire.file_transport import holds_stream
from pipeline.wire.frames import HeaderFrame
from pipeline.wire.transport import Transport

_NAME = re.compile(r"shard-[0-9]{4}")


def shard_paths(directory: str, num_shards: int) -> list[str]:
    """Where each shard's segments lie."""
    if num_shards == 1:
        return [directory]
    return [os.path.join(directory, f"shard-{number:04d}") for number in range(num_shards)]


def list_shards(directory: str, files: Files | None = None) -> list[str]:
    """The paths in which somebody has claimed a shard of the stream in ``directory``; none where there is no stream."""
    files = files or RealFiles()
    if holds_stream(directory, files):
        return [directory]
    if not files.exists(directory):
        return []
    paths = [os.path.join(directory, name) for name in sorted(files.list(directory)) if _NAME.fullmatch(name)]
    return [path for path in paths if holds_stream(path, files)]


def read_header(transport: Transport) -> HeaderFrame | None:
    """The header that the stream begins with; None while it is not there. Raises FrameError, and as ``Subscription.next``."""
    subscription = transport.subscribe(None)
    try:
        frames = subscription.next(0)
    finally:
        subscription.close()
    frame = decode_frame(frames[0][1]) if frames else None
    return frame if isinstance(frame, HeaderFrame) else None

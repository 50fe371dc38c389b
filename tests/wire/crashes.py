"""A writer that dies at some call, and what must be left of its stream. Raises AssertionError where a promise is
broken.
"""

from __future__ import annotations

import random
from contextlib import nullcontext

from pipeline.wire import FileTransport, FileTransportOptions
from tests.contracts.transport import HEADER, Reading, frame, number_of
from tests.files.nodes import OUTCOMES
from tests.files.recording import Crashed, RecordingFiles

OPTIONS = FileTransportOptions(segment_bytes=4096, read_bytes=4096, poll_s=0.001)
PLACE = "/run/stream"


def open_on(files: RecordingFiles) -> FileTransport:
    return FileTransport(PLACE, files, OPTIONS, lock=lambda _: nullcontext())


class Stream:
    """What was sent, and how much of it was acknowledged, over any number of crashes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.files = RecordingFiles()
        self.kept: list[bytes] = []
        """Found by the last reader; nothing of it may go any more."""
        self.next_number = 0

    def write_until_crash(self, generation: int, calls: int) -> None:
        """One writer's life; ``kept`` grows by what it was told is durable."""
        self.files.crash_at = calls
        sent: list[bytes] = []
        try:
            transport = open_on(self.files)
            transport.claim()
            transport.begin(HEADER + b"%d" % generation)
            while True:
                frames = [frame(self.next_number + k, self.rng.randrange(1500)) for k in range(self.rng.randrange(4))]
                self.next_number += len(frames)
                sent += frames
                sync = self.rng.random() < 0.4
                transport.publish(frames, sync=sync)
                if sync:
                    self.kept, sent = self.kept + sent, []
        except Crashed:
            self.files = self.files.after_crash(self.rng.choice(OUTCOMES), self.rng)
        self.check(sent)

    def check(self, uncertain: list[bytes]) -> None:
        """A later writer opens the stream without complaint; readers get what was acknowledged, then perhaps some
        more.
        """
        transport = open_on(self.files)
        transport.claim()
        transport.begin(HEADER + b"9")
        found = Reading(open_on(self.files).subscribe(None)).take_all()
        transport.close()
        assert found[: len(self.kept)] == self.kept, "acknowledged frames are gone or changed"
        more = found[len(self.kept) :]
        assert more == uncertain[: len(more)], "frames that nobody sent, or not in order"
        self.kept = found


def crash_and_check(seed: int) -> None:
    stream = Stream(seed)
    for generation in range(1, 5):
        stream.write_until_crash(generation, stream.rng.randrange(1, 60))
    assert [number_of(data) for data in stream.kept] == sorted({number_of(data) for data in stream.kept})

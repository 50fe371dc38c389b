"""A streamer's way out: its header, the encoding of its frames, and the transport that takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.stream.counters import StreamCounters
from pipeline.stream.options import StreamIdentity
from pipeline.stream.whole_cut import WholeFrame
from pipeline.wire.encoding import encode_frame
from pipeline.wire.errors import TransportError
from pipeline.wire.frames import Frame, HeaderFrame, StreamedTable
from pipeline.wire.transport import Position, Transport


class Outlet:
    """Counts what goes out. Raises what the transport raises."""

    def __init__(
        self,
        transport: Transport,
        identity: StreamIdentity,
        tables: Sequence[StreamedTable],
        zstd_level: int,
        counters: StreamCounters,
        clock: Callable[[], int],
    ) -> None:
        self._transport, self.identity, self._tables = transport, identity, tuple(tables)
        self._level, self._counters, self._clock = zstd_level, counters, clock
        self._epoch: str | None = None
        """That of the header which was published last."""
        self._begun = 0
        self._doubtful = False
        self.failure: Exception | None = None
        """What the transport raised last."""

    def renew(self) -> bool:
        """Claim the transport and begin, where that was not done yet. After an error ask for its epoch: where it is another one, what was
        published is gone, and the stream begins again. Returns whether it was so. Else nothing is done.
        """
        if self._epoch is not None and not self._doubtful:
            return False
        with self._watched():
            was, epoch = self._epoch, self._transport.claim()
            if epoch != was:
                self._epoch = None
                data = encode_frame(self._header(epoch), self._level)
                self._transport.begin(data)
                self._counters.add(frames=1, bytes_streamed=len(data))
                self._epoch = epoch
                self._begun += 1
        self._doubtful = False
        return epoch != was and self._begun > 1

    def _header(self, epoch: str) -> HeaderFrame:
        identity = self.identity
        return HeaderFrame(
            run_id=identity.run_id,
            writer=identity.writer,
            shard=identity.shard,
            num_shards=identity.num_shards,
            generation=identity.generation,
            epoch=epoch,
            created_ns=self._clock(),
            tables=self._tables,
        )

    @property
    def end(self) -> Position:
        """As ``Transport.end``."""
        with self._watched():
            return self._transport.end

    def send(self, frames: Sequence[Frame | WholeFrame], *, sync: bool) -> None:
        """Publish frames together; none: nothing is done."""
        if frames:
            level = self._level
            data = [
                frame.seal(level) if isinstance(frame, WholeFrame) else encode_frame(frame, level) for frame in frames
            ]
            with self._watched():
                self._transport.publish(data, sync=sync)
            self._counters.add(frames=len(data), bytes_streamed=sum(map(len, data)))

    def retain_from(self, position: Position) -> None:
        """As ``Transport.retain_from``."""
        with self._watched():
            self._transport.retain_from(position)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (TransportError, OSError) as error:
            self.failure, self._doubtful = error, True
            raise

"""A streamer's way out: its header, the encoding of its frames, and the transport that takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.stream.counters import StreamCounters
from pipeline.stream.options import StreamIdentity
from pipeline.stream.packing import Packer
from pipeline.stream.whole_cut import WholeFrame
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
        packer: Packer,
        counters: StreamCounters,
        clock: Callable[[], int],
    ) -> None:
        self._transport, self.identity, self._tables = transport, identity, tuple(tables)
        self.packer, self._counters, self._clock = packer, counters, clock
        self._header: HeaderFrame | None = None
        self._beginning = threading.Lock()
        self._epoch: str | None = None
        """That of the header which was published last."""
        self._begun = 0
        self._doubtful = False

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
                self._header = self._make_header(epoch)
                self._publish_header()
                self._epoch = epoch
                self._begun += 1
        self._doubtful = False
        return epoch != was and self._begun > 1

    def _publish_header(self) -> None:
        assert self._header is not None, "the transport was not claimed"
        with self._beginning:
            data = self.packer.pack_header(self._header)
            self._transport.begin(data)
            self.packer.brought()
        self._counters.add(frames=1, bytes_streamed=len(data))

    def _make_header(self, epoch: str) -> HeaderFrame:
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
            best_effort=identity.best_effort,
            continues=identity.continues,
        )

    @property
    def end(self) -> Position:
        """As ``Transport.end``."""
        with self._watched():
            return self._transport.end

    def send(self, frames: Sequence[Frame | WholeFrame], *, sync: bool) -> int:
        """Publish frames together; none: nothing is done. Returns their bytes."""
        if not frames:
            return 0
        with self._watched():
            if self.packer.needs_header:
                self._publish_header()
        data = [self.packer.pack(frame) for frame in frames]
        with self._watched():
            self._transport.publish(data, sync=sync)
        num_bytes = sum(map(len, data))
        self._counters.add(frames=len(data), bytes_streamed=num_bytes)
        return num_bytes

    def retain_from(self, position: Position) -> None:
        """As ``Transport.retain_from``."""
        with self._watched():
            self._transport.retain_from(position)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (TransportError, OSError) as error:
            self._doubtful = True
            error.of_transport = True  # type: ignore[union-attr]  # for ``of_transport``; to keep it would keep all frames below
            raise


def of_transport(error: BaseException) -> bool:
    """Whether a streamer's transport raised this: it may be called again. Any other error is somebody else's."""
    return getattr(error, "of_transport", False)

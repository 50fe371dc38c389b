"""RowStreamer: the rows of somebody's own loop, streamed.

    streamer = RowStreamer({"item": {"dim": 16}}, "streams/items", rows=lambda table, ids: weights[ids])
    with streamer:
        for step in range(1, 1001):
            ...                              # train
            streamer.touch("item", ids)      # the rows that this step updated
            streamer.end_step(step)

Rules.

1. ``touch``, ``push`` and ``delete`` speak of the running step; replicas see all of it or nothing, at a cut behind ``end_step``.
2. ``end_step`` makes a cut itself when one is due (``every``), or when more than half of ``pushed_bytes`` waits. It returns when that
   is acknowledged: a loop without threads needs nothing else.
3. Steps rise. A row is what the last call before the step's end made of it; of ids that repeat in one call, the last.
4. What was told and is in no committed cut when the process dies is gone with it. Who opens the stream again (``resume=True``) goes on
   behind ``committed_step``: tell again what changed since. Nothing proves that it is the same; a loop that goes back further, or
   cannot tell, tells of all rows that it has and calls ``restart``.

Any thread may call anything. With ``rows`` and further threads, change rows inside ``with streamer.step(number)``: no cut reads them
there, and none begins before the step has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.stream import streamer
from pipeline.stream.errors import CannotPush, CannotRead, NoSuchTable, SnapshotLost, StepWentBack, WrongMoment
from pipeline.stream.options import StreamerOptions, StreamIdentity
from pipeline.stream.own.going_on import WRITER, find_beginning
from pipeline.stream.own.pacing import Pacing
from pipeline.stream.own.places import Given, Places
from pipeline.stream.own.source import OwnSource, RowReader, as_reader, only_told
from pipeline.stream.own.tables import OwnTable, as_ids, initial_weights, pack_rows, streamed_tables
from pipeline.stream.own.telling import Telling
from pipeline.stream.own.told import GONE, READ, Told
from pipeline.stream.source import Int64s, RowSource
from pipeline.wire.frames import START, CommitFrame, CutPosition, StreamedTable

PUSHED_BYTES = 256 << 20
UNKNOWN = StreamIdentity("unknown", WRITER, 0)
"""Until the stream is opened."""
Tables = Mapping[str, OwnTable | Mapping[str, Any]]


class RowStreamer(streamer.RowStreamer):
    """See the module docstring. A context manager: it opens, and at the end finishes the stream; after an error it only closes it."""

    def __init__(
        self,
        source: RowSource | Tables,
        transport: Given,
        identity: StreamIdentity | None = None,
        options: StreamerOptions | None = None,
        *,
        previous: CutPosition = START,
        previous_step: int = 0,
        clock: Callable[[], int] = time.time_ns,
        rows: RowReader | Callable[[str, Int64s], Any] | None = None,
        dense: Callable[[], Mapping[str, Any]] | None = None,
        every: str | None = "25ms",
        on_failure: Literal["raise", "retry"] = "raise",
        pushed_bytes: int = PUSHED_BYTES,
        shards: int = 1,
        resume: bool = False,
        run: str | None = None,
    ) -> None:
        """``source``: tables by name (``OwnTable``), or a RowSource. ``transport``: a directory or URL, in ``shards``; or a transport, or
        those of all shards, which stay the caller's.

        ``rows`` reads what ``touch`` names. ``dense`` gives dense weights by name, which ride in every cut. ``every``: when ``end_step``
        cuts; None: never; with ``on_failure`` "retry" one that the transport fails is made again behind a later step (``pacing`` tells).
        ``pushed_bytes`` bounds what was pushed and waits for a cut. ``resume``: go on with a stream that is there; where none is, begin.
        ``run`` names it, by default anew. Who gives an ``identity`` knows where the stream goes on: ``previous`` is the last cut
        committed, at ``previous_step``.

        Raises BadTables, PolicyError, TransportError.
        """
        self._own = (
            None if not isinstance(source, Mapping) else OwnSource(streamed_tables(source), as_reader(rows), dense)
        )
        self._places = Places(transport, shards)
        self._carriers = self._places.transports
        options = options or StreamerOptions(dense=dense is not None)
        super().__init__(
            self._own or source,  # type: ignore[arg-type]
            self._carriers,
            identity or UNKNOWN,
            options,
            previous=previous,
            previous_step=previous_step,
            clock=clock,
        )
        self._begins = identity is None
        self._resume, self._run = resume, run
        self.pacing = Pacing(every, on_failure)
        self._pushed_bytes = pushed_bytes
        self._telling, self._ending = Telling(self._own, pushed_bytes), threading.RLock()
        self._opened = self._any_ended = False
        self._last_ended = previous_step
        self._stepping: int | None = None

    def open(self) -> None:
        """Claim the stream and begin, or go on with, it. Raises StreamExists, OtherStream, and what the transport raises."""
        if self._begins:
            tables = tuple(self._tables.values())
            self._places.check()
            found = find_beginning(self._carriers, self._places.name, tables, resume=self._resume, run=self._run)
            self._identity = self._outlet.identity = found.identity
            self.committed, self.committed_step = found.position, found.step
            self.adopt_dictionary(found.dictionary)
        super().open()
        if self._own is not None:
            self._own.generation, self._own.step = self._identity.generation, self.committed_step
        self._last_ended, self._opened = self.committed_step, True

    def touch(self, table: str, ids: Any) -> None:
        """The running step updates these rows; they are read when a cut carries them. ``ids``: integers of any shape, copied.

        Raises NoSuchTable, BadRows, CannotRead.
        """
        if self._own is not None and self._own.reader is None:
            raise CannotRead(table)
        self._table(table)
        self._telling.add(table, Told.of(as_ids(table, ids), 0, READ))

    def push(
        self, table: str, ids: Any, rows: Any, identities: Any = None, states: Mapping[str, Any] | None = None
    ) -> None:
        """The running step updates these rows: ``ids`` [n], ``rows`` float32 [n, dim], and what else the table has. All is copied.

        Raises NoSuchTable, BadRows, CannotPush; PushedRowsFull where the rows that wait would take more than ``pushed_bytes``.
        """
        described = self._table(table)
        if self._own is None:
            raise CannotPush(table)
        ids_n = as_ids(table, ids)
        self._telling.add(table, Told.of(ids_n, 0, pack_rows(described, len(ids_n), rows, states, identities)))

    def delete(self, table: str, ids: Any) -> None:
        """These rows end with the running step: replicas forget them. ``ids`` as for ``touch``. Raises NoSuchTable, BadRows."""
        self._table(table)
        self._telling.add(table, Told.of(as_ids(table, ids), 0, GONE))

    def initial(self, table: str, ids: Any) -> npt.NDArray[np.float32]:
        """The rows of ids that nobody has told of, float32 [n, dim]: what replicas answer for them, and what a table with ``init`` begins
        with. Raises NoSuchTable, BadRows.
        """
        return initial_weights(self._table(table), as_ids(table, ids))

    def end_step(self, step: int) -> None:
        """Step ``step`` has ended with all that was told since the one before; cut where one is due.

        Raises StepWentBack, and what ``cut`` raises: then the step has ended all the same, and its rows wait for the next cut.
        """
        if self._stepping == threading.get_ident():
            raise WrongMoment("`with streamer.step(...)` ends its step itself: leave out end_step inside it")
        with self._ending:
            self._end(step)
        self._cut_if_due()

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """A step that changes rows inside the block, while no cut reads any; it ends behind it. An error leaves it open: what was told
        waits for the next end of a step.
        """
        self._check_step(step)
        with self._ending, self._fence():
            self._stepping = threading.get_ident()
            try:
                yield
            finally:
                self._stepping = None
            self._end(step)
        self._cut_if_due()

    def restart(self, step: int) -> CommitFrame:
        """One snapshot cut that takes replicas to ``step`` and to the rows told since the last cut, and to no others (of a RowSource: to
        all it holds). Before the first step of this life ``step`` may be lower than any published. What lay before may be forgotten.

        Raises StepWentBack; SnapshotLost and what the transport raises: then it may be called again.
        """
        with self._ending:
            self._check_open()
            if self._any_ended:
                self._check_step(step)
            if self._own is not None:
                self._own.begin_with(step, self._telling.take())
            commit = self._replace_all()
            self._last_ended, self._any_ended = step, True
        self._let_go()
        return commit

    def _replace_all(self) -> CommitFrame:
        """A snapshot cut that stands alone: replicas drop what it does not name."""
        with self._snapshotting, self._cutting:
            self._renew()
            start = self._outlet.end
            with only_told(self._own):
                frozen = self._source.at_fence(self._freeze_all)
            with closing(frozen):
                commit = self._publish_alone(frozen)
            if commit is None:
                raise SnapshotLost("the rows to restart with were not kept until they were read; call restart again")
            self.wants_everything = False
            self._outlet.retain_from(start)
        return commit

    def _let_go(self) -> None:
        """What is published need not be kept."""
        if self._own is not None:
            self._own.release(self.committed_step)

    def cut(self) -> CommitFrame | None:
        """See the base class. What the cut carried is let go."""
        self._check_open()
        commit = super().cut()
        self.pacing.made()
        self._let_go()
        return commit

    def snapshot_cut(self) -> CommitFrame | None:
        """See the base class. Raises CannotList where nobody can say which rows there are."""
        self._check_open()
        if self._own is not None:
            self._own.check_lists()
        commit = super().snapshot_cut()
        self._let_go()
        return commit

    @property
    def pushed_nbytes(self) -> int:
        """Memory that rows hold which were pushed and are in no committed cut."""
        return self._telling.nbytes

    def close(self) -> None:
        """Give back a transport that was made here. What was told and not published is gone. May be called twice."""
        self._opened = False
        self._places.close()

    def __enter__(self) -> RowStreamer:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self.close()

    def _table(self, name: str) -> StreamedTable:
        self._check_open()
        if name not in self._tables:
            raise NoSuchTable(name, self._tables)
        return self._tables[name]

    def _check_open(self) -> None:
        """Who says where the stream goes on needs not wait for a transport: cuts open it."""
        if not self._opened and self._begins:
            raise WrongMoment("the stream is not open: `with streamer:` opens and closes it, or open() and close() do")

    def _check_step(self, step: int) -> None:
        self._check_open()
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step <= self._last_ended:
            raise StepWentBack(step, self._last_ended)

    def _fence(self) -> Any:
        return nullcontext() if self._own is None else self._own.fence

    def _end(self, step: int) -> None:
        """Under ``_ending``."""
        self._check_step(step)
        with self._fence():
            told = self._telling.take()
            if self._own is not None:
                self._own.end_step(step, told)
            self.add(int(step), self._clock(), {table: piece.ids_n for table, piece in told.items()})
            self._last_ended, self._any_ended = int(step), True

    def _cut_if_due(self) -> None:
        full = self._own is not None and self._own.nbytes > self._pushed_bytes // 2
        if self.pacing.is_due(self.changed.num_steps, full):
            with self.pacing.watching():
                self.cut()

"""A trainer made of plain dicts, which writes the frames of a stream and remembers each state it was in."""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica import Replica, View
from pipeline.rows.codec import find_codec
from pipeline.rows.digest import rows_digest
from pipeline.rows.initial import initial_weights
from pipeline.rows.layout import Column, RowLayout, stored_dtype
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import pack_version
from pipeline.wire import encode_frame
from pipeline.wire.dense import dense_digest, split_dense
from pipeline.wire.digest import MASK
from pipeline.wire.errors import StreamTrimmed, TransportClosed
from pipeline.wire.frames import (
    START,
    CommitFrame,
    CutPosition,
    DenseFrame,
    Frame,
    HeaderFrame,
    RowsFrame,
    StreamedTable,
)
from pipeline.wire.row_runs import TableRows
from pipeline.wire.transport import Position
from tests.wire.parts import join_runs, part_digest

Rows = dict[int, tuple[bytes, int]]
"""id -> (weights as float32 bytes, packed version)"""
Model = dict[str, Rows]


class MemoryTransport:
    """Frames in a list, with the reader's half of the Transport interface. Position n is behind n frames."""

    name, epoch = "memory", "epoch"

    def __init__(self, batch: int = 3) -> None:
        self.frames: list[bytes] = []
        self.headers: dict[int, bytes] = {}
        self.first = 0
        self.batch = batch
        self.grown = threading.Condition()

    def publish(self, frames: Sequence[bytes], *, sync: bool = True) -> Position:
        del sync
        with self.grown:
            self.frames.extend(frames)
            self.grown.notify_all()
            return Position(1, len(self.frames))

    def begin(self, header: bytes) -> None:
        """A header, which is given again to whoever begins behind it, as segments do."""
        self.headers[len(self.frames)] = header
        self.publish([header])

    def subscribe(self, position: Position | None) -> MemorySubscription:
        return MemorySubscription(self, position)

    def trim(self, first: int) -> None:
        """Forget the frames before number ``first``."""
        self.first = first


class MemorySubscription:
    def __init__(self, transport: MemoryTransport, position: Position | None) -> None:
        self._transport, self._closed = transport, False
        self._anywhere = position is None
        self._at = 0 if position is None else position.offset

    def check_end(self) -> None:
        """Frames in a list are whole."""

    def next(self, timeout: float | None) -> list[tuple[Position, bytes]] | None:
        transport = self._transport
        with transport.grown:
            if self._closed:
                raise TransportClosed("closed")
            repeated: list[tuple[Position, bytes]] = []
            if self._anywhere and transport.first:
                self._at = transport.first
                begun = max(n for n in transport.headers if n <= self._at)
                repeated = [(Position(1, self._at), transport.headers[begun])]
            self._anywhere = False
            if self._at < transport.first:
                raise StreamTrimmed("memory", self._at, transport.first)
            if self._at == len(transport.frames) and timeout:
                transport.grown.wait(timeout)
            chunk = transport.frames[self._at : self._at + transport.batch]
            start, self._at = self._at, self._at + len(chunk)
            found = repeated + [(Position(1, start + n + 1), payload) for n, payload in enumerate(chunk)]
            return found or None

    def close(self) -> None:
        with self._transport.grown:
            self._closed = True
            self._transport.grown.notify_all()


def table_spec(name: str, dim: int, kind: str = "uniform") -> TableSpec:
    layout = RowLayout(
        (
            Column("weight", "float32", dim, "weight"),
            Column("momentum", "float32", 1, "state"),
            Column("slow", "bfloat16", 3, "state"),
            Column("raw", "int64", 2, "meta"),
        )
    )
    return TableSpec(name, layout, Initializer(kind), seed=17)  # type: ignore[arg-type]


def column_of(column: Column, ids: Sequence[int], versions: Sequence[int]) -> npt.NDArray[np.uint8]:
    """What rows hold in a column besides the weights: a function of id and version, zeros of a row that was never updated."""
    rng = [
        np.random.default_rng([zlib.crc32(column.name.encode()), row_id & MASK, version])
        for row_id, version in zip(ids, versions, strict=True)
    ]
    rows = [
        one.integers(256, size=column.nbytes, dtype=np.uint8) * (version > 0)
        for one, version in zip(rng, versions, strict=True)
    ]
    return np.array(rows, dtype=np.uint8).reshape(len(ids), column.nbytes)


class DictTrainer:
    """``update`` and ``forget`` change the model, ``cut`` publishes what changed. ``states`` maps position to model."""

    def __init__(
        self, dims: Mapping[str, int], *, codec: str = "fp32", run_id: str = "run", generation: int = 1, seed: int = 0
    ) -> None:
        self.specs = {name: table_spec(name, dim) for name, dim in dims.items()}
        self.rng = np.random.default_rng(seed)
        self.codec, self.run_id, self.generation = codec, run_id, generation
        self.model: Model = {name: {} for name in dims}
        self.dense: dict[str, npt.NDArray[Any]] | None = None
        self.step = self.number = 0
        self.previous = START
        self.share = 0.0
        """How often the next part goes into the same frame."""
        self._sent: dict[bytes, bytes] = {}
        """How a row that decodes to these bytes travels: to encode it anew may give others."""
        self.exact: dict[tuple[str, int, int], npt.NDArray[np.float32]] = {}
        """Weights before the codec, by table, id and version."""
        self.carries: tuple[str, ...] = ()
        """Columns that ride along. To be set before the header."""
        self.dictionary = b""
        self.continues: int | None = None
        self.shuffled: tuple[str, ...] = ()
        self.delta: tuple[str, ...] = ()
        """How frames travel from now on: what is in them stays the same. A header goes before the first one that needs a dictionary."""
        self.changed: dict[str, set[int]] = {name: set() for name in dims}
        self.ended: list[tuple[int, int]] = []
        self.states: dict[CutPosition, Model] = {START: copy.deepcopy(self.model)}
        self.dense_states: dict[CutPosition, dict[str, npt.NDArray[Any]]] = {START: {}}
        self.steps: dict[CutPosition, int] = {START: 0}

    def header(self) -> bytes:
        tables = tuple(StreamedTable(spec, self.codec, self.carries) for spec in self.specs.values())
        header = HeaderFrame(self.run_id, "trainer", 0, 1, self.generation, "epoch", 1, tables)
        return encode_frame(replace(header, dictionary=self.dictionary, continues=self.continues))

    def next_generation(self) -> bytes:
        """A new process goes on: its header."""
        self.generation += 1
        self.number = 0
        return self.header()

    def update(self, ids: Mapping[str, Sequence[int]], clock_ns: int = 0) -> None:
        """One step that writes random weights to these rows."""
        self.step += 1
        self.ended.append((self.step, clock_ns))
        codec = find_codec(self.codec)
        for name, some in ids.items():
            dim = self.specs[name].dim
            weights = self.rng.normal(size=(len(some), dim)).astype(np.float32)
            encoded = codec.encode(weights)
            for row_id, row, sent, exact in zip(some, codec.decode(encoded, dim), encoded, weights, strict=True):
                self.exact[name, row_id, pack_version(self.generation, self.step)] = exact
                self.model[name][row_id] = (row.tobytes(), pack_version(self.generation, self.step))
                self.changed[name].add(row_id)
                self._sent[row.tobytes()] = sent.tobytes()

    def forget(self, table: str, ids: Sequence[int]) -> None:
        for row_id in ids:
            if self.model[table].pop(row_id, None) is not None:
                self.changed[table].add(row_id)

    def fork_at(self, position: CutPosition) -> bytes:
        """A new process goes on from the state at ``position`` and will compute something else: its header. Its next cut must be a
        rewind cut.
        """
        now, then = self.states[self.previous], self.states[position]
        self.model, self.step, self.ended = copy.deepcopy(then), self.steps[position], []
        if self.dense is not None:
            self.dense = dict(self.dense_states[position]) or {"w": np.zeros(9)}
        self.changed = {
            name: {i for i in {*now[name], *then[name]} if now[name].get(i) != then[name].get(i)} for name in now
        }
        return self.next_generation()

    def cut(self, *, chunk: int = 4, end: bool = False, commit: bool = True, rewind: bool = False) -> list[bytes]:
        """The frames of a cut of what changed. Without ``commit`` it is abandoned: the rows come again."""
        self.number += 1
        position = CutPosition(self.generation, self.number)
        frames = self._frames(position, self.changed, chunk, snapshot=False)
        if not commit:
            return frames[:-1]
        self.changed = {name: set() for name in self.model}
        self.ended = []
        self.previous = position
        self.states[position] = copy.deepcopy(self.model)
        self.dense_states[position] = dict(self.dense or self.dense_states[START])
        self.steps[position] = self.step
        return [*frames[:-1], self._encode(replace(self.last_commit, end=end, rewind=rewind))]

    def snapshot(self, chunk: int = 4) -> list[bytes]:
        """The frames of a snapshot cut at the last cut's position; nothing may have changed since."""
        assert not any(self.changed.values())
        everything = {name: set(rows) for name, rows in self.model.items()}
        return self._frames(self.previous, everything, chunk, snapshot=True)

    def _frames(
        self, position: CutPosition, changed: Mapping[str, set[int]], chunk: int, *, snapshot: bool
    ) -> list[bytes]:
        common: dict[str, Any] = {
            "generation": position.generation,
            "cut": position.cut,
            "step": self.step,
            "clock_ns": self.step,
            "snapshot": snapshot,
        }
        frames: list[bytes] = []
        rows = dead = digest = 0
        parts: list[TableRows] = []
        for name, ids in changed.items():
            some = sorted(ids)
            for start in range(0, len(some), chunk):
                part, weights = self._part(name, some[start : start + chunk])
                rows, dead = rows + len(part.ids_n), dead + len(part.tombstones_m)
                digest = (digest + part_digest(part, weights)) & MASK
                parts.append(part)
                if self.rng.random() >= self.share:
                    frames.append(self._rows_frame(common, len(frames), parts))
                    parts = []
        if parts:
            frames.append(self._rows_frame(common, len(frames), parts))
        if self.dense is not None:
            for pieces in split_dense(self.dense, 64):
                frames.append(self._encode(DenseFrame(**common, number=len(frames), pieces=pieces)))
        self.last_commit = CommitFrame(
            generation=position.generation,
            cut=position.cut,
            step=self.step,
            clock_ns=self.step,
            kind="snapshot" if snapshot else "cut",
            previous=self.previous,
            num_frames=len(frames),
            num_rows=rows,
            num_tombstones=dead,
            digest=digest,
            dense_digest=None if self.dense is None else dense_digest(self.dense),
            ended_k2=np.array([] if snapshot else self.ended, dtype=np.int64).reshape(-1, 2),
        )
        return [*frames, self._encode(self.last_commit)]

    def _encode(self, frame: Frame) -> bytes:
        return encode_frame(frame, dictionary=self.dictionary)

    def _rows_frame(self, common: Mapping[str, Any], number: int, parts: Sequence[TableRows]) -> bytes:
        return self._encode(
            RowsFrame(**common, number=number, rows=join_runs(parts), shuffled=self.shuffled, delta=self.delta)
        )

    def _part(self, name: str, ids: Sequence[int]) -> tuple[TableRows, npt.NDArray[np.float32]]:
        rows, dim = self.model[name], self.specs[name].dim
        width = find_codec(self.codec).row_bytes(dim)
        held = [row_id for row_id in ids if row_id in rows]
        weights = np.frombuffer(b"".join(rows[i][0] for i in held), np.float32).reshape(len(held), dim)
        part = TableRows(
            table=name,
            ids_n=np.array(held, dtype=np.int64),
            rows_nb=np.frombuffer(b"".join(self._sent[rows[i][0]] for i in held), np.uint8).reshape(len(held), width),
            versions_n=np.array([rows[i][1] for i in held], dtype=np.int64),
            tombstones_m=np.array([i for i in ids if i not in rows], dtype=np.int64),
            columns={column: self._column(name, column, held) for column in self.carries if held},
        )
        return part, weights

    def _column(self, name: str, column: str, ids: Sequence[int]) -> npt.NDArray[np.uint8]:
        versions = [self.model[name][row_id][1] for row_id in ids]
        return column_of(self.specs[name].layout.column(column), ids, versions)


def digest_of(model: Model) -> int:
    """What ``View.digest`` promises, from dicts."""
    total = 0
    for name, rows in model.items():
        if rows:
            ids = np.array(list(rows), dtype=np.int64)
            payload = np.frombuffer(b"".join(row for row, _ in rows.values()), np.uint8).reshape(len(rows), -1)
            total += rows_digest(name, ids, payload, np.array([v for _, v in rows.values()], dtype=np.int64))
    return total & MASK


def assert_shows(view: View, trainer: DictTrainer, position: CutPosition, probes: Sequence[int] = ()) -> None:
    """The view is the trainer as it was at ``position``: ids, weights, versions, dense weights, initial rows of all
    others.
    """
    assert view.position == position
    model = trainer.states[position]
    assert view.digest() == digest_of(model)
    for name, spec in trainer.specs.items():
        if name not in view.tables:
            assert position == START
            continue
        rows = model[name]
        assert view.ids(name).tolist() == sorted(rows)
        asked = [*rows, *probes, *rows]
        weights, versions = view.lookup_versions(name, np.array(asked, dtype=np.int64))
        initial = initial_weights(spec, np.array(asked, dtype=np.int64))
        expected = [rows.get(row_id, (row.tobytes(), 0)) for row_id, row in zip(asked, initial, strict=True)]
        assert versions.tolist() == [version for _, version in expected]
        assert weights.tobytes() == b"".join(row for row, _ in expected)
        assert view.columns(name) == trainer.carries
        for column in view.carried(name):
            stored = column_of(column, asked, [version for _, version in expected])
            found = view.column(name, column.name, np.array(asked, dtype=np.int64))
            assert found.shape == (len(asked), column.width)
            assert found.dtype == stored_dtype(column.dtype)
            assert found.tobytes() == stored.tobytes()
    dense = trainer.dense_states[position]
    assert view.dense().keys() == dense.keys()
    assert all(np.array_equal(view.dense()[key], value) for key, value in dense.items())


def assert_equal(replica: Replica, trainer: DictTrainer, probes: Sequence[int] = ()) -> None:
    """The replica stands at the trainer's last cut, and is it."""
    with replica.view() as view:
        assert_shows(view, trainer, trainer.previous, probes)

"""What the rows of a trainer were at the end of each step, in plain dictionaries, and what every frame of its stream must say then."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica import View
from pipeline.rows.codec import find_codec
from pipeline.rows.version import steps_of
from pipeline.wire import CommitFrame, CutPosition, HeaderFrame, RowsFrame, StreamedTable, TableRows
from pipeline.wire.reading import FrameReader

Row = Mapping[str, bytes]
"""The bytes of each column; weights as float32, whatever the table keeps."""


class Oracle:
    """Told by who trains: every row that a step wrote, and every one that it ended."""

    def __init__(self) -> None:
        self.last_step = 0
        self._words: dict[str, dict[int, list[tuple[int, Row | None]]]] = {}

    def write(self, step: int, table: str, ids: Iterable[int], columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Step ``step`` wrote these rows; each column [n, width], as it is stored. A step that a later life makes again writes the same."""
        self.last_step = max(self.last_step, step)
        words = self._words.setdefault(table, {})
        for number, row_id in enumerate(ids):
            row = {name: np.ascontiguousarray(values[number]).tobytes() for name, values in columns.items()}
            told = words.setdefault(int(row_id), [])
            if not told or told[-1][0] < step:
                told.append((step, row))
            else:
                assert (step, row) in told, f"{table} {row_id}: step {step} came to another row than before"

    def forget_behind(self, step: int) -> None:
        """What steps behind ``step`` did is lost: it will be done anew, and otherwise."""
        for words in self._words.values():
            for row_id, told in words.items():
                words[row_id] = [word for word in told if word[0] <= step]
        self.last_step = step

    def branch(self, step: int) -> Oracle:
        """What was told up to the end of ``step``, for a life that goes on from there as a fork."""
        made = copy.deepcopy(self)
        made.forget_behind(step)
        return made

    def end(self, step: int, table: str, ids: Iterable[int]) -> None:
        """These rows ended with step ``step``."""
        self.last_step = max(self.last_step, step)
        words = self._words.setdefault(table, {})
        for row_id in ids:
            told = words.setdefault(int(row_id), [])
            if (step, None) not in told:
                told.append((step, None))

    def last(self, table: str, row_id: int, step: int) -> tuple[int, Row | None] | None:
        """The last word on a row up to the end of ``step``: of which step it is, and the row, None where it has ended."""
        words = [word for word in self._words.get(table, {}).get(row_id, ()) if word[0] <= step]
        return words[-1] if words else None

    def changed(self, table: str, after: int, step: int) -> set[int]:
        """Rows of which a step behind ``after``, up to ``step``, said anything."""
        words = self._words.get(table, {}).items()
        return {row_id for row_id, told in words if any(after < at <= step for at, _ in told)}

    def held(self, table: str, step: int) -> dict[int, tuple[int, Row]]:
        """The rows that there are at the end of ``step``, and the step of each."""
        found = {row_id: self.last(table, row_id, step) for row_id in self._words.get(table, {})}
        return {
            row_id: (word[0], word[1]) for row_id, word in found.items() if word is not None and word[1] is not None
        }

    @property
    def tables(self) -> Sequence[str]:
        return list(self._words)


@dataclass
class Seen:
    """What was compared."""

    cuts: int = 0
    snapshots: int = 0
    rewinds: int = 0
    """Rewind cuts, and snapshot cuts that stand alone."""
    rows: int = 0
    dead: int = 0
    bytes_of_columns: int = 0
    tables: set[str] = field(default_factory=set)
    last_step: int = 0
    positions: set[CutPosition] = field(default_factory=set)
    """Of ordinary cuts, and of snapshot cuts that stand alone."""


def check_stream(
    frames: Iterable[bytes],
    oracle: Oracle,
    expected: Mapping[str, tuple[str, Sequence[str]]],
    forks: Sequence[Oracle] = (),
) -> Seen:
    """Read every row out of ``frames`` and compare it with the trainer's at that step; and every row that changed must be there.

    ``expected``: the codec and the columns that ride along, of each table that is streamed. ``forks``: what the lives did that begin with
    a rewind, in order.
    """
    reader, seen, making = FrameReader(), Seen(), dict[tuple[CutPosition, bool], list[RowsFrame]]()
    oracles = iter(forks)
    for data in frames:
        frame = reader.read(data)
        if isinstance(frame, HeaderFrame):
            found = {table.spec.name: (table.codec, list(table.carries)) for table in frame.tables}
            assert found == {name: (codec, list(carries)) for name, (codec, carries) in expected.items()}
        elif isinstance(frame, RowsFrame):
            making.setdefault((frame.position, frame.snapshot), []).append(frame)
        elif isinstance(frame, CommitFrame):
            assert reader.header is not None
            alone = frame.snapshot and frame.position not in seen.positions
            oracle = next(oracles, oracle) if frame.rewind or alone else oracle
            _check_cut(frame, making.pop((frame.position, frame.snapshot), []), reader.header, oracle, seen)
    return seen


def _check_cut(
    commit: CommitFrame, frames: Sequence[RowsFrame], header: HeaderFrame, oracle: Oracle, seen: Seen
) -> None:
    held: dict[str, set[int]] = {table.spec.name: set() for table in header.tables}
    dead: dict[str, set[int]] = {name: set() for name in held}
    for frame in frames:
        for part in frame.rows:
            seen.tables.add(part.table)
            _check_rows(part, header.table(part.table), commit.step, oracle, seen)
            ids, gone = part.ids_n.tolist(), part.tombstones_m.tolist()
            assert not held[part.table] & set(ids), "a row comes twice"
            held[part.table].update(ids)
            dead[part.table].update(gone)
    for table in held:
        there = oracle.held(table, commit.step)
        if commit.snapshot:
            assert held[table] == set(there), f"{table}: the snapshot of step {commit.step} is not what was held"
            assert not dead[table]
            continue
        changed = oracle.changed(table, seen.last_step, commit.step)
        if not commit.rewind:
            assert held[table] | dead[table] == changed, f"{table}: the cut of step {commit.step} is not what changed"
        assert not held[table] & dead[table]
        assert not dead[table] & set(there), f"{table}: the cut of step {commit.step} buries rows that are held"
    alone = commit.snapshot and commit.position not in seen.positions
    seen.rewinds += commit.rewind or alone
    seen.dead += sum(map(len, dead.values()))
    seen.snapshots += commit.snapshot
    if alone or not commit.snapshot:
        seen.cuts, seen.last_step = seen.cuts + (not alone), commit.step
        seen.positions.add(commit.position)


def _check_rows(part: TableRows, table: StreamedTable, step: int, oracle: Oracle, seen: Seen) -> None:
    codec, steps = find_codec(table.codec), steps_of(part.versions_n).tolist()
    for number, row_id in enumerate(part.ids_n.tolist()):
        word = oracle.last(part.table, row_id, step)
        assert word is not None, f"{part.table} {row_id} was never written"
        of, row = word
        assert row is not None, f"{part.table} {row_id} has ended with step {of}"
        assert steps[number] == of, f"{part.table} {row_id} at step {step} is of step {of}, not {steps[number]}"
        weights_nd = np.frombuffer(row["weight"], dtype=np.float32)[None]
        assert part.rows_nb[number].tobytes() == codec.encode(weights_nd).tobytes(), f"{part.table} {row_id}: weights"
        for name in table.carries:
            assert part.columns[name][number].tobytes() == row[name], f"{part.table} {row_id}: {name}"
            seen.bytes_of_columns += len(row[name])
        seen.rows += 1


def check_replica(view: View, oracle: Oracle, expected: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """A replica of the last step holds the trainer's rows and no others, bit for bit: weights as their codec brings them over, versions,
    and what rides along.
    """
    assert view.step == oracle.last_step
    assert sorted(view.tables) == sorted(expected)
    for table, (name, carries) in expected.items():
        there, codec = sorted(oracle.held(table, oracle.last_step).items()), find_codec(name)
        ids = view.ids(table)
        assert ids.tolist() == [row_id for row_id, _ in there], table
        weights_nd, versions_n, columns = view.row_columns(table, ids)
        assert steps_of(versions_n).tolist() == [step for _, (step, _) in there]
        assert sorted(columns) == sorted(carries)
        for number, (row_id, (_, row)) in enumerate(there):
            ours_nd = np.frombuffer(row["weight"], dtype=np.float32)[None]
            brought_nd = codec.decode(codec.encode(ours_nd), ours_nd.shape[1])
            assert weights_nd[number].tobytes() == brought_nd.tobytes(), f"{table} {row_id}"
            for column in carries:
                assert columns[column][number].tobytes() == row[column], f"{table} {row_id}: {column}"

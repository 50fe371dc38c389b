"""Opening a log with what checkpoints hold: segments as they lie on the disk, and an index from their footers."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.files import Files
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.mark import Beginning, Held, SavedTable
from pipeline.rowlog.log.row_reads import RowReads
from pipeline.rowlog.log.segment import Kind, Segment
from pipeline.rowlog.log.segment_format import SealedSegment, check_is_of, number_of, read_footer


def restore(tables: Mapping[str, LogTable], beginning: Beginning, files: Files, reads: RowReads) -> list[Held]:
    """Fill the tables with the rows of the newest checkpoint; what is held for each. Raises LogCorrupt, OtherFormat, OSError."""
    held: list[dict[LogTable, list[Segment]]] = [{} for _ in beginning.held]
    for name, table in tables.items():
        known: dict[str, Segment] = {}
        for number, saved in enumerate(beginning.held):
            named = [_segment(table, sealed, known, files, reads) for sealed in saved.tables[name].segments]
            for segment in named:
                segment.pins += 1
            held[number][table] = named
        newest = SavedTable((), 0, 1) if beginning.newest is None else beginning.newest.tables[name]
        table.restore(
            [known[sealed.path] for sealed in newest.segments],
            list(known.values()),
            lambda segment: read_footer(files, segment.as_sealed()),
            newest.num_rows,
            beginning.next_number(name),
        )
    return [Held(one) for one in held]


def _segment(
    table: LogTable, sealed: SealedSegment, known: dict[str, Segment], files: Files, reads: RowReads
) -> Segment:
    if sealed.path not in known:
        check_is_of(files, table.spec, table.records, sealed.path)
        segment = Segment(number_of(sealed.path), sealed.path, Kind.PUT, sealed.num_rows, sealed=True, size=sealed.size)
        segment.footer = sealed.checksum
        segment.reading = reads.open(sealed.path)
        known[sealed.path] = segment
    return known[sealed.path]

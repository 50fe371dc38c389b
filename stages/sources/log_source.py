"""A source that reads a log in files: which file next, each piece to samples, bad lines refused or counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar

import numpy as np

from pipeline.flow.channel import Channel
from pipeline.flow.stage import StageContext, StageOptions
from stages.logs.csv_format import CsvFormat
from stages.logs.errors import BadLine, EmptyLog, TooManySkipped
from stages.logs.files import LogFile, find_files
from stages.logs.parquet_stream import parquet_tables
from stages.logs.prepared import prepared_part
from stages.logs.tables import LogTable, Place
from stages.sources.blocks import Arranged, Block
from stages.sources.convert import Converter
from stages.sources.cursor import Cursor
from stages.sources.options import LogOptions
from stages.sources.source import BatchSource
from stages.sources.walk import Walk


class LogSource(BatchSource):
    """Base of the sources of logs. A subclass says how a file becomes tables."""

    Options: ClassVar[type[StageOptions]] = LogOptions

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._walk = Walk(options.follow)
        self._converter = Converter(options, getattr(options, "missing", ("",)))
        self._place, self._drop = Place(-1), 0

    def _tables(self, file: LogFile, start: Place) -> AsyncGenerator[LogTable, None]:
        """The rows of ``file`` from ``start`` on."""
        raise NotImplementedError(f"{type(self).__name__} reads no files")

    async def open(self, context: StageContext) -> None:
        await super().open(context)
        if self.options.prepare is not None:
            sort, csv = self.options.prepare.sort or self.options.time, self._csv_format()
            self._prepared = await self._lane.run(prepared_part, self.options.prepare, sort, self.options.paths, csv)

    def _csv_format(self) -> CsvFormat | None:
        """How the files are written, where they are text."""
        return None

    def _find(self) -> list[LogFile]:
        if self.options.prepare is not None:
            return [self._prepared]
        return find_files(self.options.paths, may_be_none=self.options.follow)

    async def _read(self, channel: Channel[Arranged], begin: Cursor) -> None:
        for epoch in range(begin.epoch, self.options.epochs):
            first = begin if epoch == begin.epoch else Cursor(epoch=epoch)
            names: list[str] = []
            async with aclosing(self._files(first)) as files:
                async for file in files:
                    names.append(file.path)
                    await self._read_file(channel, file, first.place if file.name == first.file else Place())
                    if self._arranger.full:
                        break
            if self._arranger.empty:
                raise EmptyLog(names)
            await self._send(channel, await self._lane.run(self._arranger.end_epoch))
        await self._send(channel, await self._lane.run(self._arranger.finish))

    async def _files(self, begin: Cursor) -> AsyncGenerator[LogFile, None]:
        """The files from the cursor's on; of a followed log also those to come."""
        files = self._walk.begin(await self._lane.run(self._find), begin.file, whole=self.options.epochs > 1)
        if not self.options.follow:
            for file in files:
                yield file
            return
        if begin.file:
            yield files[0]
        while not self._stop.is_set():
            found = self._walk.next(await self._lane.run(self._find))
            if found is None:
                await self._pause()
            else:
                self._walk.take(found)
                yield found

    async def _pause(self) -> None:
        """No portable call waits for a name to appear, least of all on a network file system: look again after a
        while."""
        try:
            async with asyncio.timeout(self.options.poll_s):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _read_file(self, channel: Channel[Arranged], file: LogFile, start: Place) -> None:
        tables = self._tables(file, start) if self.options.prepare is None else self._prepared_tables(file, start)
        rows, self._place = 0, Place(-1)
        async with aclosing(tables) as found:
            async for table in found:
                rows += table.table.num_rows + len(table.skipped)
                await self._send(channel, await self._lane.run(self._absorb, table))
                if self._arranger.full:
                    return
        if rows == 0 and start == Place():
            self._context.counters.add("empty_files")

    def _prepared_tables(self, file: LogFile, start: Place) -> AsyncGenerator[LogTable, None]:
        return parquet_tables(file, list(self.options.types()), start, self._lane)

    def _absorb(self, table: LogTable) -> list[Arranged]:
        """On the lane: to samples, to batches. Raises BadLine, TooManySkipped."""
        skips, most = self.options.on_error == "skip", self.options.max_skipped
        samples, bad = self._converter.convert(table, most if skips else 0)
        if bad and not skips:
            raise BadLine(table.file.path, table.unit, bad[0].line, bad[0].what)
        if table.place != self._place:
            self._place, self._drop = table.place, 0
        lines_s = np.array([line.before for line in bad], dtype=np.int64)
        block = Block(samples, table.file.name, table.place.offset, table.place.line, self._drop, lines_s)
        self._drop += samples.num_samples
        batches = self._arranger.add(block)
        if max(self._arranger.skipped, len(bad)) > most and bad:
            last = f"{table.file.path}, {table.unit} {bad[-1].line}: {bad[-1].what}"
            raise TooManySkipped(last, max(self._arranger.skipped, len(bad)), most)
        return batches

    def state(self) -> Any:
        return {**super().state(), "files": self._walk.hashes(self._cursor.file)}

    def restore(self, state: Any) -> None:
        super().restore(state)
        self._walk = Walk(self.options.follow, bytes(state["files"]))

"""The options of the stage ``stream`` that say where the stream goes."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from pydantic import Field, model_validator

from pipeline.files import Files
from pipeline.flow import StageOptions
from pipeline.flow.run_info import RunInfo
from pipeline.wire import FileTransportOptions
from pipeline.wire.opening import FileOptions, TransportOptions
from pipeline.wire.places import StreamPlaces, open_places


class StreamPlaceOptions(StageOptions):
    transport: TransportOptions = Field(
        default_factory=FileOptions, description="what carries the stream: file, nats (JetStream), redis (Streams)"
    )
    path: Path | None = Field(None, description="directory of the stream (file); not set: RUN_DIR/stream")
    segment_bytes: int = Field(64 << 20, ge=4096, description="a segment that holds this much is followed by another")

    @model_validator(mode="after")
    def has_one_place(self) -> Self:
        if self.path is not None and not isinstance(self.transport, FileOptions):
            raise ValueError(f"path is a directory, and transport is {self.transport.kind}; leave one of them out")
        return self

    def source(self, run_dir: Path) -> str:
        """Where a replica of the run reads."""
        if self.path is None:
            return str(run_dir)
        key = self.transport.signing_key
        return str(self.path) if key is None else f"file:{self.path}?{urlencode({'signing_key': key})}"

    def open_places(self, run: RunInfo, num_shards: int, files: Files) -> StreamPlaces:
        """Touches nothing yet. Raises TransportError where a key is no good."""
        return open_places(
            self.transport,
            self.path or run.dir / "stream",
            num_shards,
            files=files,
            file_options=FileTransportOptions(segment_bytes=self.segment_bytes),
            generation=run.generation,
        )

"""The options of the SSD tier."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from pipeline.rowlog.log import RowLogOptions


class SsdOptions(RowLogOptions):
    """Where the rows that leave L1 live on disk. Options of the row log beside it."""

    path: Path | list[Path] | None = Field(
        default=None,
        description="a directory, or several on different disks, which segments take in turn; not set: RUN_DIR/ssd",
    )
    direct: bool = Field(
        default=False,
        description="read past the system's page cache: memory stays with training, every read is the disk's",
    )
    depth: int = Field(default=64, ge=1, le=1024, description="reads that the disk is asked for at once")

    @field_validator("path")
    @classmethod
    def names_a_directory(cls, path: Path | list[Path] | None) -> Path | list[Path] | None:
        if isinstance(path, list):
            if not path:
                raise ValueError("name at least one directory, or leave the key out")
            if len(set(path)) != len(path):
                raise ValueError("a directory is named twice")
        return path

    def directories(self, run_dir: Path) -> list[str]:
        if self.path is None:
            return [str(run_dir / "ssd")]
        return [str(path) for path in (self.path if isinstance(self.path, list) else [self.path])]

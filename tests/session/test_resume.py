"""A checkpoint of other tables is refused, with the table and what differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.files import RealFiles
from pipeline.rowlog import CheckpointReader, CheckpointWriter, OtherFormat
from pipeline.rowlog.checkpoint import manifest
from pipeline.rowlog.log import SavedTable
from pipeline.rows import Column, Initializer, RowLayout, TableSpec
from pipeline.session.errors import OtherCheckpoint
from pipeline.session.resume import Resume


def spec(name: str, dim: int = 8, state: str = "momentum") -> TableSpec:
    columns = Column("weight", "float32", dim, "weight"), Column(state, "float32", 1, "state")
    return TableSpec(name, RowLayout(columns), Initializer(), 3)


USER, ITEM = spec("user"), spec("item")


def checkpoint(directory: Path) -> str:
    writer = CheckpointWriter(RealFiles(), str(directory / "checkpoints"))
    writer.begin(5, 1, {})
    for one in (USER, ITEM):
        writer.add_table(one, SavedTable((), 0, 1))
    return writer.commit()


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ((USER,), r"it has the tables \['item', 'user'\], the job has \['user'\]"),
        ((USER, spec("item", dim=16)), r"of table 'item' dim was 8 and is 16; columns was weight float32\[8\]"),
        ((USER, spec("item", state="velocity")), r"of table 'item' columns was .*momentum.* and is .*velocity"),
        ((replace(USER, seed=4), ITEM), "of table 'user' seed was 3 and is 4"),
        ((USER, replace(ITEM, initializer=Initializer("zeros"))), "of table 'item' initial rows was .*uniform.*zeros"),
    ],
)
def test_other_tables_are_refused_with_what_differs(tmp_path: Path, tables: tuple[TableSpec, ...], told: str) -> None:
    resume = Resume(CheckpointReader(RealFiles(), checkpoint(tmp_path)))
    resume.check((USER, ITEM))
    with pytest.raises(OtherCheckpoint, match=told):
        resume.check(tables)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT_VERSION", 9)
        checkpoint(tmp_path)
    with pytest.raises(OtherFormat, match="format version"):
        Resume.newest(tmp_path)

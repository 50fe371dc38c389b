"""``checkpoint.copy_to``: a second run directory that holds copies of the checkpoints, ready to be read or resumed.

It has ``run.json`` and ``checkpoints/``, so ``rows``, ``export``, ``verify`` and ``run --resume`` take it as they take a run.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.files import Files, write_atomically
from pipeline.flow.run_info import RunInfo
from pipeline.rowlog.checkpoint.copying import copy_checkpoint
from pipeline.session.errors import CopyTaken, NoRun
from pipeline.session.rundir import describe


class Copies:
    """Of the checkpoints of one run, into ``directory``; the newest ``keep`` stay."""

    def __init__(self, files: Files, run: RunInfo, directory: Path, keep: int) -> None:
        """Raises CopyTaken where the directory is part of the run's own, or holds anything but copies of this run."""
        self._files, self._run, self._directory, self._keep = files, run, directory, keep
        inside, outside = directory.resolve(), run.dir.resolve()
        if inside == outside or outside in inside.parents or inside in outside.parents:
            raise CopyTaken(directory, f"it lies in the run's directory {run.dir}, or around it")
        if not directory.exists() or not any(directory.iterdir()):
            return
        try:
            found = describe(directory)["run_id"]
        except NoRun:
            raise CopyTaken(directory, "it holds files that no run wrote") from None
        if found != run.run_id:
            raise CopyTaken(directory, f"it holds the run {found}, this is run {run.run_id}")

    def take(self, checkpoint: Path) -> Path:
        """Copy a checkpoint that is durable. Blocks."""
        self._files.make_dirs(str(self._directory))
        write_atomically(
            self._files, str(self._directory / "run.json"), self._files.read(str(self._run.dir / "run.json"))
        )
        target = str(self._directory / "checkpoints")
        return Path(copy_checkpoint(self._files, str(checkpoint), target, keep=self._keep))

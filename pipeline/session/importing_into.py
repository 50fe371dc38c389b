"""``import --resume``: rows from files into a run that is there already, as the step behind its newest checkpoint.

Rules.

1. Everything was found to fit before the run is touched (``importing``), and its config has to be the run's.
2. The rows are loaded as one step (``store.loading``) into what the newest checkpoint holds; a checkpoint of that step follows, with all
   else as it was. It is durable or not there: a process that dies leaves the run at the checkpoint before.
3. From that checkpoint on something else is computed than before, so it is a fork, durable in ``run.json`` first: the next process that
   trains begins its stream with a cut that takes replicas there, whatever was published behind it.
4. A step that no batch was: stages count on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.flow import Marker
from pipeline.flow.run_info import RunInfo
from pipeline.session.disk import Disk
from pipeline.session.importing import Say, TableImport, check_imports
from pipeline.session.plan import Plan
from pipeline.session.resources import Resources
from pipeline.session.resume import Resume
from pipeline.session.rundir import claim_again

IMPORT = "import"


def import_into(
    plan: Plan,
    imports: Mapping[str, TableImport],
    record: dict[str, Any],
    look: Callable[[dict[str, Any]], Resume],
    *,
    say: Say,
    disk: Disk | None = None,
) -> int:
    """Load these rows, by table, into the run in the plan's directory; returns the step of the checkpoint that holds them.

    ``look`` is given what ``run.json`` says and finds what the run goes on from. Raises ImportFailed, and what ``look`` does; then nothing
    was changed. Raises what reading files and tiers does; then the newest checkpoint is the one before.
    """
    disk = disk or Disk()
    check_imports(imports, say)
    files = {name: one.reader.path for name, one in imports.items()}

    def look_for_fork(described: dict[str, Any]) -> Resume:
        found = look(described)
        found.accepted = {IMPORT: {"was": "rows as trained", "is": files}}
        return found

    with claim_again(plan.settings.run.dir, look_for_fork, record=record, files=disk.files) as (run, resume):
        return _load(plan, replace(run, resumed=resume.told()), resume, imports, say, disk)


def _load(plan: Plan, run: RunInfo, resume: Resume, imports: Mapping[str, TableImport], say: Say, disk: Disk) -> int:
    quiet = replace(plan, settings=plan.settings.model_copy(update={"hooks": {}}))
    with Resources(quiet, run, say, resume, disk) as resources:
        step = resources.store.load_packed(_parts(imports, say))
        marker = Marker(IMPORT, 1, states=dict(resume.states))
        if resources.store.dynamic is not None:
            marker.attachments["dynamic"] = resources.store.dynamic.state()
        resources.checkpoints.freeze(marker)
        resources.checkpoints.write(marker)
    return step


def _parts(imports: Mapping[str, TableImport], say: Say) -> Iterator[tuple[str, Any, Any]]:
    for name, one in imports.items():
        done = 0
        for ids_n, rows_nb, _ in one.packed():
            yield name, ids_n, rows_nb
            done += len(ids_n)
            say(f"{name}: {done} of {one.num_rows} rows loaded")

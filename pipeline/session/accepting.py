"""What of a resumed run differs from the run so far, and was accepted on the command line: the decision of ``same_job``, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.session.errors import NeedlessAccept, NotAcceptable, OtherJob
from pipeline.session.same_job import PROOF, identity_differences, judge, machine_differences


def accepted(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], accept: Sequence[str]) -> dict[str, Any]:
    """By key what was and what is, of all that differs; ``path`` is the run's. ``before`` and ``now`` have ``config`` and ``environment``.

    Raises OtherJob, NotAcceptable, NeedlessAccept.
    """
    differs = identity_differences(before["config"], now["config"])
    differs += machine_differences(before["environment"], now["environment"])
    judged = judge(differs, accept)
    if judged.fixed:
        raise NotAcceptable(path, judged.fixed)
    if judged.needless:
        raise NeedlessAccept(path, judged.needless, differs)
    if judged.refused:
        raise OtherJob(path, judged.refused)
    found: dict[str, Any] = {one.key: {"was": one.was, "is": one.now} for one in judged.accepted}
    if PROOF in accept:
        found[PROOF] = {"was": "required", "is": "not required"}
    return found

"""What of a resumed run differs from the run so far, and was accepted on the command line: the decision of ``same_job``, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.session.errors import NeedlessAccept, NotAcceptable, OtherJob
from pipeline.session.same_job import PROOF, identity_differences, judge, machine_differences
from pipeline.session.settings import Settings


def accepted(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], accept: Sequence[str]) -> dict[str, Any]:
    """By key what was and what is, of all that differs; ``path`` is the run's. ``before`` and ``now`` have ``config`` and ``environment``.

    Raises OtherJob, NotAcceptable, NeedlessAccept.
    """
    differs = identity_differences(filled_in(before["config"]), now["config"])
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


def filled_in(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config that a run was recorded with, and the defaults of the keys that its version did not know.

    So a run goes on where those keys are at their defaults: what a new key does at its default is what was done before there was
    one. A config that today's models refuse is given back as it is: what is missing then differs, and is named.
    """
    try:
        return Settings.model_validate(config).model_dump(mode="json")
    except ValidationError:
        return config

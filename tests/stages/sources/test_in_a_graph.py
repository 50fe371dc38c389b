"""Sources and negatives as the planner and a runner see them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.flow import GraphError, Stage, plan
from stages.negatives import Negatives
from stages.sources import CsvSource, ParquetSource, SyntheticSource

CLASSES: dict[str, type[Stage]] = {
    "csv": CsvSource,
    "parquet": ParquetSource,
    "synthetic": SyntheticSource,
    "negatives": Negatives,
}


def graph(**stages: dict[str, Any]) -> Any:
    return plan(stages, resources=["run"], find=CLASSES.__getitem__)


def test_a_source_keeps_its_own_policy_for_bad_lines() -> None:
    log = {"use": "csv", "paths": "log", "features": {"user": "user"}, "label": 1, "on_error": "skip", "max_skipped": 9}
    planned = graph(source=log, negatives={"item": "user"})
    assert (planned.stages[0].options.on_error, planned.stages[0].options.max_skipped) == ("skip", 9)
    assert planned.stages[0].runtime.on_error == "fail"


def test_negatives_cannot_be_skipped_as_they_remember() -> None:
    log = {"use": "csv", "paths": "log", "features": {"user": "user"}, "label": 1}
    with pytest.raises(GraphError, match="effects"):
        graph(source=log, negatives={"item": "user", "on_error": "skip"})


def test_a_misspelt_option_of_a_source_is_refused_with_the_nearest() -> None:
    with pytest.raises(GraphError, match="batch_size"):
        graph(source={"use": "synthetic", "samples": 5, "features": {"a": {"ids": 3}}, "batch_sise": 4})

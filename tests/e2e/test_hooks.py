"""Hooks named in a config, in whole runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import own_hooks
from tests.e2e.command import here
from tests.e2e.jobs import RAGGED, assert_same_bits, run_job
from tests.e2e.small import good_job

OWN = "tests.e2e.own_hooks"
WATCHED: dict[str, Any] = {
    "gradients": {"use": f"{OWN}:on_gradients", "at": "before_update", "tables": ["wide"]},
    "watcher": {"use": f"{OWN}:Watcher", "at": ["after_update", "before_evict"], "options": {"note": "seen"}},
}


@pytest.mark.parametrize("tier", [(), ("store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096")])
def test_hooks_that_only_read_change_no_bit(tmp_path: Path, tier: tuple[str, ...]) -> None:
    own_hooks.CALLS.clear()
    plain = run_job(tmp_path / "plain", RAGGED, "store.l1_rows=4096", "stages.prefetch.lookahead=1")
    job = copy.deepcopy(RAGGED) | {"hooks": WATCHED}
    small = f"store.l1_rows={plain.least_l1() + 8}"
    from_code: list[int] = []

    def add(resources: Any) -> None:
        resources.store.add_hook("after_update", lambda _table, ids, _rows: from_code.append(len(ids)), name="mine")

    watched = run_job(tmp_path / "run", job, small, "stages.prefetch.lookahead=3", *tier, on_open=add)
    assert_same_bits(plain, watched)
    calls, summary = own_hooks.CALLS, watched.summary
    assert calls[0] == ("open", "seen", 0)
    assert calls[-1] == ("close", "seen", 0)
    rows = {at: sum(count for place, _, count in calls if place == at) for at in ("after_update", "before_evict")}
    assert rows == {"after_update": summary["rows_updated"], "before_evict": summary["l1"]["evictions"]}
    assert rows["before_evict"] > 0
    assert sum(from_code) == summary["rows_updated"]
    assert {table for place, table, _ in calls if place == "before_update"} == {"wide"}
    told = [(hook["name"], hook["at"]) for hook in summary["hooks"]]
    assert told == [
        ("gradients", "before_update"),
        ("watcher", "after_update"),
        ("watcher", "before_evict"),
        ("mine", "after_update"),
    ]
    assert all(hook["calls"] > 0 and not hook["skipped"] for hook in summary["hooks"])
    resumed = run_job(tmp_path / "run", RAGGED, small, resume=True, accept=["proof"])
    assert resumed.summary["hooks"] == []


@pytest.mark.parametrize("at", ["before_update", "after_update", "before_evict"])
def test_a_hook_that_raises_stops_the_run_with_its_name(tmp_path: Path, at: str) -> None:
    outcome = here("run", good_job(tmp_path), "store.l1_rows=40", f"hooks.mine={{use: '{OWN}:broken', at: {at}}}")
    assert outcome.code == 1, outcome.text
    assert f"hook 'mine' ({at}) failed at step" in outcome.text
    assert "ValueError: nothing is right with" in outcome.text
    assert "Traceback" not in outcome.text


def test_or_is_skipped_and_counted(tmp_path: Path) -> None:
    hook = f"hooks.mine={{use: '{OWN}:broken', at: after_update, tables: [item], on_error: skip}}"
    outcome = here("run", good_job(tmp_path), hook)
    assert outcome.code == 0, outcome.text
    (told,) = json.loads((tmp_path / "run" / "summary.json").read_text())["hooks"]
    assert (told["name"], told["calls"], told["skipped"]) == ("mine", 13, 13)
    assert "step 1, table 'item': ValueError" in told["first_error"]
    assert "13 of 13 hook calls failed and were skipped" in outcome.text


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("{use: tests.e2e.own_hooks, at: after_update}", ["hooks.mine.use", "package.module:function"]),
        ("{use: 'tests.e2e.no_hooks:x', at: after_update}", ["hooks.mine.use", "no_hooks"]),
        (f"{{use: '{OWN}:brokn', at: after_update}}", ["hooks.mine.use", "did you mean 'broken'?"]),
        (f"{{use: '{OWN}:too_few', at: after_update}}", ["hooks.mine.use", "(table, ids, rows)"]),
        (f"{{use: '{OWN}:late', at: after_update}}", ["hooks.mine.use", "async"]),
        (f"{{use: '{OWN}:Watcher', at: before_update}}", ["hooks.mine.use", "no method before_update"]),
        (f"{{use: '{OWN}:Needy', at: before_update}}", ["hooks.mine.options", "wanted"]),
        (f"{{use: '{OWN}:Watcher', at: after_update, options: {{nte: 1}}}}", ["hooks.mine.options", "nte"]),
        (f"{{use: '{OWN}:broken', at: after_updat}}", ["hooks.mine.at", "before_evict"]),
        (f"{{use: '{OWN}:broken', at: after_update, tables: [usr]}}", ["hooks.mine.tables", "did you mean 'user'?"]),
        (f"{{use: '{OWN}:broken', at: after_update, on_error: ignore}}", ["hooks.mine.on_error", "'skip'"]),
        (f"{{use: '{OWN}:broken', at: after_update, table: [user]}}", ["hooks.mine.table", "did you mean 'tables'?"]),
    ],
)
def test_a_hook_that_cannot_be_is_refused(tmp_path: Path, hook: str, said: list[str]) -> None:
    outcome = here("check", good_job(tmp_path), f"hooks.mine={hook}")
    assert outcome.code == 2, outcome.text
    for part in said:
        assert part in outcome.text
    assert "Traceback" not in outcome.text


HOOKS_YAML = """\
include: job.yaml
hooks:
  fine: {use: "tests.e2e.own_hooks:on_gradients", at: before_update}
  mine:
    at: after_update
    use: "tests.e2e.own_hooks:brokn"
    tables: [usr]
  needy: {use: "tests.e2e.own_hooks:Needy", at: before_evict}
"""


def test_the_refusal_names_the_file_and_the_line_of_every_bad_hook(tmp_path: Path) -> None:
    good_job(tmp_path)
    own = tmp_path / "hooks.yaml"
    own.write_text(HOOKS_YAML)
    outcome = here("run", own)
    assert outcome.code == 2, outcome.text
    for place in (":6: hooks.mine.use: ", ":7: hooks.mine.tables: ", ":8: hooks.needy.options: "):
        assert f"hooks.yaml{place}" in outcome.text
    assert "hooks.fine" not in outcome.text
    assert not (tmp_path / "run").exists()

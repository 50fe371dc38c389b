"""Which differences between two jobs are free, which are refused, and what accepting them by name does."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.session.same_job import ABSENT, Difference, differences, identity_differences, judge, machine_differences

JOB: dict[str, Any] = {
    "run": {"dir": "a", "seed": 1, "threads": 2},
    "tables": {"user": {"dim": 8, "init": {"kind": "uniform"}, "optimizer": {"kind": "sgd", "lr": 0.1}}},
    "dense_optimizer": {"use": "Adagrad", "lr": 0.01, "schedule": {"use": "constant"}},
    "store": {"l1_rows": 10},
    "stages": {"source": {"use": "csv", "paths": ["a", "b"], "queue": {"items": 2}}, "stream": {"every": "1s"}},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """JOB with another value at a path."""

    def walk(tree: dict[str, Any], names: list[str]) -> dict[str, Any]:
        name, *rest = names
        return {**tree, name: walk(tree.get(name, {}), rest) if rest else value}

    return walk(JOB, key.split("."))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.dir", "b"),
        ("run.steps", 9),
        ("store.l1_rows", 5),
        ("store.ssd.path", "x"),
        ("dense_optimizer.schedule.use", "cosine"),
        ("stages.source.queue.items", 9),
        ("stages.stream.codec", "fp16"),
        ("stages.source.paths", ["a", "b", "c"]),
        ("hooks", {}),
        ("hooks.mine", {"use": "my:hook", "at": ["after_update"], "options": {}}),
    ],
)
def test_layout_and_continuation_are_free(key: str, value: Any) -> None:
    assert identity_differences(JOB, changed(key, value)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.seed", 2),
        ("run.threads", 4),
        ("dense_optimizer.lr", 0.02),
        ("tables.user.optimizer.lr", 0.2),
        ("stages.source.paths", ["a", "c"]),
        ("stages.source.paths", ["b"]),
        ("stages.mine.use", "my:Stage"),
        ("hooks_of_mine", "my:hook"),
    ],
)
def test_all_else_is_named(key: str, value: Any) -> None:
    (found,) = identity_differences(JOB, changed(key, value))
    assert found.key == key
    assert found.now == value


def test_hooks_may_come_change_and_go() -> None:
    one = changed("hooks.mine", {"use": "my:hook", "at": ["after_update"], "tables": None})
    other = changed("hooks.mine", {"use": "my:other", "at": ["before_evict"], "tables": ["user"]})
    for before, now in ((JOB, one), (one, other), (other, JOB), (one, changed("hooks", {}))):
        assert differences(before, now)
        assert identity_differences(before, now) == []


def test_one_path_may_become_the_first_of_several() -> None:
    assert identity_differences(changed("stages.source.paths", "a"), changed("stages.source.paths", ["a", "b"])) == []


def test_a_key_that_is_gone_differs() -> None:
    without = {**JOB, "dense_optimizer": {"use": "Adagrad"}}
    found = {str(one) for one in identity_differences(JOB, without)}
    assert f"dense_optimizer.lr was 0.01 and is {ABSENT!r}" in found


DIFFERS = [
    Difference("dense_optimizer.lr", 1, 2),
    Difference("dense_optimizer.use", "a", "b"),
    Difference("machine.cpu", "x", "y"),
]


def test_a_name_accepts_what_lies_below_it_and_nothing_else() -> None:
    judged = judge(DIFFERS, ["dense_optimizer"])
    assert [one.key for one in judged.accepted] == ["dense_optimizer.lr", "dense_optimizer.use"]
    assert [one.key for one in judged.refused] == ["machine.cpu"]
    assert (judged.fixed, judged.needless) == ([], [])


@pytest.mark.parametrize("name", ["dense", "dense_optimizer.l", "run.dir", "machine.cpu.x", ""])
def test_a_name_that_accepts_nothing_is_needless(name: str) -> None:
    assert judge(DIFFERS, [name]).needless == [name]


def test_proof_is_no_key_of_a_config() -> None:
    judged = judge([], ["proof"])
    assert (judged.accepted, judged.needless) == ([], [])


@pytest.mark.parametrize("key", ["run.seed", "tables.user.dim", "tables.user.init.kind", "tables.other.dim"])
def test_what_rows_begin_as_cannot_be_accepted(key: str) -> None:
    judged = judge([Difference(key, 1, 2)], [key])
    assert [one.key for one in judged.fixed] == [key]
    assert (judged.accepted, judged.refused, judged.needless) == ([], [], [])


def test_another_machine_is_told_by_its_parts_but_threads_are_the_configs() -> None:
    before = {"cpu": "x", "threads": 1, "packages": {"torch": "1"}}
    found = machine_differences(before, {"cpu": "y", "threads": 2, "packages": {"torch": "2"}})
    assert [one.key for one in found] == ["machine.cpu", "machine.packages.torch"]
    assert judge(found, ["machine"]).refused == []

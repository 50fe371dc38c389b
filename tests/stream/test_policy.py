"""When to cut is parsed from a text and decided purely."""

from __future__ import annotations

import pytest

from pipeline.stream import CutPolicy, PolicyError


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("10 steps", CutPolicy(10, None)),
        ("1 step", CutPolicy(1, None)),
        (" 3steps ", CutPolicy(3, None)),
        ("25ms", CutPolicy(None, 0.025)),
        ("25 ms", CutPolicy(None, 0.025)),
        ("0.5ms", CutPolicy(None, 0.0005)),
        ("1.5s", CutPolicy(None, 1.5)),
        ("950 ms", CutPolicy(None, 0.95)),
    ],
)
def test_what_can_be_written(text: str, policy: CutPolicy) -> None:
    assert CutPolicy.parse(text) == policy
    assert CutPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize(
    "text", ["", "10", "ten steps", "0 steps", "-1 steps", "0ms", "25m", "1e3 ms", "steps", "1.5 steps", 25]
)
def test_what_cannot_be_written_is_refused_with_examples(text: str) -> None:
    with pytest.raises(PolicyError, match=r"does not say when to cut; write .* such as '10 steps', '25ms' or '1.5s'"):
        CutPolicy.parse(text)


def test_steps_are_counted_whatever_the_time() -> None:
    policy = CutPolicy.parse("3 steps")
    for at_step_end in (False, True):
        assert [policy.is_due(steps, 100.0, at_step_end) for steps in range(5)] == [False, False, False, True, True]
    assert policy.due_in_s(100.0) == (0.0, None)


def test_a_timed_cut_waits_for_a_steps_end_but_not_for_ever() -> None:
    policy = CutPolicy.parse("25ms")
    assert not policy.is_due(0, 1.0, at_step_end=True), "no step ended since the cut before"
    assert not policy.is_due(1, 0.024, at_step_end=True)
    assert policy.is_due(1, 0.025, at_step_end=True)
    assert not policy.is_due(1, 0.049, at_step_end=False)
    assert policy.is_due(1, 0.050, at_step_end=False), "no further step came"
    assert policy.due_in_s(0.005) == pytest.approx((0.020, 0.045))
    assert policy.due_in_s(0.030) == pytest.approx((0.0, 0.020))
    assert policy.due_in_s(1.0) == (0.0, 0.0)

"""Admission and expiry with impossible numbers are refused before anything runs, with key and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command import here
from tests.e2e.small import good_job


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("admission.after=0", "greater than or equal to 1"),
        ("admission={after: 2, bytes: 100}", "greater than or equal to 65536"),
        ("admission={after: 2, default: .nan}", "finite"),
        ("admission={after: 2, defalt: 1}", "did you mean 'default'"),
        ("admission.bytes=1MB", "after"),
        ("expiry={}", "set one of them"),
        ("expiry.steps=0", "greater than or equal to 1"),
        ("expiry={rows: 0}", "greater than or equal to 1"),
        ("expiry={rows: 9, every: 0}", "greater than or equal to 1"),
        ("expiry={steps: 9, score: uses}", "`rows`, which is not set"),
        ("expiry={rows: 9, score: age}", "'last_use' or 'uses'"),
        ("expiry={row: 9}", "did you mean 'rows'"),
    ],
)
def test_impossible_numbers_are_refused_by_check(tmp_path: Path, override: str, said: str) -> None:
    outcome = here("check", good_job(tmp_path), f"tables.user.{override}")
    assert outcome.code == 2
    assert f"tables.user.{override.split('=')[0].split('.')[0]}" in outcome.text
    assert said in outcome.text

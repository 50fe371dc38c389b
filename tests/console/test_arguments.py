from __future__ import annotations

import pytest

from pipeline.console.arguments import UsageError, parse_ids, split_config


def test_overrides_and_files_come_in_any_order() -> None:
    words = [
        "quickstart",
        "run.seed=3",
        "configs/parts/a=b.yaml",
        "../x.yaml",
        "tables[a.b].dim=8",
        "a=b=c",
        "store.x=",
    ]
    assert split_config(words) == (
        ["quickstart", "configs/parts/a=b.yaml", "../x.yaml"],
        ["run.seed=3", "tables[a.b].dim=8", "a=b=c", "store.x="],
    )


def test_without_a_file_the_shipped_ones_are_named() -> None:
    with pytest.raises(UsageError, match="name a config: a YAML file, or one of those that are shipped"):
        split_config(["run.seed=3"])


def test_every_int64_is_an_id() -> None:
    assert parse_ids(["-9223372036854775808", "-1", "5,6", "9223372036854775807"]) == [-(2**63), -1, 5, 6, 2**63 - 1]


@pytest.mark.parametrize(
    ("word", "said"), [("--jsn", "neither an option nor an id"), ("9223372036854775808", "go from"), (",", "name some")]
)
def test_what_is_no_id_is_refused(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_ids([word])

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.keys import Key, format_key, parse_key

NAMES = st.from_regex(r"[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_.-]*", fullmatch=True)
KEYS = st.lists(NAMES | st.integers(0, 99), min_size=1).map(tuple)


@given(KEYS)
def test_a_key_path_survives_its_text(key: Key) -> None:
    assert parse_key(format_key(key)) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("run.seed", ("run", "seed")),
        ("source.files[0].name", ("source", "files", 0, "name")),
        ("tables[user.clicks].dim", ("tables", "user.clicks", "dim")),
        ("0.1", ("0", "1")),
    ],
)
def test_key_paths_read_as_documented(text: str, key: Key) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a[]", "a]b", "a[0]b", "a.[0]"])
def test_malformed_key_paths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no key path"):
        parse_key(text)

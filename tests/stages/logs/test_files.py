"""Which files a pattern finds, in which order; how bytes are unpacked."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stages.logs import find_files, natural_key
from stages.logs.decompression import BadCompression, Decompressor, detect
from stages.logs.errors import NoSuchLog


def test_digits_in_names_count_as_numbers() -> None:
    names = ["part-10", "part-9", "part-1b", "part-1", "part-01", "part", "10", "9", "a"]
    expected = ["9", "10", "a", "part", "part-01", "part-1", "part-1b", "part-9", "part-10"]
    assert sorted(names, key=natural_key) == expected


@given(st.lists(st.text("ab019-", max_size=6), unique=True))
def test_the_natural_order_is_total(names: list[str]) -> None:
    keys = sorted(map(natural_key, names))
    assert all(a < b for a, b in pairwise(keys))


def test_names_lie_below_the_fixed_directory_and_patterns_keep_their_order(tmp_path: Path) -> None:
    for name in ("b/hour-10/x.csv", "b/hour-9/x.csv", "a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    nested = find_files([f"{tmp_path}/b/hour-*/*.csv"])
    assert [file.name for file in nested] == ["hour-9/x.csv", "hour-10/x.csv"]
    assert [file.path for file in nested] == [f"{tmp_path}/b/hour-9/x.csv", f"{tmp_path}/b/hour-10/x.csv"]
    assert [f.name for f in find_files([f"{tmp_path}/b/**/*.csv", f"{tmp_path}/a.csv"])] == [
        "0/hour-9/x.csv",
        "0/hour-10/x.csv",
        "1/a.csv",
    ]


def test_a_pattern_that_finds_nothing_is_refused_unless_that_is_expected(tmp_path: Path) -> None:
    with pytest.raises(NoSuchLog, match=r"none-\*"):
        find_files([f"{tmp_path}/none-*"])
    assert find_files([f"{tmp_path}/none-*"], may_be_none=True) == []


@given(
    parts=st.lists(st.binary(max_size=300), max_size=4), size=st.integers(1, 50), data=st.sampled_from(["gzip", "zstd"])
)
def test_streams_of_many_members_unpack_in_any_pieces(parts: list[bytes], size: int, data: str) -> None:
    packer = gzip.compress if data == "gzip" else zstandard.ZstdCompressor().compress
    packed = b"".join(packer(part) for part in parts)
    kind = detect(packed[:4])
    unpacker = Decompressor(kind)
    out = b"".join(unpacker.feed(packed[i : i + size]) for i in range(0, len(packed), size))
    unpacker.finish()
    assert out == b"".join(parts)
    assert kind == (data if parts else "none")


def test_a_stream_that_ends_inside_a_member_is_told() -> None:
    unpacker = Decompressor("zstd")
    unpacker.feed(zstandard.ZstdCompressor().compress(b"x" * 1000)[:-1])
    with pytest.raises(BadCompression) as caught:
        unpacker.finish()
    assert caught.value.truncated

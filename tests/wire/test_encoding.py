"""Frames come back as they went; anything else is refused, with its place, before memory is taken."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.wire import FrameError, FrameLimits, RowsFrame, TableRows, decode_frame, encode_frame
from pipeline.wire.envelope import ENVELOPE_BYTES, seal, unseal
from pipeline.wire.frames import DEFAULT_LIMITS, Frame
from tests.wire.frame_strategies import frames, headers, rows_frames, same
from tests.wire.parts import join_runs


def part(count: int = 100, width: int = 32) -> TableRows:
    rng = np.random.default_rng(7)
    return TableRows(
        table="items",
        ids_n=rng.integers(-(1 << 62), 1 << 62, count),
        rows_nb=rng.integers(0, 256, (count, width), dtype=np.uint8),
        versions_n=rng.integers(1, 1 << 40, count),
    )


def rows_frame(*parts: TableRows) -> RowsFrame:
    rows = join_runs(parts or (part(),))
    return RowsFrame(generation=1, cut=2, number=0, step=5, clock_ns=10, snapshot=False, rows=rows)


def content_of(frame: Frame) -> dict[str, Any]:
    value: dict[str, Any] = msgpack.unpackb(unseal(encode_frame(frame), DEFAULT_LIMITS))
    return value


def sealed(content: Any) -> bytes:
    return seal(msgpack.packb(content))


@given(frames)
@settings(max_examples=150, deadline=None)
def test_a_frame_comes_back_as_it_went(frame: Frame) -> None:
    assert same(decode_frame(encode_frame(frame)), frame)


@given(rows_frames(), st.sampled_from([-20, -3, 1, 3, 9]))
@settings(max_examples=25, deadline=None)
def test_the_level_of_compression_does_not_matter_to_a_reader(frame: RowsFrame, level: int) -> None:
    assert same(decode_frame(encode_frame(frame, level)), frame)


@given(frames, st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_anywhere_is_refused(frame: Frame, data: st.DataObject) -> None:
    good = bytearray(encode_frame(frame))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        decode_frame(bytes(good))


@given(frames, st.data())
@settings(max_examples=80, deadline=None)
def test_a_shorter_or_longer_frame_is_refused(frame: Frame, data: st.DataObject) -> None:
    good = encode_frame(frame)
    with pytest.raises(FrameError):
        decode_frame(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(FrameError):
        decode_frame(good + data.draw(st.binary(min_size=1, max_size=9)))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)  # fmt: skip


@given(frames, st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_field_under_a_good_checksum_is_refused_or_means_what_it_says(
    frame: Frame, data: st.DataObject
) -> None:
    content = content_of(frame)
    name = data.draw(st.sampled_from(sorted(content)) | st.text(max_size=6))
    content[name] = data.draw(values)
    try:
        decoded = decode_frame(sealed(content))
    except FrameError:
        return
    again = content_of(decoded)
    absent = {
        "dead": b"",
        "columns": [],
        "snapshot": False,
        "end": False,
        "shuffled": [],
        "delta": [],
        "best_effort": False,
        "dictionary": b"",
    }
    assert {**absent, **again} == {
        **absent,
        **{key: value for key, value in content.items() if value is not None or key == "dense"},
    }


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_in_a_good_envelope_is_refused(noise: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frame(seal(noise))


def test_another_format_version_is_refused_by_name() -> None:
    good = bytearray(encode_frame(rows_frame()))
    good[4:6] = struct.pack("<H", 3)
    with pytest.raises(FrameError, match="format version 3; this build reads versions 1 and 2"):
        decode_frame(bytes(good))


def test_an_unknown_kind_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(FrameError, match="'rowz' is not one of header, rows, dense, commit"):
        decode_frame(sealed(content_of(rows_frame()) | {"kind": "rowz"}))


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(FrameError, match=r"unknown field.* 'colour'"):
        decode_frame(sealed(content_of(rows_frame()) | {"colour": 1}))


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 129, "ä", "a\n"])
def test_a_name_outside_the_pattern_is_refused(name: str) -> None:
    with pytest.raises(FrameError, match=r"run 0.*does not match"):
        decode_frame(sealed(content_of(rows_frame()) | {"runs": [[name, 100, 32, 0]]}))


Change = Callable[[dict[str, Any]], dict[str, Any]]
WRONG: dict[str, Change] = {
    "7 bytes are not": lambda c: {"ids": c["ids"][:7]},
    "99 numbers where 100 are announced": lambda c: {"versions": c["versions"][:-8]},
    "field 'ids': 99 numbers where 100": lambda c: {"ids": c["ids"][:-8]},
    "3199 bytes where 3200 are announced": lambda c: {"rows": c["rows"][:-1]},
    "0 bytes where 3200 are announced": lambda _: {"rows": b""},
    "the field is missing": lambda _: {"ids": None},
    "expected bytes, found str": lambda _: {"rows": "text"},
    "version is not above 0": lambda c: {"versions": bytes(len(c["versions"]))},
    "expected int, found bool": lambda _: {"cut": True},
    "-1 is not within": lambda _: {"step": -1},
    "expected list, found dict": lambda _: {"runs": {}},
    "run 0: a run is": lambda _: {"runs": [7]},
    "run 0: a run is .table, rows": lambda _: {"runs": [["items", True, 32, 0]]},
    "-5 rows is not within": lambda _: {"runs": [["items", -5, 32, 0]]},
    "0 bytes of a row is not within 1": lambda _: {"runs": [["items", 100, 0, 0]]},
    "1 bytes of a row is not within 0 .. 0": lambda _: {"runs": [["items", 0, 1, 0], ["items", 100, 32, 0]]},
    "0 numbers where 1 are announced": lambda _: {"runs": [["items", 100, 32, 1]]},
    "ids in all": lambda _: {"runs": [["items", 1 << 20, 32, 1 << 20]]},
    "1025 exceeds": lambda _: {"runs": [["items", 0, 0, 0]] * 1025},
    "a column that rides along is": lambda _: {"columns": [["age", 0, b""]]},
    "run 1, column 'age': no such run": lambda _: {"columns": [[1, "age", b"7"]]},
    "run 0, column 'age': no such run, or named twice": lambda _: {"columns": [[0, "age", bytes(100)]] * 2},
    "expected some of ids, rows, versions, dead, each once": lambda _: {"shuffled": ["ids", "clock"]},
    "'shuffled': expected some of": lambda _: {"shuffled": ["ids", "ids"]},
    "field 'shuffled': expected some": lambda _: {"shuffled": [["ids"]]},
    "'shuffled': 5 items, the limit is 4": lambda _: {"shuffled": ["ids"] * 5},
    "expected some of ids, versions, dead, each once": lambda _: {"delta": ["ids", "rows"]},
    "'delta': expected some of": lambda _: {"delta": ["ids", "ids"]},
    "field 'delta': expected some": lambda _: {"delta": [["ids"]]},
    "'delta': 4 items, the limit is 3": lambda _: {"delta": ["ids"] * 4},
    "99 numbers where 100": lambda c: {"delta": ["versions"], "versions": c["versions"][:-8]},
    "a version is not above 0": lambda _: {
        "delta": ["versions"],
        "versions": (1).to_bytes(8, "little") + b"\xff" * 8 + bytes(784),
    },
    "field 'rows': 3199 bytes where": lambda c: {"shuffled": ["rows"], "rows": c["rows"][:-1]},
    "99 bytes do not make 100 rows": lambda _: {"columns": [[0, "age", bytes(99)]]},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_rows_frame_is_said(what: str) -> None:
    content = content_of(rows_frame())
    content |= WRONG[what](content)
    with pytest.raises(FrameError, match=what):
        decode_frame(sealed({name: value for name, value in content.items() if value is not None}))


@given(headers())
@settings(max_examples=20, deadline=None)
def test_a_header_that_names_a_table_twice_is_refused(header: Frame) -> None:
    content = content_of(header)
    content["tables"] = content["tables"][:1] * 2
    if content["tables"]:
        with pytest.raises(FrameError, match="named twice"):
            decode_frame(sealed(content))


def bomb(stated: int, body: bytes) -> bytes:
    """An envelope that is right in itself around any body."""
    prefix = struct.pack("<4sHHQ", b"RSFR", 1, 1, stated)
    return prefix + struct.pack("<Q", xxhash.xxh64_intdigest(prefix + body)) + body


def nested(depth: int) -> bytes:
    return b"\xdd\x00\x00\x04\x00" * depth


HUGE = zstandard.ZstdCompressor().compress(bytes(1 << 30))
BOMBS = {
    "content larger than the limit": bomb(1 << 30, HUGE),
    "content larger than it says": bomb(100, HUGE),
    "a size of 2**63": bomb(1 << 63, HUGE),
    "no size in the zstd frame": bomb(100, zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)),
    "an array of 2**32 - 1": seal(b"\xdd\xff\xff\xff\xff"),
    "a map of 2**32 - 1": seal(b"\xdf\xff\xff\xff\xff"),
    "a bin of 2**32 - 1": seal(b"\xc6\xff\xff\xff\xff"),
    "a str of 2**32 - 1": seal(b"\xdb\xff\xff\xff\xff"),
    "an ext of 2**32 - 1": seal(b"\xc9\xff\xff\xff\xff\x01"),
    "arrays in arrays": seal(nested(1000)),
    "more arrays in arrays": seal(nested(100_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_frame_that_claims_more_than_it_holds_takes_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            decode_frame(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_limits_are_the_readers_own() -> None:
    data = encode_frame(rows_frame(part(count=60), part(count=40)))
    with pytest.raises(FrameError, match=r"60 rows is not within 0 \.\. 59"):
        decode_frame(data, FrameLimits(rows=59))
    with pytest.raises(FrameError, match="more than 99 ids in all"):
        decode_frame(data, FrameLimits(rows=99))
    with pytest.raises(FrameError, match=r"expected 25 \.\. 50"):
        decode_frame(data, FrameLimits(frame_bytes=50))
    with pytest.raises(FrameError, match="the limit is 1000"):
        decode_frame(data, FrameLimits(content_bytes=1000))


def test_an_empty_input_is_refused() -> None:
    with pytest.raises(FrameError, match=f"0 bytes, expected {ENVELOPE_BYTES + 1}"):
        decode_frame(b"")


def test_rows_that_do_not_belong_together_are_not_encoded() -> None:
    rows = part()
    with pytest.raises(ValueError, match="99 versions"):
        encode_frame(rows_frame(TableRows("t", rows.ids_n, rows.rows_nb, rows.versions_n[:99])))


def test_rows_of_any_memory_layout_are_encoded_alike() -> None:
    rows = part()
    wide = np.zeros((100, 64), dtype=np.uint8)
    wide[:, 16:48] = rows.rows_nb
    strided = TableRows("items", np.repeat(rows.ids_n, 2)[::2], wide[:, 16:48], rows.versions_n[::-1][::-1])
    assert encode_frame(rows_frame(strided)) == encode_frame(rows_frame(rows))

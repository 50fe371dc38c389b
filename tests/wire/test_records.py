"""Records are read back as written, whole ones only, wherever the bytes end or change."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.wire.records import HEAD_BYTES, durable_behind, record_head, scan_records

LIMIT = 1000
payloads = st.lists(st.binary(max_size=60), min_size=1, max_size=6)


def pack_record(payload: bytes, offset: int, durable: int) -> bytes:
    return record_head(payload, offset, durable) + payload


def segment_of(parts: list[bytes], start: int) -> tuple[bytes, list[tuple[int, bytes]]]:
    data, expected = b"", []
    for part in parts:
        data += pack_record(part, start + len(data), start)
        expected.append((start + len(data), part))
    return data, expected


@given(payloads, st.integers(0, 1 << 40))
@settings(deadline=None)
def test_whole_records_come_back(parts: list[bytes], start: int) -> None:
    data, expected = segment_of(parts, start)
    scan = scan_records(data, start, LIMIT)
    assert (scan.payloads, scan.end, scan.wanted, scan.wrong) == (expected, start + len(data), 0, "")
    assert scan.durable == start


@given(payloads, st.data())
@settings(deadline=None)
def test_a_record_cut_short_is_wanted_not_wrong(parts: list[bytes], draw: st.DataObject) -> None:
    data, expected = segment_of(parts, 0)
    cut = draw.draw(st.integers(0, len(data) - 1))
    scan = scan_records(data[:cut], 0, LIMIT)
    assert scan.payloads == [(end, part) for end, part in expected if end <= cut]
    assert not scan.wrong
    rest = cut - scan.end
    if rest:
        needed = HEAD_BYTES if rest < HEAD_BYTES else HEAD_BYTES + len(parts[len(scan.payloads)])
        assert scan.wanted == needed
    else:
        assert scan.wanted == 0


@given(payloads, st.data())
@settings(deadline=None)
def test_a_changed_byte_ends_the_scan_at_its_record(parts: list[bytes], draw: st.DataObject) -> None:
    data, expected = segment_of(parts, 0)
    at = draw.draw(st.integers(0, len(data) - 1))
    bad = bytearray(data)
    bad[at] ^= draw.draw(st.integers(1, 255))
    scan = scan_records(bytes(bad), 0, LIMIT)
    assert scan.wrong
    assert scan.payloads == [(end, part) for end, part in expected if end <= at]


@given(payloads)
@settings(deadline=None)
def test_a_record_that_lies_elsewhere_is_wrong(parts: list[bytes]) -> None:
    data, _ = segment_of(parts, 64)
    assert scan_records(data, 0, LIMIT).wrong


def test_a_record_above_the_limit_is_wrong() -> None:
    assert "the limit is 10" in scan_records(pack_record(bytes(11), 0, 0), 0, 10).wrong


def test_what_later_records_call_durable_is_found_behind_damage() -> None:
    first = pack_record(b"first", 0, 0)
    second = pack_record(b"second", len(first), len(first))
    damaged = b"\0" * len(first) + second
    assert durable_behind(damaged, 0, LIMIT) == len(first)
    assert durable_behind(damaged[: len(first) + HEAD_BYTES - 1], 0, LIMIT) == 0

"""A segment's header and footer come back as they were written; any other byte, length or format is refused."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pipeline.rowlog.errors import OtherFormat
from pipeline.rowlog.log import LogCorrupt, segment_format
from pipeline.rowlog.log.records import DEAD, HEADER_BYTES, Records
from pipeline.rowlog.log.segment_format import (
    TRAILER_BYTES,
    Footer,
    check_header,
    decode_footer,
    decode_trailer,
    describe,
    encode_footer,
    encode_header,
)
from tests.rowlog.logs import NARROW, WIDE, ids_of

RECORDS = Records.of(NARROW)
DESCRIPTION = describe(NARROW, 3, RECORDS)
ANY = st.integers(-(2**63), 2**63 - 1)


def decode(data: bytes, size: int | None = None) -> Footer:
    """Of a file that holds ``data`` behind ``size`` - ``len(data)`` bytes of something else."""
    size = len(data) if size is None else size
    count, digest, offset = decode_trailer("x.seg", data[-TRAILER_BYTES:], size)
    begin = offset - (size - len(data))
    return decode_footer("x.seg", data[begin:-TRAILER_BYTES], count, digest, offset)


@given(pairs=st.lists(st.tuples(ANY, ANY), max_size=30), offset=st.integers(0, 2**50))
def test_a_footer_comes_back(pairs: list[tuple[int, int]], offset: int) -> None:
    ids, versions = ids_of([row_id for row_id, _ in pairs]), ids_of([version for _, version in pairs])
    data, _ = encode_footer(ids, versions, offset)
    found = decode(data, offset + len(data))
    assert found.ids_n.tolist() == ids.tolist()
    assert found.versions_n.tolist() == versions.tolist()


def test_any_byte_of_a_footer_that_was_changed_is_told() -> None:
    data, _ = encode_footer(ids_of([5, -1, 7]), np.array([1, DEAD | 2, 3]), 0)
    for at in range(len(data)):
        for mask in (1, 0x80, 0xFF):
            changed = bytearray(data)
            changed[at] ^= mask
            with pytest.raises(LogCorrupt, match=r"^x\.seg at offset \d+: .*; restore the file") as caught:
                decode(bytes(changed))
            assert caught.value.path == "x.seg"
            assert caught.value.offset in (0, len(data) - TRAILER_BYTES)


def test_a_footer_that_is_cut_or_moved_is_told() -> None:
    data, _ = encode_footer(ids_of([5, -1, 7]), ids_of([1, 2, 3]), 4096)
    for left in range(len(data)):
        with pytest.raises(LogCorrupt):
            decode(data[:left], 4096 + left)
    with pytest.raises(LogCorrupt, match="ends elsewhere"):
        decode(data, 4096 + len(data) + 16)


def test_a_header_comes_back_and_fills_its_block() -> None:
    data = encode_header(DESCRIPTION)
    assert len(data) == HEADER_BYTES
    check_header("x.seg", data, DESCRIPTION)
    check_header("x.seg", data + b"records", DESCRIPTION)


def test_any_byte_of_a_header_that_was_changed_is_told() -> None:
    data = encode_header(DESCRIPTION)
    used = len(data.rstrip(b"\0"))
    for at in range(used):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(LogCorrupt, match=r"x\.seg at offset 0: the header is not that of a segment"):
            check_header("x.seg", bytes(changed), DESCRIPTION)


def test_a_header_that_is_cut_is_told() -> None:
    for left in (0, 3, 100, HEADER_BYTES - 1):
        with pytest.raises(LogCorrupt, match=f"at offset {left}: the file ends inside its header"):
            check_header("x.seg", encode_header(DESCRIPTION)[:left], DESCRIPTION)


def test_a_segment_of_something_else_is_told_with_what_differs() -> None:
    with pytest.raises(LogCorrupt, match="number 3 instead of 4"):
        check_header("x.seg", encode_header(DESCRIPTION), describe(NARROW, 4, RECORDS))
    with pytest.raises(LogCorrupt, match=r"stride .* table narrow instead of wide"):
        check_header("x.seg", encode_header(DESCRIPTION), describe(WIDE, 3, Records.of(WIDE)))


def test_another_version_of_the_format_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(segment_format, "FORMAT_VERSION", 9)
        header = encode_header(describe(NARROW, 3, RECORDS))
        footer, _ = encode_footer(ids_of([1]), ids_of([2]), 0)
    with pytest.raises(OtherFormat, match=r"x\.seg.*9"):
        check_header("x.seg", header, DESCRIPTION)
    with pytest.raises(OtherFormat, match=r"x\.seg.*9"):
        decode(footer)

"""FORMAT.md describes the bytes as they are: its example is read, and every field that is written stands in it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings

import pipeline.wire.frames
from pipeline.rows import Column, Initializer, RowLayout, TableSpec
from pipeline.rows.codec import find_codec
from pipeline.rows.initial import initial_rows
from pipeline.rows.version import pack_version
from pipeline.wire import RowsFrame, TableRows, decode_frame, encode_frame
from pipeline.wire.envelope import FORMAT_VERSION, seal, unseal
from pipeline.wire.frames import DEFAULT_LIMITS, Frame, HeaderFrame, StreamedTable
from pipeline.wire.records import HEAD_BYTES, scan_records
from tests.wire.frame_strategies import frames, same
from tests.wire.parts import join_runs, part_digest

FORMAT = (Path(pipeline.wire.frames.__file__).parent / "FORMAT.md").read_text()
WEIGHTS = np.array([[1.0, -0.5], [0.25, 2.0]], dtype=np.float32)
PART = TableRows(
    table="items",
    ids_n=np.array([-1, 7]),
    rows_nb=find_codec("fp16").encode(WEIGHTS),
    versions_n=np.array([pack_version(1, 39), pack_version(1, 40)]),
)
EXAMPLE = RowsFrame(
    generation=1, cut=5, number=0, step=40, clock_ns=1_700_000_000_000_000_000, snapshot=False, rows=join_runs([PART])
)
SHUFFLED = replace(EXAMPLE, shuffled=("ids", "rows", "versions"))
DELTA = replace(SHUFFLED, delta=("ids",))

TABLE = TableSpec(
    name="items",
    layout=RowLayout((Column("weight", "float16", 2, "weight"), Column("momentum", "float32", 1, "state"))),
    initializer=Initializer("uniform", -0.5, 0.5),
    seed=7,
    default=0.3,
)
HEADER = HeaderFrame(
    run_id="run",
    writer="host",
    shard=0,
    num_shards=1,
    generation=1,
    epoch="a",
    created_ns=1_700_000_000_000_000_000,
    tables=(StreamedTable(TABLE, "fp16"),),
)


def block(name: str) -> bytes:
    match = re.search(rf"```{name}\n(.*?)```", FORMAT, re.DOTALL)
    assert match is not None
    return bytes.fromhex(match[1])


def test_the_example_is_read_to_the_rows_it_tells_of() -> None:
    assert same(decode_frame(block("frame")), EXAMPLE)
    assert f"{part_digest(PART, WEIGHTS):#x}" in FORMAT


def test_the_content_of_the_example_is_what_this_build_writes() -> None:
    assert unseal(block("frame"), DEFAULT_LIMITS) == block("content")
    assert unseal(encode_frame(EXAMPLE), DEFAULT_LIMITS) == block("content")
    assert f"{len(block('content'))} bytes" in FORMAT
    assert f"{len(block('frame'))} bytes" in FORMAT


@pytest.mark.parametrize(("name", "example"), [("shuffled", SHUFFLED), ("delta", DELTA)])
def test_the_arranged_examples_are_read_to_the_same_rows_and_are_what_this_build_writes(
    name: str, example: RowsFrame
) -> None:
    decoded = decode_frame(seal(block(name)))
    assert same(decoded, example)
    assert isinstance(decoded, RowsFrame)
    assert same(replace(decoded, shuffled=(), delta=()), EXAMPLE)
    assert unseal(encode_frame(example), DEFAULT_LIMITS) == block(name)


def test_the_header_of_the_example_is_read_and_is_what_this_build_writes() -> None:
    assert same(decode_frame(seal(block("header"))), HEADER)
    assert unseal(encode_frame(HEADER), DEFAULT_LIMITS) == block("header")
    assert f"{len(block('header'))} bytes" in FORMAT


def test_ids_without_a_row_are_answered_as_the_example_says() -> None:
    rows_nb = initial_rows(TABLE.absent, np.array([-1, 8]))
    weights_nd = TABLE.layout.singles(rows_nb, "weight")
    (said,) = re.findall(r"An id without a row is answered with ([\d.]+), twice", FORMAT)
    assert weights_nd.tolist() == [[float(said)] * 2] * 2
    assert np.float32(said) == np.float16(np.float32(TABLE.default))


def test_the_record_of_the_example_is_read() -> None:
    assert len(block("record")) == HEAD_BYTES
    scan = scan_records(block("record") + block("frame"), 0, 1000)
    assert [payload for _, payload in scan.payloads] == [block("frame")]


def test_the_version_is_the_one_described() -> None:
    assert f"format, version {FORMAT_VERSION}\n" in FORMAT


@given(frames)
@settings(max_examples=40, deadline=None)
def test_every_field_is_described(frame: Frame) -> None:
    content = msgpack.unpackb(unseal(encode_frame(frame), DEFAULT_LIMITS))
    (section,) = re.findall(rf"\n## [A-Z][a-z]+: `kind` = `{content.pop('kind')}`\n(.*?)\n## ", FORMAT, re.DOTALL)
    inside = [part for value in content.values() if isinstance(value, list) for part in value if isinstance(part, dict)]
    for name in [*content, *(name for part in inside for name in part)]:
        assert re.search(rf"(\| |, |`){name}\??(,| \||`)", section), f"field {name!r} is not described"

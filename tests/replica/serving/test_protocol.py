"""The protocol is what its page says."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.replica.serving.dense_body import pack_dense, unpack_dense, unpack_names
from pipeline.replica.serving.errors import BadMessage, NoRoom
from pipeline.replica.serving.protocol import (
    HEADER,
    Code,
    Flag,
    Kind,
    Part,
    RowsShape,
    State,
    pack_header,
    pack_lookup,
    unpack_error,
    unpack_header,
    unpack_lookup,
    unpack_rows,
    unpack_state,
)
from pipeline.replica.serving.room import Room
from tests.conftest import ROOT

PAGE = (ROOT / "pipeline" / "replica" / "serving" / "PROTOCOL.md").read_text(encoding="utf-8")


def shown(name: str) -> bytes:
    found = re.search(rf"<!-- example: {name} -->\n((?:    [0-9a-f ]+\n)+)", PAGE)
    assert found is not None
    return bytes.fromhex(found[1])


def test_the_request_shown_is_what_the_client_sends() -> None:
    body = pack_lookup([Part("user", np.array([1, -2])), Part("item", np.array([7]))])
    assert shown("request") == pack_header(len(body), Kind.LOOKUP, 5) + body
    parts = unpack_lookup(shown("request")[HEADER.size :])
    assert [(part.table, part.ids_n.tolist()) for part in parts] == [("user", [1, -2]), ("item", [7])]


def test_the_answer_shown_is_read_as_the_page_says() -> None:
    whole = np.frombuffer(shown("answer"), np.uint8)
    header = unpack_header(whole[: HEADER.size].data, 1000)
    assert (header.length, header.kind, header.request) == (len(whole) - HEADER.size, Kind.LOOKUP + 128, 5)
    state, shape = unpack_rows(whole[HEADER.size :], header.flags)
    assert state == State(9, 1, 3, 1_000_000_000)
    assert [rows.tolist() for rows in shape.rows(whole[HEADER.size :])] == [[[0.5], [-1.0]], [[2.0, 0.25]]]


def test_every_kind_flag_and_code_is_on_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PAGE, flags=re.MULTILINE)
    requests = {(str(kind.value), kind.name) for kind in Kind}
    answers = {(str(kind.value + 128), kind.name) for kind in Kind if kind != Kind.ERROR}
    codes = {(str(code.value), code.name) for code in Code}
    assert set(rows) == requests | answers | codes
    assert [flag.value for flag in Flag] == [1]


@given(st.binary(max_size=200))
def test_bytes_are_a_message_or_refused(data: bytes) -> None:
    body_b = np.frombuffer(data, np.uint8)
    for read in (unpack_lookup, unpack_error, unpack_names):
        with suppress(BadMessage):
            read(data)
    for flags in (0, 1):
        with suppress(BadMessage):
            unpack_rows(body_b, flags)
    with suppress(BadMessage):
        unpack_dense(body_b)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.tuples(
            st.sampled_from(["float32", "float16", "int64", "uint8", "bool"]), st.lists(st.integers(0, 3), max_size=3)
        ),
        max_size=4,
    )
)
def test_dense_weights_come_back_as_they_were(shapes: dict[str, tuple[str, list[int]]]) -> None:
    arrays = {name: np.ones(shape, dtype) for name, (dtype, shape) in shapes.items()}
    body = b"".join(pack_dense(State(1, 2, 3, 4), arrays))
    found = unpack_dense(np.frombuffer(body, np.uint8))
    assert unpack_state(body) == State(1, 2, 3, 4)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", ["[-1]", "[1e3]", "[4611686018427387904, 8]", "[[1]]", "null"])
def test_a_manifest_of_impossible_shapes_is_refused(shape: str) -> None:
    manifest = f'[{{"name": "w", "dtype": "float32", "shape": {shape}}}]'.encode()
    body = bytes(32) + len(manifest).to_bytes(8, "little") + manifest + bytes(-len(manifest) % 8)
    with pytest.raises(BadMessage):
        unpack_dense(np.frombuffer(body, np.uint8))


def test_counts_that_no_body_could_hold_are_refused_before_memory_is_taken() -> None:
    most = 2**32 - 1
    body = RowsShape([(most, most)], versions=False).front(State(0, 0, 0, 0))
    with pytest.raises(BadMessage, match="make no body"):
        unpack_rows(np.frombuffer(body, np.uint8), 0)


def test_room_is_given_back_and_never_more_than_there_is() -> None:
    room = Room(100, wait_s=0.0)
    with room.take(60):
        with pytest.raises(NoRoom, match="no room for 41 bytes"), room.take(41):
            pass
        with room.take(40):
            assert room.used_bytes == 100
    assert room.used_bytes == 0
    with pytest.raises(NoRoom), room.take(101):
        pass

"""Dense arrays travel in pieces and come together bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.wire import DenseAssembler, DenseFrame, DensePiece, FrameError, FrameLimits, dense_digest, split_dense
from pipeline.wire.dense import DTYPES

Arrays = dict[str, npt.NDArray[Any]]


@st.composite
def arrays(draw: st.DrawFn) -> Arrays:
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    made: Arrays = {}
    for name in draw(st.lists(st.sampled_from("abcdefgh"), max_size=5, unique=True)):
        dtype = draw(st.sampled_from(sorted(set(DTYPES) - {"bool"})))
        shape = tuple(draw(st.lists(st.integers(0, 7), max_size=3)))
        count = int(np.prod(shape, dtype=np.int64))
        made[name] = np.frombuffer(rng.bytes(count * DTYPES[dtype]), dtype=dtype).reshape(shape)
    return made


def frames_of(made: Arrays, piece_bytes: int) -> list[DenseFrame]:
    return [DenseFrame(1, 1, k, 1, 0, False, group) for k, group in enumerate(split_dense(made, piece_bytes))]


@given(arrays(), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_arrays_come_back_bit_for_bit_whatever_the_size_of_a_piece(made: Arrays, piece_bytes: int) -> None:
    assembler = DenseAssembler()
    for frame in frames_of(made, piece_bytes):
        assert sum(len(piece.data) for piece in frame.pieces) <= piece_bytes
        assembler.add(frame)
    found = assembler.arrays()
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in made.items()
    }
    assert dense_digest(found) == dense_digest(made)


def test_missing_bytes_are_noticed() -> None:
    frames = frames_of({"w": np.arange(100)}, 64)
    assembler = DenseAssembler()
    for frame in frames[:-1]:
        assembler.add(frame)
    with pytest.raises(FrameError, match="768 of 800 bytes came"):
        assembler.arrays()


def test_a_piece_out_of_order_or_twice_is_refused() -> None:
    frames = frames_of({"w": np.arange(100)}, 64)
    assembler = DenseAssembler()
    assembler.add(frames[0])
    with pytest.raises(FrameError, match="a piece at byte 128, expected 64"):
        assembler.add(frames[2])
    with pytest.raises(FrameError, match="a piece at byte 0, expected 64"):
        assembler.add(frames[0])


def test_more_than_the_limit_is_refused_before_memory_is_taken() -> None:
    piece = DensePiece("w", "float64", (1 << 40,), 0, b"")
    with pytest.raises(FrameError, match="more than 1000 bytes"):
        DenseAssembler(FrameLimits(dense_bytes=1000)).add(DenseFrame(1, 1, 0, 1, 0, False, (piece,)))


def test_a_dtype_that_cannot_travel_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'w' is complex128"):
        list(split_dense({"w": np.zeros(3, dtype=np.complex128)}, 100))


@given(arrays())
@settings(max_examples=50, deadline=None)
def test_the_digest_sees_names_shapes_dtypes_and_bits(made: Arrays) -> None:
    digest = dense_digest(made)
    for name, values in made.items():
        changed = [{**made, name: values.reshape(-1, *[1] * values.ndim)}, {**made, name + "x": values}]
        changed[1].pop(name)
        if values.size:
            flipped = values.copy()
            flipped.reshape(-1).view(np.uint8)[0] ^= 1
            changed.append({**made, name: flipped})
        for other in changed:
            assert dense_digest(other) != digest

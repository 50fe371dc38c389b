"""bf16, int8 and int4 agree bit for bit with a second, slow description of them, on every kind of row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rows.codec import aligned, find_codec
from pipeline.rows.codec.kernels import decode_rows, encode_rows
from pipeline.rows.digest import TableRuns, tables_digest
from tests.rows import codec_reference as reference

NAMES = ["bf16", "int8", "int4"]
QUANTIZED = ["int8", "int4"]
DIMS = [1, 2, 3, 7, 8, 15, 16, 33, 64, 67]
EDGES = [0, 1, 0x80000000, 0x80000001, 0x007FFFFF, 0x00800000, 0x7C7FFFFF, 0x7C800000, 0xFC800000, 0x7F7FFFFF]
EDGES += [0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000, 0x7FFFFFFF, 0x3F800000, 0x3F808000, 0xBF808000]
Float32s = npt.NDArray[np.float32]


def floats(bits: Any) -> Float32s:
    return np.array(bits, dtype=np.uint32).view(np.float32)


def check(name: str, weights_nd: Float32s) -> Float32s:
    """Bytes and decoded bits are the reference's; returns what is decoded."""
    codec, dim = find_codec(name), weights_nd.shape[1]
    encoded_nb = codec.encode(weights_nd)
    expected_nb = reference.encode(name, weights_nd)
    assert encoded_nb.tobytes() == expected_nb.tobytes()
    decoded_nd = codec.decode(encoded_nb, dim)
    assert decoded_nd.tobytes() == reference.decode(name, expected_nb, dim).tobytes()
    return decoded_nd


def rows_of_all_exponents(rng: np.random.Generator, count: int, dim: int) -> Float32s:
    """Each row around an exponent of its own, some of its weights much smaller, signs mixed or alike."""
    exponents = rng.integers(0, 255, (count, 1)) - rng.integers(0, rng.integers(1, 40), (count, dim))
    bits = rng.integers(0, 1 << 23, (count, dim)) | np.clip(exponents, 0, 254) << 23
    signs = np.where(rng.random((count, 1)) < 0.3, rng.integers(0, 2, (count, 1)), rng.integers(0, 2, (count, dim)))
    return floats(bits | signs << 31)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", DIMS)
def test_rows_of_all_exponents_agree_with_the_reference(name: str, dim: int) -> None:
    check(name, rows_of_all_exponents(np.random.default_rng(), 60, dim))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), dim=st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_rows_of_edges_agree_with_the_reference(name: str, data: st.DataObject, dim: int) -> None:
    bits = st.sampled_from(EDGES) | st.integers(0, (1 << 32) - 1)
    check(name, floats([data.draw(st.lists(bits, min_size=dim, max_size=dim))]))


@pytest.mark.parametrize("name", NAMES)
def test_trained_rows_agree_with_the_reference(name: str) -> None:
    rng = np.random.default_rng(3)
    check(name, (rng.standard_normal((200, 64)) * 0.01 * rng.random((200, 1))).astype(np.float32))


def test_every_bf16_number_decodes_exactly_and_encodes_to_itself() -> None:
    codec, all_n = find_codec("bf16"), np.arange(1 << 16, dtype=np.uint16)
    decoded = codec.decode(all_n.view(np.uint8).reshape(-1, 64), 32).view(np.uint32).reshape(-1)
    assert (decoded == all_n.astype(np.uint32) << 16).all()
    quiet = np.where(np.isnan(decoded.view(np.float32)), all_n | 0x40, all_n)
    assert (codec.encode(decoded.view(np.float32).reshape(-1, 32)).reshape(-1).view(np.uint16) == quiet).all()


def test_bf16_rounds_to_nearest_with_ties_to_even() -> None:
    weights = floats([0x3F808000, 0x3F808001, 0x3F807FFF, 0x3F818000, 0x7F7F7FFF, 0x7F7F8000, 0xFF7F8000])
    halves = find_codec("bf16").encode(weights[None]).view(np.uint16).tolist()
    assert halves == [[0x3F80, 0x3F81, 0x3F80, 0x3F82, 0x7F7F, 0x7F80, 0xFF80]]


@pytest.mark.parametrize(("name", "levels"), [("int8", 255), ("int4", 15)])
@pytest.mark.parametrize("dim", [2, 5, 64])
def test_no_weight_is_off_by_more_than_half_a_step(name: str, levels: int, dim: int) -> None:
    weights = rows_of_all_exponents(np.random.default_rng(), 2000, dim).astype(np.float64)
    weights = np.where(np.abs(weights) < reference.LIMIT, weights, 1.0)
    decoded = check(name, weights.astype(np.float32)[:200])
    low, high = weights.min(axis=1), weights.max(axis=1)
    step = (high - low + np.abs(low) / 128) / levels * (1 + 1 / 128) + 2.0**-126
    rounding = np.maximum(np.abs(low), np.abs(high)) * 2.0**-23
    assert (np.abs(decoded - weights[:200]) <= (step / 2 + rounding)[:200, None]).all()


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.0, 0.15625, 2.0**-126, 2.0**121, -(2.0**-133)])
def test_a_constant_row_of_a_bf16_number_is_exact(name: str, value: float) -> None:
    row = np.full((1, 9), value, np.float32)
    assert check(name, row).tolist() == row.tolist()
    assert find_codec(name).encode(row)[0, :2].tolist() == [0, 0]


@pytest.mark.parametrize("name", QUANTIZED)
def test_any_other_constant_row_is_nearer_than_bf16_would_be(name: str) -> None:
    values = rows_of_all_exponents(np.random.default_rng(), 300, 1)
    values = values[np.abs(values[:, 0]) < reference.LIMIT]
    decoded = check(name, np.repeat(values, 5, axis=1))
    assert (np.abs(decoded - values) <= np.maximum(np.abs(values) * 2.0**-12, 2.0**-127)).all()


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0x7C800000, 0xFF7FFFFF])
@pytest.mark.parametrize("place", [0, 4, 8])
def test_a_row_that_cannot_be_told_decodes_to_nan_whole_and_leaves_its_neighbours_alone(
    name: str, bits: int, place: int
) -> None:
    weights = np.random.default_rng(1).standard_normal((3, 9)).astype(np.float32)
    alone = find_codec(name).encode(weights)
    weights.view(np.uint32)[1, place] = bits
    decoded = check(name, weights)
    assert (decoded.view(np.uint32)[1] == 0x7FC00000).all()
    assert (find_codec(name).encode(weights)[[0, 2]] == alone[[0, 2]]).all()


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_scale_with_which_a_product_could_overflow_makes_no_row(name: str) -> None:
    nbytes = find_codec(name).row_bytes(2)
    for high, finite in ((0x7B, True), (0xFB, True), (0x7C, False), (0xFC, False)):
        row = np.array([[0x7F, high, 0x7F, 0x7F] + [0xFF] * (nbytes - 4)], np.uint8)
        if finite:  # the next above is 2**120
            assert np.isfinite(reference.brain_from(row[0, :2].tobytes()))
            row[0, 2:4] = 0
        decoded = find_codec(name).decode(row, 2)
        assert decoded.tobytes() == reference.decode(name, row, 2).tobytes()
        assert np.isfinite(decoded).all() == finite


@pytest.mark.parametrize("name", QUANTIZED)
def test_any_bytes_decode_as_in_the_reference(name: str) -> None:
    rng = np.random.default_rng()
    for dim in (1, 6, 7, 64):
        encoded: Any = rng.integers(0, 256, (400, find_codec(name).row_bytes(dim)), dtype=np.uint8)
        decoded = find_codec(name).decode(encoded, dim)
        assert decoded.tobytes() == reference.decode(name, encoded, dim).tobytes()


@pytest.mark.parametrize("name", ["fp32", "fp16", *NAMES])
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_every_byte_of_a_row_is_written_and_none_beside_it(name: str, dim: int) -> None:
    codec = find_codec(name)
    assert codec.kind is not None
    weights, nbytes = np.random.default_rng().standard_normal((6, dim)).astype(np.float32), codec.row_bytes(dim)
    weights[3, 0] = np.nan
    words = weights.reshape(-1).view(np.uint32)
    words.flags.writeable = False
    results = []
    for poison in (0x00, 0xA5):
        room = np.full(6 * nbytes + 8, poison, np.uint8)
        encode_rows(codec.kind, words, dim, dim, nbytes, room[4:-4])
        rows = room[4:-4].copy()
        rows.flags.writeable = False
        out = np.full(6 * dim + 2, poison * 0x01010101, np.uint32)
        decode_rows(codec.kind, rows, dim, nbytes, out[1:-1])
        assert (room[:4].tolist(), room[-4:].tolist()) == ([poison] * 4, [poison] * 4)
        assert out[[0, -1]].tolist() == [poison * 0x01010101] * 2
        results.append((rows.tobytes(), out[1:-1].tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["fp32", "fp16", *NAMES])
def test_rows_may_begin_at_any_byte(name: str) -> None:
    codec, dim = find_codec(name), 9
    weights = np.random.default_rng().standard_normal((5, dim)).astype(np.float32)
    encoded = codec.encode(weights)
    runs = TableRuns(("t",), (0, 5), np.arange(5), np.ones(5, np.int64))
    for shift in range(1, 5):
        room = np.zeros(encoded.size + shift, np.uint8)
        room[shift:] = encoded.reshape(-1)
        rows = room[shift:].reshape(encoded.shape)
        assert aligned(rows).ctypes.data % 4 == 0
        assert codec.decode(rows, dim).tobytes() == codec.decode(encoded, dim).tobytes()
        assert codec.digest(rows, dim, runs) == tables_digest(runs, codec.decode(encoded, dim).view(np.uint8))

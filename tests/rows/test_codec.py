"""Codecs agree with numpy, bit for bit, on every half and on every kind of float."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows.codec import CODECS, find_codec
from pipeline.rows.codec.kernels import encode_rows
from pipeline.rows.digest import TableRuns, tables_digest
from pipeline.rows.errors import BadShape, UnknownCodec
from pipeline.rows.half import to_half, to_single

FP16, FP32 = find_codec("fp16"), find_codec("fp32")
HALVES = np.arange(1 << 16, dtype=np.uint16)
Bits = npt.NDArray[np.uint32]


WIDTHS = [1, 8, 67]
"""One by one, as many as the processor converts at once, and some of these with a rest."""


def encoded(bits_n: Bits, width: int = 1) -> npt.NDArray[np.uint16]:
    """In rows of ``width``; the last is filled up with ones."""
    count = len(bits_n)
    rows_nd = np.concatenate([bits_n, np.full(-count % width, 0x3F800000, np.uint32)]).view(np.float32)
    return FP16.encode(rows_nd.reshape(-1, width)).reshape(-1).view(np.uint16)[:count]


def decoded(halves_n: npt.NDArray[np.uint16], width: int = 1) -> Bits:
    count = len(halves_n)
    rows_nd = np.concatenate([halves_n, np.zeros(-count % width, np.uint16)]).reshape(-1, width)
    return FP16.decode(rows_nd.view(np.uint8), width).reshape(-1).view(np.uint32)[:count]


def expected(bits_n: Bits) -> npt.NDArray[np.uint16]:
    """numpy's rounding; for NaN, whose bits machines differ in, the documented rule."""
    with np.errstate(all="ignore"):
        halves = bits_n.view(np.float32).astype(np.float16).view(np.uint16)
    payload = (bits_n >> 13) & 0x3FF
    nan = (bits_n >> 16) & 0x8000 | 0x7C00 | np.where(payload == 0, 1, payload)
    return np.where(np.isnan(bits_n.view(np.float32)), nan.astype(np.uint16), halves)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_half_decodes_as_in_numpy_and_encodes_to_itself(width: int) -> None:
    singles_n = decoded(HALVES, width)
    wide = HALVES.view(np.float16).astype(np.float32).view(np.uint32)
    nan = np.isnan(HALVES.view(np.float16))
    bits_n = HALVES[nan].astype(np.uint32)
    wide[nan] = (bits_n & 0x8000) << 16 | 0x7F800000 | (bits_n & 0x3FF) << 13
    assert (singles_n == wide).all()
    assert (encoded(singles_n, width) == HALVES).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_exponent_rounds_to_nearest_with_ties_to_even(width: int) -> None:
    """Around each half and half way to the next: the float itself, one below, one above; both signs."""
    half = HALVES[HALVES < 0x7C00].view(np.float16).astype(np.float32)
    middle = ((half[:-1].astype(np.float64) + half[1:]) / 2).astype(np.float32)
    around = np.concatenate([half, middle, [65504, 65519.996, 65520, 65536]]).astype(np.float32).view(np.uint32)
    bits_n = np.concatenate([around - 1, around, around + 1])
    bits_n = np.concatenate([bits_n, bits_n | 0x80000000]).astype(np.uint32)
    assert (encoded(bits_n, width) == expected(bits_n)).all()
    assert encoded(np.array([0x33000000, 0x33000001, 0x3F801000, 0x3F803000], np.uint32)).tolist() == [
        0,
        1,
        0x3C00,
        0x3C02,
    ]


def test_edges_and_nan_payloads() -> None:
    edges = [0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000]
    nans = [0x7F800001, 0xFF800001, 0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0x7F801FFF, 0x7F802000, 0xFFABCDEF]
    bits_n = np.array(edges + nans, dtype=np.uint32)
    assert (encoded(bits_n) == expected(bits_n)).all()
    assert np.isnan(encoded(np.array(nans, np.uint32)).view(np.float16)).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_random_bits_agree_with_numpy(width: int) -> None:
    bits_n = np.random.default_rng().integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    assert (encoded(bits_n, width) == expected(bits_n)).all()


def test_one_nan_in_a_row_is_encoded_by_the_rule_wherever_it_stands() -> None:
    rng = np.random.default_rng()
    for place in range(19):
        bits_n = rng.standard_normal(19).astype(np.float32).view(np.uint32)
        bits_n[place] = 0x7F800001
        halves_n = encoded(bits_n, 19)
        assert (halves_n == expected(bits_n)).all()
        assert (decoded(halves_n, 19) == decoded(halves_n)).all()


def test_the_processor_and_the_arithmetic_give_the_same_bits() -> None:
    bits_n = np.random.default_rng().integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    by_arithmetic = [int(to_half(np.uint32(bits))) & 0xFFFF for bits in bits_n]
    assert encoded(bits_n, 64).tolist() == by_arithmetic
    assert [int(to_single(np.uint32(half))) for half in HALVES] == decoded(HALVES, 64).tolist()


def test_fp32_keeps_every_bit() -> None:
    weights = np.random.default_rng().integers(0, 1 << 32, (100, 7), dtype=np.uint32)
    rows = FP32.encode(weights.view(np.float32))
    assert rows.shape == (100, 28)
    assert rows.tobytes() == weights.astype("<u4").tobytes()
    assert (FP32.decode(rows, 7).view(np.uint32) == weights).all()


@pytest.mark.parametrize("name", list(CODECS))
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_rows_come_from_any_layout_and_results_belong_to_the_caller(name: str, dim: int) -> None:
    codec = find_codec(name)
    wide = np.random.default_rng().standard_normal((50, dim + 5)).astype(np.float32)
    wide[:, dim:] = np.nan
    plain = np.ascontiguousarray(wide[:, :dim])
    rows = codec.encode(plain)
    assert rows.shape == (50, codec.row_bytes(dim))
    fixed = plain.copy()
    fixed.flags.writeable = False
    for source in (wide[:, :dim], np.asfortranarray(plain), fixed, plain[::-1][::-1]):
        assert (codec.encode(source) == rows).all()
    assert (codec.encode(wide[::2, :dim]) == rows[::2]).all()
    assert (codec.encode(plain[::-1]) == rows[::-1]).all()
    assert (codec.encode(np.broadcast_to(plain[:1], (9, dim))) == rows[0]).all()
    decoded = codec.decode(np.frombuffer(rows.tobytes(), np.uint8).reshape(rows.shape), dim)
    for result in (codec.encode(plain), decoded, codec.decode(rows, dim)):
        assert result.flags.writeable
        assert not np.shares_memory(result, plain)
        assert not np.shares_memory(result, rows)
    assert codec.encode(plain[:0]).shape == (0, codec.row_bytes(dim))
    assert codec.decode(rows[:0], dim).shape == (0, dim)


def test_every_layout_uses_one_compiled_kernel() -> None:
    FP16.encode(np.zeros((2, 3), np.float32))
    assert len(encode_rows.signatures) == 1


def test_wrong_shapes_and_names_are_refused() -> None:
    with pytest.raises(BadShape, match=r"float32 \[n, dim\]; got float64 \(2, 3\)"):
        FP16.encode(np.zeros((2, 3)))  # type: ignore[arg-type]
    with pytest.raises(BadShape, match=r"uint8 \[n, 6\] for dim 3; got uint8 \(2, 5\)"):
        FP16.decode(np.zeros((2, 5), np.uint8), 3)
    with pytest.raises(UnknownCodec, match="no codec 'fp8'; the codecs are fp32, fp16, bf16, int8, int4"):
        find_codec("fp8")


@pytest.mark.parametrize("name", CODECS)
@given(seed=st.integers(0, 2**32 - 1), counts=st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_encoding_with_a_digest_is_encoding_and_the_digest_of_what_is_decoded(
    name: str, seed: int, counts: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    total, dim = sum(counts), 12
    weights = rng.integers(0, 2**32, (total, dim + 4), dtype=np.uint32).view(np.float32)[:, :dim]  # any bits, NaN too
    ids, versions = rng.integers(-(2**62), 2**62, total), rng.integers(1, 2**40, total)
    rows = TableRuns([f"t{n}" for n in range(len(counts))], np.cumsum([0, *counts]), ids, versions)
    codec = CODECS[name]
    encoded, digest = codec.encode_hashed(weights, rows)
    assert encoded.tobytes() == codec.encode(weights).tobytes()
    assert digest == tables_digest(rows, codec.decode(encoded, dim).view(np.uint8))
    assert digest == codec.digest(encoded, dim, rows)

"""Text ids are XXH64 of their bytes, in whatever form pyarrow brings them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows.errors import BadShape
from pipeline.rows.hashing import hash_spans, hash_text
from pipeline.rows.xxh64 import hash_bytes

WORDS = ["", "a", "Zürich", None, "x" * 31, "x" * 32, "x" * 100, "日本", "a", None, "b"]


def expected(words: list[Any], seed: int) -> list[int]:
    hashes = [0 if w is None else xxhash.xxh64_intdigest(w.encode() if isinstance(w, str) else w, seed) for w in words]
    return [value - (1 << 64) if value >> 63 else value for value in hashes]


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_xxh64_is_the_packages(data: bytes, seed: int) -> None:
    assert hash_bytes(data, seed) == xxhash.xxh64_intdigest(data, seed)


@given(st.lists(st.one_of(st.text(max_size=50), st.binary(max_size=50)), max_size=20), st.integers(0, 2**64 - 1))
def test_lists_of_text_and_bytes(words: list[str | bytes], seed: int) -> None:
    assert hash_text(words, seed).tolist() == expected(words, seed)


FORMS: list[Callable[[pa.Array], Any]] = [
    lambda a: a,
    lambda a: a.cast(pa.large_string()),
    lambda a: a.cast(pa.string_view()),
    lambda a: a.cast(pa.binary()),
    lambda a: a.cast(pa.large_binary()),
    lambda a: a.dictionary_encode(),
    lambda a: pa.chunked_array([a[:4], a[4:4], a[4:]]),
    lambda a: pa.chunked_array([a[:4].dictionary_encode(), a[4:].dictionary_encode()]),
    lambda a: pa.concat_arrays([pa.array(["before"]), a, pa.array(["behind"])])[1:-1],
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_every_form_of_an_array_gives_the_same(form: Callable[[pa.Array], Any], seed: int) -> None:
    values = form(pa.array(WORDS))
    assert hash_text(values, seed).tolist() == expected(WORDS, seed)


def test_a_full_dictionary_of_small_indices_with_nulls() -> None:
    words = [f"w{k}" for k in range(128)]
    dictionary = pa.DictionaryArray.from_arrays(pa.array([*range(128), None], pa.int8()), pa.array(words))
    assert hash_text(dictionary).tolist() == expected([*words, None], 0)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())])
def test_nothing_gives_nothing(kind: pa.DataType) -> None:
    for values in (pa.array([], kind), pa.chunked_array([], kind)):
        assert hash_text(values).shape == (0,)
    assert hash_text([]).shape == (0,)
    assert hash_text(pa.array([None, ""], pa.string())).tolist() == expected([None, ""], 0)


def test_other_columns_are_refused() -> None:
    with pytest.raises(TypeError, match="text ids come as strings or bytes; got a column of int64"):
        hash_text(pa.array([1]))


def test_spans_that_leave_the_data_are_refused() -> None:
    data = np.frombuffer(b"abcdef", dtype=np.uint8)
    assert hash_spans(np.array([0, 2, 6], np.int32), data, [True, False]).tolist() == expected(["ab", None], 0)
    for offsets in ([0, 7], [-1, 2], [3, 2], []):
        with pytest.raises(BadShape, match="offsets"):
            hash_spans(np.array(offsets, dtype=np.int64), data)

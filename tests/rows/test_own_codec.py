"""A codec of one's own is tried when it is registered, and known by its name wherever it was named; a stream imports nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.rows.codec import CODECS, find_codec, load_codec, register_codec, registry
from pipeline.rows.codec.registry import GROUP
from pipeline.rows.digest import TableRuns, tables_digest
from pipeline.rows.errors import BadCodec, UnknownCodec
from tests.rows.own_codec import SIGNS, Signs

PATH = "tests.rows.own_codec:SIGNS"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is gone behind it."""
    before = dict(registry._known)
    registry._known.pop("signs", None)
    yield
    registry._known.clear()
    registry._known.update(before)


def test_a_registered_codec_is_a_codec() -> None:
    codec = register_codec(SIGNS)
    assert find_codec("signs") is codec is CODECS["signs"]
    assert codec.kind is None
    weights = np.random.default_rng(1).standard_normal((20, 12)).astype(np.float32)
    runs = TableRuns(("t",), (0, 20), np.arange(20), np.ones(20, np.int64))
    encoded, digest = codec.encode_hashed(weights[:, ::-1], runs)
    decoded = codec.decode(encoded, 12)
    assert encoded.shape == (20, codec.row_bytes(12)) == (20, 6)
    assert (np.sign(decoded) == np.sign(weights[:, ::-1])).all()
    assert digest == codec.digest(encoded, 12, runs) == tables_digest(runs, decoded.view(np.uint8))


def test_it_is_named_by_path_or_given_as_it_is_and_may_be_loaded_again() -> None:
    assert load_codec(PATH).name == load_codec(SIGNS).name == load_codec("signs").name == "signs"
    assert load_codec("int8") is CODECS["int8"]


def test_a_stream_that_names_a_path_gets_nothing_imported() -> None:
    for name in (PATH, "signs", "tests.rows.own_codec"):
        with pytest.raises(
            UnknownCodec, match=r"no codec .*; the codecs are fp32, .*--codec or Replica\(codecs=\.\.\.\)"
        ):
            find_codec(name)
    assert "signs" not in CODECS


def test_a_package_names_it(tmp_path: Path) -> None:
    """As an installed one does. In a process of its own, where nobody has loaded it."""
    described = tmp_path / "somebodys-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{GROUP}]\nsigns = {PATH}\nsings = {PATH}\n")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from pipeline.rows.codec import find_codec, CODECS\n"
        "assert 'signs' not in CODECS\n"
        "print(find_codec('signs').row_bytes(16))\n"
        "try: find_codec('sings')\n"
        "except ValueError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size, wrong = ended.stdout.splitlines()
    assert size == "6"
    assert wrong == f"codec signs: {PATH!r} has that name, and its package calls it 'sings'"


class Other(Signs):
    name = "other"


def changed(**parts: Any) -> Any:
    return type("Other", (Other,), parts)()


def counter() -> Callable[..., Any]:
    calls: list[int] = []

    def encode(self: Signs, weights_nd: Any) -> Any:
        calls.append(1)
        rows = Signs.encode(self, weights_nd)
        rows[:, 0] ^= len(calls)
        return rows

    return encode


WRONG: dict[str, dict[str, Any]] = {
    r"its name is 'a b'; a name matches": {"name": "a b"},
    r"its name is 'x:y'": {"name": "x:y"},
    r"its name is None": {"name": None},
    r"it has no decode; a codec has name, row_bytes": {"decode": None},
    r"row_bytes\(1\) is 0; an encoded row has 1 to 1088 bytes": {"row_bytes": lambda *_: 0},
    r"row_bytes\(1\) is 5.0;": {"row_bytes": lambda *_: 5.0},
    r"encode returned int64 \(9, 5\), expected uint8 \(9, 5\)": {"encode": lambda s, w: Signs.encode(s, w).astype(int)},
    r"encode returned uint8 \(9, 4\)": {"encode": lambda s, w: Signs.encode(s, w)[:, 1:]},
    r"encode returned list": {"encode": lambda s, w: Signs.encode(s, w).tolist()},
    r"decode returned float64 \(9, 1\), expected float32": {"decode": lambda s, e, d: Signs.decode(s, e, d) * 1.0},
    r"decode raised ZeroDivisionError": {"decode": lambda *_: 1 // 0},
    r"encode raised ValueError: .*read-only": {"encode": lambda s, w: (w.sort(), Signs.encode(s, w))[1]},
    r"encode gave a row other bytes when it stood alone": {"encode": lambda s, w: Signs.encode(s, w + w.shape[0])},
    r"encode gave the same rows other bytes the second time": {"encode": counter()},
    r"has the name of pipeline.rows.codec.built_in:BuiltIn; give it another": {"name": "int8"},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_keep_what_a_codec_promises_is_refused(what: str) -> None:
    parts = dict(WRONG[what])
    if "decode" in parts and parts["decode"] is not None and "float64" in what:
        parts["decode"] = lambda s, e, d: Signs.decode(s, e, d).astype(np.float64)
    with pytest.raises(BadCodec, match=what):
        register_codec(changed(**parts))
    assert "other" not in CODECS


def test_two_codecs_of_one_name_are_refused() -> None:
    register_codec(SIGNS)
    with pytest.raises(BadCodec, match=r"has the name of tests\.rows\.own_codec:Signs; give it another"):
        register_codec(changed(name="signs"))


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("tests.rows.own_codec:SINGS", "no 'SINGS' in 'tests.rows.own_codec'; name it as package.module:CODEC"),
        ("tests.rows.nowhere:SIGNS", "importing it failed: ModuleNotFoundError"),
        ("tests.rows.own_codec:Signs", "it is a class; name an object of it"),
    ],
)
def test_a_path_that_leads_to_no_codec_says_so(path: str, what: str) -> None:
    with pytest.raises(BadCodec, match=what):
        load_codec(path)


def test_one_that_fails_later_on_says_what_it_did() -> None:
    class Late(Signs):
        name = "late"
        broken = False

        def decode(self, encoded_nb: Any, dim: int) -> Any:
            return super().decode(encoded_nb, dim)[: -1 if self.broken else None]

    late = Late()
    codec = register_codec(late)
    late.broken = True
    with pytest.raises(BadCodec, match=r"codec late: decode returned float32 \(4, 8\), expected float32 \(5, 8\)"):
        codec.decode(np.zeros((5, 5), np.uint8), 8)

"""The body of an answer to DENSE: a state, a manifest in JSON, and the arrays one behind the other.

Pure; arrays are not copied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.replica.serving.errors import BadMessage
from pipeline.replica.serving.protocol import ALIGN, COUNTS, STATE, Bytes, State

Arrays = Mapping[str, npt.NDArray[Any]]
DTYPES: Final = frozenset(
    ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"]
)
"""Those that a stream carries."""


def pack_names(names: Iterable[str] | None) -> bytes:
    """The body of a DENSE: nothing for all arrays, or a list of names in JSON."""
    return b"" if names is None else json.dumps(list(names)).encode()


def unpack_names(body: Bytes) -> list[str] | None:
    """Raises BadMessage."""
    if not len(body):
        return None
    names = _json(body)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadMessage("the body of a request for dense weights is empty, or a list of names in JSON")
    return names


def pack_dense(state: State, arrays: Arrays) -> list[Bytes]:
    """The body in pieces; the arrays' share their memory."""
    manifest = json.dumps(
        [{"name": name, "dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()]
    ).encode()
    front = STATE.pack(*state) + COUNTS.pack(len(manifest), 0) + manifest
    pieces: list[Bytes] = [front + bytes(-len(front) % ALIGN)]
    for array in arrays.values():
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if little.size:
            pieces.append(little.reshape(-1).view(np.uint8).data)
        pieces.append(bytes(-little.nbytes % ALIGN))
    return pieces


def unpack_dense(body_b: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """The arrays, which share the body's memory. Raises BadMessage."""
    body, head = body_b.data, STATE.size + COUNTS.size
    if len(body) < head:
        raise BadMessage(f"dense weights in {len(body)} bytes; the front alone takes {head}")
    manifest_bytes, _ = COUNTS.unpack_from(body, STATE.size)
    at, found = head + manifest_bytes, dict[str, npt.NDArray[Any]]()
    manifest = _json(body[head:at]) if at <= len(body) else None
    at += -at % ALIGN
    for name, dtype, shape in _entries(manifest):
        end = at + np.dtype(dtype).itemsize * math.prod(shape)
        if end > len(body):
            raise BadMessage(f"dense array {name!r} of shape {shape} does not lie in {len(body)} bytes")
        found[name] = body_b[at:end].view(np.dtype(dtype).newbyteorder("<")).reshape(shape)
        at = end + -end % ALIGN
    if at != len(body):
        raise BadMessage(f"dense arrays of {at} bytes in a body of {len(body)}")
    return found


def _entries(manifest: object) -> list[tuple[str, str, list[int]]]:
    if not isinstance(manifest, list):
        raise BadMessage("a manifest of dense arrays that is no list")
    return [_entry(one) for one in manifest]


def _entry(one: object) -> tuple[str, str, list[int]]:
    name, dtype, shape = (one.get(key) for key in ("name", "dtype", "shape")) if isinstance(one, dict) else (None,) * 3
    sizes = isinstance(shape, list) and all(isinstance(size, int) and size >= 0 for size in shape)
    if not isinstance(name, str) or dtype not in DTYPES or not sizes:
        raise BadMessage(f"a manifest entry that is none: {one}")
    assert isinstance(shape, list)
    return name, str(dtype), shape


def _json(data: Bytes) -> object:
    try:
        found: object = json.loads(bytes(data))
    except ValueError as error:
        raise BadMessage(f"bytes that are no JSON: {error}") from None
    return found

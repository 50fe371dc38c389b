"""How rows lie in Redis, and the commands that put them there, as bytes of its protocol: no row is a Python object.

    PREFIX:TABLE:ID      ID: the id, int64, 8 bytes, little endian. The value: version int64 (generation << 40 | step), dim weights
                         float32, then the columns that ride along, as the table stores them; all little endian, without gaps
    PREFIX:position      JSON: position [generation, cut], step, clock_ns, ended, and what a replica needs to go on
    PREFIX:layout        JSON: of each table its dim, and the columns [name, dtype, width] behind the weights
    PREFIX:dense         hash: name of a dense array -> the bytes of an npy file

Legend: n rows; b bytes of a value.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.carried import Carried
from pipeline.replica.cuts import StagedRows
from pipeline.replica.rowmap import Int64s
from pipeline.wire.frames import HeaderFrame

ID_BYTES = 8
Bytes = npt.NDArray[np.uint8]


def row_prefix(prefix: str, table: str) -> bytes:
    return f"{prefix}:{table}:".encode()


def values_of(rows: StagedRows) -> Bytes:
    """The values of rows: uint8 [n, b]."""
    count = len(rows.ids_n)
    versions_nb = np.ascontiguousarray(rows.versions_n).view(np.uint8).reshape(count, -1)
    weights_nb = rows.weights_nd.view(np.uint8).reshape(count, -1)
    return np.concatenate([versions_nb, weights_nb, rows.extra_nx], axis=1)


def set_command(prefix: bytes, ids_n: Int64s, values_nb: Bytes) -> bytes:
    """One MSET of n rows."""
    width = values_nb.shape[1]
    before, between = _key_head(prefix), b"\r\n$%d\r\n" % width
    count, id_at = len(ids_n), len(before)
    value_at = id_at + ID_BYTES + len(between)
    items_nb = np.empty((count, value_at + width + 2), dtype=np.uint8)
    items_nb[:, :id_at] = np.frombuffer(before, np.uint8)
    items_nb[:, id_at : id_at + ID_BYTES] = _id_bytes(ids_n)
    items_nb[:, id_at + ID_BYTES : value_at] = np.frombuffer(between, np.uint8)
    items_nb[:, value_at:-2] = values_nb
    items_nb[:, -2:] = np.frombuffer(b"\r\n", np.uint8)
    return b"*%d\r\n$4\r\nMSET\r\n" % (1 + 2 * count) + items_nb.tobytes()


def delete_command(prefix: bytes, ids_n: Int64s) -> bytes:
    """One UNLINK of n rows."""
    before = _key_head(prefix)
    items_nb = np.empty((len(ids_n), len(before) + ID_BYTES + 2), dtype=np.uint8)
    items_nb[:, : len(before)] = np.frombuffer(before, np.uint8)
    items_nb[:, len(before) : -2] = _id_bytes(ids_n)
    items_nb[:, -2:] = np.frombuffer(b"\r\n", np.uint8)
    return b"*%d\r\n$6\r\nUNLINK\r\n" % (1 + len(ids_n)) + items_nb.tobytes()


def ids_of(prefix: bytes, keys: list[bytes]) -> Int64s | None:
    """The ids in keys of rows; None where one of them has another length."""
    joined, size = b"".join(keys), len(prefix) + ID_BYTES
    if len(joined) != size * len(keys):
        return None
    keys_nb = np.frombuffer(joined, np.uint8).reshape(len(keys), size)
    return np.ascontiguousarray(keys_nb[:, len(prefix) :]).view(np.int64).reshape(-1)


def layout_json(header: HeaderFrame, tables: list[str]) -> bytes:
    """What readers need to take a value apart."""
    told: dict[str, Any] = {}
    for name in tables:
        table = header.table(name)
        columns = Carried(table.spec, table.carries).columns.values()
        told[name] = {
            "dim": table.spec.dim,
            "columns": [[column.name, column.dtype, column.width] for column in columns],
        }
    return json.dumps(told).encode()


def npy_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """Each array as the bytes of an npy file."""
    found = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        found[name] = buffer.getvalue()
    return found


def _key_head(prefix: bytes) -> bytes:
    return b"$%d\r\n" % (len(prefix) + ID_BYTES) + prefix


def _id_bytes(ids_n: Int64s) -> Bytes:
    return np.ascontiguousarray(ids_n).view(np.uint8).reshape(len(ids_n), ID_BYTES)

"""Tables of torch and TorchRec state dicts as arrays to import. Row id = index. Loaded with ``weights_only``: nothing is unpickled.

| in the file | becomes |
|---|---|
| ``T.weight``, ``...T.weight`` (``embedding_bags.T.weight``) | ``weights`` |
| a state under that key, named ``T.momentum1``, ``sum``, ``exp_avg``, ... | ``state_NAME`` by ``ALIASES`` |
| ``step``, ``iter`` | ``state_row_counter`` of every row, where the table counts each row's updates; else nothing: the run counts its own |
| any other state | ``state_`` and its own name, which the import refuses |

Model and optimizer may lie in one file under any keys (``{"model": ..., "optimizer": ...}``). States that torch.optim keeps by number are
found where its ``param_groups`` have ``param_names``. bfloat16, which numpy does not have, is read as float32, which holds all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from pipeline.rowlog.checkpoint.array_readers import ArrayReader, Described, Pieces, open_arrays
from pipeline.rowlog.errors import ImportFailed
from pipeline.rows.spec import TableSpec

SUFFIXES: Final = (".pt", ".pth")
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "momentum": ("momentum", "sum", "momentum1", "momentum_buffer"),
    "exp_avg": ("exp_avg", "momentum1"),
    "exp_avg_sq": ("exp_avg_sq", "momentum2"),
}
COUNTS: Final = ("step", "iter")
ROW_COUNT: Final = "row_counter"
CORRECTED: Final = "exp_avg"
"""What has a state so named corrects the bias of its moments by a count of steps."""


def open_rows(path: str, spec: TableSpec) -> ArrayReader:
    """The rows of one table, whatever the form of the file. Raises ImportFailed."""
    return TorchTable(path, spec) if path.endswith(SUFFIXES) else open_arrays(path)


class TorchTable:
    """The file is mapped, so the system keeps no more of it in memory than it likes."""

    def __init__(self, path: str, spec: TableSpec) -> None:
        self.path = path
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises whatever it meets
            raise ImportFailed(path, f"torch cannot load it with weights_only: {error}") from error
        self._spec, self._steps = spec, 0
        leaves = [(keys, value) for keys, value in _leaves(loaded, ()) if keys]
        weights = [(keys, value) for keys, value in leaves if _is_weight(keys[-1], spec.name)]
        if len(weights) != 1:
            found = sorted({keys[-1] for keys, _ in leaves if keys[-1].endswith("weight")})
            raise ImportFailed(
                path, f"{len(weights)} of its keys are those of {spec.name}.weight; those that end in weight: {found}"
            )
        self._values = {"weights": self._tensor(*weights[0])}
        known = {
            alias: column.name for column in spec.layout.states for alias in ALIASES.get(column.name, (column.name,))
        }
        for keys, value in leaves:
            if len(keys) > 1 and _is_weight(keys[-2], spec.name):
                name = keys[-1].rpartition(".")[2]
                if name in COUNTS:
                    self._steps = max(self._steps, self._number(keys, value))
                else:
                    self._values[f"state_{known.get(name, name)}"] = self._tensor(keys, value)
        self._count = len(self._values["weights"])
        if self._steps and ROW_COUNT in known:
            counted = torch.tensor([float(self._steps)]).expand(self._count, 1)
            self._values.setdefault(f"state_{ROW_COUNT}", counted)
        arrays = {name: Described(_dtype(values), tuple(values.shape)) for name, values in self._values.items()}
        self.arrays = {"ids": Described(np.dtype(np.int64), (self._count,)), **arrays}

    def pieces(self, names: list[str], rows: int) -> Pieces:
        for start in range(0, self._count, rows):
            stop = min(start + rows, self._count)
            ids = {"ids": np.arange(start, stop, dtype=np.int64)}
            yield ids | {name: _array(self._values[name][start:stop]) for name in names if name != "ids"}

    @property
    def notes(self) -> tuple[str, ...]:
        """What of it does not come into the rows."""
        names = [column.name for column in self._spec.layout.states]
        if not self._steps or CORRECTED not in names or ROW_COUNT in names:
            return ()
        return (
            f"{self._spec.name}: {self.path} counts {self._steps} steps, and this table's optimizer corrects bias by the steps of the run: "
            "the correction begins anew. adam with rowwise_bias_correction goes on from that count",
        )

    def _tensor(self, keys: tuple[str, ...], value: torch.Tensor | int) -> torch.Tensor:
        """Raises ImportFailed unless numpy can see it."""
        try:
            plain = torch.as_tensor(value).detach()
            _array(plain[:0])
        except (TypeError, RuntimeError, IndexError) as error:
            raise ImportFailed(self.path, f"{'/'.join(keys)} is no plain tensor of numpy's types: {error}") from error
        return plain

    def _number(self, keys: tuple[str, ...], value: torch.Tensor | int) -> int:
        try:
            return int(value)
        except (ValueError, RuntimeError) as error:
            raise ImportFailed(self.path, f"{'/'.join(keys)} is no count of steps: {error}") from error


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """bfloat16 widened."""
    found: npt.NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found


def _dtype(tensor: torch.Tensor) -> np.dtype[Any]:
    return _array(tensor[:0]).dtype


def _is_weight(key: str, table: str) -> bool:
    return key == f"{table}.weight" or key.endswith(f".{table}.weight")


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], torch.Tensor | int]]:
    """Tensors and counts with the keys that lead to them; numbers of parameters are replaced by their names where they are told."""
    if isinstance(value, torch.Tensor | int):
        yield keys, value
    elif isinstance(value, Mapping):
        names = _names_of_numbers(value.get("param_groups"))
        for key, inner in value.items():
            if key == "state" and names and isinstance(inner, Mapping):
                inner = {names.get(number, number): state for number, state in inner.items()}
            yield from _leaves(inner, (*keys, str(key)))


def _names_of_numbers(groups: Any) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for group in groups if isinstance(groups, list) else []:
        found.update(zip(group.get("params", ()), group.get("param_names", ()), strict=False))
    return found

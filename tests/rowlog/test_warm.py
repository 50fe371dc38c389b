"""Nothing is left to compile once the log has warmed up: a second set of types would cost seconds in the middle of a run."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.rowlog import places_kernels, shard_kernels
from pipeline.rowlog.log import record_kernels
from pipeline.rowlog.log.warm import warm_up
from tests.rowlog import test_mark, test_row_log

KERNELS: dict[str, Any] = {
    "pack": record_kernels.pack,
    "unpack": record_kernels.unpack,
    "unpack_memory": record_kernels.unpack_memory,
    "find_in_memory": record_kernels.find_in_memory,
    "find_places": places_kernels.find_places,
    "put_places": places_kernels.put_places,
    "move_places": places_kernels.move_places,
    "recover_places": places_kernels.recover_places,
    "remove_places": places_kernels.remove_places,
    "number_of": places_kernels.number_of,
    "chance": shard_kernels.chance,
    "key_at": shard_kernels.key_at,
    "split_off": shard_kernels.split_off,
    "read_shard": shard_kernels.read_shard,
}


@pytest.mark.parametrize(
    "life", [test_mark.test_a_life_with_checkpoints, test_row_log.test_random_calls_end_with_the_same_rows_and_footers]
)
def test_each_kernel_is_compiled_once_for_one_set_of_types(life: Any) -> None:
    for kernel in KERNELS.values():
        kernel._reset_overloads()
    warm_up()
    before = {name: len(kernel.signatures) for name, kernel in KERNELS.items()}
    assert all(before.values())
    life()
    assert {name: len(kernel.signatures) for name, kernel in KERNELS.items()} == before

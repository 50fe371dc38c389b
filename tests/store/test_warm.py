"""Nothing is left to compile once the store has warmed up."""

from __future__ import annotations

from pipeline.store import dram_kernels, row_blocks, slot_kernels, warm_up
from tests.store.stress import StressPlan, stress

KERNELS = (
    slot_kernels.transition,
    slot_kernels.transition_few,
    slot_kernels.mark_hits,
    slot_kernels.select_lowest,
    slot_kernels.take_victims,
    slot_kernels.find_in_state,
    slot_kernels.score_by_use,
    row_blocks._copy,
    slot_kernels.all_held,
    dram_kernels.find_places,
    dram_kernels.move_rows,
)


def test_each_kernel_is_compiled_once_for_one_set_of_types() -> None:
    assert warm_up() > 0
    before = [set(kernel.signatures) for kernel in KERNELS]
    assert all(before)
    stress(StressPlan(8, steps=40))
    assert [set(kernel.signatures) for kernel in KERNELS] == before

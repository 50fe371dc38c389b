"""Each sabotage of the row log is caught, and without one the same checks pass."""

from __future__ import annotations

import pytest

from pipeline.rowlog.errors import RowLogError
from pipeline.rowlog.log import compactor
from tests.rowlog import test_compactor as of_compactor
from tests.rowlog import test_mark as of_mark
from tests.rowlog import test_row_log as of_log
from tests.sabotage.caught import assert_caught
from tests.sabotage.row_log import SABOTAGES


def check_everything() -> None:
    of_log.test_rows_are_found_before_the_disk_has_them()
    of_log.test_random_calls_end_with_the_same_rows_and_footers()
    of_mark.test_a_life_with_checkpoints()
    of_mark.test_a_row_that_compaction_moved_since_the_mark_is_older_than_the_saved_one()
    of_mark.test_the_newest_record_may_lie_in_the_older_segment()
    of_mark.test_what_was_put_since_the_mark_may_be_older_than_the_saved_row(True, 2, 3)
    of_compactor.test_puts_that_overwrite_the_same_rows_keep_the_bytes_bounded_all_along()
    for check in (
        of_compactor.test_a_segment_stays_while_it_is_read,
        of_compactor.test_rows_that_change_while_they_are_moved_stay_as_they_were_put,
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compactor, "TRIGGER", 1e9)
            check(of_compactor.QUIET, patch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compactor, "TRIGGER", 1e9)
        of_compactor.test_a_segment_that_was_replaced_by_another_is_told(of_compactor.QUIET)


def test_the_checks_pass_on_the_product() -> None:
    check_everything()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], check_everything, RowLogError, OSError, pytest.fail.Exception, name=name)

"""A log that cannot be used: one message that names file and line, exit code 1, and nothing half done."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.command import here
from tests.e2e.small import HEADER, config_file, lines, text


def with_line(number: int, line: str) -> Callable[[Path], None]:
    """A log whose line ``number`` (the header is 1) is ``line``."""

    def write(path: Path) -> None:
        rows = lines()
        rows[number - 2] = line
        path.write_text(text(rows))

    return write


def packed(path: Path) -> bytearray:
    data = gzip.compress(text(lines(20_000)).encode())
    path.write_bytes(data)
    return bytearray(data)


def cut_short(path: Path) -> None:
    path.write_bytes(packed(path)[:-2000])


def damaged_in_the_middle(path: Path) -> None:
    data = packed(path)
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)


FAULTS: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "is not there": ("log.csv", lambda _path: None, ["log.csv", "no file matches"]),
    "is a directory": ("log.csv", Path.mkdir, ["log.csv", "cannot be read"]),
    "has text where an int64 belongs": (
        "log.csv",
        with_line(100, "5,abc,0.5,1"),
        ["log.csv, line 100", "'abc'", "hash"],
    ),
    "has an id beyond int64": ("log.csv", with_line(7, "9223372036854775808,1,0.5,1"), ["log.csv, line 7", "int64"]),
    "has NaN": ("log.csv", with_line(50, "5,6,nan,1"), ["log.csv, line 50", "nan", "price", "not finite"]),
    "has infinity": ("log.csv", with_line(51, "5,6,-inf,1"), ["log.csv, line 51", "inf", "price", "not finite"]),
    "has a label that is none": ("log.csv", with_line(52, "5,6,0.1,7"), ["log.csv, line 52", "label"]),
    "has too few fields": ("log.csv", with_line(53, "5,6"), ["log.csv, line 53"]),
    "is cut short": ("log.csv.gz", cut_short, ["log.csv.gz, line", "cut short"]),
    "is damaged in the middle": ("log.csv.gz", damaged_in_the_middle, ["log.csv.gz, line", "damaged"]),
    "lacks a column": ("log.csv", lambda path: path.write_text("user,itm,price,label\n1,2,3,1\n"), ["'item'", "'itm'"]),
    "is empty": ("log.csv", lambda path: path.write_text(""), ["log.csv", "no usable row"]),
    "holds a header alone": ("log.csv", lambda path: path.write_text(HEADER + "\n"), ["log.csv", "no usable row"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_log_that_cannot_be_used_fails_with_its_place(tmp_path: Path, fault: str) -> None:
    name, write, said = FAULTS[fault]
    write(tmp_path / name)
    outcome = here("run", config_file(tmp_path, tmp_path / name))
    assert outcome.code == 1, outcome.text
    assert "'source'" in outcome.err
    for part in said:
        assert part in outcome.err
    assert "Traceback" not in outcome.text
    assert not (tmp_path / "run" / "summary.json").exists()


def test_bad_lines_may_be_skipped_and_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = lines()
    rows[3], rows[90], rows[199] = "5,x,0.1,1", "5,6,nan,1", "5,6"
    log.write_text(text(rows))
    config = config_file(tmp_path, log, on_error="skip", max_skipped=3)
    outcome = here("run", config)
    assert outcome.code == 0, outcome.text
    assert "3 bad lines or items were skipped" in outcome.out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["skipped"], summary["samples"], summary["lost"]) == (3, 197, 0)
    refused = here("run", config, "--overwrite", "stages.source.max_skipped=2")
    assert refused.code == 1
    assert "3 bad lines were met and max_skipped is 2" in refused.text


def test_samples_without_any_id_are_trained_on(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(text([",,0.5,1", "1,,0.25,0", ",-9223372036854775808,0.5,1"] * 20))
    outcome = here("run", config_file(tmp_path, log))
    assert outcome.code == 0, outcome.text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["samples"] == 60
    assert summary["rows_updated"] == 2 * summary["steps"]
    only_empty = text([",,0.5,1", ",,0.1,0"] * 20)
    log.write_text(only_empty)
    assert here("run", tmp_path / "job.yaml", "--overwrite").code == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rows_updated"] == 0

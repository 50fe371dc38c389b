"""The format can be read without this project: a program in C, written after FORMAT.md, comes to the trainer's rows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.rows.codec import CODECS
from pipeline.rows.version import MAX_STEP
from pipeline.wire.file_transport import FileTransport, FileTransportOptions
from tests.replica.trainer import DictTrainer, column_of
from tests.wire.frame_strategies import a_dictionary

HERE = Path(__file__).parent
MISSING = (
    "the reader in C needs a compiler, and zstd's and msgpack's headers: apt-get install gcc libzstd-dev libmsgpack-dev"
)


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled reader."""
    program = tmp_path_factory.mktemp("foreign") / "reader"
    compiler = shutil.which("cc") or shutil.which("gcc")
    headers = "#include <zstd.h>\n#include <msgpack.h>\nint main(void) { return 0; }\n"
    if compiler is None:
        pytest.skip(MISSING)
    probe = [compiler, "-x", "c", "-", "-o", str(program), "-lzstd", "-lmsgpackc"]
    if subprocess.run(probe, input=headers, text=True, capture_output=True, check=False).returncode:
        pytest.skip(MISSING)
    strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *strict, str(HERE / "reader.c"), "-o", str(program), "-lzstd", "-lmsgpackc"], check=True)
    return program


Read = dict[tuple[str, int], tuple[int, str, list[str]]]
"""By table and id: step, weights in hex, and ``name=hex`` of what rides along."""


def read(reader: Path, stream: Path) -> tuple[Read, str]:
    """Rows, and the last line."""
    output = subprocess.run([str(reader), str(stream)], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = {}
    for line in output[:-1]:
        table, row_id, step, weights, *columns = line.split(" ")
        rows[table, int(row_id)] = (int(step), weights, columns)
    return rows, output[-1]


def rows_of(trainer: DictTrainer) -> Read:
    return {
        (name, row_id): (version & MAX_STEP, weights.hex(), carried(trainer, name, row_id, version))
        for name, rows in trainer.model.items()
        for row_id, (weights, version) in rows.items()
    }


def carried(trainer: DictTrainer, table: str, row_id: int, version: int) -> list[str]:
    columns = (trainer.specs[table].layout.column(name) for name in trainer.carries)
    return [f"{column.name}={column_of(column, [row_id], [version]).tobytes().hex()}" for column in columns]


def live(stream: Path, codec: str, seed: int) -> DictTrainer:
    """A random life of cuts, abandoned ones, snapshot cuts, rows that end, forks, shuffled and compressed in all ways; in segments so
    small that some cuts begin in one and end in another.
    """
    rng = np.random.default_rng(seed)
    trainer = DictTrainer({"items": 4, "users": 8, "v.2_x-y": 16}, codec=codec, seed=seed)
    trainer.share, trainer.carries = 0.5, ("momentum", "slow", "raw") if seed % 2 else ()
    transport = FileTransport(str(stream), options=FileTransportOptions(segment_bytes=4096))
    transport.claim()
    transport.begin(trainer.header())
    ids = [*range(-20, 20), -(1 << 63), (1 << 63) - 1]
    shuffles = [(), ("ids", "versions"), ("rows",), ("ids", "rows", "versions", "dead")]
    deltas = [(), ("ids",), ("versions", "dead"), ("ids", "versions", "dead")]
    for _ in range(40):
        trainer.shuffled, trainer.delta = shuffles[rng.integers(len(shuffles))], deltas[rng.integers(len(deltas))]
        for name in trainer.specs:
            trainer.update({name: rng.choice(ids, rng.integers(1, 12), replace=False).tolist()})
            trainer.forget(name, rng.choice(ids, rng.integers(0, 3), replace=False).tolist())
        if rng.random() < 0.2:
            transport.publish(trainer.cut(commit=False)[: rng.integers(0, 4)], sync=True)
        place = transport.end
        transport.publish(trainer.cut(), sync=True)
        what = rng.random()
        if what < 0.15:
            trainer.dictionary = trainer.dictionary or a_dictionary()
            transport.begin(trainer.header())
            transport.publish(trainer.snapshot(), sync=True)
            transport.retain_from(place)
        elif what < 0.25:
            kept = list(trainer.states)[1:][-3:]
            transport.begin(trainer.fork_at(kept[rng.integers(len(kept))]))
            transport.publish(trainer.cut(rewind=True), sync=True)
    transport.close()
    return trainer


@pytest.mark.parametrize("codec", list(CODECS))
@pytest.mark.parametrize("seed", range(2))
def test_a_reader_in_c_comes_to_the_trainers_rows(reader: Path, tmp_path: Path, codec: str, seed: int) -> None:
    trainer = live(tmp_path / "stream", codec, seed)
    rows, last = read(reader, tmp_path / "stream")
    assert rows == rows_of(trainer)
    generation, cut = trainer.previous
    assert last == f"position {generation} {cut} step {trainer.step}"


def test_it_refuses_a_stream_in_which_a_bit_was_changed(reader: Path, tmp_path: Path) -> None:
    live(tmp_path / "stream", "fp16", 5)
    segment = min((tmp_path / "stream").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 4
    segment.write_bytes(data)
    result = subprocess.run([str(reader), str(tmp_path / "stream")], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert segment.name in result.stderr

"""Random reads bring what plain ``os.pread`` brings, or say which request failed."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rowlog import (
    RandomReads,
    ReadFailed,
    ReadsClosed,
    RowLogError,
    random_reads,
    read_group,
    read_native,
    read_plan,
)
from pipeline.rowlog import read_kernels as kernels
from tests.conftest import ROOT

SIZES = [4096, 10_000, 300_001]
POISON = 0xA5
Ints = npt.NDArray[Any]


@dataclass
class Sample:
    """Some files of random bytes, open, and a reader for them."""

    paths: list[Path]
    fds: list[int]
    reads: RandomReads

    def read(self, files_n: Ints, offsets_n: Ints, nbytes: int, spare: int = 3) -> npt.NDArray[np.uint8]:
        """What comes, [n, nbytes]. Bytes beside it must stay what they were."""
        out = np.full((len(files_n), nbytes + spare), POISON, np.uint8)
        self.reads.read(np.array(self.fds, np.int32)[files_n], offsets_n, nbytes, out)
        assert (out[:, nbytes:] == POISON).all(), "bytes beside the rows were written"
        return out[:, :nbytes]

    def check(self, files_n: Ints, offsets_n: Ints, nbytes: int) -> None:
        got = self.read(files_n, offsets_n, nbytes)
        for file, offset, row in zip(files_n, offsets_n, got, strict=True):
            assert row.tobytes() == plain_read(self.paths[file], int(offset), nbytes)


def plain_read(path: Path, offset: int, nbytes: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, nbytes, offset)
    finally:
        os.close(fd)


def open_for(path: Path, direct: bool) -> int:
    try:
        return os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    except OSError as error:
        if direct and error.errno == errno.EINVAL:
            pytest.skip(f"the file system of {path.parent} has no O_DIRECT")
        raise


@contextmanager
def open_files(paths: list[Path]) -> Iterator[list[int]]:
    """Not direct."""
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


KINDS = ["cached", "cached, short runs", "direct", "direct, short runs", "direct, no queue", "direct, three queues"]


@pytest.fixture(scope="module", params=KINDS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    """Short runs: of two blocks at most, so that rows are longer than a thread's buffer."""
    folder, rng, direct = tmp_path_factory.mktemp("files"), np.random.default_rng(), "direct" in request.param
    paths = [folder / f"{number}" for number in range(len(SIZES))]
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if "short" in request.param:
            patch.setattr(random_reads, "RUN_BYTES", 8192)
        if "no queue" in request.param:
            patch.setattr(read_group, "HAS_QUEUES", False)
        if "three" in request.param:
            patch.setattr(read_group, "PER_QUEUE", 2)
        fds = []
        for path, size in zip(paths, SIZES, strict=True):
            path.write_bytes(rng.bytes(size))
            fds.append(open_for(path, direct))
            stack.callback(os.close, fds[-1])
        yield Sample(paths, fds, stack.enter_context(RandomReads(depth=5, direct=direct)))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Ints, Ints, int]:
    """Requests in random order: anywhere, in groups, beside each other, twice, at the very end."""
    nbytes = draw(st.sampled_from([1, 7, 272, 4096]) | st.integers(1, 4096))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    files = rng.integers(0, len(SIZES), draw(st.integers(1, 60)))
    lasts = np.array(SIZES)[files] - nbytes
    kind = rng.integers(0, 4, len(files))
    near = rng.integers(0, 4, len(files)) * nbytes + draw(st.integers(0, 5000))
    offsets = np.choose(kind, [rng.integers(0, lasts + 1), near, lasts, rng.integers(0, 3, len(files))])
    return files, np.minimum(offsets, lasts).astype(np.int64), nbytes


@given(batch=requests())
def test_rows_are_those_of_plain_reads(sample: Sample, batch: tuple[Ints, Ints, int]) -> None:
    sample.check(*batch)


@pytest.mark.parametrize("nbytes", [8191, 8193, 150_000, 300_001])
def test_rows_longer_than_a_buffer_are_read_too(sample: Sample, nbytes: int) -> None:
    offsets = np.random.default_rng().integers(0, SIZES[2] - nbytes + 1, 9)
    sample.check(np.full(11, 2), np.array([*offsets, 0, SIZES[2] - nbytes]), nbytes)


def test_it_says_what_reads(sample: Sample, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["sample"]
    said = {"direct, no queue": "5 threads: no queues known for this processor", "direct, three queues": "3 queue(s)"}
    assert (
        said.get(kind, "5 threads: cached reads" if "cached" in kind else "1 queue(s) of the system")
        in sample.reads.how
    )


def test_where_the_system_gives_no_queue_threads_read_and_those_it_gave_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def refuse(number: int, *_arguments: int) -> int:
        calls.append(number)
        return errno.EAGAIN if len(calls) == 3 else 0

    monkeypatch.setattr(read_group, "_system_call", refuse)
    with RandomReads(depth=200, direct=True) as reads:
        assert reads.how == "200 threads: the system gives no queue (Resource temporarily unavailable)"
    assert calls == [read_native.IO_SETUP] * 3 + [read_native.IO_DESTROY] * 2


def test_nothing_is_asked_nothing_is_read(sample: Sample) -> None:
    before = sample.reads.counters
    assert sample.read(np.zeros(0, np.int64), np.zeros(0, np.int64), 8).shape == (0, 8)
    assert sample.reads.counters == before


@pytest.mark.parametrize(("last_fd", "last_offset"), [(99, 2**40), (2**21, 2**20), (9, 2**61), (-1, 9)])
def test_requests_are_sorted_also_where_they_do_not_fit_a_sort_key(
    sample: Sample, last_fd: int, last_offset: int
) -> None:
    """A key has 20 bits for the descriptor and 43 for the offset."""
    rng = np.random.default_rng()
    fds = np.append(rng.integers(0, max(last_fd, 3), 200), last_fd).astype(np.int32)
    offsets = np.append(rng.integers(0, last_offset, 200), last_offset)
    order = sample.reads._plan(fds, offsets, 16).order_n
    assert list(zip(fds[order], offsets[order], strict=True)) == sorted(zip(fds, offsets, strict=True))


def test_a_read_up_to_the_end_of_a_file_is_one_read(sample: Sample) -> None:
    before = sample.reads.counters
    sample.check(np.array([1]), np.array([SIZES[1] - 9]), 9)
    assert sample.reads.counters.reads - before.reads == 1


def test_neighbours_are_read_as_one(sample: Sample) -> None:
    before = sample.reads.counters
    offsets = np.random.default_rng().permutation(np.arange(4096, 8192, 64))
    sample.check(np.full(len(offsets), 2), offsets, 64)
    after = sample.reads.counters
    assert (after.reads - before.reads, after.bytes_read - before.bytes_read) == (1, 4096)
    assert after.rows - before.rows == len(offsets)


@pytest.mark.parametrize("direct", [False, True])
@given(batch=requests(), gap=st.sampled_from([0, 100, 4096]), most=st.sampled_from([8192, 20_000, 131_072]))
def test_a_run_fits_a_buffer_and_could_not_take_one_more(
    batch: tuple[Ints, Ints, int], gap: int, most: int, direct: bool
) -> None:
    files, offsets, nbytes = batch
    align = 4096 if direct else 1
    order, firsts = np.lexsort((offsets, files)), np.empty(len(files) + 1, np.int64)
    num_runs = read_plan.plan_runs(files.astype(np.int32), offsets, order, nbytes, align, gap, most, firsts)
    bounds = firsts[: num_runs + 1].tolist()
    assert bounds[0] == 0
    assert bounds[-1] == len(files)
    low, high = offsets[order] // align * align, -(-(offsets[order] + nbytes) // align) * align
    for first, after in pairwise(bounds):
        assert len(set(files[order[first:after]])) == 1
        assert high[after - 1] - low[first] <= most or after == first + 1
        assert all(low[at] <= high[at - 1] + gap for at in range(first + 1, after))
        if after < len(files) and files[order[after]] == files[order[first]]:
            assert low[after] > high[after - 1] + gap or high[after] - low[first] > most


@pytest.mark.parametrize("bad", ["closed", "short", "beyond", "not a file"])
def test_the_request_that_failed_is_named_whichever_thread_met_it(sample: Sample, bad: str) -> None:
    rng = np.random.default_rng()
    folder = os.open(sample.paths[0].parent, os.O_RDONLY)
    fd, offset, got, code = {
        "closed": (1_000_000, 40, 0, errno.EBADF),
        "short": (sample.fds[1], SIZES[1] - 99, 99, 0),
        "beyond": (sample.fds[1], SIZES[1] + 5000, 0, 0),
        "not a file": (folder, 0, 0, errno.EISDIR),
    }[bad]
    for _ in range(20):
        fds, offsets = np.full(200, sample.fds[2], np.int32), rng.integers(0, SIZES[2] - 272, 200)
        n = int(rng.integers(200))
        fds[n], offsets[n] = fd, offset
        with pytest.raises(ReadFailed) as caught:
            sample.reads.read(fds, offsets, 272, np.empty((200, 272), np.uint8))
        error = caught.value
        assert isinstance(error, RowLogError)
        found = (error.n, error.fd, error.offset, error.wanted, error.got, error.errno)
        assert found == (n, fd, offset, 272, got, code)
        assert f"request {n}: {got} of 272 bytes at offset {offset} of file descriptor {fd}" in str(error)
    os.close(folder)
    sample.check(np.array([0, 2]), np.array([0, 9]), 272)


def test_in_a_run_that_ends_with_the_file_the_first_cut_off_request_is_named(sample: Sample) -> None:
    offsets = np.array([SIZES[1] - 50, SIZES[1] - 120, SIZES[1] - 100, SIZES[1] - 90])
    with pytest.raises(ReadFailed, match=r"request 3: 90 of 100 bytes .* the file ends there"):
        sample.read(np.ones(4, np.int64), offsets, 100)


@pytest.mark.parametrize(
    ("fds", "offsets", "nbytes", "out", "said"),
    [
        ([0, 0], [0], 4, np.empty((2, 4), np.uint8), "one file descriptor and one offset"),
        ([0], [-1], 4, np.empty((1, 4), np.uint8), "request 0: no file has 4 bytes at offset -1"),
        ([0], [2**63 - 2], 4, np.empty((1, 4), np.uint8), "no file has 4 bytes"),
        ([0], [0], 0, np.empty((1, 4), np.uint8), "the least is 1"),
        ([0], [0], 8, np.empty((1, 4), np.uint8), r"at least 8\]; got uint8 \(1, 4\)"),
        ([0], [0], 4, np.empty((2, 4), np.uint8), r"uint8 \[1, "),
        ([0], [0], 4, np.empty((1, 4), np.int8), "got int8"),
        ([0], [0], 4, np.empty((4, 1), np.uint8).T[:, ::-1], "writable, contiguous and apart"),
        ([0], [0], 4, np.frombuffer(bytes(4), np.uint8).reshape(1, 4), "writable"),
        ([0, 0], [0, 0], 4, np.broadcast_to(np.empty((1, 4), np.uint8), (2, 4)), "apart"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    sample: Sample, fds: list[int], offsets: list[int], nbytes: int, out: npt.NDArray[Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        sample.reads.read(np.array(fds, np.int32), np.array(offsets), nbytes, out)


def test_many_callers_at_once_each_get_their_own_rows(sample: Sample) -> None:
    def call(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(8):
            nbytes, count = int(rng.integers(1, 600)), int(rng.integers(1, 100))
            sample.check(rng.integers(0, 3, count), rng.integers(0, 4096 - nbytes, count), nbytes)

    with ThreadPoolExecutor(2 * random_reads.MAX_CALLERS + 3) as callers:
        list(callers.map(call, range(2 * random_reads.MAX_CALLERS + 3)))


def test_jobs_are_served_in_turn() -> None:
    jobs, shared = np.zeros((4, kernels.NUM_FIELDS), np.int64), np.zeros(kernels.shared_numbers(4), np.int64)
    for slot, runs in ((0, 5), (2, 2), (3, 1)):
        jobs[slot, kernels.OPEN], jobs[slot, kernels.TOTAL] = 1, runs
    turns = []
    while (slot := kernels._next_job(jobs, shared)) >= 0:
        jobs[slot, kernels.NEXT] += 1
        turns.append(slot)
    assert turns == [0, 2, 3, 0, 2, 0, 0, 0]


def test_signals_in_between_change_nothing(sample: Sample) -> None:
    seen = []

    def note(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGALRM, note)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        rng = np.random.default_rng()
        while len(seen) < 200:
            sample.check(np.full(100, 2), rng.integers(0, SIZES[2] - 272, 100), 272)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("random-reads")]


def test_closing_lets_readers_end_and_tells_those_that_come_later(sample: Sample) -> None:
    """Every read that returns brought all its rows; every other one raised ReadsClosed."""
    others = len(own_threads())
    reads = RandomReads(depth=3, direct=sample.reads.direct)
    mine, began = Sample(sample.paths, sample.fds, reads), threading.Semaphore(0)

    def call(seed: int) -> int:
        rng, done = np.random.default_rng(seed), 0
        while True:
            try:
                mine.check(rng.integers(0, 3, 50), rng.integers(0, 3000, 50), 272)
            except ReadsClosed:
                return done
            done += 1
            began.release()

    with ThreadPoolExecutor(24) as callers:
        results = callers.map(call, range(24))
        for _ in range(48):
            began.acquire()
        reads.close()
        assert len(own_threads()) == others
        assert sum(results) == reads.counters.rows / 50
    reads.close()


def test_close_waits_for_a_reader_that_has_just_begun(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads would end before its job came, and nobody would ever read it."""
    reads, run_job, begun = RandomReads(depth=3), kernels.run_job, threading.Event()
    threads = reads._group.threads

    def late(*arguments: Any) -> None:
        begun.set()
        while not reads._closed or (reads._free.qsize() and any(thread.is_alive() for thread in threads)):
            os.sched_yield()
        assert all(thread.is_alive() for thread in threads), "the threads ended under a reader"
        run_job(*arguments)

    monkeypatch.setattr(kernels, "run_job", late)
    with open_files(sample.paths) as fds, ThreadPoolExecutor(1) as callers:
        reader = callers.submit(Sample(sample.paths, fds, reads).check, np.zeros(1, np.int64), np.zeros(1, np.int64), 9)
        begun.wait()
        reads.close()
        reader.result()


def test_a_reader_that_nobody_closed_leaves_no_threads() -> None:
    others = len(own_threads())
    reads = RandomReads(depth=3)
    assert len(own_threads()) == others + 3
    del reads
    gc.collect()
    assert len(own_threads()) == others


def test_a_process_ends_though_nobody_closed() -> None:
    code = "from pipeline.rowlog import RandomReads\nreads = RandomReads(depth=4)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def test_when_a_thread_cannot_start_the_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    others, start = len(own_threads()), threading.Thread.start

    def limited(self: threading.Thread) -> None:
        if self.name == "random-reads-2":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start"):
        RandomReads(depth=4)
    assert len(own_threads()) == others


def test_waiting_and_reading_release_the_interpreter() -> None:
    for kernel in (kernels.run_job, kernels.serve, kernels.serve_queued, read_plan.plan_runs, read_plan.sort_keys):
        assert kernel.targetoptions["nogil"]


def test_a_reader_needs_a_thread() -> None:
    with pytest.raises(ValueError, match="a depth of 0; the least is 1"):
        RandomReads(depth=0)


@pytest.mark.parametrize(("share", "runs", "woken"), [(1, 3, 3), (1, 50, 6), (8, 3, 1), (8, 9, 2), (8, 500, 6)])
def test_a_small_batch_wakes_few_threads(share: int, runs: int, woken: int) -> None:
    """Six threads wait; none of them is real, so the job's own end is told beforehand."""
    jobs, shared = np.zeros((1, kernels.NUM_FIELDS), np.int64), np.zeros(kernels.shared_numbers(1), np.int64)
    kernels.prepare(shared, 1, share)
    shared[kernels.IDLE] = 6
    jobs[0, kernels.TOTAL] = runs
    place = shared.ctypes.data + 8 * kernels.LOCKS + 2 * read_native.PLACE_BYTES
    assert ctypes.CDLL(None).sem_post(ctypes.c_void_p(place)) == 0
    kernels.run_job(jobs, shared, 0)
    assert shared[kernels.IDLE] == 6 - woken

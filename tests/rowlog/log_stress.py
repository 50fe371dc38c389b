"""Writers, deleters, readers, flush and compaction on one log at once, each row checked: for tests and for sabotages.

Each writer has ids of its own, so it knows what is in them; readers know that versions of an id never fall.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log import RowLog
from pipeline.rows import TableSpec
from tests.rowlog import logs
from tests.rowlog.logs import SPECS, Int64s, Model, rows_of

DEADLINE_S = 180
PER_WRITER = 60
WRITERS = 2


def check_rows(spec: TableSpec, log: RowLog, ids_n: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Read; every row is whole and of its id. Returns (versions, which are held)."""
    rows, found_n = log.get(spec.name, ids_n)
    for version in set(rows.versions_n[found_n].tolist()):
        of_n = found_n & (rows.versions_n == version)
        assert np.array_equal(rows.rows_nb[of_n], rows_of(spec, ids_n[of_n], version)), "a row is not whole"
    assert not rows.rows_nb[~found_n].any()
    return rows.versions_n, found_n


class Stress:
    def __init__(self, log: RowLog, rounds: int, seed: int) -> None:
        self.log, self.rounds, self.seed = log, rounds, seed
        self.models = [Model() for _ in range(WRITERS)]
        self.stop = threading.Event()
        self.writing = WRITERS

    def run(self) -> None:
        """Returns when all is written, with the log still open. Whatever fails is raised, and nobody hangs."""
        roles: list[Callable[[int], None]] = [*[self._write] * WRITERS, self._read, self._read, self._tidy]
        before = sys.getswitchinterval()
        sys.setswitchinterval(0.0002)
        try:
            with ThreadPoolExecutor(len(roles)) as pool:
                callers = [pool.submit(role, number) for number, role in enumerate(roles)]
                self._join(callers)
        finally:
            sys.setswitchinterval(before)
        for model in self.models:
            for spec in SPECS:
                model.check(self.log, spec, range(WRITERS * PER_WRITER)[self._own(self.models.index(model))])

    def _join(self, callers: list[Future[None]]) -> None:
        done, running = wait(callers, DEADLINE_S, FIRST_EXCEPTION)
        failed = [caller for caller in done if caller.exception() is not None]
        self.stop.set()
        if failed or running:
            self.log._writer.fail(AssertionError("another caller failed, or hangs"))
            self.log.close()
        for caller in failed:
            caller.result()
        assert not running, f"{len(running)} callers hang"

    @staticmethod
    def _own(number: int) -> slice:
        return slice(number * PER_WRITER, (number + 1) * PER_WRITER)

    def _write(self, number: int) -> None:
        rng, model = np.random.default_rng([self.seed, number]), self.models[number]
        own = np.arange(WRITERS * PER_WRITER)[self._own(number)]
        for _ in range(self.rounds):
            spec = SPECS[rng.integers(2)]
            some = rng.choice(own, int(rng.integers(1, 30)), replace=False)
            if rng.random() < 0.15:
                model.delete(self.log, spec, some.tolist())
            else:
                model.put(self.log, spec, some.tolist())
            if rng.random() < 0.3:
                model.check(self.log, spec, own.tolist())
        self.writing -= 1
        if not self.writing:
            self.stop.set()

    def _read(self, number: int) -> None:
        rng = np.random.default_rng([self.seed, number])
        seen = {spec.name: np.zeros(WRITERS * PER_WRITER, dtype=np.int64) for spec in SPECS}
        while not self.stop.is_set():
            spec = SPECS[rng.integers(2)]
            asked = rng.permutation(WRITERS * PER_WRITER)
            versions_n, found_n = check_rows(spec, self.log, asked)
            last = seen[spec.name][asked]
            assert (versions_n >= last)[found_n].all(), "an older version came back"
            seen[spec.name][asked] = np.maximum(last, versions_n)

    def _tidy(self, number: int) -> None:
        rng = np.random.default_rng([self.seed, number])
        while not self.stop.is_set():
            if rng.random() < 0.5:
                self.log.flush()
            else:
                self.log.compact()


def stress(log: RowLog, rounds: int, seed: int) -> None:
    """Run on an open log, and compare all of it in the end. Closes it."""
    with logs.closing(log):
        Stress(log, rounds, seed).run()
        log.compact()
        for held in log.tables.values():
            logs.check_counts(held)
        logs.check_space(log)
        with logs.standing_still(log):
            assert all(segment.users == 0 for held in log.tables.values() for segment in held.all_segments())

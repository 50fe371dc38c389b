"""A replica in a process of its own, which keeps itself in a directory and writes down where it stands.

    follower SOURCE DIR JOURNAL OUT

A line of the journal: ``begin GEN CUT STEP`` when a life begins, ``at GEN CUT STEP DURABLE_GEN DURABLE_CUT`` for each cut. When the run has
ended, its tables go to OUT, an npz each, and it ends.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pipeline.replica import Replica

COMMIT_EVERY_S, PAUSE_S = 0.1, 0.02


def main(source: str, directory: str, journal: str, out: str) -> int:
    with (
        open(journal, "a", buffering=1) as lines,
        Replica(source, path=directory, commit_every_s=COMMIT_EVERY_S) as replica,
    ):
        lines.write(f"begin {replica.position.generation} {replica.position.cut} {replica.step}\n")
        while True:
            applied = replica.advance(0.05)
            durable = replica.durable_position
            if applied:
                position = replica.position
                at = f"{position.generation} {position.cut} {replica.step}"
                lines.write(f"at {at} {durable.generation} {durable.cut}\n")
            elif applied is None:
                if replica.ended:
                    break
                time.sleep(PAUSE_S)  # where there is no stream yet, nothing waits
        for table in replica.tables:
            replica.export(table, Path(out) / f"{table}.npz")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

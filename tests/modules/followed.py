"""A replica beside a module's loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.modules import EmbeddingBags
from pipeline.replica import Replica
from pipeline.rows.version import MAX_STEP
from tests.modules.small import TABLES


def assert_holds(replica: Replica, state: Mapping[str, Any]) -> None:
    """The replica has these rows, and no other."""
    with replica.view() as view:
        assert view.step == state["_extra_state"]["step"]
        for table in TABLES:
            ids_n = view.ids(table)
            assert ids_n.tobytes() == state[f"{table}.ids"].numpy().tobytes()
            weights_nd, versions_n = view.lookup_versions(table, ids_n)
            assert weights_nd.tobytes() == state[f"{table}.weight"].numpy().tobytes()
            assert np.array_equal(versions_n & MAX_STEP, state[f"{table}.steps"].numpy())


def follow(
    module: EmbeddingBags, run_dir: Path, states: Mapping[int, Mapping[str, Any]], steps: Sequence[Callable[[], Any]]
) -> None:
    """Make these steps, and close the module: a replica equals it at each step it comes to, and in the end. ``states``: by step."""
    with module, Replica(str(run_dir / "stream")) as replica:
        for make in steps:
            make()
            replica.apply_available()
            if replica.step:
                assert_holds(replica, states[replica.step])
        module.close()
        replica.apply_available()
        assert replica.step == len(steps)
        assert_holds(replica, states[len(steps)])

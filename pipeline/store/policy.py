"""Victim policies: which rows leave L1 first. A policy only scores slots; pins, states and exactness are none of its
business.

A policy is a class without arguments with a ``scores`` method. ``store.policy`` names a built-in one or a user's own as
``package.module:Class``. Whatever a policy answers, results are the same bits: only speed changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from pipeline.store.errors import PolicyNotFound
from pipeline.store.slot_kernels import score_by_use

Int64s = npt.NDArray[np.int64]
FAR_STEPS: Final = 1 << 12
"""Queued batches further ahead than this are all the same to ``lookahead``."""
MOST_USES: Final = 255
OLDEST_STEPS: Final = 1 << 16
USE_STEPS: Final = 20
MOST_COUNTED: Final = 8
"""Uses that ``lookahead`` counts. On real and made-up logs these two saved 3 to 8 % of the misses."""


@dataclass(frozen=True, slots=True)
class SlotUse:
    """What a policy sees of the slots: [S] each, read only. They may change while a policy looks: it decides
    nothing.
    """

    last_use_s: Int64s
    """The last step that reserved the slot."""
    uses_s: npt.NDArray[np.int32]
    """How many steps have reserved it since its row came in."""
    next_use_s: Int64s
    """The next queued step that needs its row, where above the step asked for; 0 or a past step: none that is known."""


class Policy(Protocol):
    needs_expect: bool
    """Whether queued batches are worth the look-up that finds their rows' slots."""

    def scores(self, use: SlotUse, now: int) -> Int64s:
        """int64 [S]: the lowest leave first. ``now`` is the last step that was reserved."""


class Lru:
    """The row that was needed longest ago leaves first."""

    needs_expect = False

    def scores(self, use: SlotUse, now: int) -> Int64s:  # noqa: ARG002 - part of the protocol
        return use.last_use_s


class Lfu:
    """The row that was needed by the fewest steps leaves first; among equals the one needed longest ago."""

    needs_expect = False

    def scores(self, use: SlotUse, now: int) -> Int64s:
        age_s = np.clip(now - use.last_use_s, 0, OLDEST_STEPS - 1)
        uses_s = np.minimum(use.uses_s, MOST_USES).astype(np.int64)
        return uses_s * OLDEST_STEPS + (OLDEST_STEPS - 1 - age_s)


class Lookahead:
    """Rows that queued batches need leave last, the furthest need first; among the rest the longest unused leaves first, where each
    step that used a row again counts for ``USE_STEPS`` steps: a row that came once goes before one that comes often.
    """

    needs_expect = True

    def scores(self, use: SlotUse, now: int) -> Int64s:
        scores_s = np.empty(use.last_use_s.shape[0], dtype=np.int64)
        score_by_use(use.last_use_s, use.uses_s, use.next_use_s, now, FAR_STEPS, USE_STEPS, MOST_COUNTED, scores_s)
        return scores_s


POLICIES: Mapping[str, type[Policy]] = {"lru": Lru, "lfu": Lfu, "lookahead": Lookahead}


def find_policy(name: str) -> Policy:
    """Make the policy ``name``. Raises PolicyNotFound that says which part of the name led nowhere."""
    known = f"the built-in ones are {sorted(POLICIES)}; a policy of your own is named package.module:Class"
    if name in POLICIES:
        return POLICIES[name]()
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise PolicyNotFound(f"no victim policy {name!r}; {known}")
    try:
        found = getattr(import_module(module_name), class_name)
    except ImportError as error:
        raise PolicyNotFound(f"victim policy {name!r}: cannot import {module_name!r} ({error}); {known}") from error
    except AttributeError:
        raise PolicyNotFound(f"victim policy {name!r}: module {module_name!r} has no {class_name!r}; {known}") from None
    policy = found()
    if not callable(getattr(policy, "scores", None)):
        raise PolicyNotFound(f"victim policy {name!r} has no scores(use, now) method; {known}")
    return cast(Policy, policy)

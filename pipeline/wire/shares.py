"""What the commit frames of all shards say of a cut together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.wire.digest import MASK
from pipeline.wire.frames import CommitFrame


def join_commits(commits: Sequence[CommitFrame]) -> CommitFrame:
    """The commit frame that the cut would have in one shard, but for the number of its frames. ``commits`` are of one cut, one for each
    shard; what is not counted they say alike, and dense weights ride in one.
    """
    if len(commits) == 1:
        return commits[0]
    return replace(
        commits[0],
        num_frames=sum(commit.num_frames for commit in commits),
        num_rows=sum(commit.num_rows for commit in commits),
        num_tombstones=sum(commit.num_tombstones for commit in commits),
        digest=sum(commit.digest for commit in commits) & MASK,
        dense_digest=next((commit.dense_digest for commit in commits if commit.dense_digest is not None), None),
    )

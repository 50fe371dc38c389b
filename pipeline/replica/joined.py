"""One cut out of the shares of all shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from pipeline.replica.cuts import Applied, Cut, ShardPlace, StagedRows
from pipeline.replica.errors import DamagedCut
from pipeline.replica.intake import ReadyCut
from pipeline.wire.frames import CommitFrame, HeaderFrame
from pipeline.wire.shares import join_commits


@dataclass(frozen=True, slots=True)
class JoinedCut:
    """The shares of all shards in one cut. Whoever applies it closes it."""

    commit: CommitFrame
    """Counts and digest are those of all shards together."""
    shares: Sequence[ReadyCut]

    @property
    def where(self) -> str:
        """The place behind the commit frame of the first shard, for errors."""
        return str(self.shares[0].place.at)

    def cut(self, places: tuple[ShardPlace, ...]) -> Cut:
        """As whoever keeps rows takes it; ``places``: where the stream goes on behind it. Valid until ``close``."""
        commit = self.commit
        waits = commit.unsent, commit.oldest_ns
        applied = Applied(commit.position, commit.step, commit.clock_ns, commit.end, places, *waits)
        counts = [share.staged.num_ids for share in self.shares]
        num_ids = None if None in counts else sum(count or 0 for count in counts)
        return Cut(applied, commit.snapshot, self.parts, self.dense(), num_ids)

    def passed_over(self, places: tuple[ShardPlace, ...], applied: Applied) -> Cut:
        """It moves the position and nothing else; ``applied`` is held already."""
        position, by = self.commit.position, applied.computed_by
        return Cut(replace(applied, position=position, places=places, ended=False, ahead_by=by), snapshot=False)

    @property
    def header(self) -> HeaderFrame:
        """That of the first shard."""
        return self.shares[0].staged.header

    def parts(self) -> Iterator[StagedRows]:
        """All rows, shard by shard. No row comes twice: each belongs to one shard."""
        for share in self.shares:
            yield from share.staged.parts()

    def dense(self) -> Mapping[str, npt.NDArray[Any]] | None:
        """The dense weights, from the shard that carries them; None where none does."""
        found = (share.staged.dense() for share in self.shares)
        return next((arrays for arrays in found if arrays is not None), None)

    def close(self) -> None:
        for share in self.shares:
            share.staged.close()


def join_cut(shares: Sequence[ReadyCut]) -> JoinedCut:
    """Raises DamagedCut where the shards do not mean the same cut."""
    first = shares[0].commit
    for number, share in enumerate(shares):
        if _meaning(share.commit) != _meaning(first):
            what = f"its commit frame says {_meaning(share.commit)}, that of shard 0 {_meaning(first)}"
            for other in shares:
                other.staged.close()
            raise DamagedCut(f"{share.place.at} of shard {number}", first.position, first.snapshot, what)
    return JoinedCut(join_commits([share.commit for share in shares]), shares)


def _meaning(commit: CommitFrame) -> tuple[Any, ...]:
    """What the commit frames of all shards say alike."""
    return (commit.position, commit.step, commit.kind, commit.previous, commit.rewind, commit.end)

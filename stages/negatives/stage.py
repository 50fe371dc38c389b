"""negatives: for each positive of a log that holds positives only, k samples of items that the user did not choose.

Rules.

1. A sample with a label above 0 is a positive. It goes out followed by its k negatives: copies of it with another item and label 0.
   Other samples go through as they are.
2. ``popularity`` draws from the items of the last ``window`` positives before the positive, so an item comes up as often as it was
   chosen. ``uniform`` draws from the distinct items of the positives before it, or from a file of candidates.
3. Draws are independent (a negative may come up twice) and never give one of the positive's own items.
4. Which negatives a positive gets is a pure function of the seed, its position in the source's order and the positives before it.
   Sizes of batches, in and out, change nothing.
5. A positive that nothing can be drawn for, such as the first one, has fewer negatives; they are counted as ``negatives_missing``.
6. What an item, and each of ``along``, has besides its id (identities, metadata) goes along with it: a negative has that of the positive
   that it was remembered from.
7. With ``batch_size`` the batches going out have exactly that size; the last may be short.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.flow.run_info import RunInfo
from pipeline.flow.stage import Lane, Many, Stage, StageContext, StageOptions
from stages.errors import WrongItems
from stages.items import RawBatch
from stages.mixing import key_of
from stages.negatives.candidates import Drawer, SeenItems, WindowItems, read_candidates
from stages.negatives.drawn import Items, assemble
from stages.rebatch import Rebatcher
from stages.sources.samples import Samples

NEGATIVES_KEY = 0x4E45


class NegativesOptions(StageOptions):
    """How negatives are drawn."""

    item: str = Field(description="the feature whose id is replaced")
    along: tuple[str, ...] = Field(
        (), description="features that belong to the item, such as its author: replaced with it"
    )
    per_positive: int = Field(4, ge=1, le=1024, description="negatives for each positive")
    draw: Literal["popularity", "uniform"] = Field("popularity", description="as often as chosen, or all items alike")
    window: int = Field(100_000, ge=1, description="`popularity`: draw from the items of so many positives before")
    remember: int = Field(
        1_000_000, ge=1, description="`uniform`: most distinct items remembered, beyond that a sample"
    )
    candidates: str | None = Field(
        None,
        description="`uniform`: a Parquet file, or CSV with header, with a column for the item and each of `along`",
    )
    batch_size: int | None = Field(
        None, ge=1, description="samples of a batch going out; null: what a batch coming in gives"
    )
    seed: int | None = Field(None, ge=0, description="null: run.seed")

    @model_validator(mode="after")
    def candidates_are_uniform(self) -> NegativesOptions:
        if self.candidates is not None and self.draw != "uniform":
            raise ValueError("`candidates` belongs to `draw: uniform`")
        if self.item in self.along:
            raise ValueError(f"`along` names the item {self.item!r} itself")
        return self


class Negatives(Stage):
    """Draws negatives for logs of positives."""

    Options: ClassVar[type[StageOptions]] = NegativesOptions
    consumes = RawBatch
    produces = RawBatch
    needs: ClassVar[Mapping[str, type]] = {"run": RunInfo}
    lane = "negatives"

    async def open(self, context: StageContext) -> None:
        self._counters = context.counters
        self._lane: Lane = context.lane(self.lane)
        run: RunInfo | None = context.resources.get("run")
        seed = self.options.seed if self.options.seed is not None else run.seed if run is not None else 0
        self._key = key_of(seed, NEGATIVES_KEY)
        self._rebatcher = Rebatcher(self.options.batch_size)
        self._drawer: Drawer = await self._lane.run(self._make_drawer)

    def _make_drawer(self) -> Drawer:
        options = self.options
        if options.candidates is not None:
            return read_candidates(options.candidates, options.item, options.along)
        if options.draw == "popularity":
            return WindowItems(options.window, len(options.along))
        return SeenItems(options.remember, len(options.along))

    def work(self, item: RawBatch) -> Many:
        """Raises WrongItems."""
        if item.num_samples == 0:
            return Many((item,)) if self.options.batch_size is None else Many()
        return Many(self._rebatcher.add(self._with_negatives(item), item.cursor))

    def _with_negatives(self, raw: RawBatch) -> Samples:
        positive_b = raw.labels_b > 0
        items = Items.of(raw, self.options.item, self.options.along)
        if not self._drawer.fits(len(items.along_an)):
            raise WrongItems(
                f"{self.options.item!r} or what goes along with it has other identities or metadata than batches before; of `candidates` "
                "from a file there are none",
                raw.cursor,
            )
        drawn = self._drawer.draw(self._key, raw.first_row, self.options.per_positive, positive_b, items)
        missing = int(positive_b.sum()) * self.options.per_positive - int(drawn.there_bk.sum())
        if missing:
            self._counters.add("negatives_missing", missing)
        return assemble(Samples.of(raw), drawn, self.options.item, self.options.along)

    async def drain(self) -> Many:
        return Many(await self._lane.run(self._rebatcher.finish))

    def state(self) -> Any:
        return {"drawer": self._drawer.state(), "rest": self._rebatcher.state()}

    def restore(self, state: Any) -> None:
        self._drawer.restore(state["drawer"])
        self._rebatcher.restore(state["rest"])

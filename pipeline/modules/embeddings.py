"""The modules: embedding rows for people with a loop of their own.

A step is one training forward and its backward, which updates the rows; a forward whose backward never comes is given up when the next
one begins, and changes nothing. Under ``eval()``, and where gradients are off, rows are read as the last step left them, and nothing is
admitted, counted or marked: it may alternate with training at any step, even between a forward and its backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from pipeline.modules import state
from pipeline.modules.engine import Engine
from pipeline.modules.errors import NeedsDir
from pipeline.modules.inputs import Inputs, as_array, read_inputs, twin_class, with_meta
from pipeline.modules.settings import ModuleSettings, checked, from_config
from pipeline.modules.step import Rows
from pipeline.session.copies import Copies
from pipeline.store import FetchedRows

ByFeature = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableConfig:
    """A table as models written for TorchRec ask for it. ``num_embeddings``: ``max_rows``; None: any number."""

    name: str
    embedding_dim: int
    num_embeddings: int | None
    feature_names: list[str]


class RowsModule(torch.nn.Module, ABC):
    """What both modules are. They have no parameters: an optimizer of the dense weights finds nothing here.

    ``tables`` and ``features`` as in a config; the other keywords are those of ``ModuleSettings``. With ``dir`` the module has a run
    directory that `rows`, `export` and `verify` take; with ``stream`` it publishes there what changed. Close it, or use ``with``.
    Raises ConfigError, BadSettings, RunDirTaken.
    """

    poolings: ClassVar[Sequence[str]] = ()

    def __init__(self, tables: Mapping[str, Any], features: Mapping[str, Any] | None = None, **settings: Any) -> None:
        super().__init__()
        self.settings: ModuleSettings = checked(
            {"tables": tables, "features": features or {}, **settings}, self.poolings
        )
        if self.settings.stream is not None and self.settings.dir is None:
            raise NeedsDir("a stream")
        self._anchor = torch.zeros(0, requires_grad=True)
        self._engine = Engine(self.settings)

    @classmethod
    def from_config(cls, *sources: str, overrides: Sequence[str] = (), **settings: Any) -> Self:
        """From the tables, features, store, device, seed and threads of a job's config; ``settings`` win over it."""
        return cls(**{**from_config(sources, overrides), **settings})

    @property
    def step(self) -> int:
        """The last step that has ended: how often backward has updated rows."""
        return self._engine.step

    def prefetch(self, features: Any, identities: ByFeature | None = None, metadata: ByFeature | None = None) -> bool:
        """Have the rows of a batch ahead brought into L1 in the background. Its ids are copied; of what is given besides, which is
        checked, that of the forward counts.

        False, and nothing is done, while ``lookahead`` batches wait for their forward already. Forwards in the order of these calls find
        their rows there; others are as right, and slower. Raises BadFeatures.
        """
        if self._engine.num_ahead >= self.settings.lookahead:
            return False
        self._engine.announce(self._read(features, identities, metadata).batch)
        return True

    def forward(self, features: Any, identities: ByFeature | None = None, metadata: ByFeature | None = None) -> Any:
        """A mapping from feature to ids, (ids, offsets) or (ids, offsets, weights); or a KeyedJaggedTensor. Raises BadFeatures.

        Ids and offsets are int64 or int32 on the host, weights float32, with the conventions of ``torch.nn.EmbeddingBag``; a matrix of
        ids has a bag in each row. Weights that require gradients get them.

        ``identities`` int64 [n, k] and ``metadata`` [n, width], by feature, for tables that keep them: with the step each row gets those
        of its last use in the batch. They are copied; where no rows are trained they are checked and no more.
        """
        inputs = self._read(features, identities, metadata)
        trains = self.training and torch.is_grad_enabled()
        outs = self._train(inputs) if trains else self._engine.look_up(inputs.batch)
        return self._as_asked(inputs, outs)

    def _read(self, features: Any, identities: ByFeature | None, metadata: ByFeature | None) -> Inputs:
        inputs = read_inputs(features, self._engine.features, self.settings.include_last_offset)
        return with_meta(inputs, {"identity": identities, "metadata": metadata})

    def _train(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        step = self._engine.forward(inputs.batch)
        tensors = Rows.apply(step, self._anchor, *inputs.weights_f)  # type: ignore[no-untyped-call]
        return self._by_feature(tensors)

    @abstractmethod
    def _by_feature(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """One output per feature, from the outputs of a step."""

    @abstractmethod
    def _as_asked(self, inputs: Inputs, outs: Sequence[torch.Tensor]) -> Any:
        """In the form that the features came in."""

    def _table_configs(self) -> list[TableConfig]:
        features = self.settings.features
        return [
            TableConfig(name, table.dim, table.max_rows, [f for f, one in features.items() if (one.table or f) == name])
            for name, table in self.settings.tables.items()
        ]

    def fetch_rows(self, table: str, ids: Any, states: bool = True) -> FetchedRows:
        """``Store.fetch_rows``: current weights, states, meta columns and versions of any ids."""
        found: FetchedRows = self._engine.on_compute(self._engine.store.fetch_rows, table, ids, states)
        return found

    def load_rows(
        self,
        table: str,
        ids: Any,
        rows: Any,
        states: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> int:
        """``Store.load``: overwrite rows, states and meta columns, as a step of its own, whose number is returned. Tensors and arrays;
        bfloat16 is widened to float32.

        Streams, checkpoints and ``state_dict`` take them as any changed row. A loop that goes on from a checkpoint before that step has
        to load them again. Raises UnknownTable, BadLoad, BackwardAwaited; then nothing was changed, and the loop may go on.
        """
        given = [
            {name: as_array(values) for name, values in one.items()} if one is not None else None
            for one in (states, meta)
        ]
        return self._engine.load_rows(table, as_array(ids), as_array(rows), *given)

    def save(self, path: str | Path | None = None) -> Path:
        """Save rows and states as the last step left them, as a checkpoint in the module's directory; with ``path`` a copy is put there
        too, which `rows`, `export` and ``load`` take. Durable when its directory is returned. Raises NeedsDir, CopyTaken.
        """
        engine = self._engine
        if path is None and self.settings.dir is None:
            raise NeedsDir("save() without a path")
        files = engine.resources.by_name["files"]
        copies = None if path is None else Copies(files, engine.run, Path(path), self.settings.keep)
        saved = engine.checkpoint()
        return saved if copies is None else copies.take(saved)

    def load(self, path: str | Path) -> None:
        """Begin with the rows of the newest checkpoint in ``path``, a run directory or a copy, at its step.

        Raises NotFresh for a module that has trained, BadState for a checkpoint of other tables.
        """
        state.load_checkpoint(self._engine, Path(path))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        del keep_vars
        destination.update(state.gather_state(self._engine, prefix, self.settings.state_bytes))

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        del local_metadata
        found = state.read_state(self._engine, state_dict, prefix)
        missing_keys.extend(found.missing)
        if strict:
            unexpected_keys.extend(found.unexpected)
        error_msgs.extend(found.wrong)
        if found.missing or found.wrong:
            return
        if self._engine.used and self.settings.dir is None:
            self._engine.close()
            self._engine = Engine(self.settings)
        try:
            state.put_state(self._engine, found)
        except ValueError as error:
            error_msgs.append(str(error))

    def close(self) -> None:
        """Publish what is left of the stream and give everything back. May be called twice."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError(
            "a module holds its tables' tiers and is not copied: save() it and load() that into another one"
        )

    def __reduce__(self) -> Any:
        raise TypeError("a module is not pickled: pickle its state_dict(), or save() it")


class EmbeddingBags(RowsModule):
    """Bags of rows, pooled by ``sum`` or ``mean``: for a mapping one [B, dim] per feature, for a KeyedJaggedTensor a KeyedTensor."""

    poolings = ("sum", "mean")

    def embedding_bag_configs(self) -> list[TableConfig]:
        """As of TorchRec's EmbeddingBagCollection."""
        return self._table_configs()

    def _by_feature(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return torch.split(tensors[0], self._engine.features.dims_f.tolist(), dim=1)

    def _as_asked(self, inputs: Inputs, outs: Sequence[torch.Tensor]) -> Any:
        names = self._engine.features.names
        if inputs.jagged is None:
            return dict(zip(names, outs, strict=True))
        make = twin_class(inputs.jagged, "KeyedTensor")
        return make(
            keys=list(names), length_per_key=self._engine.features.dims_f.tolist(), values=torch.cat(tuple(outs), dim=1)
        )


class Embeddings(RowsModule):
    """Rows as they are: for a mapping [n, dim] per feature ([B, L, dim] for a matrix), for a KeyedJaggedTensor a JaggedTensor each."""

    poolings = ("none",)

    def embedding_configs(self) -> list[TableConfig]:
        """As of TorchRec's EmbeddingCollection."""
        return self._table_configs()

    def _by_feature(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return tuple(tensors)

    def _as_asked(self, inputs: Inputs, outs: Sequence[torch.Tensor]) -> Any:
        named = list(zip(self._engine.features.names, inputs.bags_f, outs, strict=True))
        if inputs.jagged is None:
            return {
                name: out if bags.width is None else out.view(-1, bags.width, out.shape[1]) for name, bags, out in named
            }
        make = twin_class(inputs.jagged, "JaggedTensor")
        return {name: make(values=out, offsets=torch.from_numpy(np.array(bags.offsets_b))) for name, bags, out in named}

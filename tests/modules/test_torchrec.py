"""A KeyedJaggedTensor in, a KeyedTensor or JaggedTensors out, beside TorchRec's own collections."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.modules import BadFeatures, EmbeddingBags, Embeddings, UnknownFeatures
from pipeline.optim import AdagradOptions, layout_of
from pipeline.rows.spec import Initializer, TableSpec
from tests.modules.peers import torchrec
from tests.session.test_torch_tables import packed

IDS = 40
LR = 0.1
TABLES = {
    "t": {"dim": 8, "optimizer": {"kind": "sgd", "lr": LR}},
    "u": {"dim": 4, "optimizer": {"kind": "sgd", "lr": LR}},
}
FEATURES: dict[str, dict[str, str]] = {"a": {"table": "t"}, "b": {"table": "t"}, "c": {"table": "u"}}


@pytest.fixture
def peer() -> Iterator[Any]:
    found = torchrec()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield found


def jagged(peer: Any, number: int, keys: tuple[str, ...] = ("a", "b", "c"), weighted: bool = False) -> Any:
    rng = np.random.default_rng(number)
    lengths = torch.from_numpy(rng.integers(0, 4, 5 * len(keys)))
    values = torch.from_numpy(rng.integers(0, IDS, int(lengths.sum())))
    weights = torch.from_numpy(rng.normal(size=values.numel()).astype(np.float32)) if weighted else None
    return peer.KeyedJaggedTensor.from_lengths_sync(list(keys), values, lengths, weights)


def collection(peer: Any, module: EmbeddingBags, weighted: bool) -> Any:
    """TorchRec's, with the rows that the module begins with."""
    made = peer.EmbeddingBagCollection(
        tables=[
            peer.EmbeddingBagConfig(name="t", embedding_dim=8, num_embeddings=IDS, feature_names=["a", "b"]),
            peer.EmbeddingBagConfig(name="u", embedding_dim=4, num_embeddings=IDS, feature_names=["c"]),
        ],
        is_weighted=weighted,
    )
    with torch.no_grad():
        for table in TABLES:
            made.embedding_bags[table].weight.copy_(torch.from_numpy(module.fetch_rows(table, range(IDS)).weights_nd))
    return made


@pytest.mark.parametrize("weighted", [False, True])
def test_it_stands_where_an_embedding_bag_collection_stood(peer: Any, weighted: bool) -> None:
    with EmbeddingBags(TABLES, FEATURES, threads=2, store={"l1_rows": 64}) as module:
        theirs = collection(peer, module, weighted)
        optimizer = torch.optim.SGD(theirs.parameters(), lr=LR)
        for number in range(20):
            features = jagged(peer, number, weighted=weighted)
            assert module.prefetch(jagged(peer, number + 1, weighted=weighted))
            out, expected = module(features), theirs(features)
            assert type(out) is type(expected)
            assert out.keys() == expected.keys() == ["a", "b", "c"]
            assert torch.allclose(out.values(), expected.values(), rtol=0, atol=1e-6)
            assert torch.equal(out["c"], out.values()[:, 16:])
            optimizer.zero_grad()
            for values in (out.values(), expected.values()):
                (values + values * values).sum().backward()
            optimizer.step()
        for table in TABLES:
            rows_nd = module.fetch_rows(table, range(IDS)).weights_nd
            assert np.abs(rows_nd - theirs.embedding_bags[table].weight.detach().numpy()).max() <= 1e-5


def test_keys_may_come_in_another_order(peer: Any) -> None:
    with EmbeddingBags(TABLES, FEATURES, threads=2, store={"l1_rows": 64}) as module:
        module.eval()
        features = jagged(peer, 3, ("c", "a", "b"))
        out, parts = module(features), features.to_dict()
        assert out.keys() == ["a", "b", "c"]
        for name, part in parts.items():
            table = FEATURES[name]["table"]
            rows_nd = torch.from_numpy(module.fetch_rows(table, part.values().numpy()).weights_nd)
            bag_n = torch.repeat_interleave(torch.arange(5), part.lengths())
            summed = torch.zeros(5, rows_nd.shape[1]).index_add(0, bag_n, rows_nd)
            assert torch.allclose(out[name], summed, rtol=0, atol=1e-6)


def test_identities_stand_beside_the_keys_of_a_batch(peer: Any) -> None:
    """In the order of each key's own values; of two keys that share a table the one that comes later in the module counts."""
    tables = {"t": {**TABLES["t"], "identities": 1}, "u": TABLES["u"]}
    with EmbeddingBags(tables, FEATURES, threads=2, store={"l1_rows": 64}) as module:
        features = jagged(peer, 7, keys=("c", "b", "a"))
        own = {name: features[name].values() for name in ("a", "b")}
        given = {
            name: (ids + number).reshape(-1, 1) for (name, ids), number in zip(own.items(), (100, 200), strict=True)
        }
        module(features, identities=given).values().sum().backward()
        kept = module.fetch_rows("t", range(IDS)).meta["identity"][:, 0].tolist()
        first, later = (set(own[name].tolist()) for name in ("a", "b"))
        assert kept == [i + 200 if i in later else i + 100 if i in first else 0 for i in range(IDS)]
        assert first & later
        assert first - later


def test_rows_that_are_not_pooled_come_as_jagged_tensors(peer: Any) -> None:
    with Embeddings(TABLES, FEATURES, threads=2, store={"l1_rows": 64}) as module:
        features = jagged(peer, 5)
        out = module(features)
        for name, part in features.to_dict().items():
            assert type(out[name]) is type(part)
            assert torch.equal(out[name].lengths(), part.lengths())
            rows_nd = module.fetch_rows(FEATURES[name]["table"], part.values().numpy()).weights_nd
            assert out[name].values().detach().numpy().tobytes() == rows_nd.tobytes()
        sum(part.values().sum() for part in out.values()).backward()
        assert module.step == 1


def test_what_is_broken_is_named_and_the_next_forward_works(peer: Any) -> None:
    make, ids = peer.KeyedJaggedTensor, torch.arange(6)
    keys = ["a", "b", "c"]

    def with_offsets(*offsets: int) -> Any:
        return make(keys=keys, values=ids, offsets=torch.tensor(offsets), stride=1)

    cases: list[tuple[Any, type[Exception], str]] = [
        (jagged(peer, 1, ("a", "b", "z")), UnknownFeatures, "unknown 'z' and lacks 'c'"),
        (with_offsets(0, 3, 2, 6), BadFeatures, "offsets fall: 3 is followed by 2 at position 2"),
        (with_offsets(0, 1, 2, 5), BadFeatures, "offsets end with 5, and there are 6 ids"),
        (with_offsets(1, 2, 3, 6), BadFeatures, "offsets begin with 1"),
        (with_offsets(0, 2, 6), BadFeatures, "for 3 keys and stride 1 there are 4 offsets"),
        (make(keys=keys, values=ids.float(), offsets=torch.tensor([0, 1, 2, 6])), BadFeatures, "torch.float32; int64"),
        (
            make(keys=keys, values=ids, offsets=torch.tensor([0, 1, 2, 6]), weights=torch.ones(5)),
            BadFeatures,
            r"weights are torch.float32 of shape \(5,\)",
        ),
    ]
    with EmbeddingBags(TABLES, FEATURES, threads=2, store={"l1_rows": 64}) as module:
        for step, (broken, error, said) in enumerate(cases):
            with pytest.raises(error, match=said):
                module(broken)
            module(jagged(peer, step)).values().sum().backward()
            assert module.step == step + 1


def test_torchrecs_own_dlrm_takes_it_and_learns_the_same(peer: Any) -> None:
    """With nothing in it changed but the collection."""
    from torchrec.models.dlrm import DLRM

    tables = {name: {**table, "dim": 8} for name, table in TABLES.items()}
    with EmbeddingBags(tables, FEATURES, threads=2, store={"l1_rows": 64}) as module:
        configs = [
            peer.EmbeddingBagConfig(
                name=one.name, embedding_dim=one.embedding_dim, num_embeddings=IDS, feature_names=one.feature_names
            )
            for one in module.embedding_bag_configs()
        ]
        theirs = peer.EmbeddingBagCollection(tables=configs)
        with torch.no_grad():
            for name in tables:
                rows_nd = module.fetch_rows(name, range(IDS)).weights_nd
                theirs.embedding_bags[name].weight.copy_(torch.from_numpy(rows_nd))
        models = []
        for collection in (module, theirs):
            torch.manual_seed(1)
            models.append(DLRM(collection, 3, dense_arch_layer_sizes=[16, 8], over_arch_layer_sizes=[8, 1]))
        optimizers = [torch.optim.SGD(model.parameters(), lr=LR) for model in models]
        for number in range(20):
            features, dense = (
                jagged(peer, number),
                torch.from_numpy(np.random.default_rng(number).random((5, 3), np.float32)),
            )
            losses = []
            for model, optimizer in zip(models, optimizers, strict=True):
                optimizer.zero_grad()
                loss = torch.nn.functional.softplus(model(dense, features)).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(float(loss.detach()))
            assert abs(losses[0] - losses[1]) <= 1e-5
        assert module.step == 20


def test_its_own_state_dicts_are_files_to_import(peer: Any, tmp_path: Path) -> None:
    """The collection's, and that of a TorchRec optimizer over it."""
    from torchrec.optim.keyed import KeyedOptimizerWrapper

    with EmbeddingBags(TABLES, FEATURES, threads=2, store={"l1_rows": 64}) as module:
        theirs = collection(peer, module, weighted=False)
    optimizer = KeyedOptimizerWrapper(dict(theirs.named_parameters()), lambda given: torch.optim.Adagrad(given, lr=LR))
    for number in range(5):
        optimizer.zero_grad()
        theirs(jagged(peer, number)).values().square().sum().backward()
        optimizer.step()
    path, options = tmp_path / "trained.pt", AdagradOptions()
    torch.save({"model": theirs.state_dict(), "optimizer": optimizer.state_dict()}, path)
    for name, dim in (("t", 8), ("u", 4)):
        spec = TableSpec(name, layout_of(options, dim), Initializer(), 1)
        ids_n, rows_nb = packed(path, spec)
        weights = theirs.embedding_bags[name].weight
        assert ids_n.tolist() == list(range(IDS))
        assert spec.layout.view(rows_nb, "weight").tobytes() == weights.detach().numpy().tobytes()
        sums = optimizer.state[weights]["sum"].numpy()
        assert sums.any()
        assert spec.layout.view(rows_nb, "momentum").tobytes() == sums.tobytes()

"""How few bytes carry every changed row within a second, and what the replica's model is worth then.

The source is paced at 50,000 samples/s; no figure counts where it fell behind, or where a row was older. The peer sends the distinct
rows of each step as float32. AUC is that of the trainer's and of the replica's rows, with the same dense weights, on the batches that come
behind the run's last one.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.bench.jobs import ROOT, TIMEOUT_S, data_root, have_data, scratch
from tools.bench.report import BenchRow

if TYPE_CHECKING:
    import torch

    from cuda.plan import FeatureSet
    from pipeline.replica import View
    from stages.items import RawBatch

NAME = "bytes"
HELP = "globo (user, article) and brunch, 50,000 samples/s: bytes on the wire, rows at most 1 s old; AUC of the replica"

SAMPLES_PER_S = 50_000
STREAMED = {"globo": ("user", "article"), "brunch": ("user", "article", "author", "hour")}
UNSTREAMED = {"globo": ("environment", "device", "os", "country", "region", "referrer"), "brunch": ()}
CODECS = ("fp16", "int8", "int4")
# A step ends every 41 ms: a cut comes with the 23rd, 942 ms behind the last one.
SETTING = ("stages.stream.every=930ms", "stages.stream.zstd_level=3", "stages.stream.snapshot_every=null")
GOAL, GOAL_AUC = 8.0, 0.0002
LEAST_RATE, MOST_S = 0.98, 1.0
"""What a figure counts at: of the pace, and the age of a row when it is published."""
MOST_TRIES = 3
Weights = Callable[[str, Any], Any]


def run(quick: bool) -> list[BenchRow]:
    steps, count = (150, 50) if quick else (1500, 200)
    rows: list[BenchRow] = []
    for config in STREAMED:
        if not have_data(config):
            rows.append(BenchRow(NAME, config, f"absent: no {data_root() / config}; set ROWSTREAM_DATA"))
            continue
        with scratch() as directory:
            from tools.bench.paced_run import future

            behind = future(config, directory / "future", steps, count, [])
            for codec in CODECS:
                rows.append(_measure(config, codec, directory / codec, steps, behind))
    return rows


def _measure(
    config: str,
    codec: str,
    directory: Path,
    steps: int,
    behind: tuple[list[RawBatch], FeatureSet, torch.nn.Module],
) -> BenchRow:
    off = [f"stages.stream.tables.{table}.enabled=false" for table in UNSTREAMED[config]]
    setting = [*SETTING, f"stages.stream.codec={codec}"]
    run, summary, lacks = _train_at_pace(config, directory, [f"run.steps={steps}", *setting, *off])
    ratio = summary["bytes_if_raw"] / summary["bytes_streamed"]
    mine, theirs = compare(run, STREAMED[config], *behind)
    per_row = summary["bytes_streamed"] / summary["rows_streamed"]
    rate, oldest_s = summary["paced_samples_per_s"], summary["oldest_s"]
    age = f"oldest row {median(oldest_s):.2f} s in the median cut, {max(oldest_s):.2f} s in all"
    knobs = {
        "steps": steps,
        "samples/s": f"{rate:,.0f}",
        "future batches": len(behind[0]),
        "cuts": summary["cuts"],
        "tries": run.name,
        "setting": " ".join(setting),
    }
    return BenchRow(
        NAME,
        f"{config} ({', '.join(STREAMED[config])}), {codec}: bytes, every row at most 1 s old",
        "; ".join(
            [f"{ratio:.2f}x fewer ({per_row:.1f} bytes a row), AUC {theirs:.5f}, trainer's {mine:.5f}, {age}", *lacks]
        ),
        "distinct rows of each step as fp32",
        f"{summary['bytes_if_raw'] / 1e6:.1f} MB",
        f">= {GOAL:.0f}x by any codec, AUC within {GOAL_AUC}",
        not lacks and ratio >= GOAL and abs(mine - theirs) <= GOAL_AUC,
        knobs,
    )


def _train_at_pace(config: str, directory: Path, overrides: Sequence[str]) -> tuple[Path, dict[str, Any], list[str]]:
    """(Directory of the run, its summary, what it lacks): again where others had the processor, and so it lacks something."""
    for number in range(1, MOST_TRIES + 1):
        run = directory / str(number)
        summary = _train(config, run, overrides)
        lacks = lacking(summary)
        if not lacks or number == MOST_TRIES:
            break
        shutil.rmtree(run)
    return run, summary, lacks


def lacking(summary: Mapping[str, Any]) -> list[str]:
    """Why the figures of a paced run do not count."""
    rate, too_old = summary["paced_samples_per_s"], sum(waited_s > MOST_S for waited_s in summary["oldest_s"])
    late = [f"the pace was not kept: {rate:,.0f} samples/s"] if rate < LEAST_RATE * SAMPLES_PER_S else []
    return [*late, *([f"rows of {too_old} cuts were older"] if too_old else [])]


def _train(config: str, directory: Path, overrides: Sequence[str]) -> dict[str, Any]:
    import json

    command = [sys.executable, "-m", "tools.bench.paced_run", config, str(directory), str(SAMPLES_PER_S), *overrides]
    done = subprocess.run(command, check=True, timeout=TIMEOUT_S, cwd=ROOT, capture_output=True, text=True)
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def compare(
    directory: Path,
    streamed: Sequence[str],
    batches: list[RawBatch],
    features: FeatureSet,
    model: torch.nn.Module,
    before: int | None = None,
) -> tuple[float, float]:
    """AUC on ``batches`` of a finished run's rows, and of its replica's where they are streamed; the dense weights are the run's.

    ``before``: the replica stands at the last cut before this step; None: at the stream's end.
    """
    from pipeline.files import RealFiles
    from pipeline.models.arrays import load_dense_arrays
    from pipeline.replica import Replica
    from pipeline.rowlog import CheckpointReader, export_dense

    reader = CheckpointReader.newest(RealFiles(), str(directory / "checkpoints"))
    dense = directory / "dense.npz"
    export_dense(reader, str(dense))
    with np.load(dense) as arrays:
        load_dense_arrays(model, {name: arrays[name] for name in arrays.files})
    of_trainer = trainer_weights(reader)
    with Replica(directory) as replica:
        replica.apply_available()
        assert replica.ended
        if before is not None:
            replica.rollback([cut.position for cut in replica.retained() if cut.step < before][-1])
        with replica.view() as view:
            of_replica = replica_weights(view, streamed, of_trainer)
            return auc(batches, features, model, of_trainer), auc(batches, features, model, of_replica)


def trainer_weights(reader: Any) -> Weights:
    """Rows by table and ids, as a checkpoint has them; or their first weights."""
    from pipeline.rows.initial import initial_weights

    def weights(table: str, ids_n: Any) -> Any:
        spec = reader.entry(table).spec
        found = reader.find(table, ids_n)
        rows_nd = np.array(spec.layout.singles(found.rows_nb, "weight"))
        rows_nd[~found.found_n] = initial_weights(spec, ids_n[~found.found_n])
        return rows_nd

    return weights


def replica_weights(view: View, streamed: Sequence[str], others: Weights) -> Weights:
    return lambda table, ids_n: view.lookup(table, ids_n) if table in streamed else others(table, ids_n)


def auc(batches: list[RawBatch], features: FeatureSet, model: torch.nn.Module, weights: Weights) -> float:
    """Of the model on rows that ``weights`` gives. Raises ValueError where there is none: the batches need samples of both labels."""
    import torch

    from pipeline.models.features import PooledFeatures
    from pipeline.models.metrics import BinaryMetrics
    from pipeline.models.pooling import pool_rows

    metrics, tables = BinaryMetrics(), _tables_of(features)
    model = model.eval()
    for raw in batches:
        pooled = []
        for name, table, pooling in tables:
            ids = raw.features[name]
            distinct, inverse_n = np.unique(ids.ids_n, return_inverse=True)
            rows = torch.from_numpy(np.ascontiguousarray(weights(table, distinct)))
            given = None if ids.weights_n is None else torch.from_numpy(ids.weights_n)
            pooled.append(pool_rows(rows, torch.from_numpy(inverse_n), ids.offsets_b, given, pooling))
        dims = tuple(part.shape[1] for part in pooled)
        made = PooledFeatures(tuple(name for name, *_ in tables), dims, torch.cat(pooled, dim=1), {})
        with torch.inference_mode():
            logits_b = model(made, torch.from_numpy(raw.dense_bd))
        metrics.add(logits_b.numpy(), raw.labels_b)
    if math.isnan(metrics.auc):
        positives = sum(int(raw.labels_b.sum()) for raw in batches)
        raise ValueError(f"no AUC: {positives} of the {metrics.count} samples of {len(batches)} batches are positive")
    return float(metrics.auc)


def _tables_of(features: FeatureSet) -> list[tuple[str, str, str]]:
    """(feature, table, pooling) of these configs: each feature has a table of its own name."""
    from cuda.plan import POOLINGS

    names = {number: pooling for pooling, number in POOLINGS.items()}
    return [
        (name, name, names[int(pooling)]) for name, pooling in zip(features.names, features.poolings_f, strict=True)
    ]

"""What Prometheus may scrape: the replica's figures as they stand, and the lookups of the socket.

Names follow its conventions: base units (seconds, bytes), ``_total`` for what only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pipeline.replica.replica import Replica
from pipeline.replica.serving.protocol import Code

PREFIX: Final = "rowstream_replica_"
BUCKETS_S: Final = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5, 2.0)
COUNTED: Final = {
    "cuts": "ordinary cuts applied",
    "snapshot_cuts": "snapshot cuts loaded",
    "rows": "rows written by cuts",
    "rows_forgotten": "rows forgotten by tombstones, or because a snapshot cut did not name them",
    "frames": "frames that came",
    "bytes": "bytes of the frames that came",
    "duplicates": "frames and commits dropped because they were at or below the position",
    "abandoned": "cuts begun by the trainer and never committed, or not on every shard",
    "zombie_frames": "frames dropped because a trainer that was replaced published them",
    "lacking": "committed cuts passed over because cuts before them were missing",
    "passed_over": "cuts that brought nothing new because a stream that was lost began again below what is held",
    "rescans": "how often reading went back in the stream",
    "refusals": "frames refused with an error",
    "expired_views": "pinned views that ended because old rows took more than pinned_bytes",
}
QUANTILES: Final = ((0.5, "0.5"), (0.99, "0.99"))
MS_PER_S: Final = 1000


class Metrics:
    """A ``Watch`` of the lookup socket, and a page for Prometheus. Any thread."""

    def __init__(
        self, replica: Replica, ready: Callable[[], bool], connections: Callable[[], int], inflight: Callable[[], int]
    ) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            f"{PREFIX}lookup_seconds",
            "from a request that has come to its rows, by request",
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._rows = Counter(f"{PREFIX}socket_rows", "rows answered over the socket", registry=self._registry)
        self._errors = Counter(f"{PREFIX}socket_errors", "requests refused, by code", ["code"], registry=self._registry)
        for code in Code:
            self._errors.labels(code.name.lower())
        ProcessCollector(registry=self._registry)
        self._registry.register(_Figures(replica, ready, connections, inflight))

    def looked_up(self, rows: int, seconds: float) -> None:
        self._seconds.observe(seconds)
        self._rows.inc(rows)

    def refused(self, code: Code) -> None:
        self._errors.labels(code.name.lower()).inc()

    def page(self) -> bytes:
        """In the text format."""
        return generate_latest(self._registry)


class _Figures(Collector):
    def __init__(
        self, replica: Replica, ready: Callable[[], bool], connections: Callable[[], int], inflight: Callable[[], int]
    ) -> None:
        self._replica, self._ready, self._connections, self._inflight = replica, ready, connections, inflight

    def collect(self) -> Iterator[Metric]:
        replica, lag = self._replica, self._replica.lag
        yield _gauge("ready", "1 where /readyz answers 200", self._ready())
        yield _gauge("step", "step of the trainer at whose end the replica stands", replica.step)
        yield _gauge("generation", "of the applied cut", replica.position.generation)
        yield _gauge("cut", "number of the applied cut in its generation", replica.position.cut)
        yield _gauge("run_ended", "1 where the applied cut ends a run", replica.ended)
        yield _gauge("lag_cuts", "cuts of which a frame was seen, behind the applied one", lag.cuts)
        yield _gauge("lag_steps", "steps of these cuts", lag.steps)
        yield _gauge("age_seconds", "since the trainer took the applied cut; NaN before the first", lag.age_s)
        yield _gauge("waiting_for_snapshot", "1 where cuts are missing", lag.waiting)
        yield _gauge("best_effort", "1 where a cut is no step's end of the trainer", lag.unsent is not None)
        yield _gauge("unsent_rows", "best effort: changed rows that the applied cut left behind", lag.unsent or 0)
        yield _gauge("unsent_seconds", "best effort: age of the oldest of these changes", lag.unsent_s)
        yield from self._freshness()
        held = GaugeMetricFamily(f"{PREFIX}rows", "rows held, by table", labels=["table"])
        for table, (rows, _) in replica.table_shapes.items():
            held.add_metric([table], rows)
        yield held
        yield _gauge("connections", "open connections of the lookup socket", self._connections())
        yield _gauge("inflight_bytes", "answers on their way over the socket", self._inflight())
        yield _counter("looked_up_rows", "rows that views were asked for, over the socket or not", replica.lookups)
        for name, count in replica.counters.as_dict().items():
            told = COUNTED.get(name, name.replace("_", " "))
            yield _counter("applied_rows" if name == "rows" else name, told, count)

    def _freshness(self) -> Iterator[Metric]:
        fresh = self._replica.freshness
        told = "from the end of a step to when its rows could be looked up; quantile 1 is the longest"
        shares = GaugeMetricFamily(f"{PREFIX}freshness_seconds", told, labels=["quantile"])
        for share, name in QUANTILES:
            shares.add_metric([name], fresh.quantile_ms(share) / MS_PER_S)
        shares.add_metric(["1"], fresh.max_ms / MS_PER_S)
        yield shares
        yield _counter("fresh_steps", "steps that freshness is of", fresh.steps)


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, told, value=float(value))


def _counter(name: str, told: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, told, value=float(value))

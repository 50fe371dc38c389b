"""The HTTP side, asked as people and orchestrators do."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.replica import Replica
from pipeline.replica.client import ReplicaClient
from pipeline.replica.freshness import Freshness
from pipeline.replica.replica import Lag
from pipeline.replica.serving.errors import BadAddress, ServedTableUnknown
from pipeline.replica.serving.health import Facts, why_not_ready
from pipeline.replica.serving.http_server import Address, parse_address
from pipeline.replica.serving.service import Service, without_login
from pipeline.replica.serving.status_page import render
from pipeline.wire.frames import CutPosition
from tests.e2e.patience import until
from tests.replica.trainer import DictTrainer, MemoryTransport

DIMS = {"item": 4, "user": 3}


class Site:
    """A service on a free port, and its trainer."""

    def __init__(self, service: Service, trainer: DictTrainer, transport: MemoryTransport) -> None:
        self.service, self.trainer, self.transport = service, trainer, transport

    def publish(self, *, rows: int = 20) -> None:
        self.trainer.update({"item": list(range(rows)), "user": [1, 2]})
        self.transport.publish(self.trainer.cut())

    def get(self, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        assert self.service.http is not None
        connection = http.client.HTTPConnection("127.0.0.1", self.service.http.address.port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.headers)
        finally:
            connection.close()

    def wait_for(self, path: str, status: int) -> str:
        until(lambda: self.get(path)[0] == status)
        return self.get(path)[1]

    def samples(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


@contextmanager
def serving(tmp_path: Path, transport: MemoryTransport | None = None, ready_lag_s: float = 10.0) -> Iterator[Site]:
    trainer, transport = DictTrainer(DIMS, seed=5), transport or MemoryTransport()
    with Replica(transport) as replica:  # type: ignore[arg-type]
        service = Service(replica, "runs/<mine>", Address("127.0.0.1", 0), str(tmp_path / "s.sock"), ready_lag_s)
        with service:
            yield Site(service, trainer, transport)


def test_it_is_alive_at_once_and_ready_when_a_cut_is_applied(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        assert site.get("/healthz")[:2] == (200, "alive\n")
        assert site.get("/readyz")[:2] == (503, "not ready: no cut was applied yet\n")
        site.transport.begin(site.trainer.header())
        assert site.get("/readyz")[0] == 503
        site.publish()
        assert site.wait_for("/readyz", 200) == "ready\n"
        # Cuts that never come: the stream says so with the next commit.
        site.trainer.update({"item": [3]})
        site.trainer.cut()
        site.publish()
        site.wait_for("/readyz", 503)
        assert "waits for a snapshot cut" in site.get("/readyz")[1]
        site.transport.publish(site.trainer.snapshot())
        site.wait_for("/readyz", 200)


def test_a_refused_frame_makes_it_unready_with_the_reason_and_the_last_cut_is_still_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as site, ReplicaClient(tmp_path / "s.sock") as client:
        site.transport.begin(site.trainer.header())
        site.publish()
        site.wait_for("/readyz", 200)
        site.transport.publish([b"no frame"])
        site.wait_for("/readyz", 503)
        assert "it follows the stream no more: stream position" in site.get("/readyz")[1]
        assert site.get("/healthz")[0] == 200
        assert client.lookup({"item": [1]}).step == 1
        assert site.samples()["rowstream_replica_refusals_total"] == 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, None),
        ({"position": CutPosition(0, 0)}, "no cut"),
        ({"lag": Lag(0, 0, 11.0, False)}, None),
        ({"lag": Lag(0, 0, 11.0, False), "caught_up": False}, r"11\.0 s old.*at most 10 s"),
        ({"lag": Lag(9, 90, 9.0, False), "caught_up": False}, None),
        ({"lag": Lag(9, 90, float("nan"), False), "caught_up": False}, "unknown age"),
        ({"lag": Lag(0, 0, 0.0, True)}, "snapshot cut"),
        ({"error": "the disk is gone"}, "the disk is gone"),
        ({"closing": True}, "ends"),
    ],
)
def test_when_it_is_ready(facts: dict[str, Any], reason: str | None) -> None:
    good: dict[str, Any] = {"position": CutPosition(1, 1), "lag": Lag(0, 0, 1.0, False), "caught_up": True}
    found = why_not_ready(Facts(**(good | facts)), 10.0)
    assert found is None if reason is None else re.search(reason, str(found)), found


def test_the_status_page_shows_the_figures_and_is_whole_in_itself(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        assert "no header frame has come" in site.get("/")[1]
        site.transport.begin(site.trainer.header())
        site.publish()
        site.wait_for("/readyz", 200)
        status, page, headers = site.get("/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        for text in ("runs/&lt;mine&gt;", "cut 1 of generation 1", "ready", ">20<", "duplicates"):
            assert text in page, text
        assert not re.search(r'(src|href)="(?!/)|<script|url\(', page), "nothing from elsewhere"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_the_status_page_takes_any_name_and_any_figure() -> None:
    """Names reach it as they came; nothing that is wide or long may make a phone scroll sideways."""
    name, rows = "<b>&\"'/?", 98_765_432_109
    lag = {"cuts": 1, "steps": 1_234_567, "age_s": 7_200.0, "waiting": False, "ahead": 2, "unsent": 5, "unsent_s": 61.0}
    info = {
        "step": 1, "position": [12, 9_876], "ended": False, "rows": rows, "lag": lag, "tables": {name: {"rows": rows, "dim": 4096}},
        "freshness_ms": {"p50": 1.0, "p99": 98_765.4, "max": None, "steps": 3, "earlier_steps": 1},
        "counters": {"bytes": 12_345_678_901, "refusals": 7},
    }  # fmt: skip
    page = render(info, "<i>refused</i>", "runs/<u>")
    assert not re.search(r"<(b|i|u)>", page)
    assert '<a href="/rows/%3Cb%3E%26%22%27%2F%3F?ids=1,2">&lt;b&gt;&amp;&quot;&#x27;/?</a>' in page
    for text in ("<title>not ready: runs/&lt;u&gt;", "98,765,432,109", "1 cut, 1,234,567 steps", "2.0 h", "61.0 s old",
                 "2 steps, of a trainer whose stream was lost", "12,345.7 MB", "98,765.4 ms", "no step yet", "1 step<"):  # fmt: skip
        assert text in page, text
    assert "overflow-wrap: anywhere" in page


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("runs/quickstart", "runs/quickstart"),
        ("nats://me:secret@host:4222/S", "nats://...@host:4222/S"),
        ("redis://:a@b/c@host/S", "redis://...@host/S"),
        ("redis://host:1/S", "redis://host:1/S"),
    ],
)
def test_a_login_in_a_url_is_not_shown(source: str, shown: str) -> None:
    assert without_login(source) == shown


def test_rows_for_people_are_the_rows_that_a_view_gives(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        site.transport.begin(site.trainer.header())
        site.publish()
        site.wait_for("/readyz", 200)
        told = json.loads(site.get("/rows/item?ids=3,-77,9223372036854775807")[1])
        assert (told["step"], told["position"]) == (1, [1, 1])
        assert [(row["id"], row["updated"]) for row in told["rows"]] == [(3, True), (-77, False), (2**63 - 1, False)]
        held = np.frombuffer(site.trainer.model["item"][3][0], np.float32)
        assert np.array(told["rows"][0]["weights"], np.float32).tobytes() == held.tobytes()
        assert json.loads(site.get("/tables")[1]) == {"item": {"rows": 20, "dim": 4}, "user": {"rows": 2, "dim": 3}}


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/rows/item", 400, "1 to 100 ids"),
        ("/rows/item?ids=1.5", 400, "whole numbers"),
        ("/rows/item?ids=9223372036854775808", 400, "64 bits"),
        ("/rows/item?ids=" + ",".join("1" * 101), 400, "1 to 100 ids"),
        ("/rows/items?ids=1", 404, "did you mean 'item'"),
        ("/rows/%2e%2e/x?ids=1", 404, "no table"),
        ("/nothing", 404, "there are /, /healthz"),
    ],
)
def test_what_cannot_be_answered_says_why(tmp_path: Path, path: str, status: int, told: str) -> None:
    with serving(tmp_path) as site:
        site.transport.begin(site.trainer.header())
        site.publish()
        site.wait_for("/readyz", 200)
        found = site.get(path)
        assert found[0] == status
        assert told in found[1]


def test_metrics_say_what_the_replica_and_the_socket_did(tmp_path: Path) -> None:
    with serving(tmp_path) as site, ReplicaClient(tmp_path / "s.sock") as client:
        site.transport.begin(site.trainer.header())
        for _ in range(3):
            site.publish()
        until(lambda: site.service.follower.facts.position.cut == 3)
        client.lookup({"item": [1, 2, 3], "user": [4]})
        with pytest.raises(ServedTableUnknown):
            client.lookup({"none": [1]})
        found = site.samples()
        expected = {
            "step": 3, "cut": 3, "generation": 1, "cuts_total": 3, "applied_rows_total": 66, "rows[item]": 20, "rows[user]": 2,
            "lag_cuts": 0, "lag_steps": 0, "duplicates_total": 0, "refusals_total": 0, "waiting_for_snapshot": 0, "looked_up_rows_total": 4,
            "socket_rows_total": 4, "lookup_seconds_count": 1, "socket_errors_total[unknown_table]": 1,
            "socket_errors_total[busy]": 0, "connections": 1, "inflight_bytes": 0,
        }  # fmt: skip
        assert {name: found[f"rowstream_replica_{name}"] for name in expected} == expected
        assert found["rowstream_replica_bytes_total"] > 0
        counters = site.service.replica.counters.as_dict().keys() - {"rows"}
        assert {f"rowstream_replica_{name}_total" for name in counters} <= found.keys()
        assert found["process_resident_memory_bytes"] > 0
        site.wait_for("/readyz", 200)
        assert site.samples()["rowstream_replica_ready"] == 1


def test_freshness_is_told_in_seconds(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        fresh = site.service.replica.freshness
        assert np.isnan(site.samples()["rowstream_replica_freshness_seconds[0.5]"])
        now = fresh.since_ns
        assert isinstance(fresh, Freshness)
        fresh.add(np.array([now, now, now + 1_000_000]), now + 2_000_000_000)
        found = site.samples()
        assert found["rowstream_replica_freshness_seconds[1]"] == pytest.approx(2.0)
        assert found["rowstream_replica_freshness_seconds[0.5]"] == pytest.approx(2.0, rel=0.02)
        assert found["rowstream_replica_fresh_steps_total"] == 3


# Where it listens.


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:1", "127.0.0.1", 1), ("localhost:80", "localhost", 80), ("[::1]:0", "::1", 0), (":9", "127.0.0.1", 9)],
)
def test_addresses_on_loopback_are_taken(text: str, host: str, port: int) -> None:
    assert parse_address(text, public=False) == (host, port)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80", "example.com:80", "192.168.1.2:80"])
def test_others_are_taken_when_they_are_asked_for_as_public(text: str) -> None:
    with pytest.raises(BadAddress, match=r"could read every row; give --public too, or listen on 127\.0\.0\.1:80"):
        parse_address(text, public=False)
    assert not parse_address(text, public=True).is_loopback


@pytest.mark.parametrize("text", ["", "80", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "a@127.0.0.1:1", "::1:80/x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress, match="give HOST:PORT"):
        parse_address(text, public=True)


def test_a_name_from_elsewhere_that_leads_to_loopback_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        assert site.get("/tables", Host="rows.example.com")[0] == 403
        assert site.get("/tables", Host="localhost:1")[0] == 200


def test_a_port_that_is_taken_is_named_and_nothing_else_is_left_listening(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with Replica(MemoryTransport()) as replica:  # type: ignore[arg-type]
            service = Service(replica, "x", Address("127.0.0.1", port), str(tmp_path / "s.sock"), 10.0)
            with pytest.raises(BadAddress, match=f"{port}: .*in use"), service:
                pass
    assert not (tmp_path / "s.sock").exists()
    assert not [thread for thread in threading.enumerate() if thread.name in ("http", "lookup-accept", "follow")]

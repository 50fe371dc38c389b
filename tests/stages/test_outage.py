"""What is told of a transport that fails."""

from __future__ import annotations

from typing import Any

from pipeline.wire.errors import TransportClosed
from stages.stream_outage import Outage, RetryOptions


def test_the_end_of_the_time_hides_no_reason() -> None:
    report: dict[str, Any] = {}
    outage = Outage(report, "retry", RetryOptions())
    outage.failed(OSError(28, "the disk is full"))
    outage.failed(TransportClosed("the transport was closed"))
    assert "the disk is full" in report["stream"]["last_error"]
    assert report["stream"]["failures"] == 2
    other: dict[str, Any] = {}
    Outage(other, "retry", RetryOptions()).failed(TransportClosed("the transport was closed"))
    assert "closed" in other["stream"]["last_error"]

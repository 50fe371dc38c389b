"""What is streamed of each table: a pure choice, and what it makes of the steps' ids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.rows.layout import Column
from pipeline.stream import (
    RowStreamer,
    SelectionChanged,
    StreamIdentity,
    TableStream,
    check_same_selection,
    selected,
    selection_problems,
)
from pipeline.stream.grouped import GroupedIds, join
from pipeline.stream.whole_cut import WholeCut
from pipeline.wire import StreamedTable
from tests.stream.dict_replica import DictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import MemorySource, spec
from tests.wire.test_format import HEADER

SPECS = (
    spec("a", 2),
    spec(
        "b",
        3,
        Column("exp_avg", "bfloat16", 3, "state"),
        Column("n", "int64", 1, "state"),
        Column("identity", "int64", 2, "meta"),
    ),
    spec("c", 4, Column("momentum", "float32", 1, "state")),
)


def choose(**tables: dict[str, Any]) -> dict[str, TableStream]:
    return {name: TableStream(**one) for name, one in tables.items()}


def test_what_is_not_named_is_streamed_by_the_codec_of_all_and_without_columns() -> None:
    assert selected(SPECS, "fp16", {}) == tuple(StreamedTable(one, "fp16") for one in SPECS)


def test_a_table_may_be_left_out_have_a_codec_of_its_own_and_columns_that_ride_along() -> None:
    chosen = choose(a={"enabled": False}, b={"states": True, "identities": True}, c={"codec": "fp32", "states": True})
    assert [(table.spec.name, table.codec, table.carries) for table in selected(SPECS, "fp16", chosen)] == [
        ("b", "fp16", ("exp_avg", "n", "identity")),
        ("c", "fp32", ("momentum",)),
    ]
    assert selected(SPECS, "fp16", choose(b={"identities": True}))[1].carries == ("identity",)
    assert list(selection_problems(SPECS, chosen)) == []


@pytest.mark.parametrize(
    ("chosen", "problems"),
    [
        ({"d": {}}, [("d", "no such table; the tables are a, b, c")]),
        ({"a": {"states": True}}, [("a.states", "no state column that could ride along; they have weight")]),
        (
            {"c": {"identities": True}},
            [("c.identities", "no meta column that could ride along; they have weight, momentum")],
        ),
        ({name: {"enabled": False} for name in "abc"}, [("", "no table is left to be streamed")]),
        ({"a": {"enabled": False, "states": True}}, []),
    ],
)
def test_what_cannot_be_is_named(chosen: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    found = list(selection_problems(SPECS, choose(**chosen)))
    assert [key for key, _ in found] == [key for key, _ in problems]
    assert all(part in what for (_, what), (_, part) in zip(found, problems, strict=True))


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        (
            {},
            {"a": {"enabled": False}},
            "carries table 'a' with nothing beside its weights, .* would carry no table 'a'",
        ),
        ({"a": {"enabled": False}}, {}, "carries no table 'a', and now it would carry table 'a'"),
        ({}, {"b": {"states": True}}, "would carry table 'b' with exp_avg, n beside its weights"),
        ({"c": {"states": True}}, {}, "carries table 'c' with momentum beside its weights"),
    ],
)
def test_a_stream_keeps_its_selection(before: dict[str, Any], now: dict[str, Any], what: str) -> None:
    header = replace(HEADER, tables=selected(SPECS, "fp32", choose(**before)))
    with pytest.raises(SelectionChanged, match=what):
        check_same_selection("runs/x", header, selected(SPECS, "fp32", choose(**now)))
    check_same_selection("runs/x", header, selected(SPECS, "fp16", choose(**before)))


def test_ids_of_tables_that_are_not_selected_are_passed_over() -> None:
    step = GroupedIds(("a", "b", "c"), np.array([1, 2, 3, 4, 5]), np.array([0, 2, 3, 5]), ("a", "c"))
    assert {table: ids.tolist() for table, ids in step.items()} == {"a": [1, 2], "c": [4, 5]}
    assert (len(step), step.counts) == (2, {"a": 2, "c": 2})
    only = step.only_selected()
    assert (only.ids_u.tolist(), only.start_t.tolist()) == ([1, 2, 4, 5], [0, 2, 2, 4])
    ids, starts = join([step, step])
    assert (ids.tolist(), starts.tolist()) == ([1, 2, 4, 5, 1, 2, 4, 5], [[0, 2, 2, 4], [4, 6, 6, 8]])


@pytest.mark.parametrize("carries", [(), ("momentum",)])
def test_cuts_without_some_tables_take_the_short_way_where_nothing_rides_along(
    carries: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, transport, encode, whole = MemorySource(encodes=True), ListTransport(), WholeCut.encode, []

    def encode_and_tell(self: WholeCut, *given: Any) -> Any:
        made = encode(self, *given)
        whole.append(made is not None)
        return made

    monkeypatch.setattr(WholeCut, "encode", encode_and_tell)
    monkeypatch.setattr(MemorySource, "tables", [StreamedTable(source.specs[0], "fp32", carries)])
    streamer = RowStreamer(source, transport, StreamIdentity("run", "trainer", 1))
    streamer.open()

    def add(step: int, ids: Any) -> None:
        both = np.concatenate([ids["users"], ids["items"]])
        starts = np.array([0, len(ids["users"]), len(both)])
        streamer.add(step, step, GroupedIds(("users", "items"), both, starts, ("users",)))

    source.on_step = add
    source.train({"users": [3, 4], "items": [5, 6, 7]})
    source.train({"users": [4, 9], "items": [5]})
    commit = streamer.cut()
    assert commit is not None
    assert commit.num_rows == 3
    assert whole == [not carries]
    assert streamer.counters.bytes_if_raw == 4 * 4 * 3
    replica = DictReplica()
    for data in transport.frames:
        replica.feed(data)
    assert replica.tables == {"users": source.state["users"]}

"""The laws of the deep merge, over random trees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tree import DEFAULT, Node, Origins, merge, merge_at, node_of

NAMES = st.sampled_from("abcd")
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
LEAVES = SCALARS | st.lists(SCALARS, max_size=2)


def trees_of(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(leaves, lambda inner: st.dictionaries(NAMES, inner, max_size=3))
    return st.dictionaries(NAMES, values, max_size=4)


TREES = trees_of(LEAVES)
# Trees that agree on where a mapping stands: two levels of them, then values.
LEVELLED = st.dictionaries(NAMES, st.dictionaries(NAMES, LEAVES, max_size=3), max_size=4)


def merged(*trees: dict[str, Any]) -> Any:
    tree = node_of({}, "")
    for number, later in enumerate(trees):
        tree = merge(tree, node_of(later, str(number)))
    return tree.plain()


def expected(base: Any, over: Any) -> Any:
    """The same in three lines, for plain dicts."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {
        key: expected(base[key], over[key]) if key in base and key in over else {**base, **over}[key]
        for key in {**base, **over}
    }


@given(TREES, TREES)
def test_merge_is_the_recursive_union_in_which_the_later_wins(base: dict[str, Any], over: dict[str, Any]) -> None:
    result = merged(base, over)
    assert result == expected(base, over)
    assert [name for name in result if name in base] == list(base)
    assert not set(result) ^ {**base, **over}.keys()


def test_a_new_key_stands_behind_the_one_it_follows() -> None:
    base = {"source": {"files": 1}, "prefetch": {}, "lookup": {}}
    assert list(merged(base, {"source": {}, "mine": {}, "yours": {}})) == [
        "source",
        "mine",
        "yours",
        "prefetch",
        "lookup",
    ]
    assert list(merged(base, {"mine": {}})) == ["source", "prefetch", "lookup", "mine"]
    assert list(merged(base, {"lookup": {}, "source": {}, "mine": {}})) == ["source", "mine", "prefetch", "lookup"]
    assert list(merged(base, {"first": {}, "source": {}})) == ["source", "prefetch", "lookup", "first"]


@given(TREES)
def test_nothing_and_itself_change_nothing(tree: dict[str, Any]) -> None:
    assert merged(tree, {}) == merged({}, tree) == merged(tree, tree) == tree


@given(LEVELLED, LEVELLED, LEVELLED)
def test_grouping_does_not_matter_where_the_trees_agree_on_mappings(
    one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]
) -> None:
    assert merged(merged(one, two), three) == merged(one, merged(two, three))


@given(TREES, TREES)
def test_every_value_keeps_the_origin_of_the_one_who_set_it(base: dict[str, Any], over: dict[str, Any]) -> None:
    tree = merge(node_of(base, "base"), node_of(over, "over"))
    by_origin = {"base": node_of(base, ""), "over": node_of(over, "")}
    for key, node in tree.walk():
        setter: Any = by_origin[node.origin]
        for part in key:
            setter = setter.value[part]
        if not isinstance(node.value, dict):
            assert setter.plain() == node.plain()


@given(TREES, TREES)
def test_merging_leaves_both_trees_as_they_were(base: dict[str, Any], over: dict[str, Any]) -> None:
    left, right = node_of(base, "base"), node_of(over, "over")
    merge(left, right)
    assert (left, right) == (node_of(base, "base"), node_of(over, "over"))


@given(trees_of(SCALARS), st.lists(NAMES, min_size=1, max_size=3), SCALARS)
def test_a_value_set_at_a_key_is_found_there_and_nowhere_else(tree: dict[str, Any], key: list[str], value: Any) -> None:
    before = node_of(tree, "file")
    after = merge_at(before, tuple(key), Node(value, "override"))
    nested: Any = value
    for part in reversed(key):
        nested = {part: nested}
    assert after.plain() == expected(tree, nested)
    assert Origins.of_tree(after).of(tuple(key)) == "override"


def test_an_element_of_a_list_can_be_set() -> None:
    tree = node_of({"files": ["a", "b"]}, "file")
    assert merge_at(tree, ("files", 1), Node("c", "override")).plain() == {"files": ["a", "c"]}
    with pytest.raises(IndexError, match="a list of 2 stands here and 2 is none"):
        merge_at(tree, ("files", 2), Node("c", "override"))
    with pytest.raises(IndexError, match="'first' is none"):
        merge_at(tree, ("files", "first"), Node("c", "override"))


def test_origins_know_what_nobody_set() -> None:
    origins = Origins.of_tree(node_of({"run": {"seed": 1}}, "job.yaml:1"))
    assert origins.of(("run", "steps")) == DEFAULT
    assert origins.nearest(("run", "steps")) == "job.yaml:1"
